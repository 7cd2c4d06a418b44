//! Whatever happens to the notifier, the receivers and the endpoints' settings: every event reaches every endpoint that
//! wants it, a receiver finds its gaps by itself, and the event log agrees with the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::ids::{MandateId, event_id};
use domain::time::Timestamp;
use loadtest::driver::{self, Load, Pace, Progress, now_us};
use loadtest::faults::{audit, chaos, driver_partners, sinks, store};
use loadtest::sink::{Behaviour, Sink};
use loadtest::system::{Options, Servers, Service, System};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use testkit::wait_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::api::{Endpoint, Logged, Merchant};

const NOTIFIERS: usize = 2;
/// Payments a second.
const RATE: f64 = 40.0;
/// Payments that are rejected, for the endpoint that wants those alone.
const REJECTED: u32 = 20;
/// A receiver is away for at most so long, and then there for at most so long.
const OUTAGE_MAX: Duration = Duration::from_secs(3);
const OVERLAP: Duration = Duration::from_secs(30);
/// Longer than all that is done.
const LOAD_MAX: Duration = Duration::from_secs(900);
/// A killed notifier's lease ends after 45 s.
const PATIENCE: Duration = Duration::from_secs(150);
const REPLAY_INTERVAL: Duration = Duration::from_secs(5);

/// An endpoint and what it should get.
struct Subscriber {
    endpoint: Endpoint,
    /// Where it received, over its whole life.
    paths: Vec<String>,
    /// Events after this sequence.
    after: u64,
    /// Of these types; `None` for all.
    types: Option<BTreeSet<&'static str>>,
}

struct Shop {
    system: System,
    sink: Sink,
    merchant: Merchant,
}

