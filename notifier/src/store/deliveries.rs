//! Writes and reads of `deliveries` and `attempts`, in bulk.

use std::collections::{BTreeMap, HashSet};

use domain::histogram;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::endpoints::push_changed;
use super::{DeliveryKey, Status, execute, fetch, instant, opt_instant, uuid};

/// Rows of one statement: far below `max_allowed_packet` even with an excerpt each.
pub const ROWS_MAX: usize = 1_000;

/// Rows of a sum, among which processes are spread.
const COUNT_WRITERS: u8 = 16;

/// A row of `deliveries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Its key.
    pub key: DeliveryKey,
    /// Whose event it is.
    pub partner: Uuid,
    /// Where it stands.
    pub status: Status,
    /// How many attempts are recorded.
    pub attempts: u8,
    /// When it is due or its lease ends.
    pub next_attempt_at: Option<Timestamp>,
    /// Who attempts now.
    pub leased_by: Option<Uuid>,
    /// When it was first recorded.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub finished_at: Option<Timestamp>,
}

/// How an attempt ended, as `delivery_counts` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// The receiver accepted the event.
    Received = 1,
    /// It failed, and another one follows.
    Failed = 2,
    /// It failed, and was the last.
    GivenUp = 3,
}

/// A row of `attempts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// The delivery's.
    pub key: DeliveryKey,
    /// Which attempt, from 1.
    pub attempt: u8,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_us: u32,
    /// The status of the answer.
    pub status_code: Option<u16>,
    /// Why it failed, or what was odd about a success.
    pub error_class: Option<&'static str>,
    /// The beginning of a failure's body.
    pub excerpt: Option<Vec<u8>>,
    /// The rule by which the guard refused.
    pub refused_by: Option<&'static str>,
    /// How it ended: counted, and not stored here.
    pub outcome: Outcome,
}

/// Which of the deliveries are recorded, and which endpoints were made or changed at `since` or later, and when.
///
/// Both in one round trip, so that an event meets every endpoint as it was before it.
pub async fn recorded(
    pool: &MySqlPool,
    keys: &[DeliveryKey],
    since: Option<Timestamp>,
) -> Result<(HashSet<DeliveryKey>, Vec<(Uuid, Timestamp)>), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::with_capacity(200 + 80 * keys.len());
    push_changed(&mut sql, since);
    let mut statements = 1;
    for chunk in keys.chunks(ROWS_MAX) {
        sql.text("; SELECT endpoint_id, event_id FROM deliveries FORCE INDEX (PRIMARY) WHERE (endpoint_id, event_id) IN (");
        sql.list(chunk, push_key).text(")");
        statements += 1;
    }
    let (mut found, mut endpoints) = (HashSet::new(), Vec::new());
    for row in fetch(&mut connection, sql.as_str(), statements).await? {
        // The results come one after the other; a time stands in the first, an id in the others.
        match instant(&row, 1) {
            Ok(changed_at) => endpoints.push((uuid(&row, 0)?, changed_at)),
            Err(_) => {
                found.insert(DeliveryKey { endpoint: uuid(&row, 0)?, event: uuid(&row, 1)? });
            }
        }
    }
    Ok((found, endpoints))
}

/// Writes new rows in one transaction, counted as `owner`'s. Fails with 1062 when one of them is there already: then the
/// caller merges.
pub async fn insert(
    connection: &mut MySqlConnection,
    owner: Uuid,
    deliveries: &[DeliveryRow],
    attempts: &[AttemptRow],
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::with_capacity(400 + 260 * deliveries.len() + 200 * attempts.len());
    sql.text("START TRANSACTION; ");
    let mut statements = 2 + push_inserts(&mut sql, owner, deliveries, attempts);
    sql.text("COMMIT");
    let written = execute(connection, sql.as_str(), statements).await;
    if written.is_err() {
        statements = 1;
        // When this fails too, the connection is broken, and the server rolls back by itself.
        let _ = execute(connection, "ROLLBACK", statements).await;
    }
    written.map(drop)
}

/// Begins a transaction and locks the rows of `keys`, which must be sorted; gives those that exist.
pub async fn lock(
    connection: &mut MySqlConnection,
    keys: &[DeliveryKey],
) -> Result<BTreeMap<DeliveryKey, DeliveryRow>, sqlx::Error> {
    debug_assert!(keys.is_sorted(), "rows are locked in the order of their keys");
    let mut sql = Sql::with_capacity(500 + 80 * keys.len());
    sql.text(
        "START TRANSACTION; SELECT endpoint_id, event_id, partner_id, status, attempts, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at), leased_by, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at) \
         FROM deliveries FORCE INDEX (PRIMARY) WHERE (endpoint_id, event_id) IN (",
    );
    sql.list(keys, push_key).text(") ORDER BY endpoint_id, event_id FOR UPDATE");
    let mut found = BTreeMap::new();
    for row in fetch(connection, sql.as_str(), 2).await? {
        let key = DeliveryKey { endpoint: uuid(&row, 0)?, event: uuid(&row, 1)? };
        let leased_by: Option<Vec<u8>> = row.try_get(6)?;
        let stored = DeliveryRow {
            key,
            partner: uuid(&row, 2)?,
            status: Status::from_code(row.try_get(3)?)?,
            attempts: row.try_get(4)?,
            next_attempt_at: opt_instant(&row, 5)?,
            leased_by: leased_by.and_then(|bytes| Uuid::from_slice(&bytes).ok()),
            created_at: instant(&row, 7)?,
            finished_at: opt_instant(&row, 8)?,
        };
        found.insert(key, stored);
    }
    Ok(found)
}

