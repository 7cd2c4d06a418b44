//! Payments through everything: accepted, posted, told by webhook, at the rates a city would send them.
//!
//! The sustained rate is searched for first: the highest at which the payments that are due and not told yet do not
//! grow over ten seconds. Load generator, receiver, Kafka, MySQL and all services share the machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::wire::{self, Outcome, Requests, Signer};
use crate::latency::Latencies;
use crate::proc;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::system::{Options, Servers, Service, System};

/// Where the first partner's endpoint receives.
pub(super) const PATH: &str = "/webhooks";
const CONNECTIONS_MAX: usize = 256;
/// A connection should be used again before the server takes it for a silent one.
const CONNECTION_PAUSE_S: f64 = 2.0;
/// Of one try of a rate, and of measuring at the low rate.
const TRY: Duration = Duration::from_secs(10);
const LATENCIES: Duration = Duration::from_secs(15);
/// Runs at half of the sustained rate; the one with the median p99 counts, since other programs may stall one of them.
const HALF_RUNS: usize = 3;
const HALF: Duration = Duration::from_secs(8);
const LOW_RATE: f64 = 20.0;
/// The first rate that is tried; each next is so much higher.
const FIRST_RATE: f64 = 400.0;
const STEP: f64 = 1.5;
/// Narrowing the highest rate that held and the lowest that did not.
const NARROWINGS: usize = 2;
const RATE_MAX: f64 = 20_000.0;
/// A backlog that grows by less than this share of the payments due meanwhile does not grow.
const GROWTH_MAX: f64 = 0.02;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A sink that receives for the system's first partner.
pub(super) async fn receiver(system: &System) -> anyhow::Result<Sink> {
    let partner = system.partners().first().context("the system has no partner")?;
    let sink = Sink::start(partner.webhook_listen).await?;
    sink.trust_bodies();
    sink.endpoint(PATH, &partner.webhook_secret)?;
    Ok(sink)
}

/// Measures and reports.
pub(super) async fn measure(servers: Servers, report: &mut Report) -> anyhow::Result<()> {
    let system = System::start(servers, Options { customers: 10_000, ..Options::new("flow") }).await?;
    let sink = receiver(&system).await?;
    let mut flow =
        Flow { address: system.url(0).trim_start_matches("http://").parse()?, system, sink, runs: 0 };
    flow.run(200.0, Duration::from_secs(5)).await?;
    let low = flow.run(LOW_RATE, LATENCIES).await?;
    low.add(report, &format!("{LOW_RATE}/s"), Goal::None);
    let sustained = flow.sustained().await?;
    report.add("sustained rate through everything, load included", sustained, "payments/s", Goal::None);
    let mut halves = Vec::with_capacity(HALF_RUNS);
    for _ in 0..HALF_RUNS {
        let half = flow.run(sustained / 2.0, HALF).await?;
        eprintln!("  … half of it, {:.0} payments/s: webhooks {}", sustained / 2.0, half.told);
        halves.push(half);
    }
    halves.sort_by(|a, b| a.told.p99_ms().total_cmp(&b.told.p99_ms()));
    let half = &halves[HALF_RUNS / 2];
    half.add(report, "half of the sustained rate", Goal::AtMost(100.0));
    for service in [Service::Ingest, Service::Processor, Service::Notifier] {
        let pid = flow.system.pid(service, 0).context("a service is gone")?;
        let mib = proc::rss_max_bytes(pid)? / 1_048_576.0;
        report.add(
            format!("memory of {} under load, at most", service.name()),
            mib,
            "MiB",
            Goal::AtMost(200.0),
        );
    }
    let counts = flow.sink.total();
    if counts.invalid > 0 {
        bail!("{} webhooks were invalid: {:?}", counts.invalid, flow.sink.first_problem());
    }
    flow.sink.stop().await;
    flow.system.finish().await
}

struct Flow {
    system: System,
    sink: Sink,
    address: SocketAddr,
    runs: usize,
}

/// Latencies of one run, from when each request was due.
struct Run {
    answered: Latencies,
    decided: Latencies,
    told: Latencies,
    backlog_grew: bool,
}

