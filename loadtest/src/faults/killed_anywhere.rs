//! Every part of the bank is killed at random moments under load; afterwards nothing is lost and nothing is twice.
//!
//! One run: own MySQL and Kafka, two processes of each service, processors reach MySQL through a proxy. First the
//! services are killed, each service by a task of its own, while connections are cut at COMMIT; then MySQL and Kafka
//! are killed; then one processor is stopped for 30 s while the other takes over. The load runs through all of it,
//! repeating what failed under the same idempotency key: payments at once and in two phases, captures, voids, refunds,
//! and over Kafka the bank's movements and a partner's transfers. Then everything must come to rest, within bounds, and the
//! audit must find no difference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use client::Retries;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::audit::{self, Audited, Expected};
use super::chaos::{self, Inflicted};
use super::{bank, driver_partners, sinks};
use crate::driver::{self, Load, Mix, Pace, Progress};
use crate::proxy::Proxy;
use crate::system::{Options, Servers, Service, System, ports};

/// What the load is called.
const LOAD: &str = "killed";
/// Processes of each service.
const PROCESSES: usize = 2;
/// Longer than all faults together.
const LOAD_MAX: Duration = Duration::from_secs(1_800);
/// How long the bank may take to apply what it accepted, once everything runs again.
const APPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to tell it: a killed notifier's leases run out, and what failed is tried again after 5 s.
const TELL_TIMEOUT: Duration = Duration::from_secs(180);
/// Connections cut at a COMMIT in each run.
const CUTS: u64 = 6;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Draws moments and targets.
    pub seed: u64,
    /// SIGKILLs to services: a third to each of them.
    pub kills: u32,
    /// Payments a second.
    pub rate: f64,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done to the bank.
    pub inflicted: Inflicted,
    /// What the audit saw.
    pub audited: Audited,
    /// From the last fault until everything was applied and told.
    pub recovery: Duration,
    /// All of it.
    pub elapsed: Duration,
}

/// One run; an error is a difference, or a bound that was passed.
pub async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let servers = Arc::new(Servers::own().await?);
    let proxy = Proxy::start(ports::free()?, servers.mysql_address()?).await?;
    let mut options = Options::new("killed");
    (options.ingests, options.processors, options.notifiers) = (PROCESSES, PROCESSES, PROCESSES);
    options.customers = 50;
    options.mysql_via = vec![(Service::Processor, proxy.address())];
    let system = Arc::new(System::start(servers, options).await?);
    let mut expected = Expected { sequences: audit::sequences(&system).await?, ..Expected::default() };
    let sink = sinks(&system).await?;

    let stop = CancellationToken::new();
    let mut load = Load::new(LOAD, driver_partners(&system), Pace::PerSecond(plan.rate), LOAD_MAX);
    load.seed = plan.seed;
    load.mix = Mix::EveryKind;
    load.in_flight_max = 5_000;
    load.timeout = Duration::from_secs(15);
    load.retries = Retries { max: 100, pause: Duration::from_millis(100), pause_max: Duration::from_secs(5) };
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { driver::run(&load, Arc::new(Progress::default()), stop).await }
    });
    let moving = tokio::spawn({
        let (system, stop) = (Arc::clone(&system), stop.clone());
        async move { bank::run(&system, plan.seed, LOAD, stop).await }
    });
    let inflicted = inflict(&system, &proxy, plan).await;
    let healed = Instant::now();
    stop.cancel();
    let report = driving.await.context("the driver panicked")??;
    expected.reports.push(report);
    expected.bank = moving.await.context("the bank panicked")??;
    let inflicted = inflicted.context("while faults were made")?;
    audit::applied(&system, APPLY_TIMEOUT).await?;
    audit::told(&system, &sink, &expected, TELL_TIMEOUT).await?;
    let recovery = healed.elapsed();
    let audited = audit::audit(&system, Some(&sink), &expected).await?;
    sink.stop().await;
    let system = Arc::into_inner(system).context("a task still holds the system")?;
    system.finish().await?;
    Ok(Outcome { inflicted, audited, recovery, elapsed: started.elapsed() })
}

async fn inflict(system: &Arc<System>, proxy: &Proxy, plan: Plan) -> anyhow::Result<Inflicted> {
    let services = [Service::Processor, Service::Notifier, Service::Ingest];
    // The two kills beside those of MySQL and Kafka count as well.
    let kills = plan.kills.saturating_sub(2);
    let mut killing = JoinSet::new();
    for (service, number) in services.into_iter().zip(0..) {
        let (system, share) = (Arc::clone(system), (kills + number) / services.len() as u32);
        killing
            .spawn(async move { chaos::kill_service(&system, service, PROCESSES, share, plan.seed).await });
    }
    let cutting = chaos::cut_commits(proxy, CUTS, plan.seed);
    let killed = async {
        while let Some(killed) = killing.join_next().await {
            killed.context("a killer panicked")??;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(cutting, killed)?;
    chaos::kill_server(system, "mysql", Service::Processor).await?;
    chaos::kill_server(system, "kafka", Service::Ingest).await?;
    let takeover = chaos::stop_processor(system).await?;
    for service in services {
        for index in 0..PROCESSES {
            system.wait_ready(service, index).await?;
        }
    }
    Ok(Inflicted { kills: kills + 2, cuts: proxy.sprung(), server_kills: 2, takeover: Some(takeover) })
}
