//! `loadtest load` drives the running bank, `bench` measures, `faults` breaks things on purpose.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::{bench, faults, load};

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
    /// Kill, stop and cut parts of a bank of its own under load, and prove that nothing is lost. Needs the servers' software.
    Faults(faults::cli::Config),
    /// Serve 202 and nothing else; `bench` compares ingest with it.
    #[command(name = "bare-202", hide = true)]
    Bare(bench::bare::Config),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(config) => load::run(&config).await,
        Command::Bench(config) => bench::run(&config).await,
        Command::Faults(config) => faults::cli::run(&config).await,
        Command::Bare(config) => bench::bare::run(&config).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
