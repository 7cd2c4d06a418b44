//! Statements of the sealer.

use domain::audit::{AuditRow, GENESIS};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{Executor as _, MySqlPool, Row as _, mysql::MySqlRow};
use uuid::Uuid;

/// Rows of one step: half a megabyte, and less than 50 ms.
const ROWS: u64 = 500;

/// What one step did.
pub(super) struct Step {
    /// Rows that have their link now.
    pub(super) linked: usize,
    /// Whether there may be more.
    pub(super) full: bool,
}

/// Links rows that wait, in the order of their ids.
pub(super) async fn seal(pool: &MySqlPool) -> Result<Step, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT a.id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', a.at), a.actor_id, a.action, a.target, a.outcome, \
         a.detail, a.request_id, a.address, c.number IS NOT NULL FROM audit_unsealed u \
         JOIN audit_log a ON a.id = u.audit_id LEFT JOIN audit_chain c ON c.audit_id = u.audit_id \
         ORDER BY u.audit_id LIMIT ",
    );
    sql.int(ROWS);
    let waiting = pool.fetch_all(sql.as_str()).await?;
    if waiting.is_empty() {
        return Ok(Step { linked: 0, full: false });
    }
    let (mut rows, mut taken) = (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
    for row in &waiting {
        let (row, linked) = read(row)?;
        taken.push(row.id);
        // A place in the queue that came back leads to no second link.
        if !linked {
            rows.push(row);
        }
    }
    let mut transaction = pool.begin().await?;
    let head = "SELECT number, hash FROM audit_chain ORDER BY number DESC LIMIT 1";
    let (mut number, mut hash) = match transaction.fetch_optional(head).await? {
        Some(row) => (row.try_get(0)?, fixed(row.try_get(1)?)?),
        None => (0_u64, GENESIS),
    };
    if !rows.is_empty() {
        sql.clear();
        sql.text("INSERT INTO audit_chain VALUES ").list(&rows, |sql, row| {
            number += 1;
            hash = row.hash_after(&hash, number);
            sql.text("(").int(number).text(",").uuid(row.id).text(",").bytes(&hash).text(")");
        });
        transaction.execute(sql.as_str()).await?;
    }
    sql.clear();
    sql.text("DELETE FROM audit_unsealed WHERE audit_id IN (").list(&taken, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(")");
    transaction.execute(sql.as_str()).await?;
    transaction.commit().await?;
    Ok(Step { linked: rows.len(), full: taken.len() as u64 >= ROWS })
}

/// A row that waits, and whether it has its link already.
fn read(row: &MySqlRow) -> Result<(AuditRow, bool), sqlx::Error> {
    let read = AuditRow {
        id: Uuid::from_bytes(fixed(row.try_get(0)?)?),
        at: Timestamp::from_micros(row.try_get(1)?),
        actor: row.try_get::<Option<&[u8]>, _>(2)?.map(fixed).transpose()?.map(Uuid::from_bytes),
        action: row.try_get_unchecked(3)?,
        target: row.try_get_unchecked(4)?,
        outcome: row.try_get(5)?,
        detail: row.try_get_unchecked(6)?,
        request_id: Uuid::from_bytes(fixed(row.try_get(7)?)?),
        address: row.try_get(8)?,
    };
    Ok((read, row.try_get::<i64, _>(9)? != 0))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{N} bytes expected").into()))
}
