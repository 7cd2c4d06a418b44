//! Reads endpoints, their secrets and how they fare.

use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::{fetch, instant, opt_instant, opt_text, text, uuid};

/// A row of `endpoints` with its `endpoint_states`.
#[derive(Debug)]
pub struct EndpointRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub partner_id: Uuid,
    /// Where to post.
    pub url: String,
    /// Comma-separated types, or all.
    pub event_types: Option<String>,
    /// The pinned version.
    pub api_version: String,
    /// The sealed ed25519 key.
    pub signing_key_sealed: Option<Vec<u8>>,
    /// Deliveries in a second, at most.
    pub rate: Option<u32>,
    /// Sealed headers of its owner.
    pub headers_sealed: Option<Vec<u8>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
    /// Since when every attempt fails.
    pub failing_since: Option<Timestamp>,
    /// Whether it is disabled.
    pub disabled: bool,
}

/// A row of `endpoint_secrets`.
#[derive(Debug)]
pub struct SecretRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub endpoint_id: Uuid,
    /// The sealed text.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it signs along; `None` for the current one.
    pub expires_at: Option<Timestamp>,
}

/// Which endpoints were made or changed at `since` or later, and when.
pub async fn changed(
    pool: &MySqlPool,
    since: Option<Timestamp>,
) -> Result<Vec<(Uuid, Timestamp)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    push_changed(&mut sql, since);
    fetch(&mut connection, sql.as_str(), 1)
        .await?
        .iter()
        .map(|row| Ok((uuid(row, 0)?, instant(row, 1)?)))
        .collect()
}

/// Selects ids and times of change of the endpoints that [`changed`] gives.
pub(super) fn push_changed(sql: &mut Sql, since: Option<Timestamp>) {
    sql.text("SELECT id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', changed_at) FROM endpoints");
    if let Some(since) = since {
        sql.text(" WHERE changed_at >= ").datetime(since.civil());
    }
}

/// Everything. Endpoints are few and narrow; the caller bounds how often.
pub async fn load(pool: &MySqlPool) -> Result<(Vec<EndpointRow>, Vec<SecretRow>), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let endpoints = fetch(
        &mut connection,
        "SELECT e.id, e.partner_id, e.url, e.event_types, e.api_version, e.signing_key_sealed, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.failing_since), \
         CAST(s.disabled_at IS NOT NULL AS SIGNED), e.deliveries_per_second, e.headers_sealed, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.changed_at) \
         FROM endpoints e LEFT JOIN endpoint_states s ON s.endpoint_id = e.id",
        1,
    )
    .await?;
    let secrets = fetch(
        &mut connection,
        "SELECT id, endpoint_id, secret_sealed, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) \
         FROM endpoint_secrets WHERE expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)",
        1,
    )
    .await?;
    let endpoints = endpoints.iter().map(|row| {
        Ok(EndpointRow {
            id: uuid(row, 0)?,
            partner_id: uuid(row, 1)?,
            url: text(row, 2)?,
            event_types: opt_text(row, 3)?,
            api_version: text(row, 4)?,
            signing_key_sealed: row.try_get(5)?,
            created_at: instant(row, 6)?,
            failing_since: opt_instant(row, 7)?,
            disabled: row.try_get::<i64, _>(8)? != 0,
            rate: row.try_get(9)?,
            headers_sealed: row.try_get(10)?,
            changed_at: instant(row, 11)?,
        })
    });
    let secrets = secrets.iter().map(|row| {
        Ok(SecretRow {
            id: uuid(row, 0)?,
            endpoint_id: uuid(row, 1)?,
            sealed: row.try_get(2)?,
            created_at: instant(row, 3)?,
            expires_at: opt_instant(row, 4)?,
        })
    });
    Ok((endpoints.collect::<Result<_, sqlx::Error>>()?, secrets.collect::<Result<_, sqlx::Error>>()?))
}
