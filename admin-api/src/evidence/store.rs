//! Statements about leases.

use std::time::Duration;

use sqlx::MySqlPool;
use uuid::Uuid;

/// Moves the end of a lease ahead if it is this holder's or has ended; whether that was so.
pub(super) async fn take_lease(
    pool: &MySqlPool,
    name: &str,
    holder: Uuid,
    lasts: Duration,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE leases SET holder = ?, expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND \
         WHERE name = ? AND (holder = ? OR expires_at < UTC_TIMESTAMP(6))",
    )
    .bind(holder.as_bytes().as_slice())
    .bind(i64::try_from(lasts.as_micros()).unwrap_or(i64::MAX))
    .bind(name)
    .bind(holder.as_bytes().as_slice())
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends a lease of this holder.
pub(super) async fn release_lease(pool: &MySqlPool, name: &str, holder: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE leases SET expires_at = '2000-01-01' WHERE name = ? AND holder = ?")
        .bind(name)
        .bind(holder.as_bytes().as_slice())
        .execute(pool)
        .await
        .map(drop)
}
