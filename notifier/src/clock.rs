//! The wall clock, in the database's precision.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::time::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// An instant moved on by a duration.
pub(crate) fn after(instant: Timestamp, wait: Duration) -> Timestamp {
    instant.plus_micros(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}
