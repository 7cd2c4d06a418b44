//! Statements about calls.

use std::collections::HashSet;
use std::net::IpAddr;

use domain::api_call::ApiCall;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor as _, MySqlConnection, MySqlPool, Row as _};
use uuid::Uuid;

/// The partition of the topic; it has one.
const PARTITION: u8 = 0;
/// For how long calls are kept.
const KEPT_DAYS: u32 = 90;
/// Offsets that one step of forgetting looks at.
const FORGOTTEN: u64 = 2_000;

/// How far the topic is loaded.
pub(super) async fn position(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT CAST(next_offset AS SIGNED) FROM api_call_positions WHERE kafka_partition = ")
        .int(PARTITION);
    pool.fetch_one(sql.as_str()).await?.try_get(0)
}

/// Writes calls and how far the topic is loaded with them, in one transaction. `false`, and nothing is written, when the
/// position is not `from` any more: somebody else loads.
pub(super) async fn load(
    pool: &MySqlPool,
    from: i64,
    next: i64,
    calls: &[(i64, ApiCall<'static>)],
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let mut sql = Sql::new();
    sql.text("SELECT CAST(next_offset AS SIGNED) FROM api_call_positions WHERE kafka_partition = ");
    sql.int(PARTITION).text(" FOR UPDATE");
    if transaction.fetch_one(sql.as_str()).await?.try_get::<i64, _>(0)? != from {
        return Ok(false);
    }
    if !calls.is_empty() {
        match insert(&mut transaction, calls.iter()).await {
            // A report that was sent again comes under another offset and is the same request.
            Err(error) if crate::store::is_duplicate(&error) => {
                let mut known = known(&mut transaction, calls).await?;
                let fresh: Vec<_> = calls.iter().filter(|(_, call)| known.insert(call.request_id)).collect();
                if !fresh.is_empty() {
                    insert(&mut transaction, fresh.into_iter()).await?;
                }
            }
            inserted => inserted?,
        }
    }
    sql.clear();
    sql.text("UPDATE api_call_positions SET next_offset = ").int(next);
    sql.text(" WHERE kafka_partition = ").int(PARTITION);
    transaction.execute(sql.as_str()).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn insert<'a>(
    db: &mut MySqlConnection,
    calls: impl Iterator<Item = &'a (i64, ApiCall<'static>)>,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("INSERT INTO api_calls VALUES ").list(calls, |sql, (offset, call)| row(sql, *offset, call));
    db.execute(sql.as_str()).await.map(drop)
}

/// Those of the requests that stand in the table already.
async fn known(
    db: &mut MySqlConnection,
    calls: &[(i64, ApiCall<'static>)],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT request_id FROM api_calls WHERE request_id IN (").list(calls, |sql, (_, call)| {
        sql.uuid(call.request_id);
    });
    sql.text(")");
    let rows = db.fetch_all(sql.as_str()).await?;
    let id =
        |row: &MySqlRow| Uuid::from_slice(row.try_get(0)?).map_err(|error| sqlx::Error::Decode(error.into()));
    rows.iter().map(id).collect()
}

fn row(sql: &mut Sql, offset: i64, call: &ApiCall<'_>) {
    sql.text("(").int(PARTITION).text(",").int(offset).text(",").datetime(call.at.civil());
    sql.text(",").int(call.api.code()).text(",").string(&call.method).text(",").string(&call.route);
    sql.text(",").int(call.status).text(",").int(call.duration_us).text(",").uuid(call.request_id);
    sql.text(",")
        .opt_uuid(call.partner)
        .text(",")
        .opt_uuid(call.actor)
        .text(",")
        .opt_uuid(call.target)
        .text(",");
    match call.address.map(|address| address.to_canonical()) {
        None => sql.null(),
        Some(IpAddr::V4(address)) => sql.bytes(&address.octets()),
        Some(IpAddr::V6(address)) => sql.bytes(&address.octets()),
    };
    sql.text(")");
}

/// Deletes some of the calls that are kept for long enough; whether there may be more.
pub(super) async fn forget(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT kafka_offset, at < UTC_TIMESTAMP(6) - INTERVAL ").int(KEPT_DAYS);
    sql.text(" DAY FROM api_calls WHERE kafka_partition = ")
        .int(PARTITION)
        .text(" ORDER BY kafka_offset LIMIT 1");
    let Some(first) = pool.fetch_optional(sql.as_str()).await? else { return Ok(false) };
    if first.try_get::<i64, _>(1)? == 0 {
        return Ok(false);
    }
    sql.clear();
    sql.text("DELETE FROM api_calls WHERE kafka_partition = ").int(PARTITION).text(" AND kafka_offset < ");
    sql.int(first.try_get::<u64, _>(0)?.saturating_add(FORGOTTEN));
    sql.text(" AND at < UTC_TIMESTAMP(6) - INTERVAL ").int(KEPT_DAYS).text(" DAY");
    pool.execute(sql.as_str()).await?;
    Ok(true)
}
