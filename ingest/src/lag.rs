//! How far the processor is behind, and so how long an accepted payment waits to be decided.
//!
//! Two samplers feed it: the look-up task with the applied positions (MySQL) and the queue task with the ends of
//! the partitions (Kafka), each about once a second. The estimate is the backlog divided by the pace at which it
//! was last seen to shrink, plus the time for which it has not moved at all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::topic::PARTNER_COMMANDS;

const PARTITIONS: usize = PARTNER_COMMANDS.partitions as usize;
/// What one payment alone takes, in milliseconds.
const IDLE_WAIT_MS: u64 = 10;
/// Records per second before any pace was seen; a cautious guess.
const PACE_AT_FIRST: f64 = 1_000.0;
/// Samples older than this say nothing.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(5);
/// How much a new pace counts against what was seen before.
const PACE_WEIGHT: f64 = 0.3;

/// The backlog of the partners' commands.
#[derive(Debug)]
pub struct Lag(Mutex<State>);

#[derive(Debug)]
struct State {
    applied: [u64; PARTITIONS],
    ends: [u64; PARTITIONS],
    applied_at: Option<Instant>,
    ends_at: Option<Instant>,
    /// When a position last moved, or nothing was waiting.
    moved_at: Instant,
    pace: f64,
}

impl Default for Lag {
    fn default() -> Self {
        Self(Mutex::new(State {
            applied: [0; PARTITIONS],
            ends: [0; PARTITIONS],
            applied_at: None,
            ends_at: None,
            moved_at: Instant::now(),
            pace: PACE_AT_FIRST,
        }))
    }
}

impl Lag {
    /// Takes the applied positions: (partition, next offset).
    pub fn applied(&self, positions: impl IntoIterator<Item = (u16, u64)>, now: Instant) {
        self.with(|state| {
            let waiting = state.backlog();
            let mut moved = 0;
            for (partition, next_offset) in positions {
                if let Some(applied) = state.applied.get_mut(usize::from(partition)) {
                    moved += next_offset.saturating_sub(*applied);
                    *applied = next_offset;
                }
            }
            // Only a processor with enough to do shows its pace.
            if let Some(before) = state.applied_at.filter(|_| moved > 0 && waiting > moved) {
                let pace = moved as f64 / now.saturating_duration_since(before).as_secs_f64().max(0.001);
                state.pace += PACE_WEIGHT * (pace - state.pace);
            }
            if moved > 0 || state.backlog() == 0 {
                state.moved_at = now;
            }
            state.applied_at = Some(now);
        });
    }

    /// Takes the ends of the partitions: (partition, high watermark).
    pub fn ends(&self, ends: impl IntoIterator<Item = (u16, u64)>, now: Instant) {
        self.with(|state| {
            for (partition, end) in ends {
                if let Some(known) = state.ends.get_mut(usize::from(partition)) {
                    *known = end.max(*known);
                }
            }
            state.ends_at = Some(now);
        });
    }

    /// Notes a record of our own, which may lie behind the last sample.
    pub fn produced(&self, partition: u16, offset: u64) {
        self.with(|state| {
            if let Some(end) = state.ends.get_mut(usize::from(partition)) {
                *end = (*end).max(offset + 1);
            }
        });
    }

    /// Commands not applied yet; `None` without recent samples.
    pub fn records(&self, now: Instant) -> Option<u64> {
        self.with(|state| state.is_known(now).then(|| state.backlog()))
    }

    /// Milliseconds until a payment accepted now is decided; `None` without recent samples.
    pub fn expected_wait_ms(&self, now: Instant) -> Option<u64> {
        self.with(|state| {
            if !state.is_known(now) {
                return None;
            }
            let drain_ms = (state.backlog() as f64 * 1_000.0 / state.pace.max(1.0)) as u64;
            // Samples are a second apart; not to have moved between two of them means nothing.
            let stalled = now.saturating_duration_since(state.moved_at);
            let stalled_ms = if stalled > Duration::from_secs(3) { stalled.as_millis() as u64 } else { 0 };
            Some(IDLE_WAIT_MS + drain_ms + stalled_ms)
        })
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        // Numbers alone: a panic elsewhere leaves nothing half changed.
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn backlog(&self) -> u64 {
        self.ends.iter().zip(&self.applied).map(|(end, applied)| end.saturating_sub(*applied)).sum()
    }

    fn is_known(&self, now: Instant) -> bool {
        let recent =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < SAMPLE_AGE_MAX);
        recent(self.applied_at) && recent(self.ends_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_without_samples_of_both_sides() {
        let (lag, now) = (Lag::default(), Instant::now());
        assert_eq!(lag.expected_wait_ms(now), None);
        lag.ends([(0, 10)], now);
        assert_eq!(lag.expected_wait_ms(now), None);
        lag.applied([(0, 10)], now);
        assert_eq!(lag.expected_wait_ms(now), Some(IDLE_WAIT_MS));
        assert_eq!(lag.expected_wait_ms(now + SAMPLE_AGE_MAX), None);
    }

    #[test]
    fn a_backlog_is_reckoned_by_the_pace_at_which_it_shrinks() {
        let (lag, mut now) = (Lag::default(), Instant::now());
        lag.applied([(0, 0), (1, 0)], now);
        lag.ends([(0, 60_000), (1, 60_000)], now);
        for round in 1..=20 {
            now += Duration::from_secs(1);
            lag.applied([(0, round * 1_000), (1, round * 1_000)], now);
            lag.ends([], now);
        }
        // 80,000 records at about 2,000 a second.
        let wait = lag.expected_wait_ms(now).unwrap();
        assert!((39_000..=42_000).contains(&wait), "{wait}");
        assert_eq!(lag.records(now), Some(80_000));
    }

    #[test]
    fn a_processor_that_stands_still_is_told() {
        let (lag, start) = (Lag::default(), Instant::now());
        lag.applied([(0, 0)], start);
        lag.produced(0, 0);
        let later = start + Duration::from_secs(60);
        lag.applied([(0, 0)], later);
        lag.ends([], later);
        assert!(lag.expected_wait_ms(later).unwrap() >= 60_000);
        lag.applied([(0, 1)], later);
        assert_eq!(lag.expected_wait_ms(later), Some(IDLE_WAIT_MS));
    }
}
