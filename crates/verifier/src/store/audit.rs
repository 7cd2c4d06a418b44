//! The audit log, its chain and the queue of its sealer.

use domain::{audit::AuditRow, time::Timestamp};

use super::*;

/// A link of the chain with its row.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) audit_id: Uuid,
    pub(crate) hash: [u8; 32],
    /// `None` when the log has no such row.
    pub(crate) row: Option<AuditRow>,
}

/// The hash of one link.
pub(crate) async fn link(pool: &MySqlPool, number: u64) -> Result<Option<[u8; 32]>> {
    let mut sql = Sql::new();
    sql.text("SELECT hash FROM audit_chain WHERE number = ").int(number);
    Ok(rows(pool, &sql, |row| bytes(row, 0)).await?.pop())
}

/// A page of links behind a number.
pub(crate) async fn links_after(pool: &MySqlPool, number: u64) -> Result<Vec<Link>> {
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT c.number, c.audit_id, c.hash, a.id, ",
        micros!("a.at"),
        ", a.actor_id, a.action, a.target, a.outcome, a.detail, a.request_id, a.address FROM audit_chain c \
         LEFT JOIN audit_log a ON a.id = c.audit_id WHERE c.number > "
    ));
    sql.int(number).text(" ORDER BY c.number LIMIT ").int(COMMAND_PAGE);
    rows(pool, &sql, |row| {
        let logged = opt_uuid(row, 3)?.map(|id| {
            Ok::<_, sqlx::Error>(AuditRow {
                id,
                at: Timestamp::from_micros(row.try_get(4)?),
                actor: opt_uuid(row, 5)?,
                action: text(row, 6)?,
                target: opt_text(row, 7)?,
                outcome: row.try_get(8)?,
                detail: text(row, 9)?,
                request_id: uuid(row, 10)?,
                address: row.try_get(11)?,
            })
        });
        Ok(Link {
            number: row.try_get(0)?,
            audit_id: uuid(row, 1)?,
            hash: bytes(row, 2)?,
            row: logged.transpose()?,
        })
    })
    .await
}

/// Numbers and hashes of a page of links behind a number.
pub(crate) async fn heads_after(pool: &MySqlPool, number: u64) -> Result<Vec<(u64, [u8; 32])>> {
    let mut sql = Sql::new();
    sql.text("SELECT number, hash FROM audit_chain WHERE number > ").int(number);
    sql.text(" ORDER BY number LIMIT ").int(COMMAND_PAGE);
    rows(pool, &sql, |row| Ok((row.try_get(0)?, bytes(row, 1)?))).await
}

/// Rows of the log behind an id, and whether each is linked or waits to be.
pub(crate) async fn logged_after(pool: &MySqlPool, after: Uuid) -> Result<Vec<(Uuid, bool)>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT a.id, c.number IS NOT NULL OR u.audit_id IS NOT NULL FROM audit_log a \
         LEFT JOIN audit_chain c ON c.audit_id = a.id LEFT JOIN audit_unsealed u ON u.audit_id = a.id \
         WHERE a.id > ",
    );
    sql.uuid(after).text(" ORDER BY a.id LIMIT ").int(COMMAND_PAGE);
    rows(pool, &sql, |row| Ok((uuid(row, 0)?, row.try_get::<i64, _>(1)? != 0))).await
}

/// A place in the queue of the sealer whose row is not in the log.
pub(crate) async fn queued_and_gone(pool: &MySqlPool) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT u.audit_id FROM audit_unsealed u LEFT JOIN audit_log a ON a.id = u.audit_id \
         WHERE a.id IS NULL ORDER BY u.audit_id LIMIT 1",
    );
    Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
}
