//! Reads what replays cover and makes it due again, one step in one transaction.

use std::collections::BTreeMap;

use domain::event::EventType;
use domain::ids::{PartnerId, event_id};
use domain::replay::{ATTEMPTS_MAX, ReplayKind, ReplayStatus};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::deliveries::push_key;
use super::{DeliveryKey, Status, execute, fetch, instant, opt_instant, uuid};

/// How far a replay has come: the last that was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The sequence of an event.
    pub sequence: Option<u64>,
    /// A delivery: when it was first recorded, and its event.
    pub delivery: Option<(Timestamp, Uuid)>,
}

/// An open replay.
#[derive(Debug, Clone)]
pub struct ReplayRow {
    /// Its id.
    pub id: Uuid,
    /// Where to.
    pub endpoint: Uuid,
    /// Whose.
    pub partner: Uuid,
    /// What it covers.
    pub kind: ReplayKind,
    /// Of kind `event`.
    pub event: Option<Uuid>,
    /// Of kind `failed`.
    pub since: Option<Timestamp>,
    /// Of kinds `range` and `missing`, both inclusive.
    pub range: Option<(u64, u64)>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the step is due.
    pub next_step_at: Timestamp,
    /// How far it has come.
    pub cursor: Cursor,
}

/// Open replays whose next step is due, those that have waited for longest first.
pub async fn due(pool: &MySqlPool, now: Timestamp, limit: u32) -> Result<Vec<ReplayRow>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text(
        "SELECT id, endpoint_id, partner_id, kind, event_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', since), \
         from_sequence, to_sequence, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_step_at), last_sequence, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', last_at), last_event_id \
         FROM replays FORCE INDEX (replays_due) WHERE status = ",
    );
    sql.int(ReplayStatus::Open.code()).text(" AND next_step_at <= ").datetime(now.civil());
    sql.text(" ORDER BY next_step_at LIMIT ").int(limit);
    fetch(&mut connection, sql.as_str(), 1).await?.iter().map(read).collect()
}

fn read(row: &MySqlRow) -> Result<ReplayRow, sqlx::Error> {
    let code: u8 = row.try_get(3)?;
    let kind = ReplayKind::from_code(code)
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown kind of replay {code}").into()))?;
    let (from, to): (Option<u64>, Option<u64>) = (row.try_get(6)?, row.try_get(7)?);
    Ok(ReplayRow {
        id: uuid(row, 0)?,
        endpoint: uuid(row, 1)?,
        partner: uuid(row, 2)?,
        kind,
        event: opt_uuid(row, 4)?,
        since: opt_instant(row, 5)?,
        range: from.zip(to),
        created_at: instant(row, 8)?,
        next_step_at: instant(row, 9)?,
        cursor: Cursor {
            sequence: row.try_get(10)?,
            delivery: opt_instant(row, 11)?.zip(opt_uuid(row, 12)?),
        },
    })
}

fn opt_uuid(row: &MySqlRow, column: usize) -> Result<Option<Uuid>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    Ok(bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()))
}

/// Takes the step that was read; `false` when another was faster or the replay was cancelled.
pub async fn take(
    pool: &MySqlPool,
    replay: &ReplayRow,
    next_step_at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("UPDATE replays SET next_step_at = ").datetime(next_step_at.civil());
    sql.text(" WHERE id = ").uuid(replay.id).text(" AND status = ").int(ReplayStatus::Open.code());
    sql.text(" AND next_step_at = ").datetime(replay.next_step_at.civil());
    Ok(execute(&mut connection, sql.as_str(), 1).await? == 1)
}

/// How many deliveries of an endpoint are due, counted to `limit`.
pub async fn due_deliveries(
    pool: &MySqlPool,
    endpoint: Uuid,
    now: Timestamp,
    limit: u32,
) -> Result<u32, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("SELECT 1 FROM deliveries FORCE INDEX (deliveries_due) WHERE endpoint_id = ").uuid(endpoint);
    sql.text(" AND next_attempt_at > 0 AND next_attempt_at <= ")
        .datetime(now.civil())
        .text(" LIMIT ")
        .int(limit);
    let rows = fetch(&mut connection, sql.as_str(), 1).await?;
    Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
}

