//! Whether two samples are of the same distribution: the test of Mann and Whitney, and how much it would see.
//!
//! What is compared is the probability that one drawn from the first sample is larger than one drawn from the second,
//! which is 1/2 when both are of one distribution, whatever that is; outliers count by their rank alone.

/// Two-sided level of one run: the normal quantile of 1 - 0.001 / 2.
const Z_ALPHA: f64 = 3.290_5;
/// Of the power that one run must have so that all of [`RUNS`] have 0.9 together: 0.9 ^ (1 / 3) = 0.9655.
const Z_POWER: f64 = 1.818_7;
/// Runs that must all find the same difference before it is believed: under equality that happens to 2 x 0.0005 ^ 3,
/// once in four thousand million times.
pub(super) const RUNS: usize = 3;

/// What a run found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    /// Probability that one of the first sample is larger, ties counting half.
    pub(super) first_larger: f64,
    /// Standard error of that under equality.
    pub(super) error: f64,
}

impl Compared {
    /// Compares two samples, none of them empty.
    pub(super) fn new(first: &[f64], second: &[f64]) -> Self {
        let mut all: Vec<(f64, bool)> =
            first.iter().map(|it| (*it, true)).chain(second.iter().map(|it| (*it, false))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (n, m) = (first.len() as f64, second.len() as f64);
        // Ties share the mean of their ranks.
        let (mut ranks, mut start) = (0.0, 0);
        while start < all.len() {
            let end = start + all[start..].iter().take_while(|it| it.0 <= all[start].0).count();
            let rank = f64::midpoint(start as f64 + 1.0, end as f64);
            ranks += rank * all[start..end].iter().filter(|it| it.1).count() as f64;
            start = end;
        }
        let first_larger = (ranks - n * (n + 1.0) / 2.0) / (n * m);
        Self { first_larger, error: ((n + m + 1.0) / (12.0 * n * m)).sqrt() }
    }

    /// Above 0 when the first sample is larger and below when it is smaller, by more than chance; 0 for neither.
    pub(super) fn verdict(self) -> i32 {
        let distance = (self.first_larger - 0.5) / self.error;
        if distance.abs() <= Z_ALPHA { 0 } else { distance.signum() as i32 }
    }

    /// The largest distance from 1/2 that counts as none.
    pub(super) fn critical(self) -> f64 {
        Z_ALPHA * self.error
    }

    /// The smallest distance from 1/2 that all [`RUNS`] find with a probability of 0.9.
    pub(super) fn detectable(self) -> f64 {
        (Z_ALPHA + Z_POWER) * self.error
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn ranks_and_ties_count_as_the_definition_says() {
        let (first, second) = ([1.0, 4.0, 4.0, 9.0], [0.0, 4.0, 5.0]);
        let mut larger = 0.0;
        for a in first {
            for b in second {
                larger += if a > b {
                    1.0
                } else if a < b {
                    0.0
                } else {
                    0.5
                };
            }
        }
        let compared = Compared::new(&first, &second);
        assert!((compared.first_larger - larger / 12.0).abs() < 1e-12, "{compared:?}");
        assert!((compared.error - (8.0_f64 / 144.0).sqrt()).abs() < 1e-12);
        assert!((Compared::new(&[2.0; 50], &[1.0; 50]).first_larger - 1.0).abs() < 1e-12);
    }

    /// A skewed distribution with a long tail, as latencies have.
    fn sample(random: &mut StdRng, count: usize, slower: f64) -> Vec<f64> {
        (0..count).map(|_| 30.0 + slower - 4.0 * (1.0 - random.random::<f64>()).ln()).collect()
    }

    #[test]
    fn false_alarms_are_as_rare_and_found_differences_as_frequent_as_is_said() {
        const ROUNDS: usize = 2_000;
        const COUNT: usize = 120;
        let mut random = StdRng::seed_from_u64(4_711);
        let mut alarms = 0;
        for _ in 0..ROUNDS {
            let (a, b) = (sample(&mut random, COUNT, 0.0), sample(&mut random, COUNT, 0.0));
            alarms += usize::from(Compared::new(&a, &b).verdict() != 0);
        }
        // 2 are expected; more than 9 come once in a hundred thousand times.
        assert!(alarms <= 9, "{alarms} of {ROUNDS}");

        // Of two exponential times with mean 4, one later by d is larger with a probability of 1 - exp(-d/4) / 2.
        let detectable = Compared::new(&[0.0; COUNT], &[1.0; COUNT]).detectable();
        let slower = -4.0 * (1.0 - 2.0 * detectable).ln();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let all = (0..RUNS).all(|_| {
                let (a, b) = (sample(&mut random, COUNT, slower), sample(&mut random, COUNT, 0.0));
                Compared::new(&a, &b).verdict() > 0
            });
            found += usize::from(all);
        }
        let power = found as f64 / ROUNDS as f64;
        assert!(power > 0.87, "{power}");
    }
}
