//! `wired verify-webhook`.

use std::process::ExitCode;

use domain::webhook::{Secret, VerifyingKeys};

use crate::{
    curl::read,
    settings::{Settings, now_seconds},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The value of webhook-id.
    #[arg(long)]
    id: String,
    /// The value of webhook-timestamp.
    #[arg(long)]
    timestamp: String,
    /// The value of webhook-signature.
    #[arg(long)]
    signature: String,
    /// File with the body's bytes as received; `-` for standard input.
    #[arg(long)]
    body_file: String,
    /// The endpoint's secret; WIRED_WEBHOOK_SECRET when not given, which keeps it out of the shell's history.
    #[arg(long)]
    secret: Option<String>,
    /// Take this as the time, in seconds since 1970: for a webhook that was kept.
    #[arg(long)]
    now: Option<i64>,
}

pub(crate) fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let keys = match &options.secret {
        Some(secret) => VerifyingKeys::new(Secret::parse(secret)?),
        None => settings.webhook_keys()?,
    };
    let body = read(&options.body_file)?;
    let now = options.now.unwrap_or_else(now_seconds);
    keys.verify(&options.id, &options.timestamp, &options.signature, &body, now)?;
    println!("verified {} ({} bytes)", options.id, body.len());
    Ok(ExitCode::SUCCESS)
}
