//! What is asked to be sent again: bounded, in order, once, and not at the cost of what is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use domain::ids::EndpointId;
use domain::notice::Verdict;
use domain::replay::ReplayStatus;
use notifier::resolver::SystemLookup;
use testkit::{fixtures, wait_until};

use crate::asks::{Ask, Replayed};
use crate::faults::{proxy, through};
use crate::harness::{BOUND, Notifier, Reply, Sink, World};

fn done(queued: u64, skipped: u64) -> Replayed {
    Replayed { status: ReplayStatus::Done, queued, skipped }
}

/// Sequences in the order of their arrival.
fn sequences(sink: &Sink) -> Vec<u64> {
    sink.received().iter().filter_map(|webhook| webhook.json()["sequence"].as_u64()).collect()
}

async fn lose(world: &World, endpoint: EndpointId, status: u8, attempts: u8) {
    sqlx::query("UPDATE deliveries SET status = ?, attempts = ?, next_attempt_at = NULL, finished_at = UTC_TIMESTAMP(6) WHERE endpoint_id = ?")
        .bind(status)
        .bind(attempts)
        .bind(endpoint.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_sent_again_in_order_by_one_of_two_notifiers_whatever_is_killed() {
    let world = World::new("range").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let events = world.decide(partner, 1_200).await;
    // Nothing was announced: what stands in the log alone is sent as well.
    let (first, second) = (world.notifier(), world.notifier());
    let replay = world.replay(partner, endpoint, Ask::Range(101, 1_000)).await;
    wait_until("some to arrive", BOUND, async || sink.count() >= 300).await;
    first.kill();
    assert_eq!(world.replayed(replay).await, done(900, 0));
    sink.wait_for(&events[100..1_000]).await;
    wait_until("all to be recorded", BOUND, async || {
        world.hurry(endpoint).await;
        world.deliveries(endpoint, 2).await == 900
    })
    .await;
    assert_eq!(sink.ids().len(), 900, "the range and nothing else");
    // In order, but for what overlaps in the window (and what the killed one had under way, which comes again).
    let order = sequences(&sink);
    let late = order.windows(2).filter(|pair| pair[1] + 600 < pair[0]).count();
    assert!(late <= 40, "{late} far out of order");
    // Once more: what was delivered is sent again.
    let before = sink.count();
    let again = world.replay(partner, endpoint, Ask::Range(1, 150)).await;
    assert_eq!(world.replayed(again).await, done(150, 0));
    wait_until("all to arrive again", BOUND, async || sink.count() >= before + 150).await;
    world.delivered(endpoint, 1_000).await;
    assert_eq!(sink.count(), before + 150);
    second.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_what_failed_and_what_is_missing() {
    let world = World::new("kinds").await;
    let partner = world.partner().await;
    let fails = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&fails);
    let sink = Sink::new(move |_, _| {
        let status = if state.load(Ordering::Relaxed) { StatusCode::IM_A_TEAPOT } else { StatusCode::OK };
        Reply::Now(status.into_response())
    })
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    let dead = world.events(partner, 4).await;
    wait_until("all to fail", BOUND, async || {
        world.count("SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ? AND attempts > 0 AND leased_by IS NULL", endpoint).await == 4
    })
    .await;
    lose(&world, endpoint, 3, 10).await;
    // Recorded, and waiting for a retry far away.
    let waiting = world.events(partner, 3).await;
    wait_until("all to be recorded", BOUND, async || world.deliveries(endpoint, 1).await == 3).await;
    sqlx::query("UPDATE deliveries SET attempts = 5, leased_by = NULL, next_attempt_at = UTC_TIMESTAMP(6) + INTERVAL 9 HOUR WHERE endpoint_id = ? AND status = 1")
        .bind(endpoint.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    // A single one, dead after its schedule: it begins anew, so that its next failure is followed by a retry.
    let one = world.replay(partner, endpoint, Ask::Event(dead[0].id)).await;
    assert_eq!(world.replayed(one).await, done(1, 0));
    wait_until("its eleventh attempt", BOUND, async || {
        world.count("SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ? AND status = 1 AND attempts = 11 AND attempts_before = 10 AND leased_by IS NULL AND next_attempt_at < UTC_TIMESTAMP(6) + INTERVAL 7 MINUTE", endpoint).await == 1
    })
    .await;
    fails.store(false, Ordering::Relaxed);
    // Everything that failed: three dead ones, three that waited, and the one that was sent again and failed.
    let failed = world.replay(partner, endpoint, Ask::FailedForAnHour).await;
    assert_eq!(world.replayed(failed).await, done(7, 0));
    wait_until("all to be delivered", BOUND, async || {
        let probing = world.deliveries(endpoint, 2).await == 7;
        if !probing {
            world.hurry(endpoint).await;
        }
        probing
    })
    .await;
    assert_eq!(sink.ids().len(), dead.len() + waiting.len());
    let none = world.replay(partner, endpoint, Ask::FailedForAnHour).await;
    assert_eq!(world.replayed(none).await, done(0, 0));
    // Disabled by its owner, it misses some; enabled, it gets those and no others.
    world.set_disabled(endpoint, true).await;
    let healthy = Sink::ok().await;
    world.endpoint(partner, &healthy.url).await;
    let missed = world.events(partner, 5).await;
    healthy.wait_for(&missed).await;
    world.set_disabled(endpoint, false).await;
    let before = sink.count();
    let missing = world.replay(partner, endpoint, Ask::Missing(1, 12)).await;
    assert_eq!(world.replayed(missing).await, done(5, 7));
    sink.wait_for(&missed).await;
    world.delivered(endpoint, 12).await;
    assert_eq!(sink.count(), before + 5);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wanted_not_stored_or_asked_for_too_often_is_skipped() {
    let world = World::new("skips").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let kek = &world.kek.keys;
    let (filtered, _) =
        fixtures::insert_endpoint(world.env.pool(), kek, partner, &sink.url, Some("mandate.active")).await;
    let events = world.decide(partner, 10).await;
    let notifier = world.notifier();
    let unwanted = world.replay(partner, filtered, Ask::Range(1, 10)).await;
    assert_eq!(world.replayed(unwanted).await, done(0, 10));
    // One that is asked for by its id is sent whatever the filter.
    let one = world.replay(partner, filtered, Ask::Event(events[3].id)).await;
    assert_eq!(world.replayed(one).await, done(1, 0));
    sink.wait_for(&events[3..4]).await;
    world.delivered(filtered, 1).await;
    // A loop of resends ends.
    lose(&world, filtered, 2, domain::replay::ATTEMPTS_MAX).await;
    let looped = world.replay(partner, filtered, Ask::Event(events[3].id)).await;
    assert_eq!(world.replayed(looped).await, done(0, 1));
    // A range that is gone, and one that is empty, end as well.
    for ask in [Ask::Range(1_000, 2_000), Ask::Range(5, 4), Ask::Missing(0, 0)] {
        let replay = world.replay(partner, filtered, ask).await;
        assert_eq!(world.replayed(replay).await, done(0, 0));
    }
    // Of a disabled endpoint nothing is made due, and it can be cancelled.
    world.set_disabled(filtered, true).await;
    let waits = world.replay(partner, filtered, Ask::Event(events[0].id)).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let cancelled =
        "UPDATE replays SET status = 3, finished_at = UTC_TIMESTAMP(6) WHERE id = ? AND status = 1";
    let changed =
        sqlx::query(cancelled).bind(waits.as_bytes().as_slice()).execute(world.env.pool()).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    assert_eq!(
        world.replayed(waits).await,
        Replayed { status: ReplayStatus::Cancelled, queued: 0, skipped: 0 }
    );
    assert_eq!(sink.count(), 1);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_leaves_room_for_what_is_new() {
    let world = World::new("replay-live").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, _| Reply::After(Duration::from_millis(20), StatusCode::OK)).await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    world.decide(partner, 3_000).await;
    let notifier = world.notifier();
    let replay = world.replay(partner, endpoint, Ask::Range(1, 3_000)).await;
    wait_until("the replay to be under way", BOUND, async || sink.count() > 300).await;
    let mut waits = Vec::new();
    for _ in 0..30 {
        let events = world.decide(partner, 1).await;
        let begun = std::time::Instant::now();
        world.announce(&events).await;
        sink.wait_for(&events).await;
        waits.push(begun.elapsed());
    }
    let open =
        world.count("SELECT COUNT(*) FROM replays WHERE endpoint_id = ? AND status = 1", endpoint).await;
    assert_eq!(open, 1, "it was still under way");
    waits.sort_unstable();
    println!("new events beside a replay: median {:?}, slowest {:?}", waits[15], waits[29]);
    assert!(waits[15] < Duration::from_millis(300), "{waits:?}");
    let due =
        world.count("SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ? AND status = 1", endpoint).await;
    assert!(due <= 1_000, "{due} wait at a time");
    let cancel = "UPDATE replays SET status = 3, finished_at = UTC_TIMESTAMP(6) WHERE id = ? AND status = 1";
    sqlx::query(cancel).bind(replay.as_bytes().as_slice()).execute(world.env.pool()).await.unwrap();
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_pings_outlive_a_database_that_is_away() {
    let world = World::new("asks-away").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, _| Reply::After(Duration::from_millis(5), StatusCode::OK)).await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let events = world.decide(partner, 1_000).await;
    let (port, up) = proxy(&world.env.service_url("notifier")).await;
    let mut config = world.config();
    config.mysql = through(&config.mysql, port);
    let notifier = Notifier::start(config, Arc::new(SystemLookup::default()));
    let replay = world.replay(partner, endpoint, Ask::Range(1, 1_000)).await;
    for some in [100, 400, 700] {
        wait_until("some to arrive", BOUND, async || sink.ids().len() >= some).await;
        up.store(false, Ordering::Relaxed);
        let ping = world.ping(partner, endpoint, None, None).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        up.store(true, Ordering::Relaxed);
        assert_eq!(world.pinged(ping).await.verdict, Verdict::Passed);
    }
    assert_eq!(world.replayed(replay).await, done(1_000, 0));
    sink.wait_for(&events).await;
    wait_until("all to be recorded", BOUND, async || {
        world.hurry(endpoint).await;
        world.deliveries(endpoint, 2).await == 1_003
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}
