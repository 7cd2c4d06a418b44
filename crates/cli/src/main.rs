//! `wired`: the partner's command line. Signs and sends, receives and verifies, and proves the ledger whole.
//!
//! Says in one line what is wrong and what to do about it. Exit codes: 0 done; 1 an error, said on stderr; and for
//! what moves money also 2 rejected and 3 still pending.

mod bank_api;
mod curl;
mod demo;
mod export_ledger;
mod listen;
mod log_in;
mod money;
mod pay;
mod receiver;
mod seed;
mod settings;
mod verify_ledger;
mod verify_webhook;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use settings::Settings;

/// The partner's command line of Wired City.
#[derive(Parser)]
#[command(
    name = "wired",
    version,
    after_help = "Reads WIRED_URL, WIRED_KEY_ID, WIRED_KEY_SECRET, WIRED_MANDATE, \
    WIRED_WEBHOOK_SECRET, WIRED_WEBHOOK_LISTEN and WIRED_CA_FILE from the environment, else from .local/partner.env."
)]
struct Cli {
    /// File of NAME='value' lines; wins over the environment. Without it, .local/partner.env is used for what the
    /// environment does not say.
    #[arg(long, global = true)]
    env_file: Option<PathBuf>,
    /// File in PEM with the certificates of those who may vouch for the bank's, instead of those that this machine
    /// trusts; else WIRED_CA_FILE.
    #[arg(long, global = true)]
    ca_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Post a signed payment and print it; exit code 0 posted, 2 rejected, 3 still pending, 1 error.
    Pay(pay::Options),
    /// Take what a payment made with `wired pay --manual` holds, in part or whole; exit codes as of pay.
    Capture(money::PartOptions),
    /// Release what a payment made with `wired pay --manual` holds; exit codes as of pay.
    Void(money::VoidOptions),
    /// Give back of a payment, in part or whole; exit codes as of pay.
    Refund(money::PartOptions),
    /// Move money from one of your accounts to another one; exit codes as of pay.
    Transfer(money::TransferOptions),
    /// Sign any request, send it and print the answer.
    Curl(curl::Options),
    /// Receive webhooks, verify them and print a line for each.
    Listen(listen::Options),
    /// Verify one webhook from its three header values and its body.
    VerifyWebhook(verify_webhook::Options),
    /// Read the ledger and prove that it is whole; name the first bad row if not.
    VerifyLedger(verify_ledger::Options),
    /// Write the ledger as files, for an auditor who gets no access to the database.
    ExportLedger(export_ledger::Options),
    /// Make sample staff, a customer and a partner through the public APIs, and print how they log in.
    Seed(seed::Options),
    /// Log one of the sample's people in and print the access token.
    LogIn(log_in::Options),
    /// Post a signed payment, receive its webhook, and show how long each stage took.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing else can be done when even this cannot be printed. clap's own code 2 would mean a rejection.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wired: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = Settings::read(cli.env_file, cli.ca_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Pay(options) => pay::run(&settings, options).await,
            Command::Capture(options) => money::capture(&settings, options).await,
            Command::Void(options) => money::void(&settings, options).await,
            Command::Refund(options) => money::refund(&settings, options).await,
            Command::Transfer(options) => money::transfer(&settings, options).await,
            Command::Curl(options) => curl::run(&settings, options).await,
            Command::Listen(options) => listen::run(&settings, options).await,
            Command::VerifyWebhook(options) => verify_webhook::run(&settings, &options),
            Command::VerifyLedger(options) => verify_ledger::run(&settings, &options).await,
            Command::ExportLedger(options) => export_ledger::run(&settings, &options).await,
            Command::Seed(options) => seed::run(&settings, &options).await,
            Command::LogIn(options) => log_in::run(&settings, &options).await,
            Command::Demo(options) => demo::run(&settings, &options).await,
        }
    })
}