impl Run {
    fn add(&self, report: &mut Report, at: &str, goal: Goal) {
        report.add(format!("at {at}: 202 answered, p50"), self.answered.p50_ms(), "ms", Goal::None);
        report.add(format!("at {at}: 202 answered, p99"), self.answered.p99_ms(), "ms", Goal::None);
        report.add(format!("at {at}: posted, p50"), self.decided.p50_ms(), "ms", Goal::None);
        report.add(format!("at {at}: posted, p99"), self.decided.p99_ms(), "ms", Goal::None);
        report.add(format!("at {at}: webhook received, p50"), self.told.p50_ms(), "ms", Goal::None);
        report.add(format!("at {at}: webhook received, p99"), self.told.p99_ms(), "ms", goal);
    }
}

impl Flow {
    /// The highest rate at which nothing piles up.
    async fn sustained(&mut self) -> anyhow::Result<f64> {
        let (mut holds, mut fails) = (0.0, FIRST_RATE);
        while fails < RATE_MAX && self.bears(fails).await? {
            (holds, fails) = (fails, fails * STEP);
        }
        for _ in 0..NARROWINGS {
            let between = f64::midpoint(holds, fails);
            if self.bears(between).await? {
                holds = between;
            } else {
                fails = between;
            }
        }
        if holds == 0.0 {
            bail!("not even {fails:.0} payments/s are sustained");
        }
        Ok(holds)
    }

    async fn bears(&mut self, rate: f64) -> anyhow::Result<bool> {
        let run = self.run(rate, TRY).await?;
        let verdict = if run.backlog_grew { "too much" } else { "sustained" };
        eprintln!("  … {rate:.0} payments/s: {verdict}; webhooks {}", run.told);
        Ok(!run.backlog_grew)
    }

    /// Drives for `duration` and waits until everything is told.
    async fn run(&mut self, rate: f64, duration: Duration) -> anyhow::Result<Run> {
        self.runs += 1;
        let partner = &self.system.partners()[0];
        let signer = Signer {
            partner: partner.id,
            key_id: &partner.key_id,
            key_secret: &partner.key_secret,
            mandates: &partner.mandates,
        };
        let count = (rate * duration.as_secs_f64()) as usize;
        let requests = Requests::sign(&signer, self.address, &format!("flow-{}", self.runs), count, None)?;
        let requests = Arc::new(requests);
        let told_before = self.sink.total().events;
        let connections = ((rate * CONNECTION_PAUSE_S) as usize).clamp(1, CONNECTIONS_MAX);
        let sending = wire::send(self.address, &requests, connections, Some(rate), duration);
        let (outcome, backlog_grew) =
            tokio::join!(sending, backlog_grew(&self.sink, told_before, rate, duration));
        let outcome = outcome?;
        outcome.only(202)?;
        let accepted = outcome.answered.len() as u64;
        if !self.sink.wait_until(DRAIN_TIMEOUT, |sink| sink.total().events >= told_before + accepted).await {
            let told = self.sink.total().events - told_before;
            bail!("{told} of {accepted} payments were told within {DRAIN_TIMEOUT:?} after the load");
        }
        self.latencies(&requests, &outcome, backlog_grew)
    }

    fn latencies(&self, requests: &Requests, outcome: &Outcome, backlog_grew: bool) -> anyhow::Result<Run> {
        let told = self.sink.payments(PATH);
        let (mut decided, mut received) = (Latencies::default(), Latencies::default());
        for answered in &outcome.answered {
            let webhook = told.get(&requests.payments[answered.index]).context("a payment was not told")?;
            decided.record_between(answered.due_us, webhook.decided_us.context("a webhook tells no time")?);
            received.record_between(answered.due_us, webhook.received_us);
        }
        Ok(Run { answered: outcome.latencies.clone(), decided, told: received, backlog_grew })
    }
}

/// Compares what is due and not told in the middle and at the end of the run, each over a second.
async fn backlog_grew(sink: &Sink, told_before: u64, rate: f64, duration: Duration) -> bool {
    let started = Instant::now();
    let half = duration / 2;
    let (mut middle, mut end) = (Vec::new(), Vec::new());
    while started.elapsed() < duration {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        let elapsed = started.elapsed().min(duration);
        let backlog = rate * elapsed.as_secs_f64() - (sink.total().events - told_before) as f64;
        if elapsed + Duration::from_secs(1) >= duration {
            end.push(backlog);
        } else if elapsed + Duration::from_secs(1) >= half && elapsed < half {
            middle.push(backlog);
        }
    }
    let grown = super::median(end) - super::median(middle);
    grown > GROWTH_MAX * rate * half.as_secs_f64()
}
