//! `wired pay`.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use client::PaymentRequest;
use domain::{
    money::{Amount, Currency},
    payment::PaymentStatus,
};

use crate::settings::{Settings, explain};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Decimal with exactly the currency's digits, such as 12.50.
    #[arg(long)]
    amount: String,
    /// Three letters of ISO 4217.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// The customer's authority; WIRED_MANDATE when not given.
    #[arg(long)]
    mandate: Option<String>,
    /// Your own reference.
    #[arg(long)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[arg(long)]
    description: Option<String>,
    /// Repeat a payment under the same key to be sure that it happens once; a new key is a new payment.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Seconds that the bank may hold the answer until the outcome is known; 0 does not wait.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10))]
    wait: u64,
}

pub(crate) async fn run(settings: &Settings, options: Options) -> anyhow::Result<ExitCode> {
    let amount = Amount::parse(&options.amount, options.currency)
        .with_context(|| format!("--amount {}", options.amount))?;
    let mandate = match options.mandate {
        Some(mandate) => mandate,
        None => settings.need("WIRED_MANDATE")?,
    };
    let mandate = mandate.parse().with_context(|| format!("`{mandate}` is no mandate such as mdt_…"))?;
    let mut request = PaymentRequest::new(mandate, amount);
    request.reference = options.reference;
    request.description = options.description;
    let key = options.idempotency_key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let wait = (options.wait > 0).then(|| Duration::from_secs(options.wait));
    let accepted = settings.client()?.pay(&request, &key, wait).await.map_err(explain)?;
    println!("{}", serde_json::to_string_pretty(&accepted.payment)?);
    if accepted.replayed {
        eprintln!("wired: this idempotency key was used before; this is what became of that payment");
    }
    Ok(ExitCode::from(match accepted.payment.status {
        PaymentStatus::Posted => 0,
        PaymentStatus::Rejected | PaymentStatus::Conflicted => 2,
        PaymentStatus::Pending => 3,
    }))
}
