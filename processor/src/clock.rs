//! The clock, read where a batch is applied and nowhere else, and compared with MySQL's.
//!
//! What is decided is stamped with this machine's clock, and never before the last entry of any account it touches; so
//! one clock that jumps forward would carry its time to every account it meets. Hence MySQL's clock, which is the same
//! for all processors, bounds it. It bounds the broker's clock likewise, whose stamps choose the day of caps.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::time::Timestamp;

/// How far this machine's clock may be ahead of MySQL's, in seconds. Clocks that are kept by NTP differ by
/// milliseconds.
pub(crate) const AHEAD_MAX_S: i64 = 60;

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// MySQL's clock, as a statement read it.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseClock {
    /// What the statement read.
    pub read: Timestamp,
    /// When it was sent. A statement may have waited for locks after it read the clock, so this is not later than what
    /// it read.
    pub sent: Instant,
}

impl DatabaseClock {
    /// The latest that it may show now. Only time that has passed is added, so that a wait never makes it too early.
    pub(crate) fn latest(self) -> Timestamp {
        let micros = i64::try_from(self.sent.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.read.plus_micros(micros)
    }
}

/// How many seconds `time` is ahead of `database`; negative when it is behind.
pub(crate) fn ahead_s(time: Timestamp, database: Timestamp) -> i64 {
    time.micros().saturating_sub(database.micros()) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_by_whole_seconds_and_never_because_a_statement_waited() {
        let at = Timestamp::from_micros;
        assert_eq!(ahead_s(at(60_999_999), at(0)), 60);
        assert_eq!(ahead_s(at(61_000_000), at(0)), 61);
        assert_eq!(ahead_s(at(0), at(5_000_000)), -5);
        let sent = Instant::now().checked_sub(std::time::Duration::from_secs(90)).unwrap();
        let clock = DatabaseClock { read: at(0), sent };
        assert!(ahead_s(at(90_000_000), clock.latest()) <= 0);
    }
}
