//! Secrets are replaced while payments come in, and receivers change theirs at every moment of the overlap.

use std::sync::Arc;
use std::time::Duration;

use loadtest::driver::{self, Load, Pace, Progress};
use loadtest::faults::{audit, driver_partners, sinks, store};
use loadtest::system::{Options, Servers, Service, System};
use testkit::wait_until;
use tokio_util::sync::CancellationToken;

use super::api::Merchant;

/// Receivers; each changes a second later than the one before, the first one at once.
const RECEIVERS: u32 = 8;
const OVERLAP: Duration = Duration::from_secs(RECEIVERS as u64 + 1);
/// How long after the overlap a secret may still sign: what was signed within it is under way.
const SLACK: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delivery_fails_verification_whenever_a_receiver_changes_its_secret() {
    let _turn = crate::turn().await;
    let options = Options { notifiers: 2, ..Options::new("rotation") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let sink = sinks(&system).await.unwrap();
    let merchant = Merchant::new(&system, &system.partners()[0]);
    let mut receivers = Vec::new();
    for number in 0..=RECEIVERS {
        let path = format!("/rotated/{number}");
        let endpoint = merchant.create(&sink.url(&path), None).await;
        sink.endpoint(&path, &endpoint.secret).unwrap();
        receivers.push((path, endpoint));
    }
    let before = audit::sequences(&system).await.unwrap()[0];
    let stop = CancellationToken::new();
    let load = Load::new("rotation", driver_partners(&system), Pace::PerSecond(40.0), PATIENCE);
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { driver::run(&load, Arc::new(Progress::default()), stop).await }
    });
    // The last one never changes.
    let (never, change) = receivers.split_last().unwrap();
    wait_until("deliveries to all", PATIENCE, async || {
        receivers.iter().all(|(path, _)| sink.counts(path).events > 20)
    })
    .await;
    let rounds = crate::number("WIRED_ROTATIONS").unwrap_or(2);
    for round in 0..rounds {
        let begun = tokio::time::Instant::now();
        let mut secrets = Vec::new();
        for (path, endpoint) in change {
            let secret = merchant.rotate(&endpoint.id, OVERLAP).await;
            secrets.push((path, secret, tokio::time::Instant::now()));
        }
        if round + 1 == rounds {
            merchant.rotate(&never.1.id, OVERLAP).await;
        }
        // A killed notifier starts with the secrets that live then.
        system.kill(Service::Notifier, 0).await.unwrap();
        system.spawn(Service::Notifier, 0).unwrap();
        for (number, (path, secret, rotated)) in (0..).zip(secrets) {
            tokio::time::sleep_until(rotated + Duration::from_secs(number)).await;
            sink.replace_secret(path, &secret).unwrap();
        }
        tokio::time::sleep_until(begun + OVERLAP + SLACK).await;
    }
    // Whoever never changes is refused by his own receiver once the overlap is over: the old secret signs no more.
    wait_until("the end of the old secret", PATIENCE, async || sink.counts(&never.0).invalid > 0).await;
    stop.cancel();
    let report = driving.await.unwrap().unwrap();
    audit::applied(&system, PATIENCE).await.unwrap();
    let told = store::last_sequence(system.pool(), system.partners()[0].id).await.unwrap() - before;
    assert!(told >= report.accepted.len() as u64 && told > 0, "{told} events of {report:?}");
    wait_until("every event at every receiver", PATIENCE, async || {
        change.iter().all(|(path, _)| {
            let received = sink.received(path);
            let new = received.iter().filter(|it| it.sequence > before && !it.repeated).count();
            new as u64 == told
        })
    })
    .await;
    for (path, _) in change {
        assert_eq!(sink.counts(path).invalid, 0, "{path}: {:?}", sink.first_problem());
        assert_eq!(sink.gaps(path).iter().filter(|(_, sequence)| *sequence > before).count(), 0);
    }
    println!("{told} events to each of {RECEIVERS} receivers over {rounds} rotations");
    sink.stop().await;
    system.finish().await.unwrap();
}