impl Shop {
    async fn subscribe(&self, path: &str, types: Option<&[&'static str]>) -> Subscriber {
        let endpoint = self.merchant.create(&self.sink.url(path), types).await;
        self.sink.endpoint(path, &endpoint.secret).unwrap();
        let types = types.map(|types| types.iter().copied().collect());
        Subscriber { endpoint, paths: vec![path.to_owned()], after: self.last().await, types }
    }

    async fn last(&self) -> u64 {
        store::last_sequence(self.system.pool(), self.system.partners()[0].id).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_reaches_every_endpoint_through_kills_outages_and_changes() {
    let _turn = crate::turn().await;
    let seed = crate::number("WIRED_SEED").unwrap_or_else(rand::random);
    let kills = crate::number("WIRED_KILLS").unwrap_or(6) as u32;
    println!("WIRED_SEED={seed} WIRED_KILLS={kills}");
    let options = Options { notifiers: NOTIFIERS, ..Options::new("complete") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let merchant = Merchant::new(&system, &system.partners()[0]);
    let shop = Arc::new(Shop { sink: sinks(&system).await.unwrap(), merchant, system });
    let since = Timestamp::from_micros(now_us());
    let steady = shop.subscribe("/steady", None).await;
    let filtered = shop.subscribe("/filtered", Some(&["payment.rejected"])).await;
    let flaky = shop.subscribe("/flaky", None).await;
    let rotated = shop.subscribe("/rotated", None).await;
    let mut moved = shop.subscribe("/moved/from", None).await;
    let gone = shop.subscribe("/gone", None).await;
    let deleted = shop.subscribe("/deleted", None).await;

    let stop = CancellationToken::new();
    let load = Load::new("complete", driver_partners(&shop.system), Pace::PerSecond(RATE), LOAD_MAX);
    let driving = tokio::spawn({
        let stop = stop.clone();
        async move { driver::run(&load, Arc::new(Progress::default()), stop).await }
    });
    let quiet = CancellationToken::new();
    let outages = tokio::spawn(outages(Arc::clone(&shop), quiet.clone(), seed));
    let changes = async {
        for number in 0..REJECTED {
            let nobody = MandateId::from_uuid(Uuid::from_u128(seed.into()));
            shop.merchant.pay(nobody, &format!("rejected-{number}")).await;
        }
        let secret = shop.merchant.rotate(&rotated.endpoint.id, OVERLAP).await;
        let path = "/moved/to".to_owned();
        shop.sink.endpoint(&path, &moved.endpoint.secret).unwrap();
        shop.merchant.change(&moved.endpoint.id, json!({ "url": shop.sink.url(&path) })).await;
        moved.paths.push(path);
        shop.sink.behave("/gone", Behaviour::Status(410));
        wait_until("410 to disable", PATIENCE, async || {
            shop.merchant.read(&gone.endpoint.id).await["disabled_reason"] == "gone"
        })
        .await;
        shop.sink.replace_secret("/rotated", &secret).unwrap();
        shop.merchant.delete(&deleted.endpoint.id).await;
        let late = shop.subscribe("/late", None).await;
        shop.sink.behave("/gone", Behaviour::Accept);
        let offer = shop.merchant.enable(&gone.endpoint.id).await["replay_offer"].clone();
        assert_eq!(offer["kind"], "missing", "{offer}");
        shop.merchant.replay(&gone.endpoint.id, offer).await;
        late
    };
    let killing = chaos::kill_service(&shop.system, Service::Notifier, NOTIFIERS, kills, seed);
    let (late, killed) = tokio::join!(changes, killing);
    killed.unwrap();
    quiet.cancel();
    outages.await.unwrap();
    stop.cancel();
    let report = driving.await.unwrap().unwrap();
    assert!(report.refused.is_empty() && report.unknown.is_empty(), "{report:?}");
    audit::applied(&shop.system, PATIENCE).await.unwrap();

    let log = shop.merchant.events(0).await;
    agrees_with_the_ledger(&shop, &log).await;
    finds_its_gaps(&shop, &flaky, &log).await;
    // What failed twice is due in five minutes: its owner has it sent at once.
    let subscribers = [steady, filtered, flaky, rotated, moved, gone, late];
    let healed = Instant::now();
    for subscriber in &subscribers {
        loop {
            let missing = missing(&shop, subscriber, &log);
            let open = shop.merchant.undelivered(&subscriber.endpoint.id).await;
            if missing.is_empty() && open.is_empty() {
                break;
            }
            assert!(
                healed.elapsed() < PATIENCE,
                "WIRED_SEED={seed} {:?}: not received {missing:?}; open {:?}",
                subscriber.paths,
                open.values().take(3).collect::<Vec<_>>()
            );
            let again = json!({ "kind": "failed", "since": since.to_string() });
            shop.merchant.replay(&subscriber.endpoint.id, again).await;
            let told = |_: &Sink| self::missing(&shop, subscriber, &log).is_empty();
            shop.sink.wait_until(REPLAY_INTERVAL, told).await;
        }
    }
    nothing_strange(&shop, &subscribers, &log);
    println!("{} events, recovered in {:?}", log.len(), healed.elapsed());
    let shop = Arc::into_inner(shop).expect("nobody else holds the shop");
    shop.sink.stop().await;
    shop.system.finish().await.unwrap();
}

/// The receiver at `/flaky` is away again and again, in every way, for random times.
async fn outages(shop: Arc<Shop>, quiet: CancellationToken, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !quiet.is_cancelled() {
        let away = match random.random_range(0..4) {
            0 => Behaviour::Status(503),
            1 => Behaviour::Reset,
            2 => Behaviour::Hang,
            _ => Behaviour::Slow(Duration::from_millis(random.random_range(1..1_500))),
        };
        for behaviour in [away, Behaviour::Accept] {
            shop.sink.behave("/flaky", behaviour);
            let time = OUTAGE_MAX.mul_f64(random.random());
            quiet.run_until_cancelled(tokio::time::sleep(time)).await;
        }
    }
    shop.sink.behave("/flaky", Behaviour::Accept);
}

/// The log that a merchant reads is the ledger's, without a gap, and each body is as its schema says.
async fn agrees_with_the_ledger(shop: &Shop, log: &[Logged]) {
    let partner = shop.system.partners()[0].id;
    let stored = store::events(shop.system.pool(), partner, 0).await.unwrap();
    let read: Vec<(u64, u16)> = log.iter().map(|entry| (entry.sequence(), entry.epoch())).collect();
    assert_eq!(read, stored);
    assert!(read.iter().map(|(sequence, _)| *sequence).eq(1..=read.len() as u64), "the log has a gap");
    for entry in log {
        assert_eq!(entry.id, event_id(partner, entry.epoch(), entry.sequence()).to_string());
        testkit::schema::check(entry.body.to_string().as_bytes()).unwrap();
    }
    let rejected = log.iter().filter(|entry| entry.body["type"] == "payment.rejected").count();
    assert_eq!(rejected, REJECTED as usize);
}

/// A receiver that has only what came, and the log behind what it has without a gap, has everything.
async fn finds_its_gaps(shop: &Shop, subscriber: &Subscriber, log: &[Logged]) {
    let received = shop.sink.received(&subscriber.paths[0]);
    let mut own: BTreeMap<u64, String> =
        received.iter().filter(|it| it.sequence > 0).map(|it| (it.sequence, it.event.to_string())).collect();
    let known = own.len();
    let mut after = subscriber.after;
    while own.contains_key(&(after + 1)) {
        after += 1;
    }
    let filled = shop.merchant.events(after).await;
    own.extend(filled.into_iter().map(|entry| (entry.sequence(), entry.id)));
    let ledger: BTreeMap<u64, String> =
        log.iter().map(|entry| (entry.sequence(), entry.id.clone())).collect();
    let behind =
        |all: BTreeMap<u64, String>| all.into_iter().filter(|(it, _)| *it > subscriber.after).collect();
    let (own, ledger): (BTreeMap<_, _>, BTreeMap<_, _>) = (behind(own), behind(ledger));
    assert_eq!(own, ledger);
    println!(
        "{}: {known} came, {} were fetched from the log",
        subscriber.paths[0],
        own.len() - known.min(own.len())
    );
}

/// Events that the subscriber should have and has not.
fn missing(shop: &Shop, subscriber: &Subscriber, log: &[Logged]) -> Vec<String> {
    let received: BTreeSet<String> = subscriber
        .paths
        .iter()
        .flat_map(|path| shop.sink.received(path))
        .map(|received| received.event.to_string())
        .collect();
    let wanted = |entry: &&Logged| {
        let of_type =
            |types: &BTreeSet<&str>| entry.body["type"].as_str().is_some_and(|it| types.contains(it));
        entry.sequence() > subscriber.after && subscriber.types.as_ref().is_none_or(of_type)
    };
    log.iter().filter(wanted).map(|entry| entry.id.clone()).filter(|id| !received.contains(id)).collect()
}

/// Nobody received what is not in the log, or of a type he does not want, or anything that does not verify.
fn nothing_strange(shop: &Shop, subscribers: &[Subscriber], log: &[Logged]) {
    let types: BTreeMap<&str, &str> =
        log.iter().map(|entry| (entry.id.as_str(), entry.body["type"].as_str().unwrap())).collect();
    for subscriber in subscribers {
        for path in &subscriber.paths {
            for received in shop.sink.received(path).iter().filter(|received| received.sequence > 0) {
                let event_type = types.get(received.event.to_string().as_str());
                let event_type =
                    event_type.unwrap_or_else(|| panic!("{path}: {received:?} is not in the log"));
                let wanted = subscriber.types.as_ref().is_none_or(|types| types.contains(event_type));
                assert!(wanted, "{path} got {event_type}");
            }
            assert_eq!(shop.sink.counts(path).invalid, 0, "{path}: {:?}", shop.sink.first_problem());
        }
    }
}
