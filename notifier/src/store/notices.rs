//! Writes notices with their deliveries; finds, leases and finishes pings.

use domain::notice::{Flaw, NoticeType, Verdict};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::deliveries::{AttemptRow, push_attempts};
use super::{DeliveryKey, Status, execute, fetch, instant, text, uuid};

/// A notice to be written.
#[derive(Debug, Clone)]
pub struct NoticeInsert {
    /// To which endpoint.
    pub endpoint: Uuid,
    /// Its id, random.
    pub id: Uuid,
    /// Whose endpoint it is.
    pub partner: Uuid,
    /// What it tells.
    pub notice_type: NoticeType,
    /// JSON.
    pub data: String,
    /// When it was caused.
    pub created_at: Timestamp,
    /// Whether it is delivered as an event is.
    pub is_delivered: bool,
}

/// Inserts notices and their deliveries, due at once; how many statements that are.
pub(super) fn push_notices(sql: &mut Sql, notices: &[NoticeInsert]) -> u64 {
    if notices.is_empty() {
        return 0;
    }
    sql.text("INSERT INTO notices (endpoint_id, id, partner_id, type, data, created_at) VALUES ");
    sql.list(notices, |sql, notice| {
        sql.text("(").uuid(notice.endpoint).text(",").uuid(notice.id).text(",").uuid(notice.partner);
        sql.text(",").int(notice.notice_type.code()).text(",").string(&notice.data);
        sql.text(",").datetime(notice.created_at.civil()).text(")");
    });
    sql.text("; ");
    let delivered: Vec<_> = notices.iter().filter(|notice| notice.is_delivered).collect();
    if delivered.is_empty() {
        return 1;
    }
    sql.text(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, created_at) \
         VALUES ",
    );
    sql.list(delivered, |sql, notice| {
        let at = notice.created_at.civil();
        sql.text("(").uuid(notice.endpoint).text(",").uuid(notice.id).text(",").uuid(notice.partner);
        sql.text(",").int(Status::Pending.code()).text(",0,").datetime(at).text(",").datetime(at).text(")");
    });
    sql.text("; ");
    2
}

/// A ping to be sent.
#[derive(Debug, Clone)]
pub struct PingRow {
    /// Endpoint and notice.
    pub key: DeliveryKey,
    /// Whose endpoint it is.
    pub partner: Uuid,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
    /// The only secret that signs it.
    pub secret: Option<Uuid>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// JSON.
    pub data: String,
}

/// Pings that are due, those that have waited for longest first.
pub async fn due(pool: &MySqlPool, now: Timestamp, limit: u32) -> Result<Vec<PingRow>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text(
        "SELECT endpoint_id, id, partner_id, flaw, secret_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         data FROM notices FORCE INDEX (notices_due) WHERE next_attempt_at <= ",
    );
    sql.datetime(now.civil()).text(" ORDER BY next_attempt_at LIMIT ").int(limit);
    let rows = fetch(&mut connection, sql.as_str(), 1).await?;
    let read = |row: &sqlx::mysql::MySqlRow| {
        let secret: Option<Vec<u8>> = row.try_get(4)?;
        Ok(PingRow {
            key: DeliveryKey { endpoint: uuid(row, 0)?, event: uuid(row, 1)? },
            partner: uuid(row, 2)?,
            flaw: row.try_get::<Option<u8>, _>(3)?.and_then(Flaw::from_code),
            secret: secret.and_then(|bytes| Uuid::from_slice(&bytes).ok()),
            created_at: instant(row, 5)?,
            data: text(row, 6)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Takes the lease of a due ping; `false` when another was faster.
pub async fn claim(
    pool: &MySqlPool,
    key: DeliveryKey,
    now: Timestamp,
    lease_end: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("UPDATE notices SET next_attempt_at = ").datetime(lease_end.civil());
    push_where(&mut sql, key);
    sql.text(" AND next_attempt_at <= ").datetime(now.civil());
    Ok(execute(&mut connection, sql.as_str(), 1).await? == 1)
}

/// What became of a ping.
#[derive(Debug, Clone)]
pub struct PingResult {
    /// Endpoint and notice.
    pub key: DeliveryKey,
    /// The lease under which it was sent.
    pub lease_end: Timestamp,
    /// When it was known.
    pub at: Timestamp,
    /// What the answers say of the receiver.
    pub verdict: Verdict,
    /// By how much the receiver's clock is ahead.
    pub clock_skew_s: Option<i32>,
    /// Its attempts, numbered from 1.
    pub attempts: Vec<AttemptRow>,
}

/// Records what became of a ping, unless its lease ended and another has sent it meanwhile.
pub async fn finish(pool: &MySqlPool, result: &PingResult) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("START TRANSACTION; UPDATE notices SET next_attempt_at = NULL, verdict = ")
        .int(result.verdict.code());
    sql.text(", clock_skew_s = ").opt_int(result.clock_skew_s);
    push_where(&mut sql, result.key);
    sql.text(" AND next_attempt_at = ").datetime(result.lease_end.civil());
    let written = async {
        if execute(&mut connection, sql.as_str(), 2).await? == 0 {
            return execute(&mut connection, "ROLLBACK", 1).await;
        }
        let status = if result.verdict == Verdict::Passed { Status::Delivered } else { Status::Dead };
        let mut sql = Sql::new();
        sql.text("UPDATE deliveries SET status = ").int(status.code());
        sql.text(", attempts = ").int(u8::try_from(result.attempts.len()).unwrap_or(u8::MAX));
        sql.text(", finished_at = ").datetime(result.at.civil());
        sql.text(" WHERE endpoint_id = ")
            .uuid(result.key.endpoint)
            .text(" AND event_id = ")
            .uuid(result.key.event);
        sql.text("; ");
        let mut statements = 2;
        if !result.attempts.is_empty() {
            push_attempts(&mut sql, &result.attempts);
            sql.text("; ");
            statements += 1;
        }
        sql.text("COMMIT");
        execute(&mut connection, sql.as_str(), statements).await
    }
    .await;
    if written.is_err() {
        // When this fails too, the connection is broken, and the server rolls back by itself.
        let _ = execute(&mut connection, "ROLLBACK", 1).await;
    }
    written.map(drop)
}

fn push_where(sql: &mut Sql, key: DeliveryKey) {
    sql.text(" WHERE endpoint_id = ").uuid(key.endpoint).text(" AND id = ").uuid(key.event);
}
