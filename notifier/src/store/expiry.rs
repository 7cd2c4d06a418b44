//! Deletes what is no longer kept, in bounded ranges.

use domain::notice::NoticeType;
use domain::replay::ReplayStatus;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::MySqlPool;
use uuid::Uuid;

use super::deliveries::push_key;
use super::{DeliveryKey, Status, execute, fetch, uuid};

/// Rows of one statement.
pub const ROWS_MAX: u32 = 500;

/// The next endpoint that has deliveries, and whether it still exists.
pub async fn next_endpoint(pool: &MySqlPool, after: Uuid) -> Result<Option<(Uuid, bool)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("SELECT endpoint_id FROM deliveries FORCE INDEX (PRIMARY) WHERE endpoint_id > ").uuid(after);
    sql.text(" ORDER BY endpoint_id LIMIT 1");
    let rows = fetch(&mut connection, sql.as_str(), 1).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let endpoint = uuid(row, 0)?;
    let mut sql = Sql::new();
    sql.text("SELECT id FROM endpoints WHERE id = ").uuid(endpoint);
    Ok(Some((endpoint, !fetch(&mut connection, sql.as_str(), 1).await?.is_empty())))
}

/// Which deliveries of an endpoint to delete.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// All: the endpoint is gone.
    All,
    /// Those of a status that were first recorded before a time.
    Before(Status, Timestamp),
}

/// Deletes up to [`ROWS_MAX`] deliveries with their attempts, the oldest first; gives how many.
pub async fn deliveries(pool: &MySqlPool, endpoint: Uuid, which: Which) -> Result<u32, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text("SELECT endpoint_id, event_id FROM deliveries FORCE INDEX (");
    sql.text(if matches!(which, Which::All) { "PRIMARY" } else { "deliveries_of_endpoint" });
    sql.text(") WHERE endpoint_id = ").uuid(endpoint);
    push_which(&mut sql, which);
    sql.text(" LIMIT ").int(ROWS_MAX);
    let read =
        |row: &sqlx::mysql::MySqlRow| Ok(DeliveryKey { endpoint: uuid(row, 0)?, event: uuid(row, 1)? });
    let mut keys: Vec<DeliveryKey> = fetch(&mut connection, sql.as_str(), 1)
        .await?
        .iter()
        .map(read)
        .collect::<Result<_, sqlx::Error>>()?;
    if keys.is_empty() {
        return Ok(0);
    }
    keys.sort_unstable();
    // The attempts first: a delivery that is left over by a kill is found again.
    let mut sql = Sql::with_capacity(400 + 160 * keys.len());
    sql.text("DELETE FROM attempts WHERE (endpoint_id, event_id) IN (").list(&keys, push_key);
    sql.text("); DELETE FROM deliveries WHERE (endpoint_id, event_id) IN (").list(&keys, push_key).text(")");
    // What a replay has made due meanwhile stays.
    push_which(&mut sql, which);
    execute(&mut connection, sql.as_str(), 2).await?;
    Ok(u32::try_from(keys.len()).unwrap_or(u32::MAX))
}

fn push_which(sql: &mut Sql, which: Which) {
    if let Which::Before(status, before) = which {
        sql.text(" AND status = ").int(status.code()).text(" AND created_at < ").datetime(before.civil());
    }
}

/// Deletes notices caused before a time; gives whether there may be more.
pub async fn notices(pool: &MySqlPool, before: Timestamp) -> Result<bool, sqlx::Error> {
    let mut deleted = 0;
    for notice_type in NoticeType::ALL {
        let mut sql = Sql::new();
        sql.text("DELETE FROM notices WHERE type = ").int(notice_type.code());
        sql.text(" AND created_at < ")
            .datetime(before.civil())
            .text(" ORDER BY created_at LIMIT ")
            .int(ROWS_MAX);
        deleted = delete(pool, &sql).await?.max(deleted);
    }
    Ok(deleted == u64::from(ROWS_MAX))
}

/// Deletes replays that ended before a time; gives whether there may be more.
pub async fn replays(pool: &MySqlPool, before: Timestamp) -> Result<bool, sqlx::Error> {
    let mut deleted = 0;
    for status in [ReplayStatus::Done, ReplayStatus::Cancelled] {
        let mut sql = Sql::new();
        sql.text("DELETE FROM replays WHERE status = ").int(status.code());
        sql.text(" AND next_step_at < ").datetime(before.civil());
        sql.text(" ORDER BY next_step_at LIMIT ").int(ROWS_MAX);
        deleted = delete(pool, &sql).await?.max(deleted);
    }
    Ok(deleted == u64::from(ROWS_MAX))
}

/// Deletes states, notices and open replays of endpoints that are gone; gives whether there may be more.
pub async fn orphans(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    let mut deleted = 0;
    for (select, remove) in [
        (
            "SELECT DISTINCT s.endpoint_id FROM endpoint_states s LEFT JOIN endpoints e ON e.id = s.endpoint_id WHERE e.id IS NULL",
            "DELETE FROM endpoint_states WHERE endpoint_id IN (",
        ),
        (
            "SELECT DISTINCT n.endpoint_id FROM notices n LEFT JOIN endpoints e ON e.id = n.endpoint_id WHERE e.id IS NULL",
            "DELETE FROM notices WHERE endpoint_id IN (",
        ),
        (
            "SELECT DISTINCT r.endpoint_id FROM replays r LEFT JOIN endpoints e ON e.id = r.endpoint_id WHERE e.id IS NULL",
            "DELETE FROM replays WHERE endpoint_id IN (",
        ),
    ] {
        let mut connection = pool.acquire().await?;
        let mut sql = Sql::new();
        sql.text(select).text(" LIMIT ").int(ROWS_MAX);
        let rows = fetch(&mut connection, sql.as_str(), 1).await?;
        let endpoints = rows.iter().map(|row| uuid(row, 0)).collect::<Result<Vec<_>, _>>()?;
        drop(connection);
        if !endpoints.is_empty() {
            let mut sql = Sql::new();
            sql.text(remove).list(&endpoints, |sql, endpoint| {
                sql.uuid(*endpoint);
            });
            sql.text(") LIMIT ").int(ROWS_MAX);
            deleted = delete(pool, &sql).await?.max(deleted);
        }
    }
    Ok(deleted == u64::from(ROWS_MAX))
}

async fn delete(pool: &MySqlPool, sql: &Sql) -> Result<u64, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    execute(&mut connection, sql.as_str(), 1).await
}
