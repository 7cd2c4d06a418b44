//! The figures by hour and day: counted a little after the ledger, in steps that each process may make and that count
//! nothing twice.
//!
//! A step reads what is new by its position (the primary key of `payments`, in the order in which it was applied), adds
//! it to the sums and moves the position, in one transaction. Killed anywhere, it has done all of that or nothing. The
//! lease saves work; that nothing counts twice rests on the lock of the positions alone.
//!
//! Dead letters leave their rows at old places when they are redriven. They are counted with the command that redrove
//! them, and never where they stand.
//!
//! Counting anew (`admin-api rebuild-analytics`) makes another generation beside the one that is shown, and shows it once
//! it has caught up. API calls and deliveries are not counted anew: what they were counted from is deleted after a while.

pub mod facts;

use std::time::Duration;

use jiff::tz::TimeZone;
use runtime::config::{ConfigError, MysqlConfig};
use sqlx::MySqlPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::evidence::lease::Lease;
use crate::metrics;
use crate::store::analytics::{self as store, Generation, count};
use facts::Increments;

/// How long a dead process keeps the others waiting.
const LEASE: Duration = Duration::from_secs(15);
/// Commands of one step: some tenths of a second of work.
const STEP_ROWS: u64 = 5_000;
/// One counts, one renews the lease.
const CONNECTIONS: u32 = 2;
/// Between two looks for what can be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Failures in a row after which counting anew ends, and how long it waits after each.
const FAILURES_MAX: u32 = 10;
const RETRY: Duration = Duration::from_secs(1);

/// How figures are counted.
#[derive(Debug, Clone, clap::Args)]
pub struct AnalyticsConfig {
    /// The time zone whose calendar days are counted, by its IANA name; the same as the processor's. Another one counts
    /// only what is counted anew.
    #[arg(long, env = "WIRED_BANK_TIME_ZONE", default_value = "Europe/Vienna", value_parser = time_zone)]
    pub bank_time_zone: TimeZone,
    /// Seconds between two looks for something to count. Less shows it sooner and asks MySQL more often.
    #[arg(long, env = "WIRED_ANALYTICS_INTERVAL_SECONDS", default_value_t = 2.0)]
    pub analytics_interval_seconds: f64,
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("{name} is no IANA time zone such as Europe/Vienna"))
}

impl AnalyticsConfig {
    /// Begins to count; ends with `stop`.
    pub fn start(
        &self,
        mysql: &MysqlConfig,
        stop: &CancellationToken,
    ) -> Result<JoinHandle<()>, ConfigError> {
        let seconds = self.analytics_interval_seconds;
        let seconds = if seconds.is_finite() { seconds.clamp(0.05, 600.0) } else { 2.0 };
        let counter = Counter {
            pool: mysql.pool("analytics", CONNECTIONS)?,
            zone: self.bank_time_zone.clone(),
            interval: Duration::from_secs_f64(seconds),
        };
        Ok(tokio::spawn(counter.run(stop.clone())))
    }
}

/// Counts for as long as it runs.
struct Counter {
    pool: MySqlPool,
    zone: TimeZone,
    interval: Duration,
}

impl Counter {
    async fn run(self, stop: CancellationToken) {
        let lease = Lease::new(self.pool.clone(), "analytics", LEASE);
        while !stop.is_cancelled() {
            match lease.take().await {
                Ok(true) => {
                    let working = stop.child_token();
                    lease.keep_during(&working, self.work(&working)).await;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "counting waits for mysql"),
            }
            pause(&stop, self.interval.min(LEASE)).await;
        }
        lease.release().await;
    }

    async fn work(&self, stop: &CancellationToken) {
        let mut forgotten = tokio::time::Instant::now();
        while !stop.is_cancelled() {
            if let Err(error) = self.round(stop, &mut forgotten).await {
                tracing::warn!(error = %error, "figures were not counted");
                metrics::analytics_failed();
            }
            pause(stop, self.interval).await;
        }
    }

    async fn round(
        &self,
        stop: &CancellationToken,
        forgotten: &mut tokio::time::Instant,
    ) -> Result<(), sqlx::Error> {
        let generation = shown_or_begun(&self.pool, &self.zone).await?;
        let zone = zone_of(&generation);
        if zone.iana_name() != self.zone.iana_name() {
            tracing::warn!(
                zone.counted = generation.time_zone,
                "WIRED_BANK_TIME_ZONE was changed: run `admin-api rebuild-analytics` to count by its days"
            );
        }
        while !stop.is_cancelled()
            && step(&self.pool, generation.number, &zone, STEP_ROWS).await? == Step::More
        {}
        while !stop.is_cancelled() && store::calls::step(&self.pool, &zone).await? == Step::More {}
        metrics::analytics_behind(store::behind(&self.pool, generation.number).await?);
        if forgotten.elapsed() >= FORGET_INTERVAL {
            while !stop.is_cancelled() && count::forget(&self.pool, generation.number).await? > 0 {}
            *forgotten = tokio::time::Instant::now();
        }
        Ok(())
    }
}

