//! The state of an account at a past instant: a search over versions, since the entries of an account never go back in
//! time. Who searches reads the entries of [`Looking::pivots`] and shows them to [`Looking::take`], round after round.

use crate::ids::AccountId;
use crate::time::Timestamp;

/// Versions that one round of a search looks at: a million entries take five rounds, a round a millisecond or less.
const PIVOTS: u64 = 16;

/// Looks for the state of one account at one instant.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// The account.
    pub account: AccountId,
    /// Its last version.
    pub version: u64,
    /// The instant, inclusive.
    pub at: Timestamp,
}

/// The last entry up to an instant: its version and the balance after it; zeros before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// The version.
    pub version: u64,
    /// Minor units.
    pub balance_minor: i64,
}

/// A search in progress: the entry `found` is not later than the instant, those behind `last` are.
#[derive(Debug, Clone, Copy)]
pub struct Looking {
    /// What is looked for.
    pub search: Search,
    /// The last entry seen that is not later than the instant.
    pub found: Past,
    /// The highest version that may be it.
    pub last: u64,
}

impl Looking {
    /// Nothing is seen yet.
    pub fn begin(search: Search) -> Self {
        Self { search, found: Past::default(), last: search.version }
    }

    /// Whether entries have to be looked at.
    pub const fn is_open(&self) -> bool {
        self.found.version < self.last
    }

    /// Versions that part what is left into equal pieces; the last of them is `last` itself.
    pub fn pivots(&self) -> impl Iterator<Item = u64> + use<> {
        let (found, left) = (self.found.version, self.last - self.found.version);
        let pieces = left.min(PIVOTS);
        // Exact: `left` is a count of entries, far below 2^60.
        (1..=pieces).map(move |piece| found + left * piece / pieces)
    }

    /// An entry of the account.
    pub fn take(&mut self, version: u64, balance_minor: i64, entered_at: Timestamp) {
        if entered_at <= self.search.at {
            if version > self.found.version {
                self.found = Past { version, balance_minor };
            }
        } else {
            self.last = self.last.min(version - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    /// Plays the rounds on entries that were entered at these times, and counts them.
    fn play(times: &[i64], at: i64) -> (Past, usize) {
        let account = AccountId::from_uuid(Uuid::from_u128(1));
        let search = Search { account, version: times.len() as u64, at: Timestamp::from_micros(at) };
        let mut looking = Looking::begin(search);
        let mut rounds = 0;
        while looking.is_open() {
            let pivots: Vec<_> = looking.pivots().collect();
            assert!(
                pivots.len() <= PIVOTS as usize && pivots.is_sorted() && pivots.last() == Some(&looking.last)
            );
            for version in pivots {
                let entered_at = Timestamp::from_micros(times[version as usize - 1]);
                looking.take(version, version as i64 * 10, entered_at);
            }
            rounds += 1;
        }
        (looking.found, rounds)
    }

    #[test]
    fn the_last_entry_up_to_the_instant_is_found() {
        for count in [0, 1, 2, 3, 15, 16, 17, 100, 257] {
            // Several entries at one time, as one batch makes them.
            let times: Vec<i64> = (0..count).map(|index| 10 + index / 3 * 10).collect();
            for at in 0..=10 + count * 4 {
                let expected = times.iter().filter(|time| **time <= at).count() as u64;
                let (found, _) = play(&times, at);
                assert_eq!(
                    found,
                    Past { version: expected, balance_minor: expected as i64 * 10 },
                    "{count} {at}"
                );
            }
        }
    }

    #[test]
    fn a_million_entries_take_few_rounds() {
        let times: Vec<i64> = (1..=1_000_000).collect();
        for at in [0, 1, 499_999, 777_777, 999_999, 1_000_000] {
            assert!(play(&times, at).1 <= 6);
        }
    }
}
