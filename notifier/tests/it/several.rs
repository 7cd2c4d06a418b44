//! Two notifiers share the work.

use crate::harness::{Sink, World};
use testkit::wait_until;

use crate::harness::BOUND;

#[tokio::test(flavor = "multi_thread")]
async fn two_notifiers_deliver_everything_while_one_comes_and_goes() {
    let world = World::new("several").await;
    let mut partners = Vec::new();
    for _ in 0..6 {
        let partner = world.partner().await;
        let sink = Sink::ok().await;
        let (endpoint, _) = world.endpoint(partner, &sink.url).await;
        partners.push((partner, sink, endpoint));
    }
    let first = world.notifier();
    let mut announced = Vec::new();
    announced.push(announce(&world, &partners, 100).await);
    let second = world.notifier();
    announced.push(announce(&world, &partners, 300).await);
    first.stop().await;
    announced.push(announce(&world, &partners, 100).await);
    for round in &announced {
        for ((_, sink, _), events) in partners.iter().zip(round) {
            sink.wait_for(events).await;
        }
    }
    for (_, sink, endpoint) in &partners {
        wait_until("all to be recorded", BOUND, async || {
            world.hurry(*endpoint).await;
            world.deliveries(*endpoint, 2).await == 500
        })
        .await;
        assert_eq!(sink.ids().len(), 500);
        // Handing over may repeat what was under way, and no more.
        assert!(sink.count() < 700, "{} webhooks for 500 events", sink.count());
    }
    second.stop().await;
    world.env.close().await;
}

async fn announce(
    world: &World,
    partners: &[(domain::ids::PartnerId, Sink, domain::ids::EndpointId)],
    count: u64,
) -> Vec<Vec<domain::event::EventRecord>> {
    let mut all = Vec::new();
    for (partner, _, _) in partners {
        all.push(world.events(*partner, count).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn due_deliveries_left_by_one_are_taken_by_the_other_once() {
    let world = World::new("claims").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let events = world.decide(partner, 1_000).await;
    // As a killed notifier leaves them: pending, with leases that have ended.
    for event in &events {
        sqlx::query(
            "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, leased_by, created_at)
            VALUES (?, ?, ?, 1, 0, UTC_TIMESTAMP(6), ?, UTC_TIMESTAMP(6))",
        )
        .bind(endpoint.uuid().as_bytes().as_slice())
        .bind(event.id.uuid().as_bytes().as_slice())
        .bind(partner.uuid().as_bytes().as_slice())
        .bind([5_u8; 16].as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    }
    let (first, second) = (world.notifier(), world.notifier());
    sink.wait_for(&events).await;
    world.delivered(endpoint, 1_000).await;
    assert_eq!(sink.count(), 1_000, "a lease is one notifier's");
    first.stop().await;
    second.stop().await;
    world.env.close().await;
}
