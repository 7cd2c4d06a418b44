//! API keys of partners. When each was last used is ingest's to write.

use domain::ids::{KeyId, PartnerId, UserId};
use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::Columns;

const COLUMNS: &str = "SELECT k.id, k.scopes, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', k.created_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', k.revoked_at), k.issued_to, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', k.shown_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', u.last_used_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) \
     FROM api_keys k LEFT JOIN api_key_uses u ON u.key_id = k.id WHERE k.partner_id = ?";

/// More live keys than any partner has, to bound what is read of those made before there was a bound.
const LIVE_READ_MAX: u32 = 200;

/// A key without its secret.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The id.
    pub id: KeyId,
    /// A bit for each scope.
    pub scopes: u32,
    /// Since when.
    pub created_at: Timestamp,
    /// From when on it does not count.
    pub revoked_at: Option<Timestamp>,
    /// Who may see its secret, once.
    pub issued_to: Option<UserId>,
    /// When the secret was shown.
    pub shown_at: Option<Timestamp>,
    /// When it last signed a request that was let in, as far as that is written.
    pub last_used_at: Option<Timestamp>,
    /// The database's clock.
    pub now: Timestamp,
}

fn id_bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn read(row: &MySqlRow) -> Result<KeyRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    let id = KeyId::from_uuid(columns.uuid()?);
    let scopes = columns.take()?;
    let created_at = Timestamp::from_micros(columns.take()?);
    let time = |columns: &mut Columns<'_>| {
        Ok::<_, sqlx::Error>(columns.take::<Option<i64>>()?.map(Timestamp::from_micros))
    };
    let revoked_at = time(&mut columns)?;
    let issued_to: Option<&[u8]> = columns.take()?;
    let issued_to =
        issued_to.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(KeyRow {
        id,
        scopes,
        created_at,
        revoked_at,
        issued_to: issued_to.map(UserId::from_uuid),
        shown_at: time(&mut columns)?,
        last_used_at: time(&mut columns)?,
        now: Timestamp::from_micros(columns.take()?),
    })
}

/// A partner's keys below an id, newest first.
pub async fn list(
    pool: &MySqlPool,
    partner: PartnerId,
    below: Option<Uuid>,
    limit: u32,
) -> Result<Vec<KeyRow>, sqlx::Error> {
    let text = format!("{COLUMNS} AND k.id < ? ORDER BY k.id DESC LIMIT ?");
    let below = below.map_or_else(|| vec![0xff; 16], id_bytes);
    let rows =
        sqlx::query(&text).bind(id_bytes(partner.uuid())).bind(below).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read).collect()
}

/// The partner's keys that count.
pub async fn live(db: impl MySqlExecutor<'_>, partner: PartnerId) -> Result<Vec<KeyRow>, sqlx::Error> {
    let text = format!(
        "{COLUMNS} AND (k.revoked_at IS NULL OR k.revoked_at > UTC_TIMESTAMP(6)) ORDER BY k.id DESC LIMIT ?"
    );
    let rows = sqlx::query(&text).bind(id_bytes(partner.uuid())).bind(LIVE_READ_MAX).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// One of the partner's keys.
pub async fn find(
    db: impl MySqlExecutor<'_>,
    partner: PartnerId,
    id: KeyId,
) -> Result<Option<KeyRow>, sqlx::Error> {
    let text = format!("{COLUMNS} AND k.id = ?");
    let row = sqlx::query(&text)
        .bind(id_bytes(partner.uuid()))
        .bind(id_bytes(id.uuid()))
        .fetch_optional(db)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Inserts a key whose secret nobody has seen.
pub async fn insert(
    db: &mut MySqlConnection,
    id: KeyId,
    partner: PartnerId,
    secret_sealed: &[u8],
    scopes: u32,
    issued_to: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_keys (id, partner_id, secret_sealed, scopes, issued_to, created_at) \
         VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(id_bytes(id.uuid()))
    .bind(id_bytes(partner.uuid()))
    .bind(secret_sealed)
    .bind(scopes)
    .bind(super::bytes(issued_to))
    .execute(db)
    .await
    .map(drop)
}

/// The sealed secret, for whoever takes it now: nobody gets it again. `None`: it was taken.
pub async fn take_secret(db: &mut MySqlConnection, id: KeyId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let taken =
        sqlx::query("UPDATE api_keys SET shown_at = UTC_TIMESTAMP(6) WHERE id = ? AND shown_at IS NULL")
            .bind(id_bytes(id.uuid()))
            .execute(&mut *db)
            .await?;
    if taken.rows_affected() != 1 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT secret_sealed FROM api_keys WHERE id = ?")
        .bind(id_bytes(id.uuid()))
        .fetch_optional(db)
        .await?;
    row.map(|row| Columns::new(&row).take()).transpose()
}

/// From then on the key does not count; from now on when nothing is said, or that is past.
pub async fn revoke(db: &mut MySqlConnection, id: KeyId, at: Option<Timestamp>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE api_keys SET revoked_at = GREATEST(UTC_TIMESTAMP(6), \
         COALESCE(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))) WHERE id = ?",
    )
    .bind(at.map(Timestamp::micros))
    .bind(id_bytes(id.uuid()))
    .execute(db)
    .await
    .map(drop)
}
