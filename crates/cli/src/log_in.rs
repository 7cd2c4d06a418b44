//! `wired log-in`: logs one of the sample's people in and prints the access token.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::bank_api::{BankApi, text};
use crate::seed::Sample;
use crate::settings::Settings;

/// What `wired seed` leaves behind.
pub(crate) const DEFAULT_FILE: &str = ".local/log-ins.json";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The address, or its part before the `@`.
    email: String,
    /// Where staff and customers reach the bank.
    #[arg(long, env = "WIRED_ADMIN_API_URL")]
    admin_api_url: String,
    /// Where `wired seed` kept who was made.
    #[arg(long, default_value = DEFAULT_FILE)]
    log_ins: PathBuf,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let sample = Sample::read(&options.log_ins)?;
    let is_meant = |email: &str| email == options.email || email.split('@').next() == Some(&options.email);
    let Some(who) = sample.people.iter().find(|person| is_meant(&person.email)) else {
        let known: Vec<_> = sample.people.iter().map(|person| person.email.as_str()).collect();
        bail!("{} is not in {}, but: {}", options.email, options.log_ins.display(), known.join(", "));
    };
    let bank = BankApi::new(settings, &options.admin_api_url)?;
    let tokens = bank.log_in(who).await?;
    let tokens = tokens
        .with_context(|| format!("{} cannot log in as {} says", who.email, options.log_ins.display()))?;
    println!("{}", text(&tokens, "access_token")?);
    Ok(ExitCode::SUCCESS)
}
