//! The metrics of ingest, `wired_ingest_…`: base units, labels from closed sets, never an id.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Tells Prometheus what each metric means.
pub fn describe() {
    describe_counter!("wired_ingest_requests_total", "Answered requests by route and status class");
    describe_histogram!(
        "wired_ingest_request_duration_seconds",
        Unit::Seconds,
        "From the head of a request to its answer"
    );
    describe_histogram!(
        "wired_ingest_stage_duration_seconds",
        Unit::Seconds,
        "A stage of accepting a payment"
    );
    describe_counter!("wired_ingest_problems_total", "Problems answered, by code");
    describe_histogram!(
        "wired_ingest_produce_duration_seconds",
        Unit::Seconds,
        "From sending a command to Kafka's acknowledgement"
    );
    describe_counter!("wired_ingest_produced_total", "Commands sent to Kafka, by outcome");
    describe_counter!("wired_ingest_producers_replaced_total", "Producers made anew after a fatal error");
    describe_histogram!(
        "wired_ingest_lookup_batch_payments",
        Unit::Count,
        "Payments asked for in one statement"
    );
    describe_histogram!("wired_ingest_lookup_duration_seconds", Unit::Seconds, "One look-up statement");
    describe_counter!("wired_ingest_lookup_failures_total", "Look-ups and connections that failed");
    describe_counter!(
        "wired_ingest_lookups_skipped_total",
        "Payments accepted without asking whether their key was used"
    );
    describe_counter!(
        "wired_ingest_api_calls_lost_total",
        "Calls that will never stand in api_calls, since Kafka took no report of them"
    );
    describe_gauge!("wired_ingest_waiters", "Requests that wait for an outcome");
    describe_gauge!("wired_ingest_event_waiters", "Requests that wait for an event");
    describe_counter!("wired_ingest_replays_total", "Idempotent replays and conflicts");
    describe_gauge!("wired_ingest_keys", "API keys in memory");
    describe_gauge!("wired_ingest_keys_age_seconds", Unit::Seconds, "Age of the keys in memory");
    describe_counter!("wired_ingest_keys_load_failures_total", "Loads of API keys that failed");
    describe_counter!(
        "wired_ingest_key_uses_write_failures_total",
        "Writes of when keys were used that failed"
    );
    describe_gauge!("wired_ingest_backlog_records", "Partners' commands that are not applied yet");
    describe_counter!(
        "wired_ingest_payments_missing_total",
        "Applied positions without a payment: data was lost"
    );
}

/// The routes that have metrics of their own; a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(usize);

/// The last one stands for everything else.
const ROUTES: [&str; 37] = [
    "/v1/payments",
    "/v1/payments/{id}",
    "/v1/payments/batch",
    "/v1/payments/{id}/capture",
    "/v1/payments/{id}/void",
    "/v1/payments/{id}/refunds",
    "/v1/transfers",
    "/v1/accounts/{id}/balance",
    "/v1/accounts/{id}/entries",
    "/v1/mandates",
    "/v1/mandates/{id}",
    "/v1/mandates/{id}/cancel",
    "/v1/sandbox/mandates",
    "/v1/balances",
    "/v1/endpoints",
    "/v1/endpoints/{id}",
    "/v1/endpoints/{id}/enable",
    "/v1/endpoints/{id}/disable",
    "/v1/endpoints/{id}/secrets",
    "/v1/endpoints/{id}/secrets/{secret}",
    "/v1/endpoints/{id}/ping",
    "/v1/endpoints/{id}/rehearsals",
    "/v1/endpoints/{id}/pings/{ping}",
    "/v1/endpoints/{id}/replays",
    "/v1/endpoints/{id}/replays/{replay}",
    "/v1/endpoints/{id}/replays/{replay}/cancel",
    "/v1/endpoints/{id}/deliveries/{event}",
    "/v1/deliveries",
    "/v1/events",
    "/v1/events/{id}",
    "/v1/partner-applications",
    "/v1/schemas",
    "/v1/schemas/{type}",
    "/v1/sandbox/echo",
    "/v1/openapi.json",
    "/problems/{code}",
    "other",
];

impl Route {
    /// The route that the router matched.
    pub fn of(matched: Option<&str>) -> Self {
        let found = matched.and_then(|path| ROUTES.iter().position(|route| *route == path));
        Self(found.unwrap_or(ROUTES.len() - 1))
    }

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        ROUTES[self.0]
    }
}

