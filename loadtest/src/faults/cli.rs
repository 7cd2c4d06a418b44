//! `loadtest faults`: the fault harness with parameters of one's own, and the strict measure of isolation.

use std::time::Duration;

use super::endpoints::{self, Plan};
use super::killed_anywhere;

/// Beside bad endpoints, the p99 of healthy ones is worse by less than a fifth.
const RATIO_MAX: f64 = 1.2;

/// What to break, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Draws moments and targets; printed when it was not given, so that a run can be repeated.
    #[arg(long)]
    pub seed: Option<u64>,
    /// SIGKILLs to processor, notifier and ingest; MySQL and Kafka are killed once each besides. 0 leaves all that out.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub kills: u32,
    /// Payments a second while things break.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Seconds of each half of the measure of isolation: healthy endpoints alone, and beside bad ones. 0 leaves it out.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub seconds: u64,
    /// Measure isolation with 50 endpoints of which 35 are bad, instead of 22 of which 2 are.
    #[arg(long)]
    pub fifty: bool,
    /// How often isolation is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: u16,
}

/// Runs both; an error is a difference or a goal that is missed.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    if config.kills > 0 {
        let seed = config.seed.unwrap_or_else(rand::random);
        println!("seed {seed}, {} kills, {} payments a second", config.kills, config.rate);
        let outcome =
            killed_anywhere::run(killed_anywhere::Plan { seed, kills: config.kills, rate: config.rate })
                .await?;
        println!("nothing lost, nothing twice, everything told: {outcome:#?}");
    }
    if config.seconds > 0 { isolation(config).await } else { Ok(()) }
}

/// Each round has a bank of its own; the median leaves out the round that the machine disturbed.
async fn isolation(config: &Config) -> anyhow::Result<()> {
    let half = Duration::from_secs(config.seconds);
    let plan = if config.fifty { Plan::fifty(half, config.rate) } else { Plan::two_bad(half, config.rate) };
    let mut ratios = Vec::new();
    for round in 1..=config.rounds {
        let measured = endpoints::run(&plan).await?;
        println!(
            "round {round}, healthy endpoints, decision to receipt: p50 {:.1} ms, p99 {:.1} ms alone; p50 {:.1} ms, p99 {:.1} \
             ms beside bad ones; p99 ratio {:.2}; notifier {:.0} MiB",
            measured.alone_p50_ms,
            measured.alone_p99_ms,
            measured.beside_p50_ms,
            measured.beside_p99_ms,
            measured.ratio(),
            measured.notifier_mib,
        );
        ratios.push(measured.ratio());
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("p99 ratio, median of {} rounds: {median:.2} (goal: below {RATIO_MAX})", ratios.len());
    anyhow::ensure!(median < RATIO_MAX, "healthy endpoints wait for bad ones");
    Ok(())
}
