//! When and how often a request is made again.

use std::time::Duration;

use crate::Error;

/// How requests are repeated that failed for a passing reason: no connection, no answer, 429 or 503. Only requests
/// that may safely be repeated are: reading ones, and writing ones, since those carry an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// How often a request is made again. Default 4; 0 shows every failure at once, as a load driver wants; much
    /// more hides an outage behind slow answers.
    pub max: u32,
    /// The pause before the first repetition; it doubles with each. Default 100 ms. `Retry-After` wins when longer.
    pub pause: Duration,
    /// The longest pause. Default 5 s. A longer `Retry-After` is not waited for: the caller decides.
    pub pause_max: Duration,
}

impl Retries {
    /// No repetition.
    pub const NONE: Self = Self { max: 0, pause: Duration::ZERO, pause_max: Duration::ZERO };

    /// How long to wait before repetition number `done` + 1, or `None` to give up.
    pub(crate) fn pause_after(&self, error: &Error, done: u32) -> Option<Duration> {
        if done >= self.max {
            return None;
        }
        let asked = match error {
            Error::Problem(problem) if matches!(problem.status, 429 | 503) => problem.retry_after,
            Error::Unreachable { .. } | Error::NoAnswer { .. } => None,
            Error::Problem(_) | Error::Unexpected { .. } | Error::Request(_) => return None,
        };
        let doubled = self.pause.saturating_mul(1 << done.min(16)).min(self.pause_max);
        let pause = asked.map_or(doubled, |asked| asked.max(doubled));
        (pause <= self.pause_max).then_some(pause)
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 4, pause: Duration::from_millis(100), pause_max: Duration::from_secs(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, retry_after_s: Option<u64>) -> Error {
        let text = format!(r#"{{"status":{status},"code":"x","title":"x"}}"#);
        let mut problem: crate::Problem = serde_json::from_str(&text).unwrap();
        problem.retry_after = retry_after_s.map(Duration::from_secs);
        Error::Problem(Box::new(problem))
    }

    #[test]
    fn only_passing_failures_are_repeated_and_not_for_ever() {
        let retries = Retries::default();
        let unreachable = Error::Unreachable { url: String::new(), reason: String::new() };
        let cases = [
            (problem(503, None), 0, Some(100)),
            (problem(503, None), 2, Some(400)),
            (problem(503, None), 4, None),
            (problem(429, Some(2)), 0, Some(2_000)),
            (problem(429, Some(60)), 0, None),
            (problem(422, None), 0, None),
            (problem(500, None), 0, None),
            (unreachable, 3, Some(800)),
        ];
        for (error, done, expected_ms) in cases {
            let pause = retries.pause_after(&error, done);
            assert_eq!(pause, expected_ms.map(Duration::from_millis), "{error} after {done}");
        }
        assert_eq!(Retries::NONE.pause_after(&problem(503, None), 0), None);
    }
}
