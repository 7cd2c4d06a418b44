//! The notifier's metrics; labels are closed sets.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::attempt::Attempt;
use crate::lanes::Census;
use crate::store;

/// Tells Prometheus what each metric means.
pub fn describe() {
    describe_counter!(
        "wired_notifier_attempts_total",
        "HTTP requests to endpoints by outcome: delivered or an error class"
    );
    describe_histogram!(
        "wired_notifier_attempt_duration_seconds",
        "From the request to the end of the answer"
    );
    describe_histogram!(
        "wired_notifier_delivery_latency_seconds",
        "From the decision on a payment to the accepted webhook, first tries only"
    );
    describe_counter!("wired_notifier_events_total", "Events consumed from the topic");
    describe_counter!(
        "wired_notifier_duplicates_total",
        "Deliveries dropped because they were recorded or under way"
    );
    describe_counter!(
        "wired_notifier_undecodable_records_total",
        "Records of the event topic that are no events"
    );
    describe_counter!(
        "wired_notifier_spilled_total",
        "First tries put into the database to be made from there"
    );
    describe_counter!("wired_notifier_leased_total", "First tries stored as leased because they took long");
    describe_counter!("wired_notifier_dead_total", "Deliveries given up after the last attempt");
    describe_counter!("wired_notifier_disabled_endpoints_total", "Endpoints disabled by reason");
    describe_counter!("wired_notifier_pings_total", "Pings and rehearsals by verdict");
    describe_counter!("wired_notifier_replayed_total", "Deliveries that replays made due again");
    describe_gauge!("wired_notifier_open_replays", "Replays whose next step was due at the last look");
    describe_counter!("wired_notifier_expired_deliveries_total", "Deliveries deleted after their time");
    describe_counter!("wired_notifier_flushes_total", "Transactions that recorded results");
    describe_counter!("wired_notifier_flush_errors_total", "Failed attempts to record results");
    describe_histogram!("wired_notifier_flush_rows", "Results recorded in one transaction");
    describe_counter!("wired_notifier_statements_total", "SQL statements sent");
    describe_gauge!("wired_notifier_in_flight_requests", "Requests under way by kind of endpoint");
    describe_gauge!(
        "wired_notifier_waiting_deliveries",
        "Deliveries waiting in memory for a free slot of their endpoint"
    );
    describe_gauge!("wired_notifier_circuits_open", "Endpoints whose circuit is not closed");
    describe_gauge!("wired_notifier_due_endpoints", "Endpoints with deliveries in MySQL that are due");
    describe_gauge!(
        "wired_notifier_overdue_seconds",
        "How long the oldest due delivery in MySQL has been due"
    );
    describe_gauge!("wired_notifier_unfinished_events", "Events behind the watermark that are not done");
    describe_gauge!(
        "wired_notifier_consumer_lag_records",
        "Records of the event topic behind the committed watermark"
    );
}

/// An attempt ended.
pub(crate) fn attempted(attempt: &Attempt) {
    let outcome = attempt.failure.as_ref().map_or("delivered", |failure| failure.class.as_str());
    counter!("wired_notifier_attempts_total", "outcome" => outcome).increment(1);
    histogram!("wired_notifier_attempt_duration_seconds").record(attempt.duration.as_secs_f64());
}

/// Adds to a counter without labels.
pub(crate) fn add(name: &'static str, amount: usize) {
    counter!(name).increment(amount as u64);
}

/// Sets a gauge without labels.
pub(crate) fn set(name: &'static str, value: f64) {
    gauge!(name).set(value);
}

/// Records into a histogram without labels.
pub(crate) fn record(name: &'static str, value: f64) {
    histogram!(name).record(value);
}

/// An endpoint was disabled.
pub(crate) fn disabled(reason: &'static str) {
    counter!("wired_notifier_disabled_endpoints_total", "reason" => reason).increment(1);
}

/// A ping was answered.
pub(crate) fn pinged(verdict: &'static str) {
    counter!("wired_notifier_pings_total", "verdict" => verdict).increment(1);
}

/// The state of the lanes.
pub(crate) fn census(census: Census) {
    let proven = census.in_flight.saturating_sub(census.suspect + census.unproven);
    for (kind, value) in [("proven", proven), ("suspect", census.suspect), ("unproven", census.unproven)] {
        gauge!("wired_notifier_in_flight_requests", "endpoints" => kind).set(value as f64);
    }
    set("wired_notifier_waiting_deliveries", census.waiting as f64);
    set("wired_notifier_circuits_open", census.circuits_open as f64);
    counter!("wired_notifier_statements_total").absolute(store::statements());
}