const STATUS_CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Handles of what every request touches: finding a metric by its name costs more than counting. They are made at the
/// first use, after the recorder was installed.
struct Hot {
    requests: [[Counter; STATUS_CLASSES.len()]; ROUTES.len()],
    request_duration: [Histogram; ROUTES.len()],
    verify: Histogram,
    read: Histogram,
    look_up: Histogram,
    produce_duration: Histogram,
    acknowledged: Counter,
}

static HOT: LazyLock<Hot> = LazyLock::new(|| Hot {
    requests: ROUTES.map(|route| {
        STATUS_CLASSES
            .map(|class| counter!("wired_ingest_requests_total", "route" => route, "status" => class))
    }),
    request_duration: ROUTES
        .map(|route| histogram!("wired_ingest_request_duration_seconds", "route" => route)),
    verify: histogram!("wired_ingest_stage_duration_seconds", "stage" => "verify"),
    read: histogram!("wired_ingest_stage_duration_seconds", "stage" => "read"),
    look_up: histogram!("wired_ingest_stage_duration_seconds", "stage" => "look_up"),
    produce_duration: histogram!("wired_ingest_produce_duration_seconds"),
    acknowledged: counter!("wired_ingest_produced_total", "outcome" => "acknowledged"),
});

/// An answered request.
pub fn request(route: Route, status: http::StatusCode, took: Duration) {
    let class = usize::from(status.as_u16() / 100);
    HOT.requests[route.0][if class < STATUS_CLASSES.len() { class } else { 0 }].increment(1);
    HOT.request_duration[route.0].record(took.as_secs_f64());
}

/// A problem answered.
pub fn problem(code: &'static str) {
    counter!("wired_ingest_problems_total", "code" => code).increment(1);
}

/// The time that a signature took to verify.
pub fn verified(took: Duration) {
    HOT.verify.record(took.as_secs_f64());
}

/// The time that a body took to arrive.
pub fn body_read(took: Duration) {
    HOT.read.record(took.as_secs_f64());
}

/// The time that a payment waited to know whether its key was used.
pub fn looked_up(took: Duration) {
    HOT.look_up.record(took.as_secs_f64());
}

/// Kafka's acknowledgement.
pub fn produce_took(took: Duration) {
    HOT.produce_duration.record(took.as_secs_f64());
}

/// A command acknowledged by Kafka.
pub fn acknowledged() {
    HOT.acknowledged.increment(1);
}

/// A command that Kafka did not acknowledge: `refused` or `unknown`.
pub fn not_acknowledged(outcome: &'static str) {
    counter!("wired_ingest_produced_total", "outcome" => outcome).increment(1);
}

/// Counts calls whose report never arrives.
pub fn calls_lost() -> Counter {
    counter!("wired_ingest_api_calls_lost_total")
}

/// A producer made anew.
pub fn producer_replaced() {
    counter!("wired_ingest_producers_replaced_total").increment(1);
}

/// Payments of one look-up.
pub fn lookup_batch(payments: usize) {
    histogram!("wired_ingest_lookup_batch_payments").record(payments as f64);
}

/// One look-up.
pub fn lookup_took(took: Duration) {
    histogram!("wired_ingest_lookup_duration_seconds").record(took.as_secs_f64());
}

/// A look-up or connection that failed.
pub fn lookup_failed() {
    counter!("wired_ingest_lookup_failures_total").increment(1);
}

/// A payment accepted without asking whether its key was used.
pub fn lookup_skipped() {
    counter!("wired_ingest_lookups_skipped_total").increment(1);
}

/// Requests that wait.
pub fn waiters(count: usize) {
    gauge!("wired_ingest_waiters").set(count as f64);
}

/// Requests that wait for an event.
pub fn event_waiters(count: usize) {
    gauge!("wired_ingest_event_waiters").set(count as f64);
}

/// A used idempotency key: `replay` or `conflict`.
pub fn replay(kind: &'static str) {
    counter!("wired_ingest_replays_total", "kind" => kind).increment(1);
}

/// The keys in memory.
pub fn keys(count: usize, age: Duration) {
    gauge!("wired_ingest_keys").set(count as f64);
    gauge!("wired_ingest_keys_age_seconds").set(age.as_secs_f64());
}

/// When keys were used could not be written.
pub fn key_uses_not_written() {
    counter!("wired_ingest_key_uses_write_failures_total").increment(1);
}

/// A load of keys that failed.
pub fn keys_not_loaded() {
    counter!("wired_ingest_keys_load_failures_total").increment(1);
}

/// Commands not applied yet.
pub fn backlog(records: u64) {
    gauge!("wired_ingest_backlog_records").set(records as f64);
}

/// An applied position without its payment.
pub fn payment_missing() {
    counter!("wired_ingest_payments_missing_total").increment(1);
}
