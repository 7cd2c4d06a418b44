//! `loadtest bench`: what the system can do on this machine, as ratios that hold on others.
//!
//! Each section starts a system of its own (real processes, own database and topics) and ends it. Sections are
//! short and alternate what they compare, since a machine is never equally fast twice.

mod alone;
pub mod bare;
mod ceiling;
mod city;
mod drain;
mod flow;
mod ingest;
mod machine;
mod proc;
mod produce;
mod webhooks;
mod wire;

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum as _;

use crate::loopback;
use crate::report::Report;
use crate::system::{Servers, binaries};

/// The programs that are measured.
const PROGRAMS: [&str; 4] = ["ingest", "processor", "notifier", "admin-api"];

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    /// Draining a backlog, compared with bare statements and with one hot account.
    Drain,
    /// Accepting payments, compared with a bare HTTP server.
    Ingest,
    /// One payment at a time.
    Alone,
    /// Payments through everything: latencies, the sustained rate, memory.
    Flow,
    /// Delivering webhooks.
    Webhooks,
}

/// The settings of `loadtest bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Only these sections; all when none is named.
    #[arg(long, value_enum)]
    pub only: Vec<Section>,
    /// Where to write the figures as JSON.
    #[arg(long, default_value = ".local/bench.json")]
    pub out: PathBuf,
}

/// Measures, prints a table and writes the figures; fails when a goal is missed only in what it prints.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build and measures nothing: run `make bench`");
    }
    for program in PROGRAMS {
        binaries::find(program)?;
    }
    let servers = Servers::from_env()?;
    loopback::check(&servers.mysql.mysql_url)?;
    servers.kafka_brokers.split(',').try_for_each(loopback::check)?;
    let pool = servers.mysql.pool("bench", 2)?;
    let mut report = Report::new(machine::describe(&pool).await?);
    eprintln!("{}", report.machine);
    for section in Section::value_variants() {
        if !config.only.is_empty() && !config.only.contains(section) {
            continue;
        }
        let servers = Servers::from_env()?;
        match section {
            Section::Drain => drain::measure(servers, &mut report).await?,
            Section::Ingest => ingest::measure(servers, &mut report).await?,
            Section::Alone => alone::measure(servers, &mut report).await?,
            Section::Flow => flow::measure(servers, &mut report).await?,
            Section::Webhooks => webhooks::measure(servers, &mut report).await?,
        }
    }
    pool.close().await;
    println!("\n{}", report.table());
    report.write(&config.out)?;
    println!(
        "{} figures, {} miss their goal; written to {}",
        report.results.len(),
        report.missed(),
        config.out.display()
    );
    Ok(())
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}
