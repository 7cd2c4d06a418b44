//! How many requests to one endpoint may be under way: grows while its latency holds, halves on failure.
//!
//! Latency is compared with the endpoint's own when it has little to do: the quickest it was, forgotten slowly by
//! answers that came while few requests were under way. It holds as long as an answer takes no more than twice that
//! (and a little, since quick answers vary by as much as they take); otherwise the window shrinks. Only an answer that
//! came while the window was in use tells whether more would do.

use std::time::Duration;

/// The window of an endpoint that has not answered yet, and the most that a suspect one has.
pub(super) const WINDOW_START: usize = 8;
const WINDOW_MIN: usize = 2;
/// How much longer than twice the quickest an answer may take.
const SLACK: Duration = Duration::from_millis(5);
/// The quickest is forgotten by one part in so many of the difference with each slower answer.
const MEMORY: u32 = 16;

#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    quickest: Option<Duration>,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        Self { size: WINDOW_START.min(limit), quickest: None }
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// A quick success that took `took` while `in_flight` were under way, itself among them.
    pub(super) fn succeeded(&mut self, took: Duration, in_flight: usize, limit: usize) {
        let holds = self.holds(took, in_flight);
        if holds && in_flight * 2 >= self.size {
            self.size = (self.size + 1).min(limit);
        } else if !holds && self.size > WINDOW_START {
            self.size -= 1;
        }
    }

    pub(super) fn failed(&mut self) {
        self.size = (self.size / 2).max(WINDOW_MIN);
    }

    /// No more than a stranger's from now on.
    pub(super) fn suspect(&mut self) {
        self.size = self.size.min(WINDOW_START);
    }

    fn holds(&mut self, took: Duration, in_flight: usize) -> bool {
        let quickest = match self.quickest {
            Some(quickest) if quickest < took && in_flight > WINDOW_START => quickest,
            Some(quickest) if quickest < took => quickest + took.saturating_sub(quickest) / MEMORY,
            _ => took,
        };
        self.quickest = Some(quickest);
        took <= quickest * 2 + SLACK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 32;

    /// Answers of a receiver whose latency depends on how many requests it has, until the window settles.
    fn settled(latency: impl Fn(usize) -> Duration) -> usize {
        let mut window = Window::new(LIMIT);
        for _ in 0..2_000 {
            let in_flight = window.size();
            window.succeeded(latency(in_flight), in_flight, LIMIT);
        }
        window.size()
    }

    #[test]
    fn it_grows_while_latency_holds_and_stops_where_it_does_not() {
        assert_eq!(settled(|_| Duration::from_millis(80)), LIMIT, "slow and steady");
        // A receiver with twelve workers: more requests only wait for one another.
        let queueing =
            |in_flight: usize| Duration::from_millis(50) * u32::try_from(in_flight.div_ceil(12)).unwrap();
        let window = settled(queueing);
        assert!((20..=25).contains(&window), "{window}");
    }

    #[test]
    fn a_receiver_that_became_slower_for_good_gets_its_window_back() {
        let mut window = Window::new(LIMIT);
        let mut run = |latency_ms, count| {
            for _ in 0..count {
                let in_flight = window.size();
                window.succeeded(Duration::from_millis(latency_ms), in_flight, LIMIT);
            }
            window.size()
        };
        assert_eq!(run(10, 100), LIMIT);
        assert_eq!(run(100, 24), WINDOW_START, "first it is taken for overload");
        assert_eq!(run(100, 100), LIMIT);
    }

    #[test]
    fn it_does_not_grow_unused() {
        let mut window = Window::new(LIMIT);
        (0..100).for_each(|_| window.succeeded(Duration::from_millis(1), 1, LIMIT));
        assert_eq!(window.size(), WINDOW_START);
    }

    #[test]
    fn failures_halve_it_down_to_a_minimum() {
        let mut window = Window::new(LIMIT);
        (0..100).for_each(|_| window.succeeded(Duration::from_millis(1), LIMIT, LIMIT));
        let sizes: Vec<_> = (0..6)
            .map(|_| {
                window.failed();
                window.size()
            })
            .collect();
        assert_eq!(sizes, [16, 8, 4, 2, 2, 2]);
    }
}
