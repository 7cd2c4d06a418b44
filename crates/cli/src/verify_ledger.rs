//! `wired verify-ledger`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use runtime::config::MysqlConfig;
use verifier::{Invariant, Report};

use crate::settings::{self, Settings};

/// What the local set-up writes for the read-only user.
const LOCAL_FILE: &str = ".local/env/verifier.env";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// MySQL with a read-only user; WIRED_MYSQL_URL when not given, else the one in .local/env/verifier.env.
    #[arg(long, hide_env_values = true)]
    mysql_url: Option<String>,
    /// Remember here what was verified, and go on from there the next time. Without it everything is read anew.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let url = options.mysql_url.clone().or_else(|| settings.get("WIRED_MYSQL_URL"));
    let Some(mysql_url) = url.or_else(|| settings::from_file(Path::new(LOCAL_FILE), "WIRED_MYSQL_URL"))
    else {
        bail!(
            "say --mysql-url or WIRED_MYSQL_URL (mysql://user:password@host:port/database), or run `make up` once"
        )
    };
    let pool = MysqlConfig { mysql_url }.pool("verify", 2)?;
    let verified = verifier::verify(&pool, options.state.as_deref()).await;
    let report =
        verified.context("the ledger could not be read to its end (`make status` tells what runs)")?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report));
    }
    if let Some(first) = report.findings.first() {
        bail!("the ledger is broken; first bad row: {first}");
    }
    Ok(ExitCode::SUCCESS)
}

fn text(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for invariant in Invariant::ALL {
        let checks = report.checks.get(&invariant).copied().unwrap_or_default();
        let broken = report.findings.iter().filter(|finding| finding.invariant == invariant).count();
        let verdict = if broken == 0 { "holds " } else { "BROKEN" };
        let _ = writeln!(
            text,
            "{:<4} {verdict} {checks:>11} checks   {}",
            format!("{invariant:?}"),
            invariant.meaning()
        );
    }
    let rows: Vec<_> = report.rows.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
    let seconds = report.elapsed.as_secs_f64();
    let _ = writeln!(
        text,
        "read {} in {seconds:.2} s ({:.0} entries/s)",
        rows.join(", "),
        report.entries_per_second()
    );
    if report.resumed {
        let _ = writeln!(
            text,
            "what an earlier run verified was trusted; without --state everything is read anew"
        );
    }
    for finding in &report.findings {
        let _ = writeln!(text, "bad row: {finding}");
    }
    if report.is_whole() {
        text.push_str("the ledger is whole\n");
    }
    text
}
