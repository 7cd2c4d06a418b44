//! `wired demo`: one payment through everything, in front of whoever watches, and then twenty for the median.
//!
//! All waits are bounded. A key or an endpoint that was made a moment ago is known to the services after seconds, so
//! small payments go ahead until a first webhook has come back.

use std::{
    collections::HashMap,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use client::{Accepted, Client, PaymentRequest};
use domain::{
    ids::{MandateId, PaymentId},
    money::{Amount, Currency},
    payment::{PaymentStatus, PaymentView},
    time::Timestamp,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    listen::listen_address,
    receiver::{self, Received},
    settings::{Settings, explain},
};

/// A service that was just started needs seconds; a key is known within 5 s.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How long the way of a first webhook may take to open.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(20);
/// How long one webhook may take once the way is open.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(10);
/// What the bank may hold an answer for.
const WAIT: Duration = Duration::from_secs(10);
/// Webhooks of other payments that are kept.
const KEPT_MAX: usize = 10_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Payments of the measured run.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    payments: u32,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let address = listen_address(settings)?;
    let mandate = settings.need("WIRED_MANDATE")?;
    let mandate = mandate.parse().with_context(|| format!("WIRED_MANDATE `{mandate}` is no mandate"))?;
    let shutdown = CancellationToken::new();
    let (webhooks, server) = receiver::start(address, settings.webhook_keys()?, shutdown.clone()).await?;
    let mut demo =
        Demo { bank: settings.client()?, mandate, inbox: Inbox { webhooks, kept: HashMap::new() } };
    let shown = demo.show(options.payments).await;
    shutdown.cancel();
    server.await?;
    print!("{}", shown?);
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    bank: Client,
    mandate: MandateId,
    inbox: Inbox,
}

/// One payment, with the times since it was sent.
struct Trip {
    payment: PaymentView,
    webhook: Webhook,
    accepted: Duration,
    posted: Duration,
    answered: Duration,
    received: Duration,
}

#[derive(Clone, Copy)]
enum Stage {
    Accepted,
    Posted,
    Answered,
    Received,
}

impl Trip {
    fn at(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Accepted => self.accepted,
            Stage::Posted => self.posted,
            Stage::Answered => self.answered,
            Stage::Received => self.received,
        }
    }
}

impl Demo {
    async fn show(&mut self, payments: u32) -> anyhow::Result<String> {
        self.bank.ready(READY_PATIENCE).await.map_err(explain)?;
        self.warm_up().await?;
        let shown = self.trip("12.50", "demo").await?;
        let mut trips = Vec::new();
        for _ in 0..payments {
            trips.push(self.trip("0.01", "demo, measured").await?);
        }
        Ok(table(&shown, &trips))
    }

    /// Small payments until a webhook comes back.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WARM_UP_PATIENCE;
        while Instant::now() < deadline {
            let (accepted, _) = self.pay("0.01", "demo, warm-up").await?;
            if self.inbox.wait_for(accepted.payment.id, Duration::from_secs(1)).await?.is_some() {
                return Ok(());
            }
        }
        bail!(
            "payments are posted, but no webhook came within {} s: is the notifier running (`make status`), and does \
             the endpoint point here (`make demo` sets it)?",
            WARM_UP_PATIENCE.as_secs()
        )
    }

    async fn pay(&self, amount: &str, reference: &str) -> anyhow::Result<(Accepted, Instant)> {
        let mut request = PaymentRequest::new(self.mandate, Amount::parse(amount, Currency::EUR)?);
        request.reference = Some(reference.to_owned());
        let sent = Instant::now();
        let answer = self.bank.pay(&request, &Uuid::new_v4().to_string(), Some(WAIT)).await;
        let accepted = answer.map_err(explain)?;
        match (accepted.payment.status, accepted.payment.reason) {
            (PaymentStatus::Posted, _) => Ok((accepted, sent)),
            (PaymentStatus::Pending, _) => bail!(
                "the payment {} was accepted but not decided within {} s: is the processor running (`make status`)?",
                accepted.payment.id,
                WAIT.as_secs()
            ),
            (status, reason) => bail!(
                "the payment {} is {status}: {}",
                accepted.payment.id,
                reason.map_or("no reason given", domain::payment::Reason::as_str)
            ),
        }
    }

    async fn trip(&mut self, amount: &str, reference: &str) -> anyhow::Result<Trip> {
        let sent_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (accepted, sent) = self.pay(amount, reference).await?;
        let answered = sent.elapsed();
        let payment = accepted.payment;
        let Some(webhook) = self.inbox.wait_for(payment.id, WEBHOOK_PATIENCE).await? else {
            bail!(
                "{} was posted, but its webhook did not come within {} s: is the notifier running (`make status`)?",
                payment.id,
                WEBHOOK_PATIENCE.as_secs()
            )
        };
        let since_sent = |at: Timestamp| {
            let micros = u64::try_from(at.micros()).unwrap_or_default();
            Duration::from_micros(micros).saturating_sub(sent_clock)
        };
        Ok(Trip {
            accepted: since_sent(payment.created_at),
            posted: payment.decided_at.map_or(Duration::ZERO, since_sent),
            answered,
            received: webhook.at.duration_since(sent),
            payment,
            webhook,
        })
    }
}

