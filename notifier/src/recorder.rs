//! Records results in bulk: one transaction for whatever has gathered in a few milliseconds.
//!
//! New deliveries (first tries that ended, were spilled or took long) are plain multi-row INSERTs. Everything else,
//! and a batch in which a row was there already, is merged with the locked rows: a delivered delivery stays delivered
//! whatever arrives later, and a failure counts only for who holds the lease.
//!
//! Only after the commit are offsets released and memory given back. While MySQL is away it tries again for ever:
//! what is bounded are the results that wait, by the permits that their deliveries hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::notice::NoticeType;
use domain::time::Timestamp;
use runtime::health::Component;
use sqlx::MySqlPool;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use crate::due::DueBoard;
use crate::endpoints::{Endpoint, Endpoints, Snapshot};
use crate::in_progress::InProgress;
use crate::metrics;
use crate::store::deliveries::{self, AttemptRow, DeliveryRow, Outcome};
use crate::store::endpoint_states::{self, Change, Concerned};
use crate::store::{DeliveryKey, Status};

/// How long results gather after the first: longer saves transactions, and costs repeated webhooks after a crash.
const LINGER: Duration = Duration::from_millis(15);
/// Results of one transaction.
const BATCH_MAX: usize = deliveries::ROWS_MAX;
/// Waits between tries while MySQL is away.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where a delivery stands after a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The receiver accepted it.
    Delivered,
    /// The next attempt is due then.
    Due(Timestamp),
    /// An attempt is under way here, until then.
    Leased(Timestamp),
    /// Given up.
    Dead,
}

/// What is known of an attempt.
#[derive(Debug, Clone)]
pub struct AttemptResult {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_us: u32,
    /// The status of the answer.
    pub status_code: Option<u16>,
    /// The receiver accepted the event.
    pub succeeded: bool,
    /// Why it failed, or what was odd about a success.
    pub error_class: Option<&'static str>,
    /// The beginning of a failure's body.
    pub excerpt: Option<Vec<u8>>,
    /// The rule by which the guard refused.
    pub refused_by: Option<&'static str>,
    /// The receiver said that the endpoint is gone for good.
    pub gone: bool,
    /// It failed before it reached the endpoint, which must not be blamed.
    pub ours: bool,
}

/// A result to be recorded.
#[derive(Debug)]
pub struct Record {
    /// Of which delivery.
    pub key: DeliveryKey,
    /// Whose event it is.
    pub partner: Uuid,
    /// When it was known.
    pub at: Timestamp,
    /// Where the delivery stands.
    pub standing: Standing,
    /// The attempt, if one was made.
    pub attempt: Option<AttemptResult>,
    /// The delivery is not recorded yet, as far as we know; its offset waits for this.
    pub first: bool,
    /// The memory that the delivery holds.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Writes results.
pub struct Recorder {
    pool: MySqlPool,
    owner: Uuid,
    in_progress: Arc<InProgress>,
    due: Arc<DueBoard>,
    endpoints: Arc<Endpoints>,
    health: Component,
    /// What was last written of each endpoint: since when it fails.
    failing: HashMap<Uuid, Option<Timestamp>>,
}

impl Recorder {
    /// A recorder for the process `owner`.
    pub fn new(
        pool: MySqlPool,
        owner: Uuid,
        in_progress: Arc<InProgress>,
        due: Arc<DueBoard>,
        endpoints: Arc<Endpoints>,
        health: Component,
    ) -> Self {
        Self { pool, owner, in_progress, due, endpoints, health, failing: HashMap::new() }
    }

    /// Records until all senders are gone.
    pub async fn run(mut self, mut records: mpsc::UnboundedReceiver<Record>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(first) = records.recv().await {
            batch.push(first);
            let end = Instant::now() + LINGER;
            while batch.len() < BATCH_MAX {
                match tokio::time::timeout_at(end, records.recv()).await {
                    Ok(Some(record)) => batch.push(record),
                    Ok(None) | Err(_) => break,
                }
                while batch.len() < BATCH_MAX
                    && let Ok(record) = records.try_recv()
                {
                    batch.push(record);
                }
            }
            self.record(&batch).await;
            self.settle(&mut batch);
        }
    }

