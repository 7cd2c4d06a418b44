//! `wired pay`.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use client::{Accepted, PaymentRequest};
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
    /// Hold the funds until `wired capture` or `wired void`, or until their time has passed.
    #[arg(long)]
    manual: bool,
    /// With --manual: for how many seconds the funds are held; 7 days when not given.
    #[arg(long, requires = "manual")]
    expires_in: Option<u32>,
    /// Your own reference.
    #[arg(long)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    once: Once,
}

/// What every command that moves money takes.
#[derive(clap::Args)]
pub(crate) struct Once {
    /// Repeat a payment under the same key to be sure that it happens once; a new key is a new payment.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Seconds that the bank may hold the answer until the outcome is known; 0 does not wait.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=10))]
    wait: u64,
}

impl Once {
    pub(crate) fn key(&self) -> String {
        self.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        (self.wait > 0).then(|| Duration::from_secs(self.wait))
    }
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
    if options.manual {
        request = request.authorize(options.expires_in);
    }
    let sent = settings.client()?;
    show(&sent.pay(&request, &options.once.key(), options.once.wait()).await.map_err(explain)?)
}

/// Prints what became of it; 0 done, 2 rejected, 3 still pending.
pub(crate) fn show(accepted: &Accepted) -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&accepted.payment)?);
    if accepted.replayed {
        eprintln!("wired: this idempotency key was used before; this is what became of that payment");
    }
    Ok(ExitCode::from(match accepted.payment.status {
        PaymentStatus::Posted
        | PaymentStatus::Authorized
        | PaymentStatus::Voided
        | PaymentStatus::Expired => 0,
        PaymentStatus::Rejected | PaymentStatus::Conflicted => 2,
        PaymentStatus::Pending => 3,
    }))
}
