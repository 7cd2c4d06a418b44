//! Times as counts that can be added up: the histogram of a day is the sum of those of its hours, on whatever machine
//! they were counted. A step is at most an eighth wide, so a quantile is told at most an eighth too high.

use std::collections::BTreeMap;

/// Steps of each doubling, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: u64 = 1 << STEP_BITS;

/// The step that a number of microseconds falls into.
pub const fn step(micros: u64) -> u16 {
    if micros < STEPS {
        return micros as u16;
    }
    let doubling = micros.ilog2() - STEP_BITS;
    let within = (micros >> doubling) - STEPS;
    ((doubling as u64 + 1) * STEPS + within) as u16
}

/// The largest number of microseconds of a step.
pub const fn step_max(step: u16) -> u64 {
    let step = step as u64;
    if step < STEPS {
        return step;
    }
    let (doubling, within) = (step / STEPS - 1, step % STEPS);
    // The last step ends where the numbers end.
    let end = ((STEPS + within + 1) as u128) << doubling;
    if end > u64::MAX as u128 { u64::MAX } else { end as u64 - 1 }
}

/// How many times fell into each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<u16, u64>,
    total: u64,
}

impl Histogram {
    /// Adds `count` times of a step.
    pub fn add(&mut self, step: u16, count: u64) {
        *self.counts.entry(step).or_default() += count;
        self.total += count;
    }

    /// Adds all that another one has.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.counts {
            self.add(*step, *count);
        }
    }

    /// How many there are.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The counts by step.
    pub fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        self.counts.iter().map(|(step, count)| (*step, *count))
    }

    /// The microseconds that `thousandths` of all do not exceed, told at most an eighth too high; `None` of nothing.
    pub fn quantile(&self, thousandths: u64) -> Option<u64> {
        let rank = (u128::from(self.total) * u128::from(thousandths)).div_ceil(1_000).max(1);
        let mut seen = 0_u128;
        self.counts.iter().find_map(|(step, count)| {
            seen += u128::from(*count);
            (seen >= rank).then(|| step_max(*step))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_follow_one_another_without_a_hole() {
        let mut next = 0;
        for number in 0..=step(u64::MAX) {
            assert_eq!(step(next), number);
            assert_eq!(step(step_max(number)), number);
            next = step_max(number).wrapping_add(1);
        }
        assert_eq!(next, 0, "the last step ends with the last number");
    }

    #[test]
    fn quantiles_of_what_is_known() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        for micros in 1..=1_000 {
            histogram.add(step(micros), 1);
        }
        assert_eq!(histogram.total(), 1_000);
        for (thousandths, exact) in [(500, 500), (950, 950), (990, 990), (1_000, 1_000)] {
            let told = histogram.quantile(thousandths).unwrap();
            assert!((exact..=exact + exact / 8).contains(&told), "{thousandths}: {told}");
        }
        assert_eq!(histogram.quantile(0), Some(1));
    }

    proptest! {
        #[test]
        fn a_step_is_at_most_an_eighth_wide(micros in any::<u64>()) {
            let told = step_max(step(micros));
            prop_assert!(told >= micros && told - micros <= micros / 8);
        }

        #[test]
        fn parts_add_up_to_the_whole(times in proptest::collection::vec(any::<u64>(), 0..50), cut in 0..50_usize) {
            let of = |times: &[u64]| times.iter().fold(Histogram::default(), |mut sum, micros| {
                sum.add(step(*micros), 1);
                sum
            });
            let (left, right) = times.split_at(cut.min(times.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(merged, of(&times));
        }
    }
}
