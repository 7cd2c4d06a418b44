//! How many webhooks are delivered to one endpoint, to ten and to a thousand, compared with a peer measured on such a
//! machine (Svix 1.99: 949 messages/s to one endpoint, 3,288 deliveries/s to ten).
//!
//! The processor makes the events while the notifier is down; then the notifier has a backlog to consume, look up,
//! sign, send and record. The receiver verifies every signature, in the process of the benchmark, on the same machine.

use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::ids::PartnerId;
use migrations::users::Role;

use super::city::{self, City};
use super::drain::statements_of;
use super::{Config, subscribers};
use crate::proc;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::system::{Options, Servers, Service, System};

/// A number of endpoints, and what they get.
struct Crowd {
    endpoints: usize,
    /// Measured, and to see whether it works.
    events: [usize; 2],
    /// What Svix delivers to as many.
    peer: Option<f64>,
}

const CROWDS: [Crowd; 3] = [
    Crowd { endpoints: 1, events: [30_000, 300], peer: Some(949.0) },
    Crowd { endpoints: 10, events: [8_000, 100], peer: Some(3_288.0) },
    Crowd { endpoints: 1_000, events: [200, 2], peer: None },
];
const TIMES_THE_PEER: f64 = 5.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let (partners, customers) = (CROWDS.len() as u32, config.size(1_000, 10) as u32);
    let options = Options { ingests: 0, customers, partners, ..Options::new("tell") };
    let system = System::start(servers, options).await?;
    let sink = Sink::start(system.partners()[0].webhook_listen).await?;
    sink.trust_bodies();
    let mut statements = 0.0;
    for (index, crowd) in CROWDS.iter().enumerate() {
        let partner = system.partners()[index].id;
        subscribers::remove_all(&system, partner).await?;
        let paths: Vec<_> =
            (0..crowd.endpoints).map(|number| format!("/{}/{number}", crowd.endpoints)).collect();
        subscribers::add(&system, &sink, partner, &paths).await?;
        let events = config.size(crowd.events[0], crowd.events[1]) as u64;
        let run = deliver(&system, &sink, partner, &paths, events).await?;
        let to = match crowd.endpoints {
            1 => "1 endpoint".to_owned(),
            many => format!("{many} endpoints"),
        };
        let goal = crowd.peer.map_or(Goal::None, |peer| Goal::AtLeast(TIMES_THE_PEER * peer));
        report.add(format!("webhooks delivered to {to}"), run.per_second, "deliveries/s", goal);
        report.add(format!("CPU of the notifier for 1,000 deliveries to {to}"), run.cpu_ms, "ms", Goal::None);
        statements = f64::max(statements, run.statements);
    }
    report.add("SQL statements per delivery at the first try", statements, "", Goal::AtMost(0.1));
    let pid = system.pid(Service::Notifier, 0).context("the notifier is gone")?;
    let mib = proc::rss_max_bytes(pid)? / 1_048_576.0;
    report.add("memory of notifier at full speed, at most", mib, "MiB", Goal::AtMost(200.0));
    sink.stop().await;
    system.finish().await
}

struct Run {
    per_second: f64,
    /// For 1,000 deliveries.
    cpu_ms: f64,
    statements: f64,
}

/// Has the processor make `count` events of the partner while the notifier is down, then delivers them.
async fn deliver(
    system: &System,
    sink: &Sink,
    partner: PartnerId,
    paths: &[String],
    count: u64,
) -> anyhow::Result<Run> {
    let mut mandates = city::mandates_of(system.pool()).await?;
    mandates.retain(|mandate| mandate.partner == partner);
    system.terminate(Service::Notifier, 0).await?;
    let applied = city::applied(system.pool(), 1).await?;
    let payments = city::payments(&mandates, applied..applied + count);
    City::produce(system.kafka(), payments.into_iter().map(|(_, envelope)| envelope)).await?;
    city::wait_applied(system.pool(), 1, applied + count).await?;
    let before: Vec<u64> = paths.iter().map(|path| sink.counts(path).events).collect();
    let statements = statements_of(system, Role::Notifier).await?;
    system.spawn(Service::Notifier, 0)?;
    let done = |sink: &Sink| {
        paths.iter().zip(&before).all(|(path, before)| sink.counts(path).events >= before + count)
    };
    if !sink.wait_until(PATIENCE, done).await {
        bail!("not all webhooks arrived: {:?}; {:?}", sink.total(), sink.first_problem());
    }
    let deliveries = (count * paths.len() as u64) as f64;
    let pid = system.pid(Service::Notifier, 0).context("the notifier does not run")?;
    let cpu_ms = proc::cpu_seconds(pid)? / deliveries * 1e6;
    // What was sent is recorded shortly afterwards.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let statements = (statements_of(system, Role::Notifier).await? - statements) / deliveries;
    let mut times: Vec<i64> = Vec::new();
    for (path, before) in paths.iter().zip(&before) {
        let received = sink.received(path);
        let first_times = received.iter().filter(|it| !it.repeated).skip(*before as usize);
        times.extend(first_times.map(|it| it.received_us));
    }
    Ok(Run { per_second: rate(times), cpu_ms, statements })
}

/// How many there were in a second, without the beginning and the end, when the notifier is not busy.
pub(super) fn rate(mut times_us: Vec<i64>) -> f64 {
    times_us.sort_unstable();
    let (from, to) = (times_us.len() / 10, times_us.len() * 9 / 10);
    let elapsed_us = (times_us[to] - times_us[from]).max(1);
    (to - from) as f64 / (elapsed_us as f64 / 1e6)
}
