//! What a receiver sees when all is well.

use std::collections::HashSet;
use std::time::Duration;

use domain::event::API_VERSION;
use domain::webhook::{PublicKey, Secret, VerifyingKeys};
use testkit::fixtures;
use testkit::wait_until;

use crate::harness::{BOUND, Sink, World, now};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_signed_once_to_each_endpoint_of_its_partner() {
    let world = World::new("deliver").await;
    let (partner, other) = (world.partner().await, world.partner().await);
    let (first, second, foreign, filtered) =
        (Sink::ok().await, Sink::ok().await, Sink::ok().await, Sink::ok().await);
    let (endpoint, secret) = world.endpoint(partner, &first.url).await;
    world.endpoint(partner, &second.url).await;
    world.endpoint(other, &foreign.url).await;
    let types = Some("mandate.active,mandate.revoked");
    fixtures::insert_endpoint(world.env.pool(), &world.kek.keys, partner, &filtered.url, types).await;
    let notifier = world.notifier();
    let events = world.events(partner, 20).await;
    first.wait_for(&events).await;
    second.wait_for(&events).await;
    let received = first.received();
    for webhook in &received {
        assert!(webhook.verifies_with(&secret));
        assert_eq!(webhook.headers["content-type"], "application/json");
        assert!(webhook.headers["user-agent"].to_str().unwrap().starts_with("WiredCity-Webhooks/"));
        let event = events.iter().find(|event| event.id.to_string() == webhook.id).expect("it was announced");
        assert_eq!(webhook.body, event.webhook_body(API_VERSION).as_bytes());
        assert_eq!(webhook.json()["sequence"], event.sequence);
    }
    assert!(!received[0].verifies_with(&Secret::text_of(&[7; 32])));
    world.delivered(endpoint, 20).await;
    // Announced again, as after a crash of the processor: nothing is sent again.
    world.announce(&events).await;
    let more = world.events(partner, 1).await;
    first.wait_for(&more).await;
    assert_eq!((first.count(), second.count(), foreign.count(), filtered.count()), (21, 21, 0, 0));
    world.delivered(endpoint, 21).await;
    assert_eq!(world.attempts(endpoint).await, vec!["ok"; 21]);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_verify_until_the_old_one_expires() {
    let world = World::new("rotate").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, current) = world.endpoint(partner, &sink.url).await;
    let previous =
        fixtures::insert_endpoint_secret(world.env.pool(), &world.kek.keys, endpoint, Some(3_600)).await;
    let expired =
        fixtures::insert_endpoint_secret(world.env.pool(), &world.kek.keys, endpoint, Some(-1)).await;
    let signing = [9_u8; 32];
    let row = endpoint.uuid();
    let place = domain::seal::Place { table: "endpoints", column: "signing_key_sealed", row: row.as_bytes() };
    let sealed = world.kek.keys.seal(&signing, &place, [3; 12]);
    sqlx::query("UPDATE endpoints SET signing_key_sealed = ? WHERE id = ?")
        .bind(sealed)
        .bind(endpoint.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    let notifier = world.notifier();
    let events = world.events(partner, 1).await;
    sink.wait_for(&events).await;
    let webhook = &sink.received()[0];
    assert!(webhook.verifies_with(&current) && webhook.verifies_with(&previous));
    assert!(!webhook.verifies_with(&expired));
    let tokens: Vec<_> = webhook.headers["webhook-signature"].to_str().unwrap().split(' ').collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0].starts_with("v1a,") && tokens[1].starts_with("v1,") && tokens[2].starts_with("v1,"));
    let public: PublicKey = domain::webhook::SigningKey::from_seed(&signing).public_key();
    let keys = VerifyingKeys { secrets: Vec::new(), public_keys: vec![public] };
    assert!(keys.verify_headers(&webhook.headers, &webhook.body, now().seconds()).is_ok());
    let last = VerifyingKeys::new(Secret::parse(&current).unwrap());
    let head = |token: &str| {
        last.verify(
            &webhook.id,
            webhook.headers["webhook-timestamp"].to_str().unwrap(),
            token,
            &webhook.body,
            now().seconds(),
        )
    };
    assert!(head(tokens[2]).is_ok(), "the current secret's token stands last");
    assert!(head(tokens[1]).is_err());
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_created_just_before_an_event_gets_it() {
    let world = World::new("new-endpoint").await;
    let partner = world.partner().await;
    let warm = Sink::ok().await;
    world.endpoint(partner, &warm.url).await;
    let notifier = world.notifier();
    warm.wait_for(&world.events(partner, 1).await).await;
    // Each one is created right before its event, at any phase of the refresh.
    for _ in 0..10 {
        let sink = Sink::ok().await;
        let (endpoint, _) = world.endpoint(partner, &sink.url).await;
        let events = world.events(partner, 1).await;
        sink.wait_for(&events).await;
        world.delivered(endpoint, 1).await;
    }
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deliveries_take_few_statements() {
    let world = World::new("figures").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    sink.wait_for(&world.events(partner, 1).await).await;
    let mut latencies = Vec::new();
    for _ in 0..20 {
        let events = world.decide(partner, 1).await;
        world.announce(&events).await;
        // Counted from the broker's acknowledgement.
        let announced = now().micros();
        sink.wait_for(&events).await;
        let last = sink.received().into_iter().find(|received| received.id == events[0].id.to_string());
        latencies.push(last.unwrap().at_wall.micros() - announced);
    }
    latencies.sort_unstable();
    println!("announced to received, median: {} us", latencies[latencies.len() / 2]);
    world.delivered(endpoint, 21).await;

    let events = world.decide(partner, 10_000).await;
    let before = statements(&world).await;
    let begun = std::time::Instant::now();
    world.announce(&events).await;
    sink.wait_for(&events).await;
    let took = begun.elapsed();
    world.delivered(endpoint, 10_021).await;
    let spent = statements(&world).await - before;
    let ratio = spent as f64 / 10_000.0;
    println!("10,000 deliveries in {took:?}, {spent} statements: {ratio:.3} each");
    // On an idle machine a third of a tenth; a busy one records smaller batches.
    assert!(ratio <= 0.3, "{ratio} statements per delivery");
    assert_eq!(sink.ids().len(), 10_021);

    let partner = world.partner().await;
    let mut sinks = Vec::new();
    for _ in 0..10 {
        let sink = Sink::ok().await;
        world.endpoint(partner, &sink.url).await;
        sinks.push(sink);
    }
    let warm = world.events(partner, 1).await;
    for sink in &sinks {
        sink.wait_for(&warm).await;
    }
    let events = world.decide(partner, 2_000).await;
    let begun = std::time::Instant::now();
    world.announce(&events).await;
    for sink in &sinks {
        sink.wait_for(&events).await;
    }
    println!("20,000 deliveries to ten endpoints in {:?}", begun.elapsed());
    for sink in &sinks {
        assert_eq!(sink.count(), 2_001, "each event once");
    }
    notifier.stop().await;
    world.env.close().await;
}

/// Statements of the notifier's MySQL user so far, as the server counts them.
async fn statements(world: &World) -> i64 {
    let url = world.env.service_url("notifier");
    let user = url.split("//").nth(1).unwrap().split(':').next().unwrap().to_owned();
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(COUNT_STAR), 0) AS SIGNED) FROM performance_schema.events_statements_summary_by_user_by_event_name WHERE USER = ?",
    )
    .bind(user)
    .fetch_one(world.env.pool())
    .await
    .expect("the performance schema is on")
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_what_is_up() {
    let world = World::new("ready").await;
    let notifier = world.notifier();
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    world.endpoint(partner, &sink.url).await;
    sink.wait_for(&world.events(partner, 1).await).await;
    wait_until("readiness", BOUND, async || {
        notifier.private("/health/ready").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    wait_until("metrics", BOUND, async || {
        let (_, text) = notifier.private("/metrics").await.unwrap_or_default();
        text.contains("wired_notifier_attempts_total{outcome=\"delivered\"}")
            && text.contains("wired_notifier_delivery_latency_seconds_bucket")
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_payment_arrive_in_order() {
    let world = World::new("order").await;
    let partner = world.partner().await;
    // Slow enough that a second one would overtake, if it were let go.
    let sink = Sink::new(|_, before| {
        let wait = Duration::from_millis(if before % 2 == 0 { 40 } else { 1 });
        crate::harness::Reply::After(wait, axum::http::StatusCode::OK)
    })
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    let warm = world.events(partner, 1).await;
    sink.wait_for(&warm).await;
    let payments: Vec<_> = (0..4).map(|_| domain::ids::PaymentId::from_uuid(uuid::Uuid::now_v7())).collect();
    let interleaved: Vec<_> = (0..5).flat_map(|_| payments.clone()).collect();
    let events = world.decide_of(partner, &interleaved).await;
    world.announce(&events).await;
    world.delivered(endpoint, 21).await;
    let mut seen = std::collections::HashMap::<String, u64>::new();
    for webhook in sink.received() {
        let body = webhook.json();
        let payment = body["data"]["payment"]["id"].as_str().unwrap().to_owned();
        let sequence = body["sequence"].as_u64().unwrap();
        let last = seen.insert(payment, sequence).unwrap_or_default();
        assert!(last < sequence, "{sequence} came after {last}");
    }
    assert_eq!(sink.received().iter().map(|webhook| webhook.id.clone()).collect::<HashSet<_>>().len(), 21);
    notifier.stop().await;
    world.env.close().await;
}
