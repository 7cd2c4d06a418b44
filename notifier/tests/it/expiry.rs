//! What is no longer kept.

use domain::ids::EndpointId;
use notifier::expire;
use testkit::wait_until;

use crate::harness::{BOUND, Sink, World, now};

async fn age(world: &World, endpoint: EndpointId, days: u32, up_to: u32) {
    for table in ["deliveries", "notices"] {
        let sql = format!(
            "UPDATE {table} SET created_at = created_at - INTERVAL {days} DAY WHERE endpoint_id = ? LIMIT {up_to}"
        );
        sqlx::query(&sql)
            .bind(endpoint.uuid().as_bytes().as_slice())
            .execute(world.env.pool())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_deliveries_and_those_of_deleted_endpoints_go_and_the_others_stay() {
    let world = World::new("expiry").await;
    let partner = world.partner().await;
    let (kept, old, removed) = (Sink::ok().await, Sink::ok().await, Sink::ok().await);
    let (keeps, _) = world.endpoint(partner, &kept.url).await;
    let (ages, _) = world.endpoint(partner, &old.url).await;
    let (goes, _) = world.endpoint(partner, &removed.url).await;
    let notifier = world.notifier();
    let events = world.events(partner, 1_200).await;
    for sink in [&kept, &old, &removed] {
        sink.wait_for(&events).await;
    }
    for endpoint in [keeps, ages, goes] {
        world.delivered(endpoint, 1_200).await;
    }
    let ping = world.ping(partner, goes, None, None).await;
    world.pinged(ping).await;
    let ping = world.ping(partner, ages, None, None).await;
    world.pinged(ping).await;
    age(&world, keeps, 29, 2_000).await;
    age(&world, ages, 31, 2_000).await;
    sqlx::query("DELETE FROM endpoints WHERE id = ?")
        .bind(goes.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    // As the notifier's own user, while another event is on its way.
    let pool = world.env.service_mysql("notifier").pool("expiry", 2).unwrap();
    let pass = tokio::spawn(async move { expire::pass(&pool, now()).await });
    let fresh = world.events(partner, 1).await;
    kept.wait_for(&fresh).await;
    wait_until("the pass to end", BOUND, async || pass.is_finished()).await;
    pass.await.unwrap().expect("it may delete");
    for (endpoint, deliveries, notices) in [(keeps, 1_201, 0), (ages, 1, 0), (goes, 0, 0)] {
        for (table, expected) in [("deliveries", deliveries), ("attempts", deliveries), ("notices", notices)]
        {
            wait_until("what is left", BOUND, async || {
                let sql = format!("SELECT COUNT(*) FROM {table} WHERE endpoint_id = ?");
                world.count(&sql, endpoint).await == expected
            })
            .await;
        }
    }
    notifier.stop().await;
    world.env.close().await;
}
