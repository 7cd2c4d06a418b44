//! How fast a backlog is drained, compared with the ceiling, and with all payments crediting one account.
//!
//! The real processor process is stopped (SIGSTOP), a backlog is produced, and it goes on. The rate is read from
//! what it left behind: every batch carries one `decided_at`, taken once its rows are locked, so the time from the
//! first batch's to the last one's is the time of all batches but the last.
//!
//! The kinds of run alternate, since a machine is never equally fast twice, and medians are compared.

use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::command::PartnerEnvelope;
use domain::topic::PARTNER_COMMANDS;
use migrations::users::Role;
use sqlx::{MySqlPool, Row as _};

use super::ceiling::Ceiling;
use super::city::{City, Credit, SIZE, applied, wait_applied};
use super::median;
use crate::driver::now_us;
use crate::proc;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, Service, System};

/// Payments of one run: some four seconds, and little enough for memory.
const PAYMENTS: usize = 30_000;
/// Payments that warm caches up and show what an event looks like.
const WARM_UP: usize = 20_000;
/// Runs of each kind.
const ROUNDS: usize = 3;
/// The processor's default.
const BATCH: usize = 500;

/// What a drain showed.
pub(super) struct Drained {
    pub(super) commands_per_second: f64,
    /// Of batches, without the last one.
    pub(super) batch_mean: f64,
    pub(super) statements_per_command: f64,
    /// CPU of the processor process for one command, in microseconds.
    pub(super) processor_cpu_us: f64,
}

/// The median of a figure.
pub(super) fn median_of(runs: &[Drained], figure: impl Fn(&Drained) -> f64) -> f64 {
    median(runs.iter().map(figure))
}

/// Measures and reports.
pub(super) async fn measure(servers: Servers, report: &mut Report) -> anyhow::Result<()> {
    let options = Options { ingests: 0, notifiers: 0, customers: 1, ..Options::new("drain") };
    let system = System::start(servers, options).await?;
    let mut city = City::new(SIZE);
    city.build(system.pool(), system.kafka()).await?;
    payments(&system, &mut city, WARM_UP, Credit::Spread).await?;
    payments(&system, &mut city, WARM_UP / 2, Credit::OneAccount).await?;
    let mut ceiling = Ceiling::copy_of(system.mysql(), system.pool()).await?;
    let (mut spread, mut one_account, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        bare.push(ceiling_run(&mut ceiling, &mut city).await?);
        spread.push(payments(&system, &mut city, PAYMENTS, Credit::Spread).await?);
        one_account.push(payments(&system, &mut city, PAYMENTS, Credit::OneAccount).await?);
        let rate = |runs: &[Drained]| runs.last().map_or(0.0, |run| run.commands_per_second);
        eprintln!(
            "  … round {round}: bare {:.0}, drain {:.0}, one account {:.0} payments/s",
            bare.last().copied().unwrap_or_default(),
            rate(&spread),
            rate(&one_account)
        );
    }
    ceiling.remove().await?;
    let rate = |runs: &[Drained]| median_of(runs, |run| run.commands_per_second);
    let (spread_rate, bare_rate) = (rate(&spread), median(bare));
    report.add(
        "drain of a backlog over 10,000 accounts, batches of 500",
        spread_rate,
        "payments/s",
        Goal::None,
    );
    report.add("ceiling: bare statements writing the same rows", bare_rate, "payments/s", Goal::None);
    report.add("drain / ceiling", spread_rate / bare_rate, "", Goal::AtLeast(0.8));
    report.add("drain with one credited account", rate(&one_account), "payments/s", Goal::None);
    report.add("one credited account / 10,000", rate(&one_account) / spread_rate, "", Goal::AtLeast(0.9));
    let statements = median_of(&spread, |run| run.statements_per_command);
    report.add("SQL statements per payment, counted by MySQL", statements, "", Goal::AtMost(0.1));
    report.add("commands in a batch, mean", median_of(&spread, |run| run.batch_mean), "", Goal::None);
    let cpu = median_of(&spread, |run| run.processor_cpu_us);
    report.add("CPU of the processor per payment", cpu, "us", Goal::None);
    system.finish().await
}

