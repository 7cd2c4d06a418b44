//! Whether an endpoint is worth a request: closed (yes), open (not now), half-open (one, to see).
//!
//! Pure; time is an argument. It opens after some failures in a row and doubles its pause with each failed probe.

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit: fewer would punish one hiccup of a busy endpoint.
pub const FAILURES_MAX: u32 = 5;
/// The first pause: as the first retry's wait.
pub const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest pause: an endpoint that is back is noticed within it.
pub const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// What the circuit says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Go ahead.
    Closed,
    /// Go ahead alone: it is the probe.
    Probe,
    /// Not before then.
    Open(Instant),
}

/// The circuit of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Circuit {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Instant,
    pause: Duration,
    probing: bool,
}

impl Circuit {
    /// Whether a request may be made now. [`Permit::Probe`] is only an offer until [`Self::probe`].
    pub fn permit(&self, now: Instant) -> Permit {
        match self.open {
            None => Permit::Closed,
            Some(open) if open.probing => Permit::Open(now + open.pause),
            Some(open) if open.until <= now => Permit::Probe,
            Some(open) => Permit::Open(open.until),
        }
    }

    /// Takes the offered probe: until its outcome, nobody else goes.
    pub fn probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// A request succeeded: closes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed. Requests that were under way when it opened do not prolong its pause; the probe does.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let pause = match self.open {
            None if self.failures >= FAILURES_MAX => PAUSE_MIN,
            Some(open) if open.probing => (open.pause * 2).min(PAUSE_MAX),
            None | Some(_) => return,
        };
        self.open = Some(Open { until: now + pause, pause, probing: false });
    }

    /// How many requests failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it is open or half-open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(circuit.permit(now), Permit::Closed);
            circuit.failed(now);
        }
        circuit
    }

    #[test]
    fn opens_after_failures_in_a_row_and_probes_alone() {
        let start = Instant::now();
        let mut circuit = opened(start);
        assert_eq!(circuit.permit(start), Permit::Open(start + PAUSE_MIN));
        circuit.failed(start + PAUSE_MIN / 2);
        let later = start + PAUSE_MIN;
        assert_eq!(circuit.permit(later), Permit::Probe);
        circuit.probe();
        assert!(matches!(circuit.permit(later), Permit::Open(_)));
        circuit.succeeded();
        assert_eq!(circuit.permit(later), Permit::Closed);
        assert_eq!(circuit.failures(), 0);
    }

    #[test]
    fn a_success_between_starts_the_count_anew() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        for _ in 0..3 {
            (1..FAILURES_MAX).for_each(|_| circuit.failed(now));
            circuit.succeeded();
        }
        assert!(!circuit.is_open());
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_its_maximum() {
        let mut now = Instant::now();
        let mut circuit = opened(now);
        let mut pause = PAUSE_MIN;
        for _ in 0..10 {
            now += pause;
            assert_eq!(circuit.permit(now), Permit::Probe);
            circuit.probe();
            circuit.failed(now);
            pause = (pause * 2).min(PAUSE_MAX);
            assert_eq!(circuit.permit(now), Permit::Open(now + pause));
        }
        assert_eq!(pause, PAUSE_MAX);
    }
}
