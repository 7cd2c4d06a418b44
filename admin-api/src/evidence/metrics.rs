//! The figures of checkpoints and of the reconciler.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use verifier::Invariant;

use super::{checkpoints::State, reconciler::Standing};

const CHECKPOINT_NUMBER: &str = "wired_admin_api_checkpoint_number";
const CHECKPOINT_AGE: &str = "wired_admin_api_checkpoint_age_seconds";
const UNPUBLISHED: &str = "wired_admin_api_checkpoints_unpublished";
const CHECKPOINT_FAILURES: &str = "wired_admin_api_checkpoint_failures_total";
const SEALED: &str = "wired_admin_api_audit_rows_sealed_total";
const SEAL_FAILURES: &str = "wired_admin_api_audit_seal_failures_total";
const INVARIANT: &str = "wired_admin_api_reconciliation_invariant_holds";
const AGE: &str = "wired_admin_api_reconciliation_age_seconds";
const ROWS: &str = "wired_admin_api_reconciliation_rows_per_second";
const FAILURES: &str = "wired_admin_api_reconciliation_failures_total";

/// Tells Prometheus what the figures mean.
pub(super) fn describe() {
    describe_gauge!(CHECKPOINT_NUMBER, "Number of the last checkpoint");
    describe_gauge!(CHECKPOINT_AGE, "Age of the last checkpoint");
    describe_gauge!(UNPUBLISHED, "Checkpoints that are not known to be published");
    describe_counter!(CHECKPOINT_FAILURES, "Checkpoints that could not be taken or published");
    describe_counter!(SEALED, "Rows of the audit log that this process linked into the chain");
    describe_counter!(SEAL_FAILURES, "Tries to link rows of the audit log that failed");
    describe_gauge!(INVARIANT, "1: the last rounds found that the invariant holds; 0: it is broken");
    describe_gauge!(AGE, "Time since the last finished round, by kind");
    describe_gauge!(ROWS, "Rows that the last round read in a second, by kind");
    describe_counter!(FAILURES, "Rounds that could not read the ledger to its end");
}

/// How checkpoints stand.
pub(super) fn checkpoints(state: &State) {
    gauge!(CHECKPOINT_NUMBER).set(state.number as f64);
    gauge!(CHECKPOINT_AGE).set(state.age_seconds);
    gauge!(UNPUBLISHED).set(state.unpublished as f64);
}

/// A checkpoint was not taken or not published.
pub(super) fn checkpoint_failed() {
    counter!(CHECKPOINT_FAILURES).increment(1);
}

/// Rows of the audit log were linked.
pub(super) fn sealed(rows: usize) {
    counter!(SEALED).increment(rows as u64);
}

/// Linking failed and will be tried again.
pub(super) fn not_sealed() {
    counter!(SEAL_FAILURES).increment(1);
}

/// A round did not come to its end.
pub(super) fn reconciliation_failed() {
    counter!(FAILURES).increment(1);
}

/// How the ledger stands, as the last rounds of all processes found it.
pub(super) fn reconciliation(standing: &Standing) {
    for invariant in Invariant::ALL {
        let holds = !standing.broken.contains(&format!("{invariant:?}"));
        gauge!(INVARIANT, "invariant" => name(invariant)).set(f64::from(u8::from(holds)));
    }
    for (kind, round) in [("new", &standing.new), ("full", &standing.full)] {
        if let Some(round) = round {
            gauge!(AGE, "kind" => kind).set(round.age_seconds);
            gauge!(ROWS, "kind" => kind).set(round.rows_per_second);
        }
    }
}

const fn name(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::I1 => "I1",
        Invariant::I2 => "I2",
        Invariant::I3 => "I3",
        Invariant::I4 => "I4",
        Invariant::I6 => "I6",
        Invariant::I7 => "I7",
        Invariant::I8 => "I8",
        Invariant::I9 => "I9",
        Invariant::I10 => "I10",
        Invariant::I11 => "I11",
        Invariant::I12 => "I12",
    }
}
