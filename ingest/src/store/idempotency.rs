//! Used idempotency keys of writes other than payments.

use domain::fingerprint::Fingerprint;
use domain::ids::PartnerId;
use serde_json::Value;
use sqlx::{MySqlConnection, MySqlPool, Row};

use super::{Columns, StoreError, bytes, is_duplicate};

/// Rows removed by one statement: short enough to hold nobody up.
const FORGET_MAX: u32 = 1_000;

/// What is remembered of a write.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer, without what is shown once.
    pub body: Option<Value>,
    /// Where the new thing is.
    pub location: Option<String>,
}

/// Whether a key is free.
#[derive(Debug)]
pub enum Taken {
    /// It was, and is this transaction's now.
    Free,
    /// It was used.
    Used(Kept),
}

/// Waits for the partner's turn to write, until the end of the transaction: no key is empty, so the row with the empty
/// one is the partner's lock.
pub async fn lock(connection: &mut MySqlConnection, partner: PartnerId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO idempotency_keys (partner_id, idempotency_key, fingerprint, status, created_at) \
         VALUES (?, '', '', 0, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE created_at = VALUES(created_at)",
    )
    .bind(bytes(&partner))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Takes a key for this transaction, and the partner's turn to write.
pub async fn take(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    key: &str,
    fingerprint: &Fingerprint,
    kept_hours: u32,
) -> Result<Taken, StoreError> {
    lock(connection, partner).await?;
    if insert(connection, partner, key, fingerprint).await? {
        return Ok(Taken::Free);
    }
    let row = sqlx::query(
        "SELECT fingerprint, status, answer, location, \
         CAST(created_at < UTC_TIMESTAMP(6) - INTERVAL ? HOUR AS SIGNED) \
         FROM idempotency_keys WHERE partner_id = ? AND idempotency_key = ? FOR UPDATE",
    )
    .bind(kept_hours)
    .bind(bytes(&partner))
    .bind(key)
    .fetch_optional(&mut *connection)
    .await?;
    let forgotten = match &row {
        Some(row) => row.try_get::<i64, _>(4)? != 0,
        None => true,
    };
    if let (Some(row), false) = (row, forgotten) {
        return Ok(Taken::Used(kept(&row)?));
    }
    sqlx::query("DELETE FROM idempotency_keys WHERE partner_id = ? AND idempotency_key = ?")
        .bind(bytes(&partner))
        .bind(key)
        .execute(&mut *connection)
        .await?;
    if insert(connection, partner, key, fingerprint).await? {
        return Ok(Taken::Free);
    }
    // Another was faster; its row decides at the next try.
    Err(StoreError::Busy)
}

/// `false` when the key has a row.
async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    key: &str,
    fingerprint: &Fingerprint,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys (partner_id, idempotency_key, fingerprint, status, created_at) \
         VALUES (?, ?, ?, 0, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(&partner))
    .bind(key)
    .bind(fingerprint.as_bytes().as_slice())
    .execute(connection)
    .await;
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn kept(row: &sqlx::mysql::MySqlRow) -> Result<Kept, StoreError> {
    let mut columns = Columns::new("idempotency_keys", row);
    let fingerprint: Vec<u8> = columns.take()?;
    let fingerprint =
        Fingerprint::from_bytes(&fingerprint).ok_or_else(|| columns.wrong(&"a fingerprint is 33 bytes"))?;
    let status = columns.take()?;
    let body: Option<String> = columns.take()?;
    let body = body.map(|text| serde_json::from_str(&text)).transpose();
    let body = body.map_err(|error| columns.wrong(&error))?;
    Ok(Kept { fingerprint, status, body, location: columns.take()? })
}

/// Records the answer of the write that took the key.
pub async fn keep(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    key: &str,
    kept: &Kept,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE idempotency_keys SET status = ?, answer = ?, location = ? \
         WHERE partner_id = ? AND idempotency_key = ?",
    )
    .bind(kept.status)
    .bind(kept.body.as_ref().map(Value::to_string))
    .bind(&kept.location)
    .bind(bytes(&partner))
    .bind(key)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes keys that are older.
pub async fn forget(pool: &MySqlPool, kept_hours: u32) -> Result<(), StoreError> {
    loop {
        let removed = sqlx::query(
            "DELETE FROM idempotency_keys WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL ? HOUR \
             ORDER BY created_at LIMIT ?",
        )
        .bind(kept_hours)
        .bind(FORGET_MAX)
        .execute(pool)
        .await?;
        if removed.rows_affected() < u64::from(FORGET_MAX) {
            return Ok(());
        }
    }
}
