//! What the processor measures. Base units, closed label sets.

use std::time::Duration;

use domain::time::Timestamp;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::decide::{Effects, View};
use crate::store::error::StoreError;

/// Registers the help texts.
pub(crate) fn describe() {
    describe_counter!("wired_processor_commands_total", "Commands applied, by kind, outcome and reason");
    describe_counter!(
        "wired_processor_duplicates_total",
        "Commands that left nothing: applied before, or not due"
    );
    describe_counter!("wired_processor_dead_letters_total", "Commands set aside, by reason");
    describe_counter!(
        "wired_processor_sql_statements_total",
        "SQL statements sent, COMMIT and START included"
    );
    describe_counter!("wired_processor_transaction_retries_total", "Transactions begun again");
    describe_counter!(
        "wired_processor_expiries_asked_total",
        "Expiries of holds and mandates that were asked for"
    );
    describe_counter!("wired_processor_events_announced_total", "Events acknowledged by the event topic");
    describe_histogram!("wired_processor_batch_commands", "Commands in a batch");
    describe_histogram!(
        "wired_processor_transaction_seconds",
        Unit::Seconds,
        "One batch, from lock to commit"
    );
    describe_histogram!(
        "wired_processor_announce_seconds",
        Unit::Seconds,
        "Events of one batch, until acknowledged"
    );
    describe_histogram!(
        "wired_processor_decision_lag_seconds",
        Unit::Seconds,
        "From the broker's append of the oldest command of a batch to its commit"
    );
    describe_gauge!("wired_processor_halted_partitions", "Partitions that stopped and need a human");
    describe_gauge!(
        "wired_processor_waiting_partitions",
        "Partitions that wait because a record was stamped with a time that has not come"
    );
    describe_gauge!(
        "wired_processor_clock_ahead_seconds",
        Unit::Seconds,
        "How far this machine's clock is ahead of MySQL's; from 60 on nothing is applied"
    );
    describe_gauge!("wired_processor_owned_partitions", "Partitions assigned to this process");
    describe_gauge!(
        "wired_processor_unannounced_batches",
        "Committed batches whose events are not acknowledged yet"
    );
    describe_gauge!(
        "wired_processor_last_poll_timestamp_seconds",
        Unit::Seconds,
        "When the consumer last polled"
    );
}

/// `count` statements were sent.
pub(crate) fn statements(count: usize) {
    counter!("wired_processor_sql_statements_total").increment(count as u64);
}

/// A transaction is begun again.
pub(crate) fn retry(error: &StoreError) {
    let class = match error {
        StoreError::Transient(_) => "transient",
        StoreError::Data(_) => "data",
        StoreError::Clock(_) | StoreError::Early(..) => "clock",
        StoreError::Fatal(_) => "fatal",
    };
    counter!("wired_processor_transaction_retries_total", "class" => class).increment(1);
}

/// A batch committed.
pub(crate) fn committed(
    commands: usize,
    view: &View,
    effects: &Effects,
    oldest: Timestamp,
    now: Timestamp,
    took: Duration,
) {
    histogram!("wired_processor_batch_commands").record(commands as f64);
    histogram!("wired_processor_transaction_seconds").record(took.as_secs_f64());
    let lag = Duration::from_micros(now.micros().saturating_sub(oldest.micros()).max(0).unsigned_abs());
    histogram!("wired_processor_decision_lag_seconds").record(lag.as_secs_f64());
    counter!("wired_processor_duplicates_total").increment(effects.duplicates as u64);
    for row in effects.payments.iter().filter_map(|asked| view.payments.get(&asked.payment)) {
        let row = &row.row;
        let reason = row.reason.map_or("none", domain::payment::Reason::as_str);
        counter!("wired_processor_commands_total",
            "kind" => row.kind.as_str(), "outcome" => row.status.as_str(), "reason" => reason)
        .increment(1);
    }
    for row in &effects.changes {
        let outcome = if row.reason.is_none() { "applied" } else { "rejected" };
        let reason = row.reason.map_or("none", domain::payment::Reason::as_str);
        counter!("wired_processor_commands_total", "kind" => row.kind, "outcome" => outcome, "reason" => reason)
            .increment(1);
    }
    for row in &effects.dead_letters {
        counter!("wired_processor_dead_letters_total", "reason" => row.reason.as_str()).increment(1);
    }
}

/// Events were acknowledged.
pub(crate) fn announced(events: usize, took: Duration) {
    counter!("wired_processor_events_announced_total").increment(events as u64);
    histogram!("wired_processor_announce_seconds").record(took.as_secs_f64());
}

/// Expiries were asked for.
pub(crate) fn expiries_asked(count: usize) {
    counter!("wired_processor_expiries_asked_total").increment(count as u64);
}

/// How many batches wait for their events' acknowledgement.
pub(crate) fn unannounced(batches: usize) {
    gauge!("wired_processor_unannounced_batches").set(batches as f64);
}

/// How many partitions stand still.
pub(crate) fn halted(partitions: usize) {
    gauge!("wired_processor_halted_partitions").set(partitions as f64);
}

/// How many partitions wait for a time that has not come.
pub(crate) fn waiting(partitions: usize) {
    gauge!("wired_processor_waiting_partitions").set(partitions as f64);
}

/// How far this machine's clock is ahead of MySQL's.
pub(crate) fn clock_ahead(seconds: i64) {
    gauge!("wired_processor_clock_ahead_seconds").set(seconds as f64);
}

/// How many partitions this process has.
pub(crate) fn owned(partitions: usize) {
    gauge!("wired_processor_owned_partitions").set(partitions as f64);
}

/// The consumer polled.
pub(crate) fn polled(now: Timestamp) {
    gauge!("wired_processor_last_poll_timestamp_seconds").set(now.micros() as f64 / 1e6);
}
