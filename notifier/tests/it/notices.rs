//! Pings, rehearsals and the news that an endpoint was disabled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use domain::notice::{Flaw, Verdict};
use domain::webhook::{Secret, VerifyingKeys};
use testkit::{fixtures, wait_until};

use crate::harness::{BOUND, Reply, Sink, World, now};

fn answer(status: StatusCode) -> Reply {
    Reply::Now(status.into_response())
}

/// A receiver that verifies, as one should.
async fn good(secret: Arc<std::sync::Mutex<String>>) -> Sink {
    Sink::new(move |webhook, _| {
        let secret = Secret::parse(&secret.lock().unwrap()).unwrap();
        let verified =
            VerifyingKeys::new(secret).verify_headers(&webhook.headers, &webhook.body, now().seconds());
        answer(if verified.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rehearsals_tell_good_receivers_from_bad_ones() {
    let world = World::new("rehearse").await;
    let partner = world.partner().await;
    let secret = Arc::new(std::sync::Mutex::new(String::new()));
    let careful = good(Arc::clone(&secret)).await;
    let (endpoint, text) = world.endpoint(partner, &careful.url).await;
    secret.lock().unwrap().clone_from(&text);
    let careless = Sink::ok().await;
    let (trusting, _) = world.endpoint(partner, &careless.url).await;
    let broken = Sink::new(|_, _| answer(StatusCode::INTERNAL_SERVER_ERROR)).await;
    let (failing, _) = world.endpoint(partner, &broken.url).await;
    let (nowhere, _) = world.endpoint(partner, &format!("http://127.0.0.1:{}/", world.env.free_port())).await;
    let notifier = world.notifier();
    use Verdict::{Failed, NoAnswer, Passed};
    let flaws = [None, Some(Flaw::WrongSignature), Some(Flaw::OldTimestamp), Some(Flaw::Doubled)];
    for (endpoint, verdicts) in [
        (endpoint, [Passed, Passed, Passed, Passed]),
        (trusting, [Passed, Failed, Failed, Passed]),
        (failing, [NoAnswer; 4]),
        (nowhere, [NoAnswer; 4]),
    ] {
        for (flaw, verdict) in flaws.into_iter().zip(verdicts) {
            let ping = world.ping(partner, endpoint, flaw, None).await;
            let pinged = world.pinged(ping).await;
            let attempts = if flaw == Some(Flaw::Doubled) { 2 } else { 1 };
            let status = if verdict == Passed { 2 } else { 3 };
            assert_eq!((pinged.verdict, pinged.delivery), (verdict, (status, attempts)), "{flaw:?}");
        }
        let rows = world.attempts(endpoint).await.len();
        assert_eq!(rows, 5, "each attempt is recorded");
    }
    // All but the doubled one have an id of their own, and a body that says what it is.
    assert_eq!((careful.count(), careful.ids().len()), (5, 4));
    for webhook in careful.received() {
        let body = webhook.json();
        assert_eq!(body["type"], "ping");
        assert_eq!(body["data"]["endpoint"]["id"], endpoint.to_string());
        assert!(body.get("sequence").is_none());
        testkit::schema::check(&webhook.body).expect("it is as its schema says");
    }
    // Neither counts for the endpoint: nothing was failing, nothing is retried.
    let states = "SELECT COUNT(*) FROM endpoint_states WHERE endpoint_id = ?";
    assert_eq!(world.count(states, failing).await, 0);
    assert_eq!((broken.count(), world.deliveries(failing, 1).await), (5, 0));
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_signed_with_one_secret_tells_who_knows_it() {
    let world = World::new("one-secret").await;
    let partner = world.partner().await;
    let known = Arc::new(std::sync::Mutex::new(String::new()));
    let sink = good(Arc::clone(&known)).await;
    let (endpoint, current) = world.endpoint(partner, &sink.url).await;
    let previous =
        fixtures::insert_endpoint_secret(world.env.pool(), &world.kek.keys, endpoint, Some(3_600)).await;
    world.change(endpoint, "description = 'rotated'").await;
    let ids = world.secret_ids(endpoint).await;
    let notifier = world.notifier();
    for (text, verdicts) in
        [(&previous, [Verdict::Failed, Verdict::Passed]), (&current, [Verdict::Passed, Verdict::Failed])]
    {
        known.lock().unwrap().clone_from(text);
        for (id, verdict) in ids.iter().zip(verdicts) {
            let ping = world.ping(partner, endpoint, None, Some(*id)).await;
            assert_eq!(world.pinged(ping).await.verdict, verdict);
        }
        let all = world.ping(partner, endpoint, None, None).await;
        assert_eq!(world.pinged(all).await.verdict, Verdict::Passed, "all live secrets sign");
    }
    let unknown = world.ping(partner, endpoint, None, Some(uuid::Uuid::new_v4())).await;
    assert_eq!(world.pinged(unknown).await.verdict, Verdict::NoAnswer);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_a_clock_that_is_off_and_reaches_a_disabled_endpoint() {
    let world = World::new("clock").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, _| {
        let later = std::time::SystemTime::now() + Duration::from_secs(7_200);
        Reply::Now((StatusCode::BAD_REQUEST, [("date", httpdate::fmt_http_date(later))]).into_response())
    })
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    world.set_disabled(endpoint, true).await;
    let notifier = world.notifier();
    let ping = world.ping(partner, endpoint, None, None).await;
    let pinged = world.pinged(ping).await;
    assert_eq!(pinged.verdict, Verdict::Failed);
    assert!(pinged.clock_skew_s.is_some_and(|skew| (7_190..=7_200).contains(&skew)), "{pinged:?}");
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_notifiers_one_sends_a_ping_and_a_killed_ones_is_sent_again() {
    let world = World::new("pings").await;
    let partner = world.partner().await;
    let hangs = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&hangs);
    let sink = Sink::new(
        move |_, _| {
            if state.load(Ordering::Relaxed) { Reply::Never } else { answer(StatusCode::OK) }
        },
    )
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let (first, second) = (world.notifier(), world.notifier());
    let mut pings = Vec::new();
    for _ in 0..20 {
        pings.push(world.ping(partner, endpoint, None, None).await);
    }
    for ping in pings {
        assert_eq!(world.pinged(ping).await.verdict, Verdict::Passed);
    }
    assert_eq!(sink.count(), 20, "each ping was one notifier's");
    second.stop().await;
    hangs.store(true, Ordering::Relaxed);
    let ping = world.ping(partner, endpoint, None, None).await;
    wait_until("the ping to arrive", BOUND, async || sink.count() == 21).await;
    first.kill();
    hangs.store(false, Ordering::Relaxed);
    // Its lease ends by itself; here it is hurried.
    sqlx::query("UPDATE notices SET next_attempt_at = UTC_TIMESTAMP(6) WHERE next_attempt_at IS NOT NULL")
        .execute(world.env.pool())
        .await
        .unwrap();
    let third = world.notifier();
    assert_eq!(world.pinged(ping).await.verdict, Verdict::Passed);
    third.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_to_a_hanging_receiver_do_not_keep_others_waiting() {
    let world = World::new("ping-hangs").await;
    let (slow, quick) = (world.partner().await, world.partner().await);
    let hanging = Sink::new(|_, _| Reply::Never).await;
    let sink = Sink::ok().await;
    let (bad, _) = world.endpoint(slow, &hanging.url).await;
    let (good, _) = world.endpoint(quick, &sink.url).await;
    let notifier = world.notifier();
    for _ in 0..40 {
        world.ping(slow, bad, None, None).await;
    }
    wait_until("pings to hang", BOUND, async || hanging.count() >= 2).await;
    let ping = world.ping(quick, good, None, None).await;
    assert_eq!(world.pinged(ping).await.verdict, Verdict::Passed);
    assert_eq!(hanging.count(), 2, "one partner's at a time");
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_endpoints_are_told_of_one_that_is_disabled() {
    let world = World::new("told").await;
    let (partner, stranger) = (world.partner().await, world.partner().await);
    let gone = Sink::new(|_, _| answer(StatusCode::GONE)).await;
    // The first try of the news fails: it is retried as an event is.
    let news = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&news);
    let other = Sink::new(move |webhook, _| {
        let is_news = webhook.json()["type"] == "endpoint.disabled";
        let fails = is_news && told.fetch_add(1, Ordering::Relaxed) == 0;
        answer(if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    })
    .await;
    let (filtered, subscribed, foreign) = (Sink::ok().await, Sink::ok().await, Sink::ok().await);
    let (endpoint, _) = world.endpoint(partner, &gone.url).await;
    let (listening, secret) = world.endpoint(partner, &other.url).await;
    let kek = &world.kek.keys;
    fixtures::insert_endpoint(world.env.pool(), kek, partner, &filtered.url, Some("payment.posted")).await;
    fixtures::insert_endpoint(world.env.pool(), kek, partner, &subscribed.url, Some("endpoint.disabled"))
        .await;
    world.endpoint(stranger, &foreign.url).await;
    let notifier = world.notifier();
    let events = world.events(partner, 1).await;
    let is_news = |sink: &Sink| {
        sink.received()
            .into_iter()
            .filter(|webhook| webhook.json()["type"] == "endpoint.disabled")
            .collect::<Vec<_>>()
    };
    wait_until("the news", BOUND, async || {
        world.hurry(listening).await;
        is_news(&other).len() >= 2 && is_news(&subscribed).len() == 1
    })
    .await;
    let webhook = &is_news(&other)[1];
    assert!(webhook.verifies_with(&secret));
    testkit::schema::check(&webhook.body).expect("it is as its schema says");
    let told = &webhook.json()["data"]["endpoint"];
    assert_eq!(
        (told["id"].as_str(), told["disabled_reason"].as_str()),
        (Some(&*endpoint.to_string()), Some("gone"))
    );
    assert_eq!(told["missed_after"], 0);
    filtered.wait_for(&events).await;
    assert_eq!((is_news(&filtered).len(), foreign.count(), gone.count()), (0, 0, 1));
    // One notice at the endpoint itself, without a delivery, for whoever sends e-mail.
    let own = "SELECT COUNT(*) FROM notices n LEFT JOIN deliveries d ON d.endpoint_id = n.endpoint_id AND d.event_id = n.id
        WHERE n.endpoint_id = ? AND n.type = 2 AND d.event_id IS NULL";
    assert_eq!(world.count(own, endpoint).await, 1);
    // Enabled by its owner, it fails again: its five days begin anew, and 410 disables it again.
    world.set_disabled(endpoint, false).await;
    world.events(partner, 1).await;
    wait_until("it to be disabled again", BOUND, async || {
        world
            .count(
                "SELECT COUNT(*) FROM endpoint_states WHERE endpoint_id = ? AND disabled_at IS NOT NULL",
                endpoint,
            )
            .await
            == 1
            && gone.count() >= 2
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}
