//! What waits for a clock: everything, while this machine's is ahead of MySQL's; a partition, while one of its records
//! carries a time of the broker's that has not come.
//!
//! Nothing of such a batch is applied and nothing is set aside: both end by themselves. A waiting partition's records
//! are dropped, and the consumer begins it again at its position, so that memory is bounded however long it waits and
//! other partitions go on.

use std::collections::BTreeMap;

use domain::time::Timestamp;
use runtime::health::Component;

use crate::clock::{self, AHEAD_MAX_S};
use crate::item::Item;
use crate::metrics;
use crate::store::error::StoreError;
use crate::store::positions::PartitionKey;

/// Who waits, and what is reported of it.
pub(super) struct Waiting {
    component: Component,
    /// How far ahead of MySQL's clock a record may have been stamped.
    accepted_ahead_max_s: i64,
    /// What is wrong with this machine's clock.
    own: Option<String>,
    partitions: BTreeMap<PartitionKey, Partition>,
}

struct Partition {
    why: String,
    /// The consumer has begun it again: it may be tried.
    begun: bool,
}

impl Waiting {
    pub(super) fn new(component: Component, accepted_ahead_max_s: u32) -> Self {
        component.up();
        let accepted_ahead_max_s = accepted_ahead_max_s.into();
        Self { component, accepted_ahead_max_s, own: None, partitions: BTreeMap::new() }
    }

    /// Whether `items` may be decided `now`, by MySQL's clock.
    pub(super) fn check(
        &self,
        now: Timestamp,
        items: &[Item],
        database: Timestamp,
    ) -> Result<(), StoreError> {
        let ahead_s = clock::ahead_s(now, database);
        metrics::clock_ahead(ahead_s);
        if ahead_s > AHEAD_MAX_S {
            return Err(StoreError::Clock(format!(
                "this machine's clock is {ahead_s} s ahead of MySQL's: set it, nothing is applied meanwhile"
            )));
        }
        let ahead_s = |item: &Item| clock::ahead_s(item.accepted_at, database);
        let Some(early) = items.iter().find(|item| ahead_s(item) > self.accepted_ahead_max_s) else {
            return Ok(());
        };
        let key = PartitionKey::of(early.position);
        let why = format!(
            "{} partition {} waits: Kafka stamped the record at offset {} {} s ahead of MySQL's clock",
            key.source.topic().name,
            key.partition,
            early.position.offset,
            ahead_s(early)
        );
        Err(StoreError::Early(key, why))
    }

    /// This machine's clock is wrong, or right again.
    pub(super) fn own_clock(&mut self, wrong: Option<String>) {
        if self.own != wrong {
            self.own = wrong;
            self.report();
        }
    }

    /// A partition waits from now on.
    pub(super) fn begin(&mut self, key: PartitionKey, why: String) {
        self.partitions.insert(key, Partition { why, begun: false });
        self.report();
    }

    /// The consumer has begun a partition again at its position.
    pub(super) fn begun(&mut self, key: PartitionKey) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.begun = true;
        }
    }

    /// Something of these partitions was applied, or they are somebody else's now.
    pub(super) fn end(&mut self, keys: impl Iterator<Item = PartitionKey>) {
        if self.partitions.is_empty() {
            return;
        }
        keys.for_each(|key| drop(self.partitions.remove(&key)));
        self.report();
    }

    /// Whether records of a partition are dropped.
    pub(super) fn drops(&self, key: PartitionKey) -> bool {
        self.partitions.get(&key).is_some_and(|partition| !partition.begun)
    }

    /// Partitions that the consumer is to begin again.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionKey> {
        self.partitions.iter().filter(|(_, partition)| !partition.begun).map(|(key, _)| *key)
    }

    fn report(&self) {
        metrics::waiting(self.partitions.len());
        let partitions = self.partitions.values().map(|partition| &partition.why);
        let words: Vec<&str> = self.own.iter().chain(partitions).map(String::as_str).collect();
        if words.is_empty() {
            self.component.up();
        } else {
            self.component.down(words.join("; "));
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::time::Day;
    use domain::topic::{Position, Source};
    use runtime::health::Health;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn accepted(partition: i32, seconds: i64) -> Item {
        let position = Position { source: Source::Partner, partition, offset: 7 };
        Item::read(position, at(seconds), Day(0), None, None)
    }

    #[test]
    fn nothing_is_decided_more_than_a_minute_ahead_of_mysql() {
        let health = Health::new();
        let waiting = Waiting::new(health.component("clock"), 60);
        assert!(waiting.check(at(60), &[accepted(0, 60)], at(0)).is_ok());
        assert!(waiting.check(at(-9_999), &[accepted(0, -9_999)], at(0)).is_ok(), "behind does no harm");
        let own = waiting.check(at(61), &[accepted(0, 99)], at(0)).unwrap_err();
        assert!(matches!(&own, StoreError::Clock(why) if why.contains("61 s ahead")), "{own}");
        let early = waiting.check(at(0), &[accepted(0, 60), accepted(3, 61)], at(0)).unwrap_err();
        let StoreError::Early(key, why) = early else { panic!("{early}") };
        assert_eq!((key.partition, why.contains("offset 7 61 s ahead")), (3, true), "{why}");
        let lenient = Waiting::new(health.component("clock"), 100);
        assert!(lenient.check(at(60), &[accepted(0, 100)], at(0)).is_ok());
        assert!(lenient.check(at(61), &[], at(0)).is_err(), "what is let in says nothing of this machine");
    }

    #[test]
    fn readiness_says_who_waits_until_it_is_applied() {
        let health = Health::new();
        let mut waiting = Waiting::new(health.component("clock"), 60);
        let key = PartitionKey { source: Source::Partner, partition: 3 };
        let other = PartitionKey { source: Source::Bank, partition: 3 };
        waiting.own_clock(Some("this clock".to_owned()));
        waiting.begin(key, "that partition".to_owned());
        assert_eq!(health.ready(), Err(vec![("clock", "this clock; that partition".to_owned())]));
        waiting.own_clock(None);
        assert!(waiting.drops(key) && !waiting.drops(other));
        assert_eq!(waiting.partitions().collect::<Vec<_>>(), [key]);
        // Tried again, it is still reported until something of it is applied.
        waiting.begun(key);
        assert!(!waiting.drops(key) && waiting.partitions().next().is_none());
        assert_eq!(health.ready(), Err(vec![("clock", "that partition".to_owned())]));
        waiting.end([other].into_iter());
        assert!(health.ready().is_err());
        waiting.end([key].into_iter());
        assert_eq!(health.ready(), Ok(()));
    }
}