    /// Writes until it is written.
    async fn record(&mut self, batch: &[Record]) {
        let mut backoff = BACKOFF_MIN;
        let (mut new, mut merged) = split(batch);
        loop {
            let written = match self.write_new(&new).await {
                Ok(()) => {
                    new.clear();
                    self.merge(&merged).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = written else { break };
            metrics::add("wired_notifier_flush_errors_total", 1);
            if is_duplicate(&error) {
                // Some of it was recorded already, by another process or by a commit whose answer got lost.
                merged = new.drain(..).chain(merged).collect();
            } else {
                self.health.down(format!("results cannot be recorded: {error}"));
            }
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.health.up();
        metrics::add("wired_notifier_flushes_total", 1);
        metrics::record("wired_notifier_flush_rows", batch.len() as f64);
        self.record_states(batch).await;
    }

    async fn write_new(&self, records: &[&Record]) -> Result<(), sqlx::Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(records.len());
        let mut attempts = Vec::with_capacity(records.len());
        for record in records {
            let number = u8::from(record.attempt.is_some());
            rows.push(row(record, record.standing, number, self.owner));
            attempts.extend(attempt_row(record, number));
        }
        // Rows in the order of their keys are appended to each endpoint's pages.
        rows.sort_unstable_by_key(|row| row.key);
        attempts.sort_unstable_by_key(|row| row.key);
        let mut connection = self.pool.acquire().await?;
        deliveries::insert(&mut connection, self.owner, &rows, &attempts).await
    }

    async fn merge(&self, records: &[&Record]) -> Result<(), sqlx::Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut keys: Vec<_> = records.iter().map(|record| record.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut connection = self.pool.acquire().await?;
        let merged = async {
            let stored = deliveries::lock(&mut connection, &keys).await?;
            let (new, changed, attempts) = merge(records, &stored, self.owner);
            deliveries::write_locked(&mut connection, self.owner, &new, &changed, &attempts).await
        }
        .await;
        if merged.is_err() {
            deliveries::roll_back(&mut connection).await;
        }
        merged
    }

    /// Tells who waits that the batch is recorded.
    fn settle(&self, batch: &mut Vec<Record>) {
        for record in batch.drain(..) {
            if record.first {
                self.in_progress.recorded(record.key);
            }
            match record.standing {
                Standing::Due(at) => self.due.add(record.key.endpoint, at),
                Standing::Dead => metrics::add("wired_notifier_dead_total", 1),
                Standing::Delivered | Standing::Leased(_) => {}
            }
        }
    }

    /// Writes which endpoints began to fail, recovered or are to be disabled. Losing this costs nothing but time: the
    /// next result says it again.
    async fn record_states(&mut self, batch: &[Record]) {
        let snapshot = self.endpoints.snapshot();
        let mut changes: Vec<(Concerned, Change)> = Vec::new();
        for record in batch {
            let Some(attempt) = record.attempt.as_ref().filter(|attempt| !attempt.ours) else { continue };
            let Some(known) = snapshot.get(record.key.endpoint) else { continue };
            let failing = self.failing.entry(known.id).or_insert(known.failing_since);
            let at = attempt.started_at;
            if known.disabled && !attempt.succeeded {
                continue;
            }
            let change = match (attempt.succeeded, *failing) {
                // What another notifier wrote counts as much as what this one did.
                (true, None) if known.failing_since.is_none() => continue,
                (true, _) => {
                    *failing = None;
                    Change::Recovered
                }
                (false, since) => {
                    *failing = since.or(Some(at));
                    let is_due = since.is_none_or(|since| endpoint_states::is_due(since, at));
                    match (attempt.gone, is_due) {
                        (true, _) => Change::Gone(at),
                        (false, true) => Change::Failed(at),
                        (false, false) => continue,
                    }
                }
            };
            changes.push((concerned(known, &snapshot), change));
        }
        if changes.is_empty() {
            return;
        }
        let outcomes = match endpoint_states::apply(&self.pool, &changes).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!(error = %error, "how endpoints fare was not recorded");
                self.failing.clear();
                return;
            }
        };
        for outcome in outcomes {
            self.failing.insert(outcome.endpoint, outcome.failing_since);
            if let Some(reason) = outcome.disabled {
                let reason = reason.as_str();
                tracing::warn!(endpoint.id = %outcome.endpoint, endpoint.disabled_reason = reason, "endpoint disabled");
                metrics::disabled(reason);
            }
        }
        self.failing.retain(|endpoint, _| snapshot.get(*endpoint).is_some());
        self.endpoints.refresh_soon();
    }
}

fn concerned(endpoint: &Endpoint, snapshot: &Snapshot) -> Concerned {
    let others = snapshot.of_partner(endpoint.partner).iter();
    let told = others
        .filter(|other| other.id != endpoint.id && other.wants_notice(NoticeType::EndpointDisabled))
        .map(|other| other.id);
    Concerned { endpoint: endpoint.id, partner: endpoint.partner, told: told.collect() }
}

/// Splits a batch into deliveries that are new and all others. What is new here and has another result behind it is
/// merged, in order.
fn split(batch: &[Record]) -> (Vec<&Record>, Vec<&Record>) {
    let mut seen = HashMap::with_capacity(batch.len());
    for record in batch {
        *seen.entry(record.key).or_insert(0_u32) += 1;
    }
    batch.iter().partition(|record| record.first && seen.get(&record.key) == Some(&1))
}

/// New rows, changed rows and attempts.
type Merged = (Vec<DeliveryRow>, Vec<DeliveryRow>, Vec<AttemptRow>);

/// Merges results with what is stored, in the order in which they were known.
///
/// Every attempt is kept and counted, also one whose result no longer matters, so that numbers never meet.
fn merge(records: &[&Record], stored: &BTreeMap<DeliveryKey, DeliveryRow>, owner: Uuid) -> Merged {
    let mut rows: BTreeMap<DeliveryKey, DeliveryRow> = BTreeMap::new();
    let mut attempts = Vec::new();
    for record in records {
        let known = rows.get(&record.key).or_else(|| stored.get(&record.key));
        let counted = known.map_or(0, |row| row.attempts);
        let made = record.attempt.is_some() && counted < u8::MAX;
        let number = counted + u8::from(made);
        if made {
            attempts.extend(attempt_row(record, number));
        }
        let counts = known.is_none_or(|known| match record.standing {
            Standing::Delivered => known.status != Status::Delivered,
            Standing::Due(_) | Standing::Dead => {
                known.status == Status::Pending && known.leased_by == Some(owner)
            }
            Standing::Leased(_) => false,
        });
        let mut fresh = row(record, record.standing, number, owner);
        if let Some(known) = known {
            if counts {
                fresh.created_at = known.created_at;
            } else {
                fresh = DeliveryRow { attempts: number, ..known.clone() };
            }
        }
        rows.insert(record.key, fresh);
    }
    attempts.sort_unstable_by_key(|attempt: &AttemptRow| (attempt.key, attempt.attempt));
    let (changed, new) = rows.into_values().partition(|row| stored.contains_key(&row.key));
    (new, changed, attempts)
}

fn row(record: &Record, standing: Standing, attempts: u8, owner: Uuid) -> DeliveryRow {
    let (status, next_attempt_at, leased_by) = match standing {
        Standing::Delivered => (Status::Delivered, None, None),
        Standing::Due(at) => (Status::Pending, Some(at), None),
        Standing::Leased(until) => (Status::Pending, Some(until), Some(owner)),
        Standing::Dead => (Status::Dead, None, None),
    };
    DeliveryRow {
        key: record.key,
        partner: record.partner,
        status,
        attempts,
        next_attempt_at,
        leased_by,
        created_at: record.at,
        finished_at: (status != Status::Pending).then_some(record.at),
    }
}

fn attempt_row(record: &Record, number: u8) -> Option<AttemptRow> {
    record.attempt.as_ref().map(|attempt| AttemptRow {
        key: record.key,
        attempt: number,
        started_at: attempt.started_at,
        duration_us: attempt.duration_us,
        status_code: attempt.status_code,
        error_class: attempt.error_class,
        excerpt: attempt.excerpt.clone(),
        refused_by: attempt.refused_by,
        outcome: match record.standing {
            _ if attempt.succeeded => Outcome::Received,
            Standing::Dead => Outcome::GivenUp,
            Standing::Delivered | Standing::Due(_) | Standing::Leased(_) => Outcome::Failed,
        },
    })
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

#[cfg(test)]
mod tests;
