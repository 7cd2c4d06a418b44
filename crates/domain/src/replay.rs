//! Replays: what a partner asks to be sent to an endpoint (again).

use crate::codes::codes;

codes! {
    /// What a replay covers.
    ReplayKind {
        /// One event.
        Event = 1 "event",
        /// Deliveries that failed, dead or waiting for a retry, first recorded since a time.
        Failed = 2 "failed",
        /// Every event of a range of sequences, whatever became of it.
        Range = 3 "range",
        /// The events of a range of sequences that have no delivery: what came while the endpoint was disabled.
        Missing = 4 "missing",
    }
}

codes! {
    /// Where a replay stands.
    ReplayStatus {
        /// Being worked off.
        Open = 1 "open",
        /// Everything in it is delivered or waits as an ordinary delivery.
        Done = 2 "done",
        /// Its owner ended it.
        Cancelled = 3 "cancelled",
    }
}

/// Open replays of one endpoint, at most: each is worked off at the same pace.
pub const OPEN_MAX: usize = 5;
/// Attempts of one delivery, over all times that it was asked for: what asks again and again ends here.
pub const ATTEMPTS_MAX: u8 = 200;
