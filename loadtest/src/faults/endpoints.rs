//! Whether bad endpoints make healthy ones wait: healthy ones alone, and then beside bad ones, in one run of one system.
//!
//! Each endpoint belongs to a partner of its own and gets as many events as any other. The bad ones are disabled while
//! the healthy ones are measured alone; the payments are the same in both halves. What a healthy endpoint waits for is
//! the time from decision to receipt. Afterwards every event of a bad endpoint must be delivered or stand in MySQL to be
//! tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::{audit, driver_partners, sinks, store};
use crate::driver::{self, Load, Pace, Progress};
use crate::proc;
use crate::sink::{Behaviour, Sink};
use crate::system::{Options, Servers, Service, System, ports};

/// What the first payments of a process pay for connections and plans is not measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long after the last payment the last webhook may come, and the last delivery be recorded.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// What a talkative endpoint answers.
const TALK_BYTES: usize = 10 << 20;

/// How an endpoint is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bad {
    /// It takes the request and never answers.
    Hanging,
    /// Nobody listens.
    Refused,
    /// It answers 500.
    Failing,
    /// It resets the connection instead of answering.
    Resetting,
    /// It answers a byte a second.
    Dripping,
    /// It answers 10 MiB.
    Talkative,
}

impl Bad {
    const fn behaviour(self) -> Behaviour {
        match self {
            Self::Hanging => Behaviour::Hang,
            // Nothing of it reaches the sink.
            Self::Refused => Behaviour::Accept,
            Self::Failing => Behaviour::Status(500),
            Self::Resetting => Behaviour::Reset,
            Self::Dripping => Behaviour::Drip,
            Self::Talkative => Behaviour::Long(TALK_BYTES),
        }
    }
}

/// Which endpoints there are, and what they get.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Endpoints that answer at once.
    pub healthy: usize,
    /// The others.
    pub bad: Vec<(Bad, usize)>,
    /// Of each half: healthy endpoints alone, and beside the bad ones.
    pub half: Duration,
    /// Payments a second to all healthy endpoints together.
    pub rate: f64,
}

impl Plan {
    /// 20 healthy endpoints, one that hangs and one that refuses.
    pub fn two_bad(half: Duration, rate: f64) -> Self {
        Self { healthy: 20, bad: vec![(Bad::Hanging, 1), (Bad::Refused, 1)], half, rate }
    }

    /// 50 endpoints of which 15 are healthy.
    pub fn fifty(half: Duration, rate: f64) -> Self {
        let bad = vec![
            (Bad::Hanging, 10),
            (Bad::Failing, 10),
            (Bad::Resetting, 5),
            (Bad::Dripping, 5),
            (Bad::Talkative, 5),
        ];
        Self { healthy: 15, bad, half, rate }
    }

    /// How each bad endpoint is bad, by the index of its partner.
    fn each_bad(&self) -> impl Iterator<Item = (usize, Bad)> {
        let kinds = self.bad.iter().flat_map(|(bad, count)| std::iter::repeat_n(*bad, *count));
        (self.healthy..).zip(kinds)
    }

    fn all(&self) -> usize {
        self.healthy + self.bad.iter().map(|(_, count)| count).sum::<usize>()
    }
}

/// What healthy endpoints waited for: from decision to receipt.
#[derive(Debug, Clone)]
pub struct Measured {
    /// p50 with healthy endpoints alone.
    pub alone_p50_ms: f64,
    /// p99 with healthy endpoints alone.
    pub alone_p99_ms: f64,
    /// p50 beside the bad ones.
    pub beside_p50_ms: f64,
    /// p99 beside the bad ones.
    pub beside_p99_ms: f64,
    /// Webhooks measured in each half.
    pub webhooks: [usize; 2],
    /// Attempts at the bad ones.
    pub attempts: BTreeMap<Bad, u64>,
    /// Events of the bad ones, all of which are delivered or stand in MySQL.
    pub events_of_bad: u64,
    /// The most memory that the notifier had resident, in MiB.
    pub notifier_mib: f64,
}

impl Measured {
    /// p99 beside bad endpoints by p99 without them; the goal is below 1.2.
    pub fn ratio(&self) -> f64 {
        self.beside_p99_ms / self.alone_p99_ms.max(1e-9)
    }
}

