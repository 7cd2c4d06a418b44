//! Applications of partners, and the test partner that each makes.

use domain::ids::{ApplicationId, KeyId, PartnerId};
use domain::time::Timestamp;
use sqlx::{MySqlConnection, Row};

use super::{StoreError, bytes, idempotency};

/// An application with its test partner and key.
#[derive(Debug, Clone)]
pub struct NewApplication {
    /// The application.
    pub id: ApplicationId,
    /// The test partner.
    pub partner: PartnerId,
    /// Its name.
    pub name: String,
    /// Its rate.
    pub requests_per_second: u32,
    /// Its key.
    pub key: KeyId,
    /// The key's secret, sealed.
    pub secret_sealed: Vec<u8>,
    /// A bit for each scope.
    pub scopes: u32,
    /// Who applied, sealed.
    pub contact_sealed: Vec<u8>,
    /// When.
    pub created_at: Timestamp,
}

/// Applications of the last 24 hours. Whoever asks is alone until the end of the transaction.
pub async fn of_a_day(connection: &mut MySqlConnection) -> Result<u64, StoreError> {
    idempotency::lock(connection, PartnerId::from_uuid(uuid::Uuid::nil())).await?;
    let row = sqlx::query(
        "SELECT COUNT(*) FROM partner_applications WHERE created_at > UTC_TIMESTAMP(6) - INTERVAL 24 HOUR",
    )
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
}

/// Writes all of it.
pub async fn insert(connection: &mut MySqlConnection, new: &NewApplication) -> Result<(), StoreError> {
    let at = new.created_at.micros();
    sqlx::query(
        "INSERT INTO partners (id, name, status, livemode, requests_per_second, created_at) \
         VALUES (?, ?, 1, 0, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&new.partner))
    .bind(&new.name)
    .bind(new.requests_per_second)
    .bind(at)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO api_keys (id, partner_id, secret_sealed, scopes, created_at) \
         VALUES (?, ?, ?, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&new.key))
    .bind(bytes(&new.partner))
    .bind(&new.secret_sealed)
    .bind(new.scopes)
    .bind(at)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO partner_applications (id, partner_id, status, contact_sealed, created_at) \
         VALUES (?, ?, 1, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&new.id))
    .bind(bytes(&new.partner))
    .bind(&new.contact_sealed)
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}
