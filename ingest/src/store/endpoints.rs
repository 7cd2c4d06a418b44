//! Endpoints with how they fare, and their secrets.
//!
//! Whoever changes secrets or the state raises the endpoint's version in the same transaction: that is how notifiers
//! notice before their next send.

use domain::ids::{EndpointId, EndpointSecretId, EventId, PartnerId, event_id, event_position};
use domain::notice::{DisabledReason, Verdict};
use domain::time::Timestamp;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, MySqlPool, Row};

use super::{Columns, StoreError, bytes};

/// How far back the last recorded delivery may lie behind what an endpoint got: the notifier records in bulk and out
/// of order, within this.
const RECORDED_SLACK: u64 = 50_000;

/// One endpoint.
#[derive(Debug, Clone)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// Where to post.
    pub url: String,
    /// Words of the types it receives, comma separated; `None` for all.
    pub event_types: Option<String>,
    /// The version of the bodies it wants.
    pub api_version: String,
    /// Its owner's words.
    pub description: Option<String>,
    /// At most so many deliveries in a second.
    pub deliveries_per_second: Option<u32>,
    /// Further headers, sealed.
    pub headers_sealed: Option<Vec<u8>>,
    /// An ed25519 key, sealed.
    pub signing_key_sealed: Option<Vec<u8>>,
    /// Counts changes.
    pub version: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// How it fares.
    pub state: State,
}

/// How an endpoint fares.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// Since when it gets no deliveries.
    pub disabled_at: Option<Timestamp>,
    /// Why.
    pub disabled_reason: Option<DisabledReason>,
    /// After which sequence events may have got no delivery.
    pub missed_after: Option<u64>,
}

const COLUMNS: &str = "SELECT e.id, e.url, e.event_types, e.api_version, e.description, e.deliveries_per_second, \
     e.headers_sealed, e.signing_key_sealed, e.version, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.created_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.failing_since), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.disabled_at), s.disabled_reason, s.missed_after \
     FROM endpoints e LEFT JOIN endpoint_states s ON s.endpoint_id = e.id WHERE ";

fn endpoint(row: &MySqlRow) -> Result<EndpointRow, StoreError> {
    let mut columns = Columns::new("endpoints", row);
    Ok(EndpointRow {
        id: EndpointId::from_uuid(columns.uuid()?),
        url: columns.take()?,
        event_types: columns.take()?,
        api_version: columns.take()?,
        description: columns.take()?,
        deliveries_per_second: columns.take()?,
        headers_sealed: columns.take()?,
        signing_key_sealed: columns.take()?,
        version: columns.take()?,
        created_at: columns.time()?,
        state: State {
            failing_since: columns.opt_time()?,
            disabled_at: columns.opt_time()?,
            disabled_reason: columns.take::<Option<String>>()?.and_then(|word| word.parse().ok()),
            missed_after: columns.take()?,
        },
    })
}

/// A partner's endpoints, oldest first.
pub async fn list(
    pool: &MySqlPool,
    partner: PartnerId,
    after: Option<(Timestamp, EndpointId)>,
    limit: usize,
) -> Result<Vec<EndpointRow>, StoreError> {
    let (at, id) = after.map_or((0, Vec::new()), |(at, id)| (at.micros(), bytes(&id)));
    let text = format!(
        "{COLUMNS} e.partner_id = ? AND (e.created_at, e.id) > (TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, ?) \
         ORDER BY e.created_at, e.id LIMIT ?"
    );
    let query = sqlx::query(&text).bind(bytes(&partner)).bind(at).bind(id).bind(limit as u64);
    query.fetch_all(pool).await?.iter().map(endpoint).collect()
}

/// One of the partner's endpoints.
pub async fn find(
    connection: impl sqlx::MySqlExecutor<'_>,
    partner: PartnerId,
    id: EndpointId,
) -> Result<Option<EndpointRow>, StoreError> {
    let text = format!("{COLUMNS} e.id = ? AND e.partner_id = ?");
    let query = sqlx::query(&text).bind(bytes(&id)).bind(bytes(&partner));
    query.fetch_optional(connection).await?.as_ref().map(endpoint).transpose()
}

