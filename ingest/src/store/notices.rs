//! Pings and rehearsals: notices with their deliveries, which the notifier sends and answers.

use domain::ids::{EndpointId, EndpointSecretId, EventId, PartnerId};
use domain::notice::{Flaw, NoticeType, Verdict};
use domain::time::Timestamp;
use sqlx::{MySqlConnection, MySqlPool, Row};

use super::{Columns, StoreError, bytes};

/// A ping.
#[derive(Debug, Clone, Copy)]
pub struct PingRow {
    /// Its id.
    pub id: EventId,
    /// What is wrong with it, on purpose.
    pub flaw: Option<Flaw>,
    /// The only secret that signs it.
    pub secret: Option<EndpointSecretId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What the answer says of the receiver; `None` until it is answered.
    pub verdict: Option<Verdict>,
    /// By how many seconds the receiver's clock is ahead.
    pub clock_skew_s: Option<i32>,
}

/// How many pings of an endpoint wait for their answer.
pub async fn open(connection: &mut MySqlConnection, endpoint: EndpointId) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM notices FORCE INDEX (notices_due) \
         WHERE next_attempt_at IS NOT NULL AND endpoint_id = ?",
    )
    .bind(bytes(&endpoint))
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
}

/// Asks for a ping.
pub async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    endpoint: EndpointId,
    ping: &PingRow,
) -> Result<(), StoreError> {
    let at = ping.created_at.micros();
    sqlx::query(
        "INSERT INTO notices (endpoint_id, id, partner_id, type, flaw, secret_id, data, created_at, next_attempt_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, \
         TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&endpoint))
    .bind(bytes(&ping.id))
    .bind(bytes(&partner))
    .bind(NoticeType::Ping.code())
    .bind(ping.flaw.map(Flaw::code))
    .bind(ping.secret.as_ref().map(bytes))
    .bind(domain::notice::ping_data(endpoint))
    .bind(at)
    .bind(at)
    .execute(&mut *connection)
    .await?;
    // Due nowhere: the notifier takes pings through their notices.
    sqlx::query(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, created_at) \
         VALUES (?, ?, ?, 1, 0, NULL, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)",
    )
    .bind(bytes(&endpoint))
    .bind(bytes(&ping.id))
    .bind(bytes(&partner))
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

/// A ping of one of the partner's endpoints.
pub async fn find(
    pool: &MySqlPool,
    partner: PartnerId,
    endpoint: EndpointId,
    id: EventId,
) -> Result<Option<PingRow>, StoreError> {
    let row = sqlx::query(
        "SELECT flaw, secret_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), verdict, clock_skew_s \
         FROM notices WHERE endpoint_id = ? AND id = ? AND partner_id = ? AND type = ?",
    )
    .bind(bytes(&endpoint))
    .bind(bytes(&id))
    .bind(bytes(&partner))
    .bind(NoticeType::Ping.code())
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new("notices", &row);
        Ok(PingRow {
            id,
            flaw: columns.opt_code(Flaw::from_code)?,
            secret: columns.opt_uuid()?.map(EndpointSecretId::from_uuid),
            created_at: columns.time()?,
            verdict: columns.opt_code(Verdict::from_code)?,
            clock_skew_s: columns.take()?,
        })
    })
    .transpose()
}
