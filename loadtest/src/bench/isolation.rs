//! What healthy endpoints wait beside bad ones, by what they wait alone: 50 endpoints of which 10 hang, 10 answer 500, 5
//! reset connections, 5 drip a byte a second and 5 answer 10 MiB.
//!
//! Each round has a bank of its own, and the median leaves out the round that the machine disturbed.

use std::time::Duration;

use super::{Config, median};
use crate::faults::endpoints::{self, Measured, Plan};
use crate::report::{Goal, Report};

/// Rounds, and seconds of each half of a round.
const ROUNDS: [usize; 2] = [3, 1];
const HALF_S: [usize; 2] = [20, 2];
/// Payments a second to the healthy endpoints. So few that two cores, which also bear the load and all receivers, are not
/// busy: otherwise the ratio tells what the bad endpoints' requests cost this machine, and not who waits for whom.
const RATE: [usize; 2] = [45, 30];
const RATIO_MAX: f64 = 1.2;

/// Measures and reports.
pub(super) async fn measure(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let size = |[measured, quick]: [usize; 2]| config.size(measured, quick);
    let plan = Plan::fifty(Duration::from_secs(size(HALF_S) as u64), size(RATE) as f64);
    let mut rounds = Vec::new();
    for _ in 0..size(ROUNDS) {
        let measured = endpoints::run(&plan).await?;
        eprintln!(
            "  … p99 of healthy endpoints {:.1} ms alone, {:.1} ms beside 35 bad ones",
            measured.alone_p99_ms, measured.beside_p99_ms
        );
        rounds.push(measured);
    }
    let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure));
    let alone = of(|it| it.alone_p99_ms);
    report.add("decision to webhook, 15 healthy endpoints alone, p99", alone, "ms", Goal::None);
    report.add("the same beside 35 bad ones, p99", of(|it| it.beside_p99_ms), "ms", Goal::None);
    report.add("p99 beside bad endpoints / alone", of(Measured::ratio), "", Goal::AtMost(RATIO_MAX));
    let mib = rounds.iter().map(|it| it.notifier_mib).fold(0.0, f64::max);
    report.add("memory of notifier beside bad endpoints, at most", mib, "MiB", Goal::AtMost(200.0));
    Ok(())
}
