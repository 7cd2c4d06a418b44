//! How fast retries that are due are drained, and how much memory that takes.
//!
//! The rows are written as if every first attempt had failed while all endpoints were away; then the notifier starts.
//! What it finds on the topic is recorded already, so that all it has to do is to claim, read, sign, send and record.

use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::ids::{EndpointId, PartnerId, event_id};
use migrations::users::Role;
use runtime::sql::Sql;

use super::city::{self, City};
use super::drain::statements_of;
use super::webhooks::rate;
use super::{Config, subscribers};
use crate::faults::store;
use crate::proc;
use crate::report::{Goal, Report};
use crate::sink::Sink;
use crate::system::{Options, Servers, Service, System};

/// Endpoints that were away; each has an even share of the backlog.
const ENDPOINTS: [usize; 2] = [200, 10];
/// Rows of one statement.
const ROWS: u64 = 2_000;
/// How long the sink may wait for the next delivery.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_MIB_MAX: f64 = 200.0;

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let endpoints = config.size(ENDPOINTS[0], ENDPOINTS[1]);
    let events = (config.backlog() / endpoints as u64).max(1);
    let options = Options { ingests: 0, customers: 10, ..Options::new("backlog") };
    let system = System::start(servers, options).await?;
    let sink = Sink::start(system.partners()[0].webhook_listen).await?;
    sink.trust_bodies();
    let partner = system.partners()[0].id;
    system.terminate(Service::Notifier, 0).await?;
    subscribers::remove_all(&system, partner).await?;
    let paths: Vec<_> = (0..endpoints).map(|number| format!("/away/{number}")).collect();
    let endpoints = subscribers::add(&system, &sink, partner, &paths).await?;
    let after = store::last_sequence(system.pool(), partner).await?;
    let mandates = city::mandates_of(system.pool()).await?;
    let applied = city::applied(system.pool(), 1).await?;
    let payments = city::payments(&mandates, applied..applied + events);
    City::produce(system.kafka(), payments.into_iter().map(|(_, envelope)| envelope)).await?;
    city::wait_applied(system.pool(), 1, applied + events).await?;
    for endpoint in &endpoints {
        fail_first(&system, partner, *endpoint, after + 1..after + events + 1).await?;
    }
    let backlog = events * endpoints.len() as u64;
    let statements = statements_of(&system, Role::Notifier).await?;
    system.spawn(Service::Notifier, 0)?;
    let (mut seen, mut moves) = (0, true);
    while seen < backlog && moves {
        moves = sink.wait_until(PATIENCE, |sink| sink.total().events > seen).await;
        sink.wait_until(Duration::from_secs(1), |sink| sink.total().events >= backlog).await;
        seen = sink.total().events;
    }
    if seen < backlog {
        bail!("{seen} of {backlog} retries came, and then none for {PATIENCE:?}: {:?}", sink.first_problem());
    }
    let pid = system.pid(Service::Notifier, 0).context("the notifier does not run")?;
    let cpu_ms = proc::cpu_seconds(pid)? / backlog as f64 * 1e6;
    let mib = proc::rss_max_bytes(pid)? / 1_048_576.0;
    // What was sent is recorded shortly afterwards.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let statements = (statements_of(&system, Role::Notifier).await? - statements) / backlog as f64;
    let received = paths.iter().flat_map(|path| sink.received(path));
    let times = received.filter(|it| !it.repeated).map(|it| it.received_us).collect();
    let name = format!("retries due drained from a backlog of {backlog}");
    report.add(name, rate(times), "deliveries/s", Goal::None);
    report.add("CPU of the notifier for 1,000 retries", cpu_ms, "ms", Goal::None);
    report.add("SQL statements per retry", statements, "", Goal::None);
    report.add("memory of notifier with that backlog, at most", mib, "MiB", Goal::AtMost(MEMORY_MIB_MAX));
    sink.stop().await;
    system.finish().await
}

/// Writes down that the first attempt at each of these events failed, and that the next is due.
async fn fail_first(
    system: &System,
    partner: PartnerId,
    endpoint: EndpointId,
    sequences: std::ops::Range<u64>,
) -> anyhow::Result<()> {
    let mut next = sequences.start;
    while next < sequences.end {
        let end = sequences.end.min(next + ROWS);
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, \
             created_at) VALUES ",
        );
        sql.list(next..end, |sql, sequence| {
            sql.text("(").uuid(endpoint.uuid()).text(", ").uuid(event_id(partner, 1, sequence).uuid());
            sql.text(", ").uuid(partner.uuid()).text(", 1, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))");
        });
        sqlx::raw_sql(sql.as_str()).execute(system.pool()).await?;
        next = end;
    }
    Ok(())
}
