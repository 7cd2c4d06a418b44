//! What an endpoint's owner sets holds from the next webhook on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use domain::webhook::{Secret, VerifyingKeys};
use testkit::{fixtures, wait_until};

use crate::harness::{BOUND, Reply, Sink, World, now};

#[tokio::test(flavor = "multi_thread")]
async fn not_one_delivery_fails_verification_while_secrets_are_rotated() {
    let world = World::new("rotation").await;
    let partner = world.partner().await;
    let known = Arc::new(Mutex::new(String::new()));
    let secret = Arc::clone(&known);
    // It knows one secret, and every now and then it fails, so that retries are among what it verifies.
    let sink = Sink::new(move |webhook, before| {
        let secret = Secret::parse(&secret.lock().unwrap()).unwrap();
        let verified =
            VerifyingKeys::new(secret).verify_headers(&webhook.headers, &webhook.body, now().seconds());
        let status = match verified {
            Err(_) => StatusCode::UNAUTHORIZED,
            Ok(_) if before % 40 == 39 => StatusCode::SERVICE_UNAVAILABLE,
            Ok(_) => StatusCode::OK,
        };
        Reply::Now(status.into_response())
    })
    .await;
    let (endpoint, first) = world.endpoint(partner, &sink.url).await;
    known.lock().unwrap().clone_from(&first);
    let notifier = world.notifier();
    sink.wait_for(&world.events(partner, 1).await).await;
    // The receiver changes at another moment of the overlap each time, often at once.
    for moment in [0, 0, 3, 0, 5, 1] {
        // As ingest rotates: the old one lives on for an hour, the new one is current.
        sqlx::query("UPDATE endpoint_secrets SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR WHERE endpoint_id = ? AND expires_at IS NULL")
            .bind(endpoint.uuid().as_bytes().as_slice())
            .execute(world.env.pool())
            .await
            .unwrap();
        let next = fixtures::insert_endpoint_secret(world.env.pool(), &world.kek.keys, endpoint, None).await;
        world.change(endpoint, "description = NULL").await;
        for part in 0..6 {
            if part == moment {
                known.lock().unwrap().clone_from(&next);
            }
            let events = world.events(partner, 20).await;
            sink.wait_for(&events).await;
        }
    }
    wait_until("all to be delivered", BOUND, async || {
        world.hurry(endpoint).await;
        world.deliveries(endpoint, 2).await == 721
    })
    .await;
    let refused = "SELECT COUNT(*) FROM attempts WHERE endpoint_id = ? AND status_code = 401";
    assert_eq!(world.count(refused, endpoint).await, 0);
    let others = "SELECT COUNT(*) FROM attempts WHERE endpoint_id = ? AND status_code = 503";
    assert!(world.count(others, endpoint).await > 0, "retries were among them");
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_url_filter_or_version_holds_for_the_next_event() {
    let world = World::new("change").await;
    let partner = world.partner().await;
    let (before, after) = (Sink::ok().await, Sink::ok().await);
    let (endpoint, _) = world.endpoint(partner, &before.url).await;
    let notifier = world.notifier();
    before.wait_for(&world.events(partner, 1).await).await;
    for round in 0..10 {
        let (old, new) = if round % 2 == 0 { (&before, &after) } else { (&after, &before) };
        world.change(endpoint, &format!("url = '{}', api_version = '2026-11-{round:02}'", new.url)).await;
        let count = old.count();
        let events = world.events(partner, 1).await;
        new.wait_for(&events).await;
        assert_eq!(old.count(), count, "round {round}");
        let webhook = new.received().pop().unwrap();
        assert_eq!(webhook.json()["api_version"], format!("2026-11-{round:02}"));
    }
    world.change(endpoint, "event_types = 'mandate.active'").await;
    let count = before.count() + after.count();
    world.events(partner, 3).await;
    world.change(endpoint, "event_types = NULL").await;
    let events = world.events(partner, 1).await;
    wait_until("the last", BOUND, async || {
        events.iter().all(|event| before.ids().contains(&event.id.to_string()))
    })
    .await;
    assert!(before.count() + after.count() <= count + 4, "what was not wanted is not sent twice");
    // A retry goes to where the endpoint is by then.
    let closed = format!("http://127.0.0.1:{}/", world.env.free_port());
    world.change(endpoint, &format!("url = '{closed}'")).await;
    let events = world.events(partner, 1).await;
    wait_until("a failure", BOUND, async || {
        world.attempts(endpoint).await.iter().any(|class| class == "connect")
    })
    .await;
    world.change(endpoint, &format!("url = '{}'", after.url)).await;
    wait_until("the retry", BOUND, async || {
        world.hurry(endpoint).await;
        after.ids().contains(&events[0].id.to_string())
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_owner_are_sent_and_none_of_ours_is_overridden() {
    let world = World::new("headers").await;
    let partner = world.partner().await;
    let (sink, evil) = (Sink::ok().await, Sink::ok().await);
    let (endpoint, secret) = world.endpoint(partner, &sink.url).await;
    world.set_headers(endpoint, r#"{"authorization": "Bearer abc", "x-shop": "Café no, cafe"}"#).await;
    let notifier = world.notifier();
    let (smuggling, _) = world.endpoint(partner, &evil.url).await;
    // As if written past the API: what is not on the safe list is never sent, and the endpoint waits.
    world.set_headers(smuggling, r#"{"webhook-id": "evt_1", "x-a": "b\r\nx-c: d"}"#).await;
    // The first one holds a letter that is not allowed, so it waits as well, until it is repaired.
    world.set_headers(endpoint, r#"{"authorization": "Bearer abc", "x-shop": "cafe"}"#).await;
    let events = world.events(partner, 2).await;
    sink.wait_for(&events).await;
    for webhook in sink.received() {
        assert!(webhook.verifies_with(&secret));
        assert_eq!(webhook.headers["authorization"], "Bearer abc");
        assert_eq!(webhook.headers["x-shop"], "cafe");
    }
    wait_until("the others to wait", BOUND, async || world.deliveries(smuggling, 1).await == 2).await;
    assert_eq!(evil.count(), 0);
    world.set_headers(smuggling, "{}").await;
    evil.wait_for(&events).await;
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_rate_is_kept_in_order_and_nothing_is_lost() {
    let world = World::new("rate").await;
    let (partner, other) = (world.partner().await, world.partner().await);
    let (sink, free) = (Sink::ok().await, Sink::ok().await);
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    world.endpoint(other, &free.url).await;
    world.change(endpoint, "deliveries_per_second = 20").await;
    let notifier = world.notifier();
    free.wait_for(&world.events(other, 1).await).await;
    let begun = std::time::Instant::now();
    let events = world.events(partner, 80).await;
    // Nobody else waits for it.
    let quick = world.events(other, 50).await;
    free.wait_for(&quick).await;
    let others_took = begun.elapsed();
    sink.wait_for(&events).await;
    let took = begun.elapsed();
    println!("80 deliveries at 20/s in {took:?}; 50 others in {others_took:?}");
    assert!(took > Duration::from_millis(3_500) && took < Duration::from_secs(20), "{took:?}");
    assert!(others_took < Duration::from_secs(3), "{others_took:?}");
    let received = sink.received();
    for (index, webhook) in received.iter().enumerate() {
        let within = received[index..].iter().filter(|later| later.at < webhook.at + Duration::from_secs(1));
        assert!(within.count() <= 20 + 20 / 10 + 3, "more than the rate within a second");
    }
    let order: Vec<u64> =
        received.iter().map(|webhook| webhook.json()["sequence"].as_u64().unwrap()).collect();
    let late = order.windows(2).filter(|pair| pair[0] > pair[1] + 8).count();
    assert_eq!(late, 0, "{order:?}");
    world.delivered(endpoint, 80).await;
    assert_eq!(sink.count(), 80);
    // Its owner lifts the rate: what is due goes at once.
    let more = world.events(partner, 200).await;
    world.change(endpoint, "deliveries_per_second = NULL").await;
    let begun = std::time::Instant::now();
    wait_until("all to arrive", BOUND, async || {
        world.hurry(endpoint).await;
        sink.ids().len() == 280
    })
    .await;
    assert_eq!(more.len(), 200);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    notifier.stop().await;
    world.env.close().await;
}
