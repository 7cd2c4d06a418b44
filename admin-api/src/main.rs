//! The bank's side: `serve` (the default) answers customers and staff, `create-admin` makes the first admins,
//! `open-cash-accounts` what a new bank pays out of, `command` carries out one command of the bank, `rebuild-analytics`
//! counts all figures anew, `seed` makes sample partners for load and tests.

use admin_api::{Config, analytics, cash_accounts, create_admin, operate, seed};
use clap::{Parser, Subcommand};

/// The bank's API.
#[derive(Parser)]
#[command(name = "admin-api", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer customers and staff (the default).
    Serve(Box<Config>),
    /// Make one of the first two admins; print the link by which they set their password.
    CreateAdmin(create_admin::Config),
    /// Open the bank's own account in each currency, which a new bank needs before its first deposit.
    OpenCashAccounts(cash_accounts::Config),
    /// Carry out one command of the bank and print what became of it.
    #[command(name = "command")]
    Operate(operate::Config),
    /// Count all figures by hour and day anew from the ledger; meanwhile those of before are shown.
    RebuildAnalytics(analytics::RebuildConfig),
    /// Make or complete sample partners with customers, mandates and endpoints for load and tests; print what is there.
    Seed(seed::Config),
}

fn main() -> std::process::ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // `admin-api` and `admin-api --listen …` serve.
    let names_a_command = arguments.get(1).is_some_and(|first| {
        let first = first.to_string_lossy();
        !first.starts_with('-') || ["-h", "--help", "-V", "--version"].contains(&&*first)
    });
    if !names_a_command {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    match run(Cli::parse_from(arguments).command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("admin-api: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    runtime::telemetry::init("admin-api");
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve(config) => tokio.block_on(async {
            let shutdown = runtime::shutdown::on_signal();
            admin_api::run(*config, shutdown).await
        })?,
        Command::CreateAdmin(config) => println!("{}", tokio.block_on(create_admin::run(&config))?),
        Command::OpenCashAccounts(config) => {
            tokio.block_on(cash_accounts::run(&config))?;
            println!("the bank has a cash account in each currency");
        }
        Command::Operate(config) => println!("{}", tokio.block_on(operate::run(&config))?),
        Command::RebuildAnalytics(config) => {
            let generation = tokio.block_on(analytics::rebuild(&config))?;
            println!("counted anew; generation {generation} is shown");
        }
        Command::Seed(config) => {
            for seeded in tokio.block_on(seed::run(&config))? {
                println!("{seeded}");
            }
        }
    }
    Ok(())
}
