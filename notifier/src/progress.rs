//! How far each partition of the event topic is done: the contiguous watermark.
//!
//! An event holds its offset until each of its deliveries is recorded; the offset to commit is the one behind the
//! longest prefix of finished events. A partition that is taken away and given back begins a new generation, so
//! that a late completion of the old one cannot move the new one's watermark.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Stands for one event of one assignment of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The partition.
    pub partition: i32,
    /// Which assignment of it.
    pub generation: u64,
    /// The event's offset.
    pub offset: i64,
}

/// The watermarks of all assigned partitions.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    generation: u64,
    /// Nothing new may begin until the next assignment.
    stopped: bool,
    /// Partitions could not be taken over: the consumer must begin anew.
    lost: bool,
    partitions: HashMap<i32, Partition>,
}

#[derive(Debug)]
struct Partition {
    generation: u64,
    /// Offset and number of holders of each event behind the watermark, in order of offset.
    events: VecDeque<(i64, u32)>,
    /// The offset to commit: everything below is done.
    next: Option<i64>,
    /// The last that was committed.
    committed: Option<i64>,
}

impl Progress {
    /// Begins a generation of a partition.
    pub fn assign(&self, partition: i32) -> u64 {
        self.with(|state| {
            state.generation += 1;
            state.stopped = false;
            let generation = state.generation;
            let events = VecDeque::new();
            state.partitions.insert(partition, Partition { generation, events, next: None, committed: None });
            generation
        })
    }

    /// Forgets a partition. Tickets of it are void from now on.
    pub fn revoke(&self, partition: i32) {
        self.with(|state| state.partitions.remove(&partition));
    }

    /// Nothing new may begin: the partitions are about to be taken away.
    pub fn stop(&self) {
        self.with(|state| state.stopped = true);
    }

    /// The consumer must begin anew.
    pub fn lose(&self) {
        self.with(|state| state.lost = true);
    }

    /// Whether [`Self::lose`] was called since the last time.
    pub fn take_lost(&self) -> bool {
        self.with(|state| std::mem::take(&mut state.lost))
    }

    /// Whether the ticket's partition is still assigned as it was, and stays so for now.
    pub fn is_current(&self, ticket: Ticket) -> bool {
        self.with(|state| !state.stopped && state.current(ticket).is_some())
    }

    /// Registers the next event of a partition, held once by the caller. `None` when it is not assigned.
    pub fn begin(&self, partition: i32, offset: i64) -> Option<Ticket> {
        self.with(|state| {
            let entry = state.partitions.get_mut(&partition)?;
            entry.events.push_back((offset, 1));
            Some(Ticket { partition, generation: entry.generation, offset })
        })
    }

    /// One more holder of an event that is held.
    pub fn hold(&self, ticket: Ticket) {
        self.with(|state| {
            if let Some(holders) = state.current(ticket).and_then(|entry| entry.holders(ticket.offset)) {
                *holders += 1;
            }
        });
    }

    /// One holder less; without any, the event is done.
    pub fn release(&self, ticket: Ticket) {
        self.with(|state| {
            let Some(entry) = state.current(ticket) else { return };
            if let Some(holders) = entry.holders(ticket.offset) {
                *holders = holders.saturating_sub(1);
            }
            while let Some((offset, 0)) = entry.events.front().copied() {
                entry.events.pop_front();
                entry.next = Some(offset + 1);
            }
        });
    }

    /// Watermarks that moved since they were committed last, as (partition, offset); counted as committed.
    pub fn take_moved(&self) -> Vec<(i32, i64)> {
        self.with(|state| {
            let moved = |(partition, entry): (&i32, &mut Partition)| {
                let next = entry.next.filter(|next| entry.committed != Some(*next))?;
                entry.committed = Some(next);
                Some((*partition, next))
            };
            state.partitions.iter_mut().filter_map(moved).collect()
        })
    }

    /// The watermark must be committed again: committing it failed.
    pub fn commit_failed(&self) {
        self.with(|state| state.partitions.values_mut().for_each(|entry| entry.committed = None));
    }

    /// How many events are not done yet.
    pub fn pending(&self) -> usize {
        self.with(|state| state.partitions.values().map(|entry| entry.events.len()).sum())
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn current(&mut self, ticket: Ticket) -> Option<&mut Partition> {
        self.partitions.get_mut(&ticket.partition).filter(|entry| entry.generation == ticket.generation)
    }
}

impl Partition {
    fn holders(&mut self, offset: i64) -> Option<&mut u32> {
        let index = self.events.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.events.get_mut(index).map(|(_, holders)| holders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_waits_for_the_oldest() {
        let progress = Progress::default();
        progress.assign(3);
        // Offsets have gaps where the log was compacted or holds control records.
        let [a, b, c] = [10, 11, 15].map(|offset| progress.begin(3, offset).unwrap());
        progress.release(b);
        assert_eq!(progress.take_moved(), []);
        progress.hold(a);
        progress.release(a);
        assert_eq!(progress.take_moved(), []);
        progress.release(a);
        assert_eq!(progress.take_moved(), [(3, 12)]);
        assert_eq!(progress.take_moved(), [], "each move is told once");
        assert_eq!(progress.pending(), 1);
        progress.release(c);
        assert_eq!(progress.take_moved(), [(3, 16)]);
        progress.commit_failed();
        assert_eq!(progress.take_moved(), [(3, 16)]);
    }

    #[test]
    fn a_late_completion_of_an_earlier_assignment_moves_nothing() {
        let progress = Progress::default();
        progress.assign(0);
        let old = progress.begin(0, 5).unwrap();
        progress.revoke(0);
        assert!(!progress.is_current(old));
        assert_eq!(progress.begin(0, 6), None);
        progress.assign(0);
        let new = progress.begin(0, 5).unwrap();
        progress.release(old);
        assert_eq!(progress.take_moved(), []);
        progress.release(new);
        assert_eq!(progress.take_moved(), [(0, 6)]);
    }
}