/// Events of a partner's range behind a sequence, in order: sequence, id and type (`None` for one that this version
/// does not know).
pub async fn events(
    pool: &MySqlPool,
    partner: Uuid,
    after: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<(u64, Uuid, Option<EventType>)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("SELECT sequence, epoch, type FROM events FORCE INDEX (PRIMARY) WHERE partner_id = ")
        .uuid(partner);
    sql.text(" AND sequence > ").int(after).text(" AND sequence <= ").int(to);
    sql.text(" ORDER BY sequence LIMIT ").int(limit);
    let partner = PartnerId::from_uuid(partner);
    let read = |row: &MySqlRow| {
        let (sequence, epoch, code): (u64, u16, u8) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok((sequence, event_id(partner, epoch, sequence).uuid(), EventType::from_code(code)))
    };
    fetch(&mut connection, sql.as_str(), 1).await?.iter().map(read).collect()
}

/// Deliveries of an endpoint that failed, dead or waiting for a retry, first recorded in `since..before`, behind a
/// cursor: when they were first recorded, and their events, in this order.
pub async fn failed(
    pool: &MySqlPool,
    endpoint: Uuid,
    since: Timestamp,
    before: Timestamp,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<(Timestamp, Uuid)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    for (index, (status, further)) in
        [(Status::Dead, ""), (Status::Pending, " AND attempts > attempts_before")].into_iter().enumerate()
    {
        sql.text(if index == 0 { "(" } else { " UNION ALL (" });
        sql.text("SELECT created_at, event_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) FROM deliveries FORCE INDEX (deliveries_of_endpoint) WHERE endpoint_id = ");
        sql.uuid(endpoint).text(" AND status = ").int(status.code()).text(further);
        // The range bounds the look, also where the comparison of pairs does not.
        let from = after.map_or(since, |(at, _)| at.max(since));
        sql.text(" AND created_at >= ").datetime(from.civil());
        sql.text(" AND created_at < ").datetime(before.civil());
        if let Some((at, event)) = after {
            sql.text(" AND (created_at > ")
                .datetime(at.civil())
                .text(" OR event_id > ")
                .uuid(event)
                .text(")");
        }
        sql.text(" ORDER BY created_at, event_id LIMIT ").int(limit).text(")");
    }
    sql.text(" ORDER BY 1, 2 LIMIT ").int(limit);
    fetch(&mut connection, sql.as_str(), 1)
        .await?
        .iter()
        .map(|row| Ok((instant(row, 2)?, uuid(row, 1)?)))
        .collect()
}

/// What a step does.
#[derive(Debug)]
pub struct Step<'a> {
    /// The replay, as it was read.
    pub replay: &'a ReplayRow,
    /// Events to be made due, in order.
    pub events: Vec<Uuid>,
    /// What was looked at besides and is not for this endpoint.
    pub unwanted: u64,
    /// How far it comes.
    pub cursor: Cursor,
    /// Nothing is left.
    pub is_last: bool,
}

/// Makes the deliveries of a step due now, one microsecond after the other, and moves the replay on. Gives how many
/// were made due; `None` when the replay was cancelled or moved on meanwhile.
pub async fn write(pool: &MySqlPool, step: &Step<'_>, now: Timestamp) -> Result<Option<u64>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let written = write_locked(&mut connection, step, now).await;
    if !matches!(written, Ok(Some(_))) {
        // When this fails, the connection is broken, and the server rolls back by itself.
        let _ = execute(&mut connection, "ROLLBACK", 1).await;
    }
    written
}

struct Stored {
    status: u8,
    attempts: u8,
    next_attempt_at: Option<Timestamp>,
    is_leased: bool,
}

