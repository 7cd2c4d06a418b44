//! The harness itself: it finds nothing in a healthy bank, and what is lost it notices.

use std::sync::Arc;
use std::time::Duration;

use loadtest::driver::{self, Load, Pace, Progress};
use loadtest::faults::audit::{self, Expected};
use loadtest::faults::{driver_partners, sinks, store};
use loadtest::system::{Options, Servers, System};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_bank_passes_the_audit_and_a_lost_payment_or_webhook_is_noticed() {
    let _turn = crate::turn().await;
    let options = Options { partners: 2, ..Options::new("harness") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let mut expected =
        Expected { sequences: audit::sequences(&system).await.unwrap(), ..Expected::default() };
    let sink = sinks(&system).await.unwrap();
    let mut load = Load::new("harness", driver_partners(&system), Pace::Workers(8), Duration::from_secs(60));
    load.requests_max = 400;
    let report = driver::run(&load, Arc::new(Progress::default()), CancellationToken::new()).await.unwrap();
    assert_eq!(report.accepted.len(), 400, "{:?} {:?}", report.refused, report.unknown);
    let victim = report.accepted[200].id;
    expected.reports.push(report);
    audit::applied(&system, Duration::from_secs(30)).await.unwrap();
    audit::told(&system, &sink, &expected, Duration::from_secs(30)).await.unwrap();
    let audited = audit::audit(&system, Some(&sink), &expected).await.unwrap();
    assert_eq!((audited.accepted, audited.posted), (400, 400));
    assert!(audited.events >= 400, "{audited:?}");

    // A sink that has received nothing.
    sink.endpoint("/webhooks", &system.partners()[0].webhook_secret).unwrap();
    let deaf = audit::audit(&system, Some(&sink), &expected).await.unwrap_err().to_string();
    assert!(deaf.contains("was not received"), "{deaf}");
    // A ledger that has lost a payment: noticed by the verifier and by the driver's records.
    assert_eq!(store::lose_payment(system.pool(), victim).await.unwrap(), 1);
    let lost = audit::audit(&system, None, &expected).await.unwrap_err().to_string();
    assert!(lost.contains("without an outcome: 1 missing"), "{lost}");
    assert!(lost.contains("I1"), "{lost}");
    // A driver that was told of nothing finds every payment strange.
    let stranger = audit::audit(&system, None, &Expected::default()).await.unwrap_err().to_string();
    assert!(stranger.contains("was never asked for"), "{stranger}");
    sink.stop().await;
    system.finish().await.unwrap();
}