/// A verified webhook of a payment.
struct Webhook {
    at: Instant,
    id: String,
    event_type: String,
    sequence: u64,
}

/// Webhooks as they come, which need not be in the order in which they are asked for.
struct Inbox {
    webhooks: mpsc::Receiver<Received>,
    kept: HashMap<PaymentId, Webhook>,
}

impl Inbox {
    /// The webhook of a payment; a wrong signature is an error.
    async fn wait_for(&mut self, payment: PaymentId, patience: Duration) -> anyhow::Result<Option<Webhook>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(webhook) = self.kept.remove(&payment) {
                return Ok(Some(webhook));
            }
            let Ok(received) = tokio::time::timeout_at(deadline, self.webhooks.recv()).await else {
                return Ok(None);
            };
            let Some(received) = received else { bail!("the webhook receiver ended") };
            self.keep(received)?;
        }
    }

    fn keep(&mut self, received: Received) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(rename = "type")]
            event_type: String,
            sequence: u64,
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            payment: Option<PaymentView>,
        }
        received.verified.with_context(|| {
            format!(
                "the webhook {} does not verify with WIRED_WEBHOOK_SECRET; `make demo` renews it",
                received.id
            )
        })?;
        let Ok(Body { event_type, sequence, data }) = serde_json::from_slice(&received.body) else {
            return Ok(());
        };
        if let (Some(payment), true) = (data.payment, self.kept.len() < KEPT_MAX) {
            let webhook = Webhook { at: received.at, id: received.id, event_type, sequence };
            self.kept.insert(payment.id, webhook);
        }
        Ok(())
    }
}

fn table(shown: &Trip, trips: &[Trip]) -> String {
    use std::fmt::Write as _;
    let Trip { payment, webhook, .. } = shown;
    let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "payment  {} of {}: {}",
        payment.id,
        payment.amounts.as_ref().map_or_else(String::new, |it| format!("{} {}", it.amount, it.currency)),
        payment.status
    );
    let _ = writeln!(
        text,
        "webhook  {} {} sequence {}, signature verified: yes\n",
        webhook.id, webhook.event_type, webhook.sequence
    );
    let _ = writeln!(
        text,
        "{:<44} {:>12} {:>12}",
        "since the request was sent",
        "this payment",
        format!("p50 of {}", trips.len())
    );
    for (what, stage) in [
        ("accepted (Kafka's own time, whole ms)", Stage::Accepted),
        ("posted in the ledger (batch decided)", Stage::Posted),
        ("answer received (POST with Prefer: wait)", Stage::Answered),
        ("webhook received and verified", Stage::Received),
    ] {
        let _ = writeln!(text, "{what:<44} {:>12} {:>12}", ms(shown.at(stage)), ms(median(trips, stage)));
    }
    text
}

fn median(trips: &[Trip], stage: Stage) -> Duration {
    let mut times: Vec<Duration> = trips.iter().map(|trip| trip.at(stage)).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
