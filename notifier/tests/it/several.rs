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

#[tokio::test(flavor = "multi_thread")]
async fn a_success_at_one_ends_the_failing_that_another_saw() {
    let world = World::new("recovered").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    sink.wait_for(&world.events(partner, 1).await).await;
    // As another notifier writes it.
    sqlx::query("INSERT INTO endpoint_states (endpoint_id, failing_since) VALUES (?, UTC_TIMESTAMP(6) - INTERVAL 4 DAY)")
        .bind(endpoint.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    wait_until("the endpoint to have recovered", BOUND, async || {
        sink.wait_for(&world.events(partner, 1).await).await;
        let failing =
            "SELECT COUNT(*) FROM endpoint_states WHERE endpoint_id = ? AND failing_since IS NOT NULL";
        world.count(failing, endpoint).await == 0
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}

/// Rows that the notifier's MySQL user has had examined, as the server counts them.
async fn rows_examined(world: &World) -> i64 {
    let url = world.env.service_url("notifier");
    let user = url.split("//").nth(1).unwrap().split(':').next().unwrap().to_owned();
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(SUM_ROWS_EXAMINED), 0) AS SIGNED)
        FROM performance_schema.events_statements_summary_by_account_by_event_name WHERE USER = ?",
    )
    .bind(user)
    .fetch_one(world.env.pool())
    .await
    .expect("the performance schema is on")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_found_by_an_index_whatever_the_backlog() {
    const BACKLOG: u64 = 40_000;
    let world = World::new("backlog").await;
    let partner = world.partner().await;
    let sink = Sink::ok().await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    // Half of them wait for tomorrow, the others are long done.
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
        UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let sql = format!(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, created_at, finished_at)
        SELECT ?, UNHEX(LPAD(HEX(n + 1), 32, '0')), ?, IF(n % 2, 1, 2), 1, IF(n % 2, UTC_TIMESTAMP(6) + INTERVAL 1 DAY, NULL),
            UTC_TIMESTAMP(6) - INTERVAL n SECOND, IF(n % 2, NULL, UTC_TIMESTAMP(6))
        FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n
            FROM {digits} a, {digits} b, {digits} c, {digits} e, (SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) f) numbers"
    );
    let inserted = sqlx::query(&sql)
        .bind(endpoint.uuid().as_bytes().as_slice())
        .bind(partner.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    assert_eq!(inserted.rows_affected(), BACKLOG);
    let events = world.decide(partner, 30).await;
    let notifier = world.notifier();
    let before = rows_examined(&world).await;
    for event in &events {
        let replay = crate::asks::Ask::Event(event.id);
        world.replay(partner, endpoint, replay).await;
    }
    sink.wait_for(&events).await;
    world.delivered(endpoint, BACKLOG / 2 + 30).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let examined = rows_examined(&world).await - before;
    println!("{examined} rows examined for 30 due deliveries beside {BACKLOG} others");
    assert!(examined < 3_000, "{examined} rows examined");
    notifier.stop().await;
    world.env.close().await;
}
