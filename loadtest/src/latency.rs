//! Latencies as a histogram: constant memory, three digits, from a microsecond to ten minutes.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

const LONGEST_US: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// Recorded durations.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants that fit"))
    }
}

impl Latencies {
    /// Records a duration; longer ones than ten minutes count as ten minutes.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US));
    }

    /// Records the distance between two instants in microseconds; a negative one (clock resolution) counts as zero.
    pub fn record_between(&mut self, from_us: i64, to_us: i64) {
        self.record(Duration::from_micros(u64::try_from(to_us - from_us).unwrap_or(0)));
    }

    /// Adds what another one recorded.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile in milliseconds; 0 when nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The median in milliseconds.
    pub fn p50_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }

    /// What one in a hundred exceeds, in milliseconds.
    pub fn p99_ms(&self) -> f64 {
        self.quantile_ms(0.99)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.p50_ms(),
            self.quantile_ms(0.9),
            self.p99_ms(),
            self.0.max() as f64 / 1_000.0
        )
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latencies({} recorded: {self})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let mut all = Latencies::default();
        for ms in 1..=100 {
            let mut one = Latencies::default();
            one.record(Duration::from_millis(ms));
            all.merge(&one);
        }
        all.record_between(5, 3);
        assert_eq!(all.count(), 101);
        assert!((all.p50_ms() - 50.0).abs() < 0.1, "{all}");
        assert!((all.p99_ms() - 99.0).abs() < 0.2, "{all}");
    }
}
