//! One payment at a time: how long `POST` with `Prefer: wait` takes until it is answered with the outcome, compared
//! with what cannot be avoided (one acknowledgement of Kafka and one bare posting transaction), and how long after
//! the answer the webhook is received.
//!
//! The three kinds take turns in blocks, on an otherwise idle machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use client::{Client, Options as ClientOptions, PaymentRequest, Retries};
use domain::ids::PaymentId;
use domain::money::{Amount, Currency};
use domain::topic::Topic;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::kafka::LogContext;

use super::ceiling::Ceiling;
use super::city;
use super::flow::{PATH, receiver};
use crate::driver::now_us;
use crate::latency::Latencies;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, System};

const BLOCKS: usize = 6;
const BLOCK: usize = 50;
/// Between two payments, so that each has the machine to itself, with its webhook.
const PAUSE: Duration = Duration::from_millis(15);
const WAIT: Duration = Duration::from_secs(10);
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// A topic of its own, since a bare record is no command.
const TOPIC: Topic = Topic { name: "bench.v1", partitions: 8, log_append_time: true, retention_days: 1 };

/// Measures and reports.
pub(super) async fn measure(servers: Servers, report: &mut Report) -> anyhow::Result<()> {
    let system = System::start(servers, Options { customers: 100, ..Options::new("alone") }).await?;
    let sink = receiver(&system).await?;
    let partner = system.partners()[0].clone();
    let options = ClientOptions { retries: Retries::NONE, ..ClientOptions::default() };
    let client = partner.client(&system.url(0), options)?;
    client.ready(Duration::from_secs(15)).await?;
    let mut payments =
        Payments { client, partner, number: 0, answered: Vec::new(), latencies: Latencies::default() };
    payments.block(BLOCK).await?;
    payments.forget();
    let kafka = BareKafka::new(&system).await?;
    let mut ceiling = Ceiling::copy_of(system.mysql(), system.pool()).await?;
    let mandates = city::mandates_of(system.pool()).await?;
    let (mut acknowledged, mut posted) = (Latencies::default(), Latencies::default());
    let mut numbers = 0;
    for _ in 0..=BLOCKS {
        payments.block(BLOCK).await?;
        for _ in 0..BLOCK {
            acknowledged.record(kafka.one().await?);
            tokio::time::sleep(PAUSE).await;
        }
        let texts = ceiling.texts(&city::payments(&mandates, numbers..numbers + BLOCK as u64), 1);
        numbers += BLOCK as u64;
        for text in texts {
            posted.record(ceiling.run(&[text]).await?[0]);
            tokio::time::sleep(PAUSE).await;
        }
    }
    let expected = payments.answered.len();
    let all_told = |sink: &crate::sink::Sink| {
        let told = sink.payments(PATH);
        payments.answered.iter().all(|(id, ..)| told.contains_key(id))
    };
    if !sink.wait_until(WEBHOOK_TIMEOUT, all_told).await {
        bail!("not all of {expected} payments were followed by a webhook: {:?}", sink.first_problem());
    }
    let told = sink.payments(PATH);
    let (mut decided, mut after) = (Latencies::default(), Vec::new());
    for (id, begun_us, answered_us) in &payments.answered {
        let webhook = &told[id];
        decided.record_between(*begun_us, webhook.decided_us.unwrap_or(i64::MAX));
        // Negative when the webhook was there first.
        after.push((webhook.received_us - answered_us) as f64 / 1e3);
    }
    let floor = acknowledged.p50_ms() + posted.p50_ms();
    report.add(
        "one payment alone: POST with Prefer: wait answered, p50",
        payments.latencies.p50_ms(),
        "ms",
        Goal::None,
    );
    report.add(
        "one payment alone: POST with Prefer: wait answered, p99",
        payments.latencies.p99_ms(),
        "ms",
        Goal::None,
    );
    report.add(
        "one payment alone: POST to decided (before the writes), p50",
        decided.p50_ms(),
        "ms",
        Goal::None,
    );
    report.add("one acknowledgement of Kafka, p50", acknowledged.p50_ms(), "ms", Goal::None);
    report.add("one bare posting transaction, p50", posted.p50_ms(), "ms", Goal::None);
    report.add(
        "one payment alone / (one acknowledgement + one bare posting)",
        payments.latencies.p50_ms() / floor,
        "",
        Goal::AtMost(1.5),
    );
    report.add("webhook received after the answer, p50", super::median(after), "ms", Goal::AtMost(3.0));
    ceiling.remove().await?;
    kafka.remove().await?;
    sink.stop().await;
    system.finish().await
}

struct Payments {
    client: Client,
    partner: crate::system::Partner,
    number: usize,
    /// When each was begun and answered, in microseconds since 1970.
    answered: Vec<(PaymentId, i64, i64)>,
    latencies: Latencies,
}

impl Payments {
    async fn block(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.number += 1;
            let mandate = self.partner.mandates[self.number % self.partner.mandates.len()];
            let request = PaymentRequest::new(mandate, Amount::new(100, Currency::EUR)?);
            let key = format!("alone-{}", self.number);
            let (started, begun_us) = (Instant::now(), now_us());
            let accepted = self.client.pay(&request, &key, Some(WAIT)).await?;
            self.latencies.record(started.elapsed());
            let answered_us = now_us();
            if !accepted.is_decided() {
                bail!("a payment alone was not decided within {WAIT:?}");
            }
            self.answered.push((accepted.payment.id, begun_us, answered_us));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.answered.clear();
        self.latencies = Latencies::default();
    }
}

struct BareKafka {
    producer: FutureProducer<LogContext>,
    admin: AdminClient<DefaultClientContext>,
    topic: String,
    value: Vec<u8>,
}

impl BareKafka {
    async fn new(system: &System) -> anyhow::Result<Self> {
        let kafka = system.kafka();
        migrations::topics::apply(kafka, &[TOPIC], 1).await?;
        let bare = Self {
            // The fastest for one record alone.
            producer: kafka.producer().set("linger.ms", "0").create_with_context(LogContext)?,
            admin: kafka.client().create()?,
            topic: kafka.topic(TOPIC.name),
            value: vec![b'x'; 600],
        };
        // The first record of a topic takes about a second.
        for _ in 0..BLOCK {
            bare.one().await?;
        }
        Ok(bare)
    }

    async fn one(&self) -> anyhow::Result<Duration> {
        let key: [u8; 16] = rand::random();
        let started = Instant::now();
        let record = FutureRecord::to(&self.topic).key(key.as_slice()).payload(&self.value);
        let delivery = self.producer.send_result(record).map_err(|(error, _)| error)?;
        delivery.await.context("the producer is gone")?.map_err(|(error, _)| error)?;
        Ok(started.elapsed())
    }

    async fn remove(&self) -> anyhow::Result<()> {
        for deleted in self.admin.delete_topics(&[&self.topic], &AdminOptions::new()).await? {
            deleted.map_err(|(topic, code)| anyhow::anyhow!("topic {topic} cannot be deleted: {code}"))?;
        }
        Ok(())
    }
}
