//! The figures of calls on their way to the table.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};

const LOST: &str = "wired_admin_api_api_calls_lost_total";
const LOADED: &str = "wired_admin_api_api_calls_loaded_total";
const UNREADABLE: &str = "wired_admin_api_api_calls_unreadable_total";
const EXPIRED: &str = "wired_admin_api_api_calls_expired_total";
const FAILURES: &str = "wired_admin_api_api_calls_load_failures_total";
const BEHIND: &str = "wired_admin_api_api_calls_behind_records";

/// Tells Prometheus what the figures mean.
pub(super) fn describe() {
    describe_counter!(
        LOST,
        "Calls of this API that will never stand in api_calls, since Kafka took no report of them"
    );
    describe_counter!(LOADED, "Calls put into api_calls by this process");
    describe_counter!(UNREADABLE, "Records of api.calls.v1 that are no calls");
    describe_counter!(EXPIRED, "Records that the topic no longer had when they were to be loaded");
    describe_counter!(FAILURES, "Tries to load calls that failed");
    describe_gauge!(
        BEHIND,
        "Records of api.calls.v1 that are not loaded yet, as the loading process sees it"
    );
}

/// Counts calls whose report never arrives.
pub(super) fn lost() -> Counter {
    counter!(LOST)
}

/// Calls stand in the table.
pub(super) fn loaded(calls: usize) {
    counter!(LOADED).increment(calls as u64);
}

/// A record was no call.
pub(super) fn unreadable() {
    counter!(UNREADABLE).increment(1);
}

/// Records were deleted by the topic's retention before they were loaded.
pub(super) fn expired(records: u64) {
    counter!(EXPIRED).increment(records);
}

/// Loading failed and will be tried again.
pub(super) fn failed() {
    counter!(FAILURES).increment(1);
}

/// How far loading is behind.
pub(super) fn behind(records: i64) {
    gauge!(BEHIND).set(records.max(0) as f64);
}