/// Writes new rows, rewrites locked ones, and commits what [`lock`] began.
pub async fn write_locked(
    connection: &mut MySqlConnection,
    owner: Uuid,
    new: &[DeliveryRow],
    changed: &[DeliveryRow],
    attempts: &[AttemptRow],
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::with_capacity(600 + 260 * (new.len() + changed.len()) + 200 * attempts.len());
    let mut statements = 1;
    if !changed.is_empty() {
        // Only rows that are locked and seen in this transaction, so this never inserts.
        push_deliveries(&mut sql, changed);
        sql.text(
            " ON DUPLICATE KEY UPDATE status = VALUES(status), attempts = VALUES(attempts), \
             next_attempt_at = VALUES(next_attempt_at), leased_by = VALUES(leased_by), finished_at = VALUES(finished_at); ",
        );
        statements += 1;
    }
    statements += push_inserts(&mut sql, owner, new, attempts);
    sql.text("COMMIT");
    execute(connection, sql.as_str(), statements).await.map(drop)
}

/// Rolls back what [`lock`] began.
pub async fn roll_back(connection: &mut MySqlConnection) {
    // When this fails, the connection is broken, and the server rolls back by itself.
    let _ = execute(connection, "ROLLBACK", 1).await;
}

fn push_inserts(sql: &mut Sql, owner: Uuid, deliveries: &[DeliveryRow], attempts: &[AttemptRow]) -> u64 {
    let mut statements = 0;
    if !deliveries.is_empty() {
        push_deliveries(sql, deliveries);
        sql.text("; ");
        statements += 1;
    }
    if !attempts.is_empty() {
        push_attempts(sql, attempts);
        sql.text("; ");
        push_counts(sql, owner, attempts);
        sql.text("; ");
        statements += 2;
    }
    statements
}

/// Adds attempts to the sums of their hours, so that nobody has to read them to count them.
fn push_counts(sql: &mut Sql, owner: Uuid, attempts: &[AttemptRow]) {
    // Whoever shares a row with another process waits for its commit, and does no harm otherwise.
    let writer = (owner.as_u128() % u128::from(COUNT_WRITERS)) as u8;
    let mut counts: BTreeMap<(i64, Outcome, u16), u64> = BTreeMap::new();
    for row in attempts {
        let step = histogram::step(row.duration_us.into());
        *counts.entry((row.started_at.seconds() / 3_600, row.outcome, step)).or_default() += 1;
    }
    sql.text("INSERT INTO delivery_counts (hour, outcome, step, writer, attempts) VALUES ");
    sql.list(counts, |sql, ((hour, outcome, step), attempts)| {
        sql.text("(").int(hour).text(",").int(outcome as u8).text(",").int(step).text(",").int(writer);
        sql.text(",").int(attempts).text(")");
    });
    sql.text(" ON DUPLICATE KEY UPDATE attempts = attempts + VALUES(attempts)");
}

fn push_deliveries(sql: &mut Sql, rows: &[DeliveryRow]) {
    sql.text(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, leased_by, \
         created_at, finished_at) VALUES ",
    );
    sql.list(rows, |sql, row| {
        sql.text("(").uuid(row.key.endpoint).text(",").uuid(row.key.event).text(",").uuid(row.partner);
        sql.text(",").int(row.status.code()).text(",").int(row.attempts).text(",");
        sql.opt_datetime(row.next_attempt_at.map(Timestamp::civil)).text(",").opt_uuid(row.leased_by);
        sql.text(",").datetime(row.created_at.civil()).text(",");
        sql.opt_datetime(row.finished_at.map(Timestamp::civil)).text(")");
    });
}

pub(super) fn push_attempts(sql: &mut Sql, rows: &[AttemptRow]) {
    sql.text(
        "INSERT INTO attempts (endpoint_id, event_id, attempt, started_at, duration_us, status_code, error_class, \
         excerpt, refused_by) VALUES ",
    );
    sql.list(rows, |sql, row| {
        sql.text("(").uuid(row.key.endpoint).text(",").uuid(row.key.event).text(",").int(row.attempt);
        sql.text(",").datetime(row.started_at.civil()).text(",").int(row.duration_us).text(",");
        sql.opt_int(row.status_code).text(",").opt_string(row.error_class).text(",");
        sql.opt_bytes(row.excerpt.as_deref()).text(",").opt_string(row.refused_by).text(")");
    });
}

pub(super) fn push_key(sql: &mut Sql, key: &DeliveryKey) {
    sql.text("(").uuid(key.endpoint).text(",").uuid(key.event).text(")");
}