async fn pause(stop: &CancellationToken, length: Duration) {
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = stop.cancelled() => {}
    }
}

/// The generation that is shown; the first one is begun.
pub async fn shown_or_begun(pool: &MySqlPool, zone: &TimeZone) -> Result<Generation, sqlx::Error> {
    loop {
        if let Some(generation) = store::shown(pool).await? {
            return Ok(generation);
        }
        let (last, _) = count::generations(pool).await?;
        // When another process was faster, its generation is found.
        count::begin(pool, last + 1, true, zone.iana_name().unwrap_or("UTC")).await?;
    }
}

/// Whose days a generation counts.
pub fn zone_of(generation: &Generation) -> TimeZone {
    // Only names that were found once are stored.
    TimeZone::get(&generation.time_zone).unwrap_or(TimeZone::UTC)
}

/// What a step left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to count.
    More,
    /// Everything that was applied is counted.
    Done,
    /// The generation is not there any more.
    Gone,
}

/// Counts up to `rows_max` commands in one transaction.
pub async fn step(
    pool: &MySqlPool,
    generation: u32,
    zone: &TimeZone,
    rows_max: u64,
) -> Result<Step, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let positions = count::lock(&mut transaction, generation).await?;
    if positions.is_empty() {
        return Ok(Step::Gone);
    }
    let (mut increments, mut left, mut more) = (Increments::default(), rows_max, false);
    for at in positions.iter().filter(|at| at.counted < at.applied) {
        if left == 0 {
            more = true;
            break;
        }
        let facts = count::facts(&mut transaction, at, left).await?;
        let is_cut = facts.len() as u64 >= left;
        // A page that was cut ends with its last row, any other one where everything is applied.
        let counted = match facts.last() {
            Some((last, _)) if is_cut => last + 1,
            _ => at.applied,
        };
        left = left.saturating_sub(facts.len() as u64);
        more |= is_cut;
        for fact in facts.iter().filter_map(|(_, fact)| fact.as_ref()) {
            increments.add(fact, zone);
        }
        if at.source == domain::topic::Source::Bank {
            let changes = count::redrives(&mut transaction, at.partition, at.counted..counted).await?;
            let redriven = count::redriven(&mut transaction, changes).await?;
            for fact in &redriven {
                increments.add(fact, zone);
            }
        }
        count::advance(&mut transaction, generation, at, counted).await?;
    }
    count::add(&mut transaction, generation, &increments).await?;
    count::touch(&mut transaction, generation).await?;
    transaction.commit().await?;
    Ok(if more { Step::More } else { Step::Done })
}

/// Why counting anew did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// MySQL did not serve.
    #[error("MySQL: {0}; what was shown before is still shown, run this again")]
    Mysql(#[from] sqlx::Error),
    /// Somebody else did the same later.
    #[error("somebody else began to count anew; this run gave way")]
    GaveWay,
}

/// `admin-api rebuild-analytics`.
#[derive(Debug, Clone, clap::Args)]
pub struct RebuildConfig {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// The time zone whose calendar days are counted from now on.
    #[arg(long, env = "WIRED_BANK_TIME_ZONE", default_value = "Europe/Vienna", value_parser = time_zone)]
    pub bank_time_zone: TimeZone,
}

/// Counts everything anew and shows it; meanwhile what was shown goes on. The generation that is shown now.
pub async fn rebuild(config: &RebuildConfig) -> Result<u32, RebuildError> {
    let pool = config.mysql.pool("analytics", CONNECTIONS)?;
    let zone = &config.bank_time_zone;
    let generation = loop {
        let (last, open) = count::generations(&pool).await?;
        // The program that began it may have counted otherwise.
        for generation in open {
            count::give_up(&pool, generation).await?;
        }
        if count::begin(&pool, last + 1, false, zone.iana_name().unwrap_or("UTC")).await? {
            break last + 1;
        }
    };
    let mut failures = 0;
    loop {
        match step(&pool, generation, zone, STEP_ROWS).await {
            Ok(Step::More) => failures = 0,
            Ok(Step::Done) => break,
            Ok(Step::Gone) => return Err(RebuildError::GaveWay),
            Err(error) if failures == FAILURES_MAX => return Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %error, "a step is tried again");
                failures += 1;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    // What was applied since is counted by whoever counts what is shown.
    if !count::show(&pool, generation).await? {
        return Err(RebuildError::GaveWay);
    }
    while count::forget(&pool, generation).await? > 0 {}
    Ok(generation)
}
