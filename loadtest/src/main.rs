//! `loadtest load` drives the running bank, `bench` measures, `faults` breaks things on purpose.

use clap::{Parser, Subcommand};
use loadtest::{bench, load};

/// Load, benchmarks and faults, on this machine alone.
#[derive(Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive the running services with payments and report.
    Load(load::Config),
    /// Measure throughput and latency, print a table, write .local/bench.json.
    Bench(bench::Config),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(config) => load::run(&config).await,
        Command::Bench(config) => bench::run(&config).await,
    }
}
