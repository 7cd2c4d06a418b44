//! Checkpoints as the database has them.

use domain::{checkpoint::Leaf, ids::AccountId};

use super::*;

/// What of a stored checkpoint must be as it was published.
#[derive(Debug, Clone)]
pub(crate) struct StoredCheckpoint {
    pub(crate) leaves: u64,
    pub(crate) root: [u8; 32],
    pub(crate) audit_head: [u8; 32],
    pub(crate) signature: [u8; 64],
}

async fn greatest(pool: &MySqlPool, select: &'static str) -> Result<u64> {
    let mut sql = Sql::new();
    sql.text(select);
    Ok(rows(pool, &sql, |row| row.try_get(0)).await?.pop().unwrap_or_default())
}

/// The greatest number that is known to be published; 0 for none.
pub(crate) async fn last_published(pool: &MySqlPool) -> Result<u64> {
    greatest(pool, "SELECT CAST(COALESCE(MAX(number), 0) AS UNSIGNED) FROM checkpoint_publications").await
}

/// The greatest number; 0 for none.
pub(crate) async fn last_checkpoint(pool: &MySqlPool) -> Result<u64> {
    greatest(pool, "SELECT CAST(COALESCE(MAX(number), 0) AS UNSIGNED) FROM checkpoints").await
}

/// The checkpoint of this number.
pub(crate) async fn checkpoint(pool: &MySqlPool, number: u64) -> Result<Option<StoredCheckpoint>> {
    let mut sql = Sql::new();
    sql.text("SELECT leaves, root, signature, audit_head FROM checkpoints WHERE number = ").int(number);
    let stored = rows(pool, &sql, |row| {
        Ok(StoredCheckpoint {
            leaves: row.try_get(0)?,
            root: bytes(row, 1)?,
            signature: bytes(row, 2)?,
            audit_head: bytes(row, 3)?,
        })
    });
    Ok(stored.await?.pop())
}

/// Leaves of a checkpoint after an account, by account.
pub(crate) async fn leaves_after(pool: &MySqlPool, number: u64, after: Option<Uuid>) -> Result<Vec<Leaf>> {
    let mut sql = Sql::new();
    sql.text("SELECT account_id, version, hash FROM checkpoint_leaves WHERE number = ").int(number);
    if let Some(after) = after {
        sql.text(" AND account_id > ").uuid(after);
    }
    sql.text(" ORDER BY account_id LIMIT ").int(COMMAND_PAGE);
    rows(pool, &sql, |row| {
        let account = AccountId::from_uuid(uuid(row, 0)?);
        Ok(Leaf { account, version: row.try_get(1)?, hash: bytes(row, 2)? })
    })
    .await
}
