//! `loadtest bench`: what the system can do on this machine, as ratios that hold on others.
//!
//! Each section starts a system of its own (real processes, own database and topics) and ends it. Sections are
//! short and alternate what they compare, since a machine is never equally fast twice.

mod alone;
mod backlog;
pub mod bare;
mod batches;
mod ceiling;
mod city;
mod drain;
mod fill;
mod flow;
mod ingest;
mod isolation;
mod login;
mod machine;
mod movements;
mod produce;
mod proof;
mod statements;
mod store;
mod subscribers;
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
    /// Draining a backlog of every kind of command, compared with plain payments; then verifying what it left.
    Movements,
    /// Draining into a store of many payments, compared with an empty one; what the indexes of lists cost.
    Store,
    /// Accepting payments, compared with a bare HTTP server.
    Ingest,
    /// Accepting payments in batches, compared with single ones.
    Batches,
    /// Statement pages and balances of the past on an account of many entries.
    Statements,
    /// One payment at a time.
    Alone,
    /// Payments through everything: latencies, the sustained rate, memory.
    Flow,
    /// Delivering webhooks to 1, 10 and 1,000 endpoints.
    Webhooks,
    /// What healthy endpoints wait beside bad ones.
    Isolation,
    /// Draining retries that are due.
    Backlog,
    /// Payments while passwords are guessed.
    LoginAttack,
    /// Whether the time of a refused log-in tells who is a customer.
    LoginTiming,
}

impl Section {
    /// Whether there is a tiny form of it.
    const fn has_sizes(self) -> bool {
        !matches!(self, Self::Drain | Self::Ingest | Self::Alone | Self::Flow)
    }
}

/// The settings of `loadtest bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Only these sections; all when none is named.
    #[arg(long, value_enum)]
    pub only: Vec<Section>,
    /// Payments that the full store of `store` holds [default: 300000]; about 1.5 KB of disk each.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub store_payments: Option<u64>,
    /// Entries of the account of `statements` [default: 1000000]; about 1 KB of disk each.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub statement_entries: Option<u64>,
    /// Retries that `backlog` drains [default: 200000]; about 0.3 KB of disk each.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub backlog: Option<u64>,
    /// Only see whether sections work: tiny sizes, in a debug build as well. The figures mean nothing; `drain`, `ingest`,
    /// `alone` and `flow` are left out.
    #[arg(long)]
    pub quick: bool,
    /// Where to write the figures as JSON.
    #[arg(long, default_value = ".local/bench.json")]
    pub out: PathBuf,
}

impl Config {
    /// How much of something, unless only whether it works is looked at.
    const fn size(&self, measured: usize, quick: usize) -> usize {
        if self.quick { quick } else { measured }
    }

    /// Rounds of each kind.
    const fn rounds(&self) -> usize {
        self.size(3, 1)
    }

    fn store_payments(&self) -> u64 {
        self.store_payments.unwrap_or_else(|| self.size(300_000, 5_000) as u64)
    }

    fn backlog(&self) -> u64 {
        self.backlog.unwrap_or_else(|| self.size(200_000, 2_000) as u64)
    }

    fn statement_entries(&self) -> u64 {
        self.statement_entries.unwrap_or_else(|| self.size(1_000_000, 5_000) as u64)
    }
}

/// Measures, prints a table and writes the figures; fails when a goal is missed only in what it prints.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    if cfg!(debug_assertions) && !config.quick {
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
        if config.quick && !section.has_sizes() {
            continue;
        }
        let servers = Servers::from_env()?;
        match section {
            Section::Drain => drain::measure(servers, &mut report).await?,
            Section::Movements => movements::measure(servers, config, &mut report).await?,
            Section::Store => store::measure(servers, config, &mut report).await?,
            Section::Batches => batches::measure(servers, config, &mut report).await?,
            Section::Statements => statements::measure(servers, config, &mut report).await?,
            Section::Ingest => ingest::measure(servers, &mut report).await?,
            Section::Alone => alone::measure(servers, &mut report).await?,
            Section::Flow => flow::measure(servers, &mut report).await?,
            Section::Webhooks => webhooks::measure(servers, config, &mut report).await?,
            Section::Isolation => isolation::measure(config, &mut report).await?,
            Section::Backlog => backlog::measure(servers, config, &mut report).await?,
            Section::LoginAttack => login::attack::measure(servers, config, &mut report).await?,
            Section::LoginTiming => login::timing::measure(servers, config, &mut report).await?,
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