/// One run.
pub async fn run(plan: &Plan) -> anyhow::Result<Measured> {
    let options = Options { partners: plan.all() as u32, customers: 4, ..Options::new("endpoints") };
    let system = System::start(Servers::from_env()?, options).await?;
    let sink = sinks(&system).await?;
    sink.trust_bodies();
    system.terminate(Service::Notifier, 0).await?;
    let nobody = format!("http://{}/webhooks", ports::free()?);
    for (index, bad) in plan.each_bad() {
        sink.behave(&audit::webhook_path(index), bad.behaviour());
        if bad == Bad::Refused {
            store::set_endpoint_url(system.pool(), system.partners()[index].id, &nobody).await?;
        }
    }
    system.restart(Service::Notifier, 0).await?;

    switch_bad(&system, plan, false).await?;
    // As much again for the others, so that each of them has as many events as a healthy one has.
    let rate = plan.rate * plan.all() as f64 / plan.healthy as f64;
    drive(&system, "warm-up", WARM_UP, rate).await?;
    let alone = drive(&system, "alone", plan.half, rate).await?;
    let alone = waits(&sink, &alone, plan.healthy).await?;
    audit::applied(&system, DRAIN_TIMEOUT).await?;
    switch_bad(&system, plan, true).await?;
    let before = audit::sequences(&system).await?;
    let beside = drive(&system, "beside", plan.half, rate).await?;
    let beside = waits(&sink, &beside, plan.healthy).await?;
    let events_of_bad = nothing_lost(&system, &sink, plan, &before).await?;
    let mut attempts = BTreeMap::new();
    for (index, bad) in plan.each_bad() {
        let counts = sink.counts(&audit::webhook_path(index));
        let contacted = match bad {
            Bad::Refused => store::failed_attempts(system.pool(), system.partners()[index].id).await?,
            _ => counts.requests,
        };
        *attempts.entry(bad).or_default() += contacted;
    }
    let pid = system.pid(Service::Notifier, 0).context("the notifier is gone")?;
    let measured = Measured {
        alone_p50_ms: percentile(&alone, 50),
        alone_p99_ms: percentile(&alone, 99),
        beside_p50_ms: percentile(&beside, 50),
        beside_p99_ms: percentile(&beside, 99),
        webhooks: [alone.len(), beside.len()],
        attempts,
        events_of_bad,
        notifier_mib: proc::rss_max_bytes(pid)? / 1_048_576.0,
    };
    anyhow::ensure!(sink.total().invalid == 0, "{:?}", sink.first_problem());
    sink.stop().await;
    system.finish().await?;
    Ok(measured)
}

async fn switch_bad(system: &System, plan: &Plan, on: bool) -> anyhow::Result<()> {
    for (index, _) in plan.each_bad() {
        store::switch_endpoints(system.pool(), system.partners()[index].id, on).await?;
    }
    Ok(())
}

async fn drive(system: &System, name: &str, time: Duration, rate: f64) -> anyhow::Result<driver::Report> {
    let load = Load::new(name, driver_partners(system), Pace::PerSecond(rate), time);
    let report = driver::run(&load, Arc::new(Progress::default()), CancellationToken::new()).await?;
    anyhow::ensure!(
        report.refused.is_empty() && report.unknown.is_empty(),
        "{:?} {:?}",
        report.refused,
        report.unknown
    );
    Ok(report)
}

/// How long each webhook of the healthy partners' payments took, sorted, in microseconds.
async fn waits(sink: &Sink, report: &driver::Report, healthy: usize) -> anyhow::Result<Vec<i64>> {
    let expected: Vec<_> = report.accepted.iter().filter(|accepted| accepted.partner < healthy).collect();
    let paths = || (0..healthy).map(|index| sink.payments(&audit::webhook_path(index)));
    let all_there = |_: &Sink| {
        let received: Vec<_> = paths().collect();
        expected.iter().all(|accepted| received[accepted.partner].contains_key(&accepted.id))
    };
    anyhow::ensure!(
        sink.wait_until(DRAIN_TIMEOUT, all_there).await,
        "healthy endpoints did not receive everything"
    );
    let received: Vec<_> = paths().collect();
    let mut waits: Vec<i64> = expected
        .iter()
        .filter_map(|accepted| received[accepted.partner].get(&accepted.id))
        .filter_map(|received| Some(received.received_us - received.decided_us?))
        .collect();
    anyhow::ensure!(!waits.is_empty(), "nothing was measured");
    waits.sort_unstable();
    Ok(waits)
}

/// Waits until every event of every bad endpoint has a row; gives how many they are.
async fn nothing_lost(system: &System, sink: &Sink, plan: &Plan, before: &[u64]) -> anyhow::Result<u64> {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut events = 0;
    for (index, bad) in plan.each_bad() {
        let partner = system.partners()[index].id;
        let told = store::last_sequence(system.pool(), partner).await? - before[index];
        events += told;
        loop {
            let standing = store::deliveries_after(system.pool(), partner, before[index]).await?;
            if standing >= told {
                break;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{bad:?}: {standing} of {told} events are delivered or stand in MySQL; {:?}",
                sink.counts(&audit::webhook_path(index))
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(events)
}

fn percentile(sorted_us: &[i64], percent: usize) -> f64 {
    sorted_us[(sorted_us.len() - 1) * percent / 100] as f64 / 1_000.0
}
