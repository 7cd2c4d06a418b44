//! Statements of seeding, on this service's own tables.

use domain::{
    event::API_VERSION,
    ids::{EndpointId, EndpointSecretId, PartnerId},
};
use sqlx::{MySqlPool, Row, mysql::MySqlRow};
use uuid::Uuid;

/// Every scope.
const ALL_SCOPES: u32 = 0xff;
/// A sealed secret and the row it stands in.
#[derive(Debug)]
pub(super) struct SealedRow {
    pub(super) id: Uuid,
    pub(super) secret_sealed: Vec<u8>,
}

fn bytes(id: Uuid) -> Vec<u8> {
    id.into_bytes().to_vec()
}

/// An id as stored.
fn id_at(row: &MySqlRow, column: usize) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl SealedRow {
    fn read(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        Ok(Self { id: id_at(row, 0)?, secret_sealed: row.try_get(1)? })
    }
}

/// The partner with this name and rate.
pub(super) async fn ensure_partner(
    pool: &MySqlPool,
    partner: PartnerId,
    name: &str,
    requests_per_second: u32,
) -> Result<(), sqlx::Error> {
    let changed = sqlx::query("UPDATE partners SET name = ?, requests_per_second = ? WHERE id = ?")
        .bind(name)
        .bind(requests_per_second)
        .bind(bytes(partner.uuid()))
        .execute(pool)
        .await?;
    if changed.rows_affected() > 0 {
        return Ok(());
    }
    let inserted = sqlx::query(
        "INSERT INTO partners (id, name, status, livemode, requests_per_second, created_at) \
         VALUES (?, ?, 1, 1, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(partner.uuid()))
    .bind(name)
    .bind(requests_per_second)
    .execute(pool)
    .await;
    unless_there(inserted)
}

/// Lets the partner send customers back to URLs under `url`.
pub(super) async fn ensure_return_url(
    pool: &MySqlPool,
    partner: PartnerId,
    url: &str,
) -> Result<(), sqlx::Error> {
    let inserted = sqlx::query("INSERT INTO return_urls (partner_id, url) VALUES (?, ?)")
        .bind(bytes(partner.uuid()))
        .bind(url)
        .execute(pool)
        .await;
    unless_there(inserted)
}

/// Rows of a run at the same time are as good as ours: they are derived from the same name.
fn unless_there(result: Result<sqlx::mysql::MySqlQueryResult, sqlx::Error>) -> Result<(), sqlx::Error> {
    match result {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        other => other.map(drop),
    }
}

/// The partner's keys that are not revoked, newest first.
pub(super) async fn live_api_keys(
    pool: &MySqlPool,
    partner: PartnerId,
) -> Result<Vec<SealedRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, secret_sealed FROM api_keys WHERE partner_id = ? AND revoked_at IS NULL \
         ORDER BY created_at DESC, id",
    )
    .bind(bytes(partner.uuid()))
    .fetch_all(pool)
    .await?;
    rows.iter().map(SealedRow::read).collect()
}

pub(super) async fn insert_api_key(
    pool: &MySqlPool,
    id: Uuid,
    partner: PartnerId,
    secret_sealed: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_keys (id, partner_id, secret_sealed, scopes, created_at) \
         VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(id))
    .bind(bytes(partner.uuid()))
    .bind(secret_sealed)
    .bind(ALL_SCOPES)
    .execute(pool)
    .await
    .map(drop)
}

pub(super) async fn revoke_api_key(pool: &MySqlPool, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE api_keys SET revoked_at = UTC_TIMESTAMP(6) WHERE id = ? AND revoked_at IS NULL")
        .bind(bytes(id))
        .execute(pool)
        .await
        .map(drop)
}

/// The endpoint with this URL.
pub(super) async fn ensure_endpoint(
    pool: &MySqlPool,
    endpoint: EndpointId,
    partner: PartnerId,
    url: &str,
) -> Result<(), sqlx::Error> {
    let changed = sqlx::query("UPDATE endpoints SET url = ? WHERE id = ?")
        .bind(url)
        .bind(bytes(endpoint.uuid()))
        .execute(pool)
        .await?;
    if changed.rows_affected() > 0 {
        return Ok(());
    }
    let inserted = sqlx::query(
        "INSERT INTO endpoints (id, partner_id, url, api_version, created_at) \
         VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(endpoint.uuid()))
    .bind(bytes(partner.uuid()))
    .bind(url)
    .bind(API_VERSION)
    .execute(pool)
    .await;
    unless_there(inserted)
}

/// The endpoint's secret that is not being rotated out.
pub(super) async fn current_endpoint_secret(
    pool: &MySqlPool,
    endpoint: EndpointId,
) -> Result<Option<SealedRow>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, secret_sealed FROM endpoint_secrets WHERE endpoint_id = ? AND expires_at IS NULL \
         ORDER BY created_at DESC LIMIT 1",
    )
    .bind(bytes(endpoint.uuid()))
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(SealedRow::read).transpose()
}

/// Makes a secret the current one; earlier ones sign along for a day.
pub(super) async fn replace_endpoint_secret(
    pool: &MySqlPool,
    endpoint: EndpointId,
    id: EndpointSecretId,
    secret_sealed: &[u8],
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "UPDATE endpoint_secrets SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 1 DAY \
         WHERE endpoint_id = ? AND expires_at IS NULL",
    )
    .bind(bytes(endpoint.uuid()))
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO endpoint_secrets (id, endpoint_id, secret_sealed, created_at) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(id.uuid()))
    .bind(bytes(endpoint.uuid()))
    .bind(secret_sealed)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
