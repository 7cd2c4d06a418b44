//! What was asked to be sent to an endpoint (again): inserted here, worked off by the notifier.

use domain::ids::{EndpointId, EventId, PartnerId, ReplayId};
use domain::replay::{ReplayKind, ReplayStatus};
use domain::time::Timestamp;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, MySqlPool};

use super::{Columns, StoreError, bytes};

/// A replay.
#[derive(Debug, Clone, Copy)]
pub struct ReplayRow {
    /// Its id.
    pub id: ReplayId,
    /// What it covers.
    pub kind: ReplayKind,
    /// Where it stands.
    pub status: ReplayStatus,
    /// The one event.
    pub event: Option<EventId>,
    /// Since when deliveries failed.
    pub since: Option<Timestamp>,
    /// The first sequence of the range.
    pub from_sequence: Option<u64>,
    /// The last sequence of the range.
    pub to_sequence: Option<u64>,
    /// The last sequence that was looked at.
    pub last_sequence: Option<u64>,
    /// Deliveries that it made due.
    pub queued: u64,
    /// Deliveries that it left as they were.
    pub skipped: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, kind, status, event_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', since), \
     from_sequence, to_sequence, last_sequence, queued, skipped, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at) \
     FROM replays WHERE ";

fn replay(row: &MySqlRow) -> Result<ReplayRow, StoreError> {
    let mut columns = Columns::new("replays", row);
    Ok(ReplayRow {
        id: ReplayId::from_uuid(columns.uuid()?),
        kind: columns.code(ReplayKind::from_code)?,
        status: columns.code(ReplayStatus::from_code)?,
        event: columns.opt_uuid()?.map(EventId::from_uuid),
        since: columns.opt_time()?,
        from_sequence: columns.take()?,
        to_sequence: columns.take()?,
        last_sequence: columns.take()?,
        queued: columns.take()?,
        skipped: columns.take()?,
        created_at: columns.time()?,
        finished_at: columns.opt_time()?,
    })
}

/// The open replays of an endpoint.
pub async fn open(
    connection: &mut MySqlConnection,
    endpoint: EndpointId,
) -> Result<Vec<ReplayRow>, StoreError> {
    let text = format!("{COLUMNS} endpoint_id = ? AND status = ?");
    let query = sqlx::query(&text).bind(bytes(&endpoint)).bind(ReplayStatus::Open.code());
    query.fetch_all(connection).await?.iter().map(replay).collect()
}

/// Asks for a replay.
pub async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    endpoint: EndpointId,
    row: &ReplayRow,
) -> Result<(), StoreError> {
    let at = row.created_at.micros();
    sqlx::query(
        "INSERT INTO replays (id, endpoint_id, partner_id, kind, status, event_id, since, from_sequence, \
         to_sequence, created_at, next_step_at) \
         VALUES (?, ?, ?, ?, ?, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, ?, ?, \
         TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&row.id))
    .bind(bytes(&endpoint))
    .bind(bytes(&partner))
    .bind(row.kind.code())
    .bind(row.status.code())
    .bind(row.event.as_ref().map(bytes))
    .bind(row.since.map(Timestamp::micros))
    .bind(row.from_sequence)
    .bind(row.to_sequence)
    .bind(at)
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends an open replay; `false` when it is not open.
pub async fn cancel(connection: &mut MySqlConnection, id: ReplayId) -> Result<bool, StoreError> {
    let ended = sqlx::query(
        "UPDATE replays SET status = ?, finished_at = UTC_TIMESTAMP(6) WHERE id = ? AND status = ?",
    )
    .bind(ReplayStatus::Cancelled.code())
    .bind(bytes(&id))
    .bind(ReplayStatus::Open.code())
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// A replay of one of the partner's endpoints.
pub async fn find(
    connection: impl sqlx::MySqlExecutor<'_>,
    partner: PartnerId,
    endpoint: EndpointId,
    id: ReplayId,
) -> Result<Option<ReplayRow>, StoreError> {
    let text = format!("{COLUMNS} id = ? AND endpoint_id = ? AND partner_id = ?");
    let query = sqlx::query(&text).bind(bytes(&id)).bind(bytes(&endpoint)).bind(bytes(&partner));
    query.fetch_optional(connection).await?.as_ref().map(replay).transpose()
}

/// Replays of an endpoint, newest first.
pub async fn list(
    pool: &MySqlPool,
    endpoint: EndpointId,
    after: Option<(Timestamp, ReplayId)>,
    limit: usize,
) -> Result<Vec<ReplayRow>, StoreError> {
    let (at, id) =
        after.map_or((Timestamp::from_micros(i64::MAX), vec![0xff; 16]), |(at, id)| (at, bytes(&id)));
    let text = format!(
        "{COLUMNS} endpoint_id = ? \
         AND (created_at, id) < (TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, ?) \
         ORDER BY created_at DESC, id DESC LIMIT ?"
    );
    let query = sqlx::query(&text).bind(bytes(&endpoint)).bind(at.micros()).bind(id).bind(limit as u64);
    query.fetch_all(pool).await?.iter().map(replay).collect()
}