async fn ceiling_run(ceiling: &mut Ceiling, city: &mut City) -> anyhow::Result<f64> {
    let texts = ceiling.texts(&city.payments(PAYMENTS, Credit::Spread), BATCH);
    let took: Duration = ceiling.run(&texts).await?.iter().sum();
    Ok(PAYMENTS as f64 / took.as_secs_f64())
}

/// Drains the next `count` payments of the city.
pub(super) async fn payments(
    system: &System,
    city: &mut City,
    count: usize,
    credit: Credit,
) -> anyhow::Result<Drained> {
    let payments = city.payments(count, credit).into_iter().map(|(_, envelope)| envelope);
    drain(system, payments.collect()).await
}

/// Produces commands, none of which may be rejected, while the processor stands still, and lets it go on.
pub(super) async fn drain(system: &System, commands: Vec<PartnerEnvelope>) -> anyhow::Result<Drained> {
    let count = commands.len();
    let before = applied(system.pool(), 1).await?;
    let pid = system.pid(Service::Processor, 0).context("the processor does not run")?;
    let (statements, cpu, since) = (statements(system).await?, proc::cpu_seconds(pid)?, now_us());
    system.pause(Service::Processor, 0)?;
    let produced = City::produce(system.kafka(), commands).await;
    system.resume(Service::Processor, 0)?;
    wait_applied(system.pool(), 1, before + produced?).await?;
    let batches = batches(system.pool(), since).await?;
    let statements_per_command = (self::statements(system).await? - statements) / count as f64;
    let processor_cpu_us = (proc::cpu_seconds(pid)? - cpu) / count as f64 * 1e6;
    let ([(first, _), ..], [all_but_last @ .., (last, _)]) = (batches.as_slice(), batches.as_slice()) else {
        bail!("a drain of {count} commands left no batch");
    };
    if all_but_last.is_empty() {
        bail!("a drain of {count} commands was one batch: too few to measure");
    }
    let measured: u64 = all_but_last.iter().map(|(_, commands)| commands).sum();
    Ok(Drained {
        commands_per_second: measured as f64 / ((last - first) as f64 / 1e6),
        batch_mean: measured as f64 / all_but_last.len() as f64,
        statements_per_command,
        processor_cpu_us,
    })
}

/// When each batch since `since_us` was decided, in microseconds since 1970, and how many commands it decided.
async fn batches(pool: &MySqlPool, since_us: i64) -> anyhow::Result<Vec<(i64, u64)>> {
    // Partitions that no topic has are what a store was filled with.
    let rows = sqlx::query(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', decided_at) AS at, CAST(COUNT(*) AS UNSIGNED), \
         CAST(SUM(reason IS NOT NULL) AS UNSIGNED) FROM payments WHERE source = 1 AND kafka_partition < ? AND \
         decided_at >= '1970-01-01' + INTERVAL ? MICROSECOND GROUP BY decided_at ORDER BY decided_at",
    )
    .bind(PARTNER_COMMANDS.partitions)
    .bind(since_us)
    .fetch_all(pool)
    .await?;
    let mut batches = Vec::with_capacity(rows.len());
    for row in rows {
        let rejected: u64 = row.try_get(2)?;
        if rejected > 0 {
            bail!("{rejected} commands of the backlog were rejected: the benchmark measures something else");
        }
        batches.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(batches)
}

/// Statements that MySQL has counted for the processor's user, pings included.
async fn statements(system: &System) -> anyhow::Result<f64> {
    statements_of(system, Role::Processor).await
}

/// Statements that MySQL has counted for a service's user, pings included. A text of several statements counts as
/// several.
pub(super) async fn statements_of(system: &System, role: Role) -> anyhow::Result<f64> {
    let url = url::Url::parse(&system.mysql_of(role).mysql_url)?;
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(COUNT_STAR), 0) AS UNSIGNED) \
         FROM performance_schema.events_statements_summary_by_user_by_event_name WHERE USER = ?",
    )
    .bind(url.username())
    .fetch_one(system.pool())
    .await?;
    let count: u64 = row.try_get(0)?;
    Ok(count as f64)
}
