//! What happens when a receiver does not accept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use domain::ids::EndpointId;
use testkit::wait_until;

use crate::harness::{BOUND, Reply, Sink, World};

fn answer(status: StatusCode) -> Reply {
    Reply::Now(status.into_response())
}

/// Seconds from now until the endpoint's only pending delivery is due.
async fn due_in_seconds(world: &World, endpoint: EndpointId) -> i64 {
    let due = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), next_attempt_at) FROM deliveries
        WHERE endpoint_id = ? AND status = 1 AND attempts = 1 AND leased_by IS NULL";
    wait_until("a retry to be planned", BOUND, async || {
        sqlx::query_scalar(due)
            .bind(endpoint.uuid().as_bytes().as_slice())
            .fetch_optional(world.env.pool())
            .await
            .unwrap()
    })
    .await
}

async fn disabled_reason(world: &World, endpoint: EndpointId) -> Option<String> {
    let reason: Option<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT disabled_reason FROM endpoint_states WHERE endpoint_id = ?")
            .bind(endpoint.uuid().as_bytes().as_slice())
            .fetch_optional(world.env.pool())
            .await
            .unwrap();
    reason.flatten().map(|reason| String::from_utf8(reason).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_retried_after_five_seconds_under_the_same_id() {
    let world = World::new("retry").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, before| {
        answer(if before == 0 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK })
    })
    .await;
    let (endpoint, secret) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    let events = world.events(partner, 1).await;
    world.delivered(endpoint, 1).await;
    let received = sink.received();
    assert_eq!(received.len(), 2);
    assert!(
        received
            .iter()
            .all(|webhook| webhook.id == events[0].id.to_string() && webhook.verifies_with(&secret))
    );
    // Counted in the transactions that recorded them: one failed, one was received.
    let counted: Vec<(u8, u64)> =
        sqlx::query_as("SELECT outcome, CAST(SUM(attempts) AS UNSIGNED) FROM delivery_counts GROUP BY outcome ORDER BY outcome")
            .fetch_all(world.env.pool())
            .await
            .unwrap();
    assert_eq!(counted, [(1, 1), (2, 1)]);
    assert_eq!(received[0].body, received[1].body);
    assert_ne!(received[0].headers["webhook-timestamp"], received[1].headers["webhook-timestamp"]);
    let waited = received[1].at - received[0].at;
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(9), "{waited:?}");
    assert_eq!(world.attempts(endpoint).await, ["status", "ok"]);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_the_endpoint_and_nothing_more_is_created() {
    let world = World::new("gone").await;
    let partner = world.partner().await;
    let (sink, healthy) = (Sink::new(|_, _| answer(StatusCode::GONE)).await, Sink::ok().await);
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    world.endpoint(partner, &healthy.url).await;
    let notifier = world.notifier();
    healthy.wait_for(&world.events(partner, 1).await).await;
    wait_until("the endpoint to be disabled", BOUND, async || {
        disabled_reason(&world, endpoint).await.is_some_and(|reason| reason == "gone")
    })
    .await;
    // Within two seconds the copy in memory knows it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    healthy.wait_for(&world.events(partner, 5).await).await;
    let rows = world.deliveries(endpoint, 1).await + world.deliveries(endpoint, 2).await;
    assert_eq!((rows, sink.count()), (1, 1));
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_failing_for_five_days_is_disabled() {
    let world = World::new("failing").await;
    let partner = world.partner().await;
    let sink = Sink::new(|_, _| answer(StatusCode::BAD_GATEWAY)).await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    sqlx::query("INSERT INTO endpoint_states (endpoint_id, failing_since) VALUES (?, UTC_TIMESTAMP(6) - INTERVAL 6 DAY)")
        .bind(endpoint.uuid().as_bytes().as_slice())
        .execute(world.env.pool())
        .await
        .unwrap();
    let notifier = world.notifier();
    world.events(partner, 1).await;
    wait_until("the endpoint to be disabled", BOUND, async || {
        disabled_reason(&world, endpoint).await.is_some_and(|reason| reason == "failing")
    })
    .await;
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_and_absurd_ones_are_not() {
    let world = World::new("retry-after").await;
    let notifier = world.notifier();
    for (text, at_least, at_most) in
        [("3600", 3_590, 3_600), ("-5", 2, 6), ("99999999999999", 86_390, 86_400)]
    {
        let partner = world.partner().await;
        let sink = Sink::new(move |_, _| {
            Reply::Now((StatusCode::SERVICE_UNAVAILABLE, [("retry-after", text)]).into_response())
        })
        .await;
        let (endpoint, _) = world.endpoint(partner, &sink.url).await;
        world.events(partner, 1).await;
        let due = due_in_seconds(&world, endpoint).await;
        assert!((at_least..=at_most).contains(&due), "{text}: due in {due} s");
    }
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_failures_and_answers_are_read_to_a_bound() {
    let world = World::new("answers").await;
    let partner = world.partner().await;
    let elsewhere = Sink::ok().await;
    let target = elsewhere.url.clone();
    let redirect = Sink::new(move |_, _| {
        Reply::Now((StatusCode::FOUND, [("location", target.clone())]).into_response())
    })
    .await;
    let long_failure =
        Sink::new(|_, _| Reply::Now((StatusCode::BAD_REQUEST, "x".repeat(1_000_000)).into_response())).await;
    let long_success = Sink::new(|_, _| Reply::Now("y".repeat(1_000_000).into_response())).await;
    let (redirected, _) = world.endpoint(partner, &redirect.url).await;
    let (failed, _) = world.endpoint(partner, &long_failure.url).await;
    let (succeeded, _) = world.endpoint(partner, &long_success.url).await;
    let notifier = world.notifier();
    world.events(partner, 1).await;
    world.delivered(succeeded, 1).await;
    due_in_seconds(&world, redirected).await;
    due_in_seconds(&world, failed).await;
    assert_eq!(world.attempts(redirected).await, ["redirect"]);
    assert_eq!(world.attempts(failed).await, ["status"]);
    assert_eq!(elsewhere.count(), 0);
    let excerpt: i64 = sqlx::query_scalar("SELECT LENGTH(excerpt) FROM attempts WHERE endpoint_id = ?")
        .bind(failed.uuid().as_bytes().as_slice())
        .fetch_one(world.env.pool())
        .await
        .unwrap();
    assert_eq!(excerpt, 1_024);
    notifier.stop().await;
    world.env.close().await;
}

/// Its whole life: each wait is the schedule's, and is passed by moving what is due, not by waiting. The endpoint takes
/// other events meanwhile, so that it is not the circuit that decides.
#[tokio::test(flavor = "multi_thread")]
async fn after_ten_failures_a_delivery_is_dead_with_all_its_attempts() {
    const OTHERS: u64 = 9;
    let world = World::new("dead").await;
    let partner = world.partner().await;
    let refused = Arc::new(std::sync::OnceLock::new());
    let of_sink = Arc::clone(&refused);
    let sink = Sink::new(move |webhook, _| {
        let first = of_sink.get_or_init(|| webhook.id.clone());
        answer(if *first == webhook.id { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    })
    .await;
    let (endpoint, secret) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    let event = world.events(partner, 1).await.remove(0);
    let of_endpoint = endpoint.uuid();
    let id = of_endpoint.as_bytes().as_slice();
    for failed in 1..=OTHERS as u8 {
        // Planned, and by nobody under way.
        let due = "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), next_attempt_at) FROM deliveries
            WHERE endpoint_id = ? AND status = 1 AND attempts = ? AND leased_by IS NULL";
        let due: i64 = wait_until(&format!("attempt {} to be planned", failed + 1), BOUND, async || {
            sqlx::query_scalar(due).bind(id).bind(failed).fetch_optional(world.env.pool()).await.unwrap()
        })
        .await;
        let wait = notifier::schedule::WAITS[usize::from(failed)].as_secs_f64();
        let (soonest, latest) = (0.8 * wait - BOUND.as_secs_f64(), 1.2 * wait + 1.0);
        assert!((soonest..=latest).contains(&(due as f64)), "{due} s after {failed} failures");
        world.events(partner, 1).await;
        world.delivered(endpoint, failed.into()).await;
        sqlx::query(
            "UPDATE deliveries SET next_attempt_at = UTC_TIMESTAMP(6)
            WHERE endpoint_id = ? AND status = 1 AND leased_by IS NULL",
        )
        .bind(id)
        .execute(world.env.pool())
        .await
        .unwrap();
    }
    wait_until("the delivery to be given up", BOUND, async || world.deliveries(endpoint, 3).await == 1).await;
    let tries: Vec<_> =
        sink.received().into_iter().filter(|webhook| webhook.id == event.id.to_string()).collect();
    assert_eq!(tries.len(), 10);
    assert!(tries.iter().all(|it| it.body == tries[0].body && it.verifies_with(&secret)));
    let kept: Vec<(u8, Option<u16>, bool)> = sqlx::query_as(
        "SELECT attempt, status_code, error_class = 'status' FROM attempts WHERE endpoint_id = ? AND event_id = ?
        ORDER BY attempt",
    )
    .bind(id)
    .bind(event.id.uuid().as_bytes().as_slice())
    .fetch_all(world.env.pool())
    .await
    .unwrap();
    assert_eq!(kept, (1..=10).map(|attempt| (attempt, Some(503), true)).collect::<Vec<_>>());
    let ended = "SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ? AND status = 3 AND attempts = 10
        AND next_attempt_at IS NULL AND finished_at IS NOT NULL";
    let ended: i64 = sqlx::query_scalar(ended).bind(id).fetch_one(world.env.pool()).await.unwrap();
    assert_eq!(ended, 1);
    assert_eq!(disabled_reason(&world, endpoint).await, None, "the endpoint goes on");
    notifier.stop().await;
    // Nor does a new start try it again.
    let notifier = world.notifier();
    world.events(partner, 1).await;
    world.delivered(endpoint, OTHERS + 1).await;
    assert_eq!(sink.count(), 10 + OTHERS + 1);
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_holds_no_more_than_its_budget_and_the_rest_waits_in_mysql() {
    let world = World::new("budget").await;
    let partner = world.partner().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&most);
    let sink = Sink::new(move |_, _| {
        counted.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Reply::Never
    })
    .await;
    let (endpoint, _) = world.endpoint(partner, &sink.url).await;
    let notifier = world.notifier();
    world.events(partner, 300).await;
    // Long before the first attempt times out, everything stands in MySQL, so the watermark moves on.
    wait_until("all to be recorded", Duration::from_secs(10), async || {
        world.deliveries(endpoint, 1).await == 300
    })
    .await;
    assert!(most.load(Ordering::Relaxed) <= 8, "{most:?} requests at once to a stranger");
    notifier.stop().await;
    world.env.close().await;
}
