//! MySQL is away for twenty seconds under load: ingest goes on accepting, nothing is lost, the backlog drains.

use std::sync::Arc;
use std::time::Duration;

use loadtest::driver::{self, Load, Pace, Progress};
use loadtest::faults::audit::{self, Expected};
use loadtest::faults::{driver_partners, sinks};
use loadtest::proxy::Proxy;
use loadtest::system::{Options, Servers, Service, System, ports};
use tokio_util::sync::CancellationToken;

/// Half of it MySQL refuses connections, half of it it says nothing at all, as a dead machine does.
const AWAY: Duration = Duration::from_secs(20);
/// Payments a second.
const RATE: f64 = 100.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_accepts_while_mysql_is_away_and_the_backlog_drains() {
    let _turn = crate::turn().await;
    let servers = Servers::from_env().unwrap();
    let proxy = Proxy::start(ports::free().unwrap(), servers.mysql_address().unwrap()).await.unwrap();
    let services = [Service::Ingest, Service::Processor, Service::Notifier];
    let options = Options {
        mysql_via: services.map(|service| (service, proxy.address())).to_vec(),
        ..Options::new("outage")
    };
    let system = System::start(servers, options).await.unwrap();
    let mut expected =
        Expected { sequences: audit::sequences(&system).await.unwrap(), ..Expected::default() };
    let sink = sinks(&system).await.unwrap();

    let stop = CancellationToken::new();
    // Without repetition: every single answer counts.
    let load = Load::new("outage", driver_partners(&system), Pace::PerSecond(RATE), Duration::from_secs(120));
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { driver::run(&load, Arc::new(Progress::default()), stop).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let away_us = driver::now_us();
    proxy.refuse();
    tokio::time::sleep(AWAY / 2).await;
    proxy.pause();
    proxy.accept();
    tokio::time::sleep(AWAY / 2).await;
    let back_us = driver::now_us();
    let (status, body) = system.readiness(Service::Processor, 0).await.unwrap();
    assert_eq!(status, 503, "the processor does not say that MySQL is away: {body}");
    proxy.resume();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.cancel();
    let report = driving.await.unwrap().unwrap();

    assert!(
        report.refused.is_empty() && report.unknown.is_empty(),
        "{:?} {:?}",
        report.refused,
        report.unknown
    );
    let during: Vec<_> =
        report.accepted.iter().filter(|it| (away_us..back_us).contains(&it.answered_us)).collect();
    let wanted = (AWAY.as_secs_f64() * RATE * 0.9) as usize;
    assert!(during.len() >= wanted, "{} of {wanted} were accepted while MySQL was away", during.len());
    let mut waits: Vec<_> = during.iter().map(|it| it.answered_us - it.due_us).collect();
    waits.sort_unstable();
    println!(
        "while MySQL was away: {} accepted, p50 {} ms, p99 {} ms",
        waits.len(),
        waits[waits.len() / 2] / 1_000,
        waits[waits.len() * 99 / 100] / 1_000
    );
    expected.reports.push(report);
    audit::applied(&system, Duration::from_secs(60)).await.unwrap();
    audit::told(&system, &sink, &expected, Duration::from_secs(60)).await.unwrap();
    let audited = audit::audit(&system, Some(&sink), &expected).await.unwrap();
    println!("{audited:?}");
    sink.stop().await;
    system.finish().await.unwrap();
}