async fn write_locked(
    connection: &mut MySqlConnection,
    step: &Step<'_>,
    now: Timestamp,
) -> Result<Option<u64>, sqlx::Error> {
    let replay = step.replay;
    if !lock_replay(connection, replay).await? {
        return Ok(None);
    }
    let stored = lock_deliveries(connection, replay.endpoint, &step.events).await?;
    let (mut new, mut again) = (Vec::new(), Vec::new());
    for (event, after_micros) in step.events.iter().zip(0..) {
        let at = now.plus_micros(after_micros);
        match stored.get(event) {
            None if replay.kind != ReplayKind::Failed => new.push((*event, 0, at)),
            Some(row) if is_to_be_sent(replay.kind, row, now) => again.push((*event, row.attempts, at)),
            None | Some(_) => {}
        }
    }
    let queued = (new.len() + again.len()) as u64;
    let skipped = step.unwanted + step.events.len() as u64 - queued;
    let mut sql = Sql::with_capacity(800 + 260 * step.events.len());
    let mut statements = 2;
    for (rows, end) in [
        // Rows that were not there are inserted plainly: when one is there by now, 1062 has the step repeated.
        (&new, "; "),
        (
            &again,
            " ON DUPLICATE KEY UPDATE status = VALUES(status), attempts_before = VALUES(attempts_before), \
             next_attempt_at = VALUES(next_attempt_at), leased_by = NULL, finished_at = NULL; ",
        ),
    ] {
        if !rows.is_empty() {
            push(&mut sql, replay, rows, now);
            sql.text(end);
            statements += 1;
        }
    }
    let status = if step.is_last { ReplayStatus::Done } else { ReplayStatus::Open };
    sql.text("UPDATE replays SET queued = queued + ").int(queued).text(", skipped = skipped + ").int(skipped);
    sql.text(", last_sequence = ").opt_int(step.cursor.sequence).text(", last_at = ");
    sql.opt_datetime(step.cursor.delivery.map(|(at, _)| at.civil())).text(", last_event_id = ");
    sql.opt_uuid(step.cursor.delivery.map(|(_, event)| event)).text(", status = ").int(status.code());
    sql.text(", finished_at = ").opt_datetime(step.is_last.then(|| now.civil()));
    sql.text(" WHERE id = ").uuid(replay.id).text("; COMMIT");
    execute(connection, sql.as_str(), statements).await?;
    Ok(Some(queued))
}

/// Begins the transaction; whether the replay is still where it was read.
async fn lock_replay(connection: &mut MySqlConnection, replay: &ReplayRow) -> Result<bool, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "START TRANSACTION; SELECT status, last_sequence, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', last_at), \
         last_event_id FROM replays FORCE INDEX (PRIMARY) WHERE id = ",
    );
    sql.uuid(replay.id).text(" FOR UPDATE");
    let rows = fetch(connection, sql.as_str(), 2).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let status: u8 = row.try_get(0)?;
    let cursor = Cursor { sequence: row.try_get(1)?, delivery: opt_instant(row, 2)?.zip(opt_uuid(row, 3)?) };
    Ok(status == ReplayStatus::Open.code() && cursor == replay.cursor)
}

async fn lock_deliveries(
    connection: &mut MySqlConnection,
    endpoint: Uuid,
    events: &[Uuid],
) -> Result<BTreeMap<Uuid, Stored>, sqlx::Error> {
    let mut keys: Vec<_> = events.iter().map(|event| DeliveryKey { endpoint, event: *event }).collect();
    keys.sort_unstable();
    let mut stored = BTreeMap::new();
    if keys.is_empty() {
        return Ok(stored);
    }
    let mut sql = Sql::with_capacity(300 + 80 * keys.len());
    sql.text(
        "SELECT event_id, status, attempts, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at), leased_by \
         FROM deliveries FORCE INDEX (PRIMARY) WHERE (endpoint_id, event_id) IN (",
    );
    sql.list(&keys, push_key).text(") ORDER BY endpoint_id, event_id FOR UPDATE");
    for row in fetch(connection, sql.as_str(), 1).await? {
        let delivery = Stored {
            status: row.try_get(1)?,
            attempts: row.try_get(2)?,
            next_attempt_at: opt_instant(&row, 3)?,
            is_leased: opt_uuid(&row, 4)?.is_some(),
        };
        stored.insert(uuid(&row, 0)?, delivery);
    }
    Ok(stored)
}

fn is_to_be_sent(kind: ReplayKind, row: &Stored, now: Timestamp) -> bool {
    let is_under_way = row.is_leased && row.next_attempt_at.is_some_and(|end| end > now);
    let wants = match kind {
        ReplayKind::Event | ReplayKind::Range => true,
        ReplayKind::Failed => row.status != Status::Delivered.code(),
        ReplayKind::Missing => false,
    };
    wants && !is_under_way && row.attempts < ATTEMPTS_MAX
}

fn push(sql: &mut Sql, replay: &ReplayRow, rows: &[(Uuid, u8, Timestamp)], now: Timestamp) {
    sql.text(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, attempts_before, \
         next_attempt_at, created_at) VALUES ",
    );
    sql.list(rows, |sql, (event, attempts, at)| {
        sql.text("(").uuid(replay.endpoint).text(",").uuid(*event).text(",").uuid(replay.partner);
        sql.text(",").int(Status::Pending.code()).text(",").int(*attempts).text(",").int(*attempts);
        sql.text(",").datetime(at.civil()).text(",").datetime(now.civil()).text(")");
    });
}
