//! Whether bad endpoints make healthy ones wait: 20 healthy ones alone, and then beside one that hangs and one that
//! refuses, in one run of one system.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{audit, driver_partners, sinks, store};
use crate::driver::{self, Load, Pace, Progress};
use crate::sink::{Behaviour, Sink};
use crate::system::{Options, Servers, Service, System, ports};

/// Endpoints that answer at once.
const HEALTHY: usize = 20;
/// What the first payments of a process pay for connections and plans is not measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long after the last payment the last webhook may come.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How an endpoint is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bad {
    /// It takes the request and never answers.
    Hanging,
    /// Nobody listens.
    Refused,
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
}

impl Measured {
    /// p99 beside bad endpoints by p99 without them; the goal is below 1.2.
    pub fn ratio(&self) -> f64 {
        self.beside_p99_ms / self.alone_p99_ms.max(1e-9)
    }
}

/// Measures each half for `half`, with `rate` payments a second to the healthy partners.
pub async fn run(half: Duration, rate: f64) -> anyhow::Result<Measured> {
    let options = Options { partners: HEALTHY as u32 + 2, customers: 4, ..Options::new("endpoints") };
    let system = System::start(Servers::from_env()?, options).await?;
    let sink = sinks(&system).await?;
    let (hanging, refused) = (HEALTHY, HEALTHY + 1);
    sink.behave(&audit::webhook_path(hanging), Behaviour::Hang);
    system.terminate(Service::Notifier, 0).await?;
    let nobody = format!("http://{}/webhooks", ports::free()?);
    store::set_endpoint_url(system.pool(), system.partners()[refused].id, &nobody).await?;
    system.restart(Service::Notifier, 0).await?;

    drive(&system, "warm-up", HEALTHY, WARM_UP, rate).await?;
    let alone = drive(&system, "alone", HEALTHY, half, rate).await?;
    let alone = waits(&sink, &alone).await?;
    // As much again for the bad ones, so that each of them has as many events as a healthy one has.
    let share = rate * (HEALTHY + 2) as f64 / HEALTHY as f64;
    let beside = drive(&system, "beside", HEALTHY + 2, half, share).await?;
    let beside = waits(&sink, &beside).await?;
    let mut attempts = BTreeMap::new();
    attempts.insert(Bad::Hanging, sink.counts(&audit::webhook_path(hanging)).turned_away);
    attempts
        .insert(Bad::Refused, store::failed_attempts(system.pool(), system.partners()[refused].id).await?);
    let measured = Measured {
        alone_p50_ms: percentile(&alone, 50),
        alone_p99_ms: percentile(&alone, 99),
        beside_p50_ms: percentile(&beside, 50),
        beside_p99_ms: percentile(&beside, 99),
        webhooks: [alone.len(), beside.len()],
        attempts,
    };
    sink.stop().await;
    system.finish().await?;
    Ok(measured)
}

async fn drive(
    system: &System,
    name: &str,
    partners: usize,
    time: Duration,
    rate: f64,
) -> anyhow::Result<driver::Report> {
    let mut posting = driver_partners(system);
    posting.truncate(partners);
    let load = Load::new(name, posting, Pace::PerSecond(rate), time);
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
async fn waits(sink: &Sink, report: &driver::Report) -> anyhow::Result<Vec<i64>> {
    let healthy: Vec<_> = report.accepted.iter().filter(|accepted| accepted.partner < HEALTHY).collect();
    let all_there = |sink: &Sink| {
        let received: Vec<_> = (0..HEALTHY).map(|index| sink.payments(&audit::webhook_path(index))).collect();
        healthy.iter().all(|accepted| received[accepted.partner].contains_key(&accepted.id))
    };
    anyhow::ensure!(
        sink.wait_until(DRAIN_TIMEOUT, all_there).await,
        "healthy endpoints did not receive everything"
    );
    let received: Vec<_> = (0..HEALTHY).map(|index| sink.payments(&audit::webhook_path(index))).collect();
    let mut waits: Vec<i64> = healthy
        .iter()
        .filter_map(|accepted| received[accepted.partner].get(&accepted.id))
        .filter_map(|received| Some(received.received_us - received.decided_us?))
        .collect();
    anyhow::ensure!(!waits.is_empty(), "nothing was measured");
    waits.sort_unstable();
    Ok(waits)
}

fn percentile(sorted_us: &[i64], percent: usize) -> f64 {
    sorted_us[(sorted_us.len() - 1) * percent / 100] as f64 / 1_000.0
}
