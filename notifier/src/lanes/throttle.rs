//! The rate that an endpoint's owner set: deliveries in a second, each process for itself.
//!
//! A generic cell rate algorithm: each delivery moves the time of the next by an interval; a little may come early.
//! First tries that are over the rate go to the database one interval apart, so that they come back in their order.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How much of the future may be used up at once: without it a rate above that of the timers could not be reached.
const BURST: Duration = Duration::from_millis(100);
/// The longest wait that is planned ahead: rates change, and what is due is let out at the rate anyway.
const PLAN_MAX: Duration = Duration::from_secs(60);

/// The rate of one endpoint.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Option<NonZeroU32>,
    /// When the next delivery would be due, if all came at the rate.
    next: Instant,
    /// Until when first tries stand in the database that come before any new one.
    planned: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: None, next: now, planned: now }
    }

    pub(super) fn set(&mut self, rate: Option<NonZeroU32>) {
        self.rate = rate;
    }

    fn interval(rate: NonZeroU32) -> Duration {
        Duration::from_secs(1) / rate.get()
    }

    /// Deliveries that may begin now, at most.
    pub(super) fn room(&self, now: Instant) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let left = (now + BURST).checked_duration_since(self.next.max(now)).map(|left| left.as_micros());
        left.map_or(0, |left| {
            usize::try_from(left / Self::interval(rate).as_micros().max(1))
                .unwrap_or(usize::MAX)
                .saturating_add(1)
        })
    }

    /// How long until the next may begin.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.rate.is_none() { Duration::ZERO } else { self.next.saturating_duration_since(now + BURST) }
    }

    /// One begins, or will begin when there is a slot.
    pub(super) fn take(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            self.next = self.next.max(now) + Self::interval(rate);
        }
    }

    /// How long a first try must wait in the database because of the rate, behind those that wait there already;
    /// `None` when it need not.
    pub(super) fn plan(&mut self, now: Instant) -> Option<Duration> {
        let rate = self.rate?;
        if self.planned <= now && self.room(now) > 0 {
            return None;
        }
        let at = self.planned.max(self.next).max(now).min(now + PLAN_MAX);
        self.planned = at + Self::interval(rate);
        Some(at - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(rate: u32, now: Instant) -> Throttle {
        let mut throttle = Throttle::new(now);
        throttle.set(NonZeroU32::new(rate));
        throttle
    }

    #[test]
    fn over_any_second_no_more_begin_than_the_rate_and_a_little() {
        for rate in [1, 3, 10, 100, 1_000] {
            let start = Instant::now();
            let mut throttle = throttle(rate, start);
            let mut begun = 0;
            for millisecond in 0..5_000 {
                let now = start + Duration::from_millis(millisecond);
                while throttle.room(now) > 0 {
                    throttle.take(now);
                    begun += 1;
                }
            }
            let little = rate / 10 + 1;
            assert!((5 * rate..=5 * rate + little).contains(&begun), "{begun} in 5 s at {rate}/s");
        }
    }

    #[test]
    fn what_is_over_the_rate_is_planned_in_order_and_not_too_far_ahead() {
        let now = Instant::now();
        let mut throttle = throttle(10, now);
        let mut at_once = 0;
        while throttle.plan(now).is_none() {
            throttle.take(now);
            at_once += 1;
        }
        assert_eq!(at_once, 2, "now, and within the burst");
        let waits: Vec<_> = (0..1_000).filter_map(|_| throttle.plan(now)).collect();
        assert_eq!(waits.len(), 1_000, "nobody overtakes those that are planned");
        assert!(waits.is_sorted());
        assert_eq!(waits[10], waits[9] + Duration::from_millis(100));
        assert_eq!(waits[999], PLAN_MAX);
        // Later, when those have had their time, new ones go at once again.
        assert_eq!(throttle.plan(now + 2 * PLAN_MAX), None);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        for _ in 0..1_000 {
            assert_eq!(
                (throttle.plan(now), throttle.wait(now), throttle.room(now)),
                (None, Duration::ZERO, usize::MAX)
            );
            throttle.take(now);
        }
    }
}
