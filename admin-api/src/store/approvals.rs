//! Requests that need a second person.

use domain::ids::{ApprovalId, UserId};
use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::{Columns, bytes};
use crate::approvals::{LIFE_S, Status};
use crate::audit::Origin;

/// A request as it is stored.
#[derive(Debug, Clone)]
pub struct ApprovalRow {
    /// The request.
    pub id: ApprovalId,
    /// Where it stands; a waiting one that is too old has expired.
    pub status: Status,
    /// The word of the action.
    pub kind: String,
    /// What will be carried out, JSON.
    pub action: String,
    /// SHA-256 of it when it was asked for.
    pub action_hash: Vec<u8>,
    /// Who asked.
    pub requester: UserId,
    /// Why.
    pub reason: String,
    /// Where from: the request.
    pub request_id: Uuid,
    /// Where from: 4 or 16 bytes.
    pub address: Option<Vec<u8>>,
    /// When.
    pub requested_at: Timestamp,
    /// Who decided.
    pub decider: Option<UserId>,
    /// Why so.
    pub decider_reason: Option<String>,
    /// When.
    pub decided_at: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, status, requested_at <= UTC_TIMESTAMP(6) - INTERVAL ? SECOND, kind, action, action_hash, \
     requester_id, reason, request_id, address, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', requested_at), \
     decider_id, decider_reason, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', decided_at) FROM approvals";

fn read(row: &MySqlRow) -> Result<ApprovalRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    let id = ApprovalId::from_uuid(columns.uuid()?);
    let status = columns.named(Status::from_number)?;
    let is_old: i64 = columns.take()?;
    Ok(ApprovalRow {
        id,
        status: if status == Status::Waiting && is_old != 0 { Status::Expired } else { status },
        kind: columns.text()?.unwrap_or_default(),
        action: columns.text()?.unwrap_or_default(),
        action_hash: columns.take()?,
        requester: columns.user()?,
        reason: columns.text()?.unwrap_or_default(),
        request_id: columns.uuid()?,
        address: columns.take()?,
        requested_at: Timestamp::from_micros(columns.take()?),
        decider: optional_user(columns.take()?)?,
        decider_reason: columns.text()?,
        decided_at: columns.take::<Option<i64>>()?.map(Timestamp::from_micros),
    })
}

fn optional_user(stored: Option<Vec<u8>>) -> Result<Option<UserId>, sqlx::Error> {
    let id = stored.map(|stored| Uuid::from_slice(&stored)).transpose();
    id.map(|id| id.map(UserId::from_uuid)).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn id_bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// The request with this id.
pub async fn by_id(db: impl MySqlExecutor<'_>, id: ApprovalId) -> Result<Option<ApprovalRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ?");
    let row = sqlx::query(&text).bind(LIFE_S).bind(id_bytes(id.uuid())).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// The request with this id, locked.
pub async fn lock(db: &mut MySqlConnection, id: ApprovalId) -> Result<Option<ApprovalRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ? FOR UPDATE");
    let row = sqlx::query(&text).bind(LIFE_S).bind(id_bytes(id.uuid())).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// A request to insert.
#[derive(Debug)]
pub struct NewApproval<'a> {
    /// Its id.
    pub id: ApprovalId,
    /// The word of the action.
    pub kind: &'static str,
    /// What will be carried out.
    pub action: &'a str,
    /// SHA-256 of it.
    pub action_hash: &'a [u8; 32],
    /// Who asks.
    pub requester: UserId,
    /// Why.
    pub reason: &'a str,
    /// From where.
    pub origin: Origin,
}

/// Writes a request down. A second one with the id is a duplicate.
pub async fn insert(db: &mut MySqlConnection, approval: &NewApproval<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO approvals (id, status, kind, action, action_hash, requester_id, reason, request_id, address, \
         requested_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(id_bytes(approval.id.uuid()))
    .bind(Status::Waiting as u8)
    .bind(approval.kind)
    .bind(approval.action)
    .bind(&approval.action_hash[..])
    .bind(bytes(approval.requester))
    .bind(approval.reason)
    .bind(id_bytes(approval.origin.request_id))
    .bind(super::audit::address(approval.origin.address))
    .execute(db)
    .await
    .map(drop)
}

/// Ends a waiting request that is not too old. `false`: it was decided before, or has expired.
pub async fn decide(
    db: &mut MySqlConnection,
    id: ApprovalId,
    status: Status,
    decider: UserId,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE approvals SET status = ?, decider_id = ?, decider_reason = ?, decided_at = UTC_TIMESTAMP(6) \
         WHERE id = ? AND status = ? AND requested_at > UTC_TIMESTAMP(6) - INTERVAL ? SECOND",
    )
    .bind(status as u8)
    .bind(bytes(decider))
    .bind(reason)
    .bind(id_bytes(id.uuid()))
    .bind(Status::Waiting as u8)
    .bind(LIFE_S)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The condition of a status; expired ones are stored as waiting.
fn condition(status: Option<Status>) -> String {
    let waiting = Status::Waiting as u8;
    let born = format!("UTC_TIMESTAMP(6) - INTERVAL {LIFE_S} SECOND");
    match status {
        None => "TRUE".to_owned(),
        Some(Status::Waiting) => format!("status = {waiting} AND requested_at > {born}"),
        Some(Status::Expired) => format!("status = {waiting} AND requested_at <= {born}"),
        Some(status) => format!("status = {}", status as u8),
    }
}

/// Requests before a place in the list, newest first.
pub async fn list(
    pool: &MySqlPool,
    status: Option<Status>,
    before: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<ApprovalRow>, sqlx::Error> {
    let (micros, id) = before.map_or((i64::MAX, Uuid::max()), |(at, id)| (at.micros(), id));
    let text = format!(
        "{COLUMNS} WHERE {} AND requested_at <= TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND \
         AND (requested_at, id) < (TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, ?) \
         ORDER BY requested_at DESC, id DESC LIMIT ?",
        condition(status)
    );
    // The last instant that a DATETIME can tell.
    let micros = Timestamp::from_micros(micros).micros();
    let rows = sqlx::query(&text)
        .bind(LIFE_S)
        .bind(micros)
        .bind(micros)
        .bind(id_bytes(id))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(read).collect()
}

/// Most requests of a status that are counted.
pub const COUNT_MAX: u32 = 10_000;

/// How many requests there are of each status, counted up to [`COUNT_MAX`].
pub async fn counts(pool: &MySqlPool) -> Result<[(Status, u32); 5], sqlx::Error> {
    let mut counts = Status::ALL.map(|status| (status, 0));
    for (status, count) in &mut counts {
        let text = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM approvals WHERE {} LIMIT {COUNT_MAX}) AS bounded",
            condition(Some(*status))
        );
        let row = sqlx::query(&text).fetch_one(pool).await?;
        let number: i64 = Columns::new(&row).take()?;
        *count = u32::try_from(number).unwrap_or(COUNT_MAX);
    }
    Ok(counts)
}
