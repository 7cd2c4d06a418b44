//! Counting requests to both APIs, by their place in the topic that they are loaded from.

use std::collections::BTreeMap;

use domain::time::Timestamp;
use jiff::tz::TimeZone;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool};
use uuid::Uuid;

use crate::analytics::Step;
use crate::analytics::facts::Grain;
use crate::store::Columns;

/// Rows of one step.
const ROWS_MAX: usize = 5_000;

/// Sums of a row.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    calls: u64,
    client_errors: u64,
    server_errors: u64,
    duration_us: u64,
}

/// Counts up to `ROWS_MAX` requests in one transaction, days by `zone`.
pub async fn step(pool: &MySqlPool, zone: &TimeZone) -> Result<Step, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let sql = "SELECT next_offset FROM analytics_positions FORCE INDEX (PRIMARY) \
               WHERE generation = 0 AND source = 3 AND kafka_partition = 0 FOR UPDATE";
    let row = transaction.fetch_one(sql).await?;
    let counted: u64 = Columns::new(&row).take()?;
    // Read after the lock: what is below is committed.
    let sql = "SELECT next_offset FROM api_call_positions WHERE kafka_partition = 0";
    let row = transaction.fetch_optional(sql).await?;
    let loaded: u64 = row.map(|row| Columns::new(&row).take()).transpose()?.unwrap_or_default();
    if counted >= loaded {
        return Ok(Step::Done);
    }
    let mut sql = Sql::new();
    sql.text("SELECT kafka_offset, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', at), service, partner_id, status, duration_us ");
    sql.text("FROM api_calls FORCE INDEX (PRIMARY) WHERE kafka_partition = 0 AND kafka_offset >= ")
        .int(counted);
    sql.text(" AND kafka_offset < ").int(loaded).text(" ORDER BY kafka_offset LIMIT ").int(ROWS_MAX as u64);
    let rows = transaction.fetch_all(sql.as_str()).await?;
    let (mut sums, mut last) = (BTreeMap::<(Grain, i32, u8, Uuid), Sums>::new(), counted);
    for row in &rows {
        let mut columns = Columns::new(row);
        last = columns.take()?;
        let at: Timestamp = columns.time()?;
        let (service, partner) = (columns.take()?, columns.opt_uuid()?.unwrap_or_default());
        let (status, duration_us): (u16, u32) = (columns.take()?, columns.take()?);
        for grain in [Grain::Hour, Grain::Day] {
            let sums = sums.entry((grain, grain.bucket(at, zone), service, partner)).or_default();
            sums.calls += 1;
            sums.client_errors += u64::from((400..500).contains(&status));
            sums.server_errors += u64::from(status >= 500);
            sums.duration_us += u64::from(duration_us);
        }
    }
    let cut = rows.len() == ROWS_MAX;
    if !sums.is_empty() {
        let mut sql = Sql::with_capacity(300 + 90 * sums.len());
        sql.text("INSERT INTO analytics_calls VALUES ").list(
            &sums,
            |sql, ((grain, bucket, service, partner), sums)| {
                sql.text("(")
                    .int(*grain as u8)
                    .text(",")
                    .int(*bucket)
                    .text(",")
                    .int(*service)
                    .text(",")
                    .uuid(*partner);
                sql.text(",")
                    .int(sums.calls)
                    .text(",")
                    .int(sums.client_errors)
                    .text(",")
                    .int(sums.server_errors);
                sql.text(",").int(sums.duration_us).text(")");
            },
        );
        sql.text(
            " ON DUPLICATE KEY UPDATE calls = calls + VALUES(calls), client_errors = client_errors + VALUES(client_errors), \
             server_errors = server_errors + VALUES(server_errors), duration_us = duration_us + VALUES(duration_us)",
        );
        transaction.execute(sql.as_str()).await?;
    }
    let mut sql = Sql::new();
    sql.text("UPDATE analytics_positions SET next_offset = ").int(if cut { last + 1 } else { loaded });
    sql.text(" WHERE generation = 0 AND source = 3 AND kafka_partition = 0");
    transaction.execute(sql.as_str()).await?;
    transaction.commit().await?;
    Ok(if cut { Step::More } else { Step::Done })
}
