//! API keys with what a request needs to know of their partner, and when each was last used.

use domain::ids::{KeyId, PartnerId};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::MySqlPool;

use super::{Columns, StoreError};

/// One API key with its partner.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The key.
    pub id: KeyId,
    /// Whose it is.
    pub partner: PartnerId,
    /// The sealed secret.
    pub secret_sealed: Vec<u8>,
    /// A bit for each scope.
    pub scopes: u32,
    /// From when on it does not count.
    pub revoked_at: Option<Timestamp>,
    /// `false` for a test partner.
    pub livemode: bool,
    /// Whether the partner is active.
    pub active: bool,
    /// The partner's rate limit.
    pub requests_per_second: u32,
}

/// All keys of all partners.
pub async fn load_keys(pool: &MySqlPool) -> Result<Vec<KeyRow>, StoreError> {
    let text = "SELECT k.id, k.partner_id, k.secret_sealed, k.scopes, \
                TIMESTAMPDIFF(MICROSECOND, '1970-01-01', k.revoked_at), p.livemode, p.status = 1, p.requests_per_second \
                FROM api_keys k JOIN partners p ON p.id = k.partner_id";
    let rows = sqlx::raw_sql(text).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new("api_keys", row);
            Ok(KeyRow {
                id: KeyId::from_uuid(columns.uuid()?),
                partner: PartnerId::from_uuid(columns.uuid()?),
                secret_sealed: columns.take()?,
                scopes: columns.take()?,
                revoked_at: columns.take::<Option<i64>>()?.map(Timestamp::from_micros),
                livemode: columns.take::<u8>()? != 0,
                active: columns.take::<i64>()? != 0,
                requests_per_second: columns.take()?,
            })
        })
        .collect()
}

/// Keys were used at these times; one that was used later on another replica stays.
pub async fn write_uses(pool: &MySqlPool, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
    let mut sql = Sql::with_capacity(200 + 80 * uses.len());
    sql.text("INSERT INTO api_key_uses (key_id, last_used_at) VALUES ").list(uses, |sql, (key, at)| {
        sql.text("(").uuid(key.uuid()).text(",").datetime(at.civil()).text(")");
    });
    // Another replica may write the same row at the same time, which neither has to see first.
    sql.text(" ON DUPLICATE KEY UPDATE last_used_at = GREATEST(last_used_at, VALUES(last_used_at))");
    sqlx::raw_sql(sql.as_str()).execute(pool).await?;
    Ok(())
}
