//! Statements about verifications.

use domain::ids::{UserId, VerificationId};
use domain::time::Timestamp;
use serde_json::Value;
use sqlx::{MySqlConnection, MySqlPool, Row as _};
use uuid::Uuid;

use super::{LOST_AFTER_S, Status, Verification};

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Leaves a row for one that begins.
pub(super) async fn begin(db: &mut MySqlConnection, id: Uuid, user: UserId) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit_verifications (id, asked_by, started_at, seen_at, verified, status, report) \
         VALUES (?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 0, ?, NULL)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(user.uuid().as_bytes().to_vec())
    .bind(Status::Running.code())
    .execute(db)
    .await
    .map(drop)
}

/// Notes that one goes on.
pub(super) async fn seen(pool: &MySqlPool, id: Uuid, verified: u64) -> Result<()> {
    sqlx::query("UPDATE audit_verifications SET seen_at = UTC_TIMESTAMP(6), verified = ? WHERE id = ?")
        .bind(verified)
        .bind(id.as_bytes().as_slice())
        .execute(pool)
        .await
        .map(drop)
}

/// Notes how one ended.
pub(super) async fn end(
    pool: &MySqlPool,
    id: Uuid,
    verified: u64,
    status: Status,
    report: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE audit_verifications SET seen_at = UTC_TIMESTAMP(6), verified = ?, status = ?, report = ? WHERE id = ?",
    )
    .bind(verified)
    .bind(status.code())
    .bind(report)
    .bind(id.as_bytes().as_slice())
    .execute(pool)
    .await
    .map(drop)
}

/// The last one.
pub(super) async fn last(pool: &MySqlPool) -> Result<Option<Verification>> {
    let row = sqlx::query(
        "SELECT id, asked_by, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', seen_at), verified, status, report, \
         seen_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND FROM audit_verifications ORDER BY id DESC LIMIT 1",
    )
    .bind(LOST_AFTER_S)
    .fetch_optional(pool)
    .await?;
    let uuid = |row: &sqlx::mysql::MySqlRow, column: usize| {
        Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    row.map(|row| {
        let report: Option<String> = row.try_get_unchecked(6)?;
        let mut report: Value = report.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let status = match (row.try_get::<u8, _>(5)?, row.try_get::<i64, _>(7)? != 0) {
            (1, false) => Status::Running,
            (1, true) => Status::Interrupted,
            (2, _) => Status::Whole,
            (3, _) => Status::Broken,
            _ => Status::Failed,
        };
        Ok(Verification {
            id: VerificationId::from_uuid(uuid(&row, 0)?),
            status,
            asked_by: UserId::from_uuid(uuid(&row, 1)?),
            started_at: Timestamp::from_micros(row.try_get(2)?),
            seen_at: Timestamp::from_micros(row.try_get(3)?),
            verified: row.try_get(4)?,
            findings: Some(report["report"]["findings"].take()).filter(Value::is_array),
            statement: report["statement"].as_str().map(str::to_owned),
        })
    })
    .transpose()
}