/// Locks one of the partner's endpoints and reads it.
pub async fn lock(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
) -> Result<Option<EndpointRow>, StoreError> {
    let locked = sqlx::query("SELECT 1 FROM endpoints WHERE id = ? AND partner_id = ? FOR UPDATE")
        .bind(bytes(&id))
        .bind(bytes(&partner))
        .fetch_optional(&mut *connection)
        .await?;
    if locked.is_none() {
        return Ok(None);
    }
    find(connection, partner, id).await
}

/// How many endpoints the partner has.
pub async fn count(connection: &mut MySqlConnection, partner: PartnerId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) FROM endpoints WHERE partner_id = ?")
        .bind(bytes(&partner))
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
}

/// A new endpoint with its first secret.
pub async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    row: &EndpointRow,
    secret: &NewSecret,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO endpoints (id, partner_id, url, event_types, api_version, description, deliveries_per_second, \
         headers_sealed, signing_key_sealed, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&row.id))
    .bind(bytes(&partner))
    .bind(&row.url)
    .bind(&row.event_types)
    .bind(&row.api_version)
    .bind(&row.description)
    .bind(row.deliveries_per_second)
    .bind(&row.headers_sealed)
    .bind(&row.signing_key_sealed)
    .bind(row.created_at.micros())
    .execute(&mut *connection)
    .await?;
    insert_secret(connection, row.id, secret, row.created_at).await
}

/// Writes the settings of a locked endpoint, under its next version.
pub async fn update(connection: &mut MySqlConnection, row: &EndpointRow) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE endpoints SET url = ?, event_types = ?, api_version = ?, description = ?, deliveries_per_second = ?, \
         headers_sealed = ?, signing_key_sealed = ?, version = version + 1 WHERE id = ?",
    )
    .bind(&row.url)
    .bind(&row.event_types)
    .bind(&row.api_version)
    .bind(&row.description)
    .bind(row.deliveries_per_second)
    .bind(&row.headers_sealed)
    .bind(&row.signing_key_sealed)
    .bind(bytes(&row.id))
    .execute(connection)
    .await?;
    Ok(())
}

async fn raise_version(connection: &mut MySqlConnection, id: EndpointId) -> Result<(), StoreError> {
    sqlx::query("UPDATE endpoints SET version = version + 1 WHERE id = ?")
        .bind(bytes(&id))
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes a locked endpoint and its secrets; the notifier removes the rest.
pub async fn delete(connection: &mut MySqlConnection, id: EndpointId) -> Result<(), StoreError> {
    for text in ["DELETE FROM endpoint_secrets WHERE endpoint_id = ?", "DELETE FROM endpoints WHERE id = ?"] {
        sqlx::query(text).bind(bytes(&id)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Lets a locked endpoint get deliveries again.
pub async fn enable(connection: &mut MySqlConnection, id: EndpointId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE endpoint_states SET failing_since = NULL, disabled_at = NULL, disabled_reason = NULL \
         WHERE endpoint_id = ?",
    )
    .bind(bytes(&id))
    .execute(&mut *connection)
    .await?;
    raise_version(connection, id).await
}

/// Stops the deliveries of a locked endpoint, because its owner wants it so.
pub async fn disable(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
) -> Result<(), StoreError> {
    let first = event_id(partner, 0, 0);
    let last = EventId::from_uuid(event_id(partner, u16::MAX, u64::MAX).uuid());
    let recorded = sqlx::query(
        "SELECT event_id FROM deliveries FORCE INDEX (PRIMARY) \
         WHERE endpoint_id = ? AND event_id BETWEEN ? AND ? ORDER BY event_id DESC LIMIT 1",
    )
    .bind(bytes(&id))
    .bind(bytes(&first))
    .bind(bytes(&last))
    .fetch_optional(&mut *connection)
    .await?;
    let recorded = recorded
        .map(|row| Columns::new("deliveries", &row).uuid())
        .transpose()?
        .and_then(|event| event_position(partner, EventId::from_uuid(event)));
    let missed_after = recorded.map_or(0, |(_, sequence)| sequence.saturating_sub(RECORDED_SLACK));
    // The notifier may write the row at the same time, which another try sees.
    sqlx::query(
        "INSERT INTO endpoint_states (endpoint_id, disabled_at, disabled_reason, missed_after) \
         VALUES (?, UTC_TIMESTAMP(6), ?, ?) ON DUPLICATE KEY UPDATE disabled_at = VALUES(disabled_at), \
         disabled_reason = VALUES(disabled_reason), missed_after = VALUES(missed_after)",
    )
    .bind(bytes(&id))
    .bind(DisabledReason::Owner.as_str())
    .bind(missed_after)
    .execute(&mut *connection)
    .await?;
    raise_version(connection, id).await
}

/// Notes that what an endpoint missed was asked for.
pub async fn clear_missed(connection: &mut MySqlConnection, id: EndpointId) -> Result<(), StoreError> {
    sqlx::query("UPDATE endpoint_states SET missed_after = NULL WHERE endpoint_id = ?")
        .bind(bytes(&id))
        .execute(connection)
        .await?;
    Ok(())
}

/// A secret to be stored.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// Its id.
    pub id: EndpointSecretId,
    /// Sealed.
    pub sealed: Vec<u8>,
}

/// A secret without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its id.
    pub id: EndpointSecretId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it signs along; `None` for the current one.
    pub expires_at: Option<Timestamp>,
}

/// The live secrets of an endpoint, the current one first, then the youngest.
pub async fn secrets(
    connection: impl sqlx::MySqlExecutor<'_>,
    id: EndpointId,
) -> Result<Vec<SecretRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) FROM endpoint_secrets \
         WHERE endpoint_id = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)) \
         ORDER BY expires_at IS NOT NULL, created_at DESC",
    )
    .bind(bytes(&id))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new("endpoint_secrets", row);
            Ok(SecretRow {
                id: EndpointSecretId::from_uuid(columns.uuid()?),
                created_at: columns.time()?,
                expires_at: columns.opt_time()?,
            })
        })
        .collect()
}

