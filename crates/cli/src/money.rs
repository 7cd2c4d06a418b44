//! `wired capture`, `wired void`, `wired refund` and `wired transfer`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{PartRequest, TransferRequest};
use domain::{
    ids::{AccountId, PaymentId},
    money::{Amount, Currency},
};

use crate::pay::{Once, show};
use crate::settings::{Settings, explain};

#[derive(clap::Args)]
pub(crate) struct PartOptions {
    /// The payment, such as pay_….
    payment: String,
    /// Decimal with exactly the currency's digits, such as 5.00; everything that is left when not given.
    #[arg(long)]
    amount: Option<String>,
    /// Three letters of ISO 4217.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// Your own reference.
    #[arg(long)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    once: Once,
}

impl PartOptions {
    fn request(&self) -> anyhow::Result<(PaymentId, PartRequest)> {
        let mut request = match &self.amount {
            None => PartRequest::everything(),
            Some(text) => PartRequest::of(amount(text, self.currency)?),
        };
        request.reference.clone_from(&self.reference);
        request.description.clone_from(&self.description);
        Ok((payment(&self.payment)?, request))
    }
}

#[derive(clap::Args)]
pub(crate) struct VoidOptions {
    /// The payment, such as pay_….
    payment: String,
    #[command(flatten)]
    once: Once,
}

#[derive(clap::Args)]
pub(crate) struct TransferOptions {
    /// The account to debit, such as acct_…; one of your own.
    #[arg(long)]
    from: String,
    /// The account to credit.
    #[arg(long)]
    to: String,
    /// Decimal with exactly the currency's digits, such as 12.50.
    #[arg(long)]
    amount: String,
    /// Three letters of ISO 4217.
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// Your own reference.
    #[arg(long)]
    reference: Option<String>,
    /// What both sides read on the statement.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    once: Once,
}

pub(crate) async fn capture(settings: &Settings, options: PartOptions) -> anyhow::Result<ExitCode> {
    let (payment, request) = options.request()?;
    let once = &options.once;
    show(&settings.client()?.capture(payment, &request, &once.key(), once.wait()).await.map_err(explain)?)
}

pub(crate) async fn refund(settings: &Settings, options: PartOptions) -> anyhow::Result<ExitCode> {
    let (payment, request) = options.request()?;
    let once = &options.once;
    show(&settings.client()?.refund(payment, &request, &once.key(), once.wait()).await.map_err(explain)?)
}

pub(crate) async fn void(settings: &Settings, options: VoidOptions) -> anyhow::Result<ExitCode> {
    let once = &options.once;
    let payment = payment(&options.payment)?;
    show(&settings.client()?.void(payment, &once.key(), once.wait()).await.map_err(explain)?)
}

pub(crate) async fn transfer(settings: &Settings, options: TransferOptions) -> anyhow::Result<ExitCode> {
    let (from, to) = (account(&options.from)?, account(&options.to)?);
    if from == to {
        bail!("--from and --to are the same account");
    }
    let mut request = TransferRequest::new(from, to, amount(&options.amount, options.currency)?);
    request.reference = options.reference;
    request.description = options.description;
    let once = &options.once;
    show(&settings.client()?.transfer(&request, &once.key(), once.wait()).await.map_err(explain)?)
}

fn amount(text: &str, currency: Currency) -> anyhow::Result<Amount> {
    Amount::parse(text, currency).with_context(|| format!("--amount {text}"))
}

fn payment(text: &str) -> anyhow::Result<PaymentId> {
    text.parse().with_context(|| format!("`{text}` is no payment such as pay_…"))
}

fn account(text: &str) -> anyhow::Result<AccountId> {
    text.parse().with_context(|| format!("`{text}` is no account such as acct_…"))
}
