//! `wired verify-ledger`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
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
    /// Verify this export instead of a live database: it is loaded into the empty database of --scratch-url first.
    #[arg(long, requires = "scratch_url", conflicts_with = "mysql_url")]
    export: Option<PathBuf>,
    /// An empty database with the schema (`migrate apply` makes one), and a user who may write it.
    #[arg(long, env = "WIRED_SCRATCH_MYSQL_URL", hide_env_values = true)]
    scratch_url: Option<String>,
    /// Folder of signed checkpoints, out of reach of whoever can write the database. Goes with --public-key.
    #[arg(long, requires = "public_key")]
    checkpoints: Option<PathBuf>,
    /// File with the public key that checkpoints are signed with: base64 of 32 bytes.
    #[arg(long, requires = "checkpoints")]
    public_key: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let pool = match (&options.export, &options.scratch_url) {
        (Some(folder), Some(scratch_url)) => {
            let pool = MysqlConfig { mysql_url: scratch_url.clone() }.pool("verify", 2)?;
            let rows = verifier::import(&pool, folder).await.context("the export could not be loaded")?;
            eprintln!("loaded {rows} rows");
            pool
        }
        (_, _) => pool(settings, options.mysql_url.as_deref())?,
    };
    let verified = verifier::verify(&pool, options.state.as_deref()).await;
    let mut report =
        verified.context("the ledger could not be read to its end (`make status` tells what runs)")?;
    let vouched = match (&options.checkpoints, &options.public_key) {
        (Some(folder), Some(key)) => {
            let key = public_key(key)?;
            Some(verifier::verify_checkpoints(&pool, folder, &key, &mut report).await?)
        }
        (_, _) => None,
    };
    let statement = vouched.unwrap_or_default().statement();
    if options.json {
        let mut json = serde_json::to_value(&report)?;
        json["vouched"] = serde_json::Value::String(statement);
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print!("{}", text(&report));
        println!("{statement}");
    }
    if let Some(first) = report.findings.first() {
        bail!("the ledger is broken; first bad row: {first}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The ledger of the read-only user.
pub(crate) fn pool(settings: &Settings, url: Option<&str>) -> anyhow::Result<sqlx::MySqlPool> {
    let url = url.map(str::to_owned).or_else(|| settings.get("WIRED_MYSQL_URL"));
    let Some(mysql_url) = url.or_else(|| settings::from_file(Path::new(LOCAL_FILE), "WIRED_MYSQL_URL"))
    else {
        bail!(
            "say --mysql-url or WIRED_MYSQL_URL (mysql://user:password@host:port/database), or run `make up` once"
        )
    };
    Ok(MysqlConfig { mysql_url }.pool("verify", 2)?)
}

fn public_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let key = STANDARD.decode(text.trim()).ok().and_then(|key| key.try_into().ok());
    key.with_context(|| format!("{} holds no base64 of 32 bytes", path.display()))
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