async fn insert_secret(
    connection: &mut MySqlConnection,
    endpoint: EndpointId,
    secret: &NewSecret,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO endpoint_secrets (id, endpoint_id, secret_sealed, created_at) \
         VALUES (?, ?, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&secret.id))
    .bind(bytes(&endpoint))
    .bind(&secret.sealed)
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes a secret the current one of a locked endpoint; the one before signs along until `overlap_end`. What has
/// ended is removed.
pub async fn rotate(
    connection: &mut MySqlConnection,
    endpoint: EndpointId,
    secret: &NewSecret,
    now: Timestamp,
    overlap_end: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE endpoint_secrets SET expires_at = TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND \
         WHERE endpoint_id = ? AND expires_at IS NULL",
    )
    .bind(overlap_end.micros())
    .bind(bytes(&endpoint))
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM endpoint_secrets WHERE endpoint_id = ? AND expires_at <= UTC_TIMESTAMP(6)")
        .bind(bytes(&endpoint))
        .execute(&mut *connection)
        .await?;
    insert_secret(connection, endpoint, secret, now).await?;
    raise_version(connection, endpoint).await
}

/// Removes a secret of a locked endpoint.
pub async fn delete_secret(
    connection: &mut MySqlConnection,
    endpoint: EndpointId,
    id: EndpointSecretId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM endpoint_secrets WHERE id = ? AND endpoint_id = ?")
        .bind(bytes(&id))
        .bind(bytes(&endpoint))
        .execute(&mut *connection)
        .await?;
    raise_version(connection, endpoint).await
}

/// What the last answered ping that this secret alone signed has shown, and when it was sent.
pub async fn last_check(
    pool: &MySqlPool,
    id: EndpointSecretId,
) -> Result<Option<(Verdict, Timestamp)>, StoreError> {
    let row = sqlx::query(
        "SELECT verdict, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) FROM notices \
         WHERE secret_id = ? AND verdict IS NOT NULL ORDER BY created_at DESC LIMIT 1",
    )
    .bind(bytes(&id))
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new("notices", &row);
        Ok((columns.code(Verdict::from_code)?, columns.time()?))
    })
    .transpose()
}
