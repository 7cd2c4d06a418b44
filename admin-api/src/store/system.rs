//! What the reconciler found, how checkpoints stand, and which schema and server this is.

use domain::checkpoint::Hash;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlConnection};
use uuid::Uuid;

use super::Columns;

/// A finished round of the reconciler.
#[derive(Debug, Clone)]
pub struct RoundRow {
    /// Its id; rounds come in the order of their ids.
    pub id: Uuid,
    /// 1 what is new, 2 everything.
    pub kind: u8,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// 1 whole, 2 broken.
    pub status: u8,
    /// What it found, JSON.
    pub report: String,
}

const ROUNDS: &str = "SELECT id, kind, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at), status, report FROM reconciliations ";

fn round(row: &sqlx::mysql::MySqlRow) -> Result<RoundRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(RoundRow {
        id: columns.uuid()?,
        kind: columns.take()?,
        started_at: columns.time()?,
        finished_at: columns.time()?,
        status: columns.take()?,
        report: columns.text()?.unwrap_or_default(),
    })
}

/// Rounds below an id, newest first.
pub async fn rounds(
    connection: &mut MySqlConnection,
    below: Option<Uuid>,
    limit: u32,
) -> Result<Vec<RoundRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(ROUNDS).text("FORCE INDEX (PRIMARY) WHERE id < ").uuid(below.unwrap_or(Uuid::max()));
    sql.text(" ORDER BY id DESC LIMIT ").int(limit);
    connection.fetch_all(sql.as_str()).await?.iter().map(round).collect()
}

/// The last round of a kind.
pub async fn last_round(connection: &mut MySqlConnection, kind: u8) -> Result<Option<RoundRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(ROUNDS).text("FORCE INDEX (reconciliations_kind) WHERE kind = ").int(kind);
    sql.text(" ORDER BY finished_at DESC LIMIT 1");
    connection.fetch_optional(sql.as_str()).await?.as_ref().map(round).transpose()
}

/// The last checkpoint.
#[derive(Debug, Clone)]
pub struct CheckpointRow {
    /// Counts from 1.
    pub number: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Accounts in it.
    pub leaves: u64,
    /// The root of their Merkle tree.
    pub root: Hash,
    /// When it was known to be published; `None` while it is not.
    pub published_at: Option<Timestamp>,
}

/// The last checkpoint.
pub async fn last_checkpoint(connection: &mut MySqlConnection) -> Result<Option<CheckpointRow>, sqlx::Error> {
    let sql = "SELECT c.number, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', c.taken_at), c.leaves, c.root, \
               TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.published_at) FROM checkpoints c \
               LEFT JOIN checkpoint_publications p ON p.number = c.number ORDER BY c.number DESC LIMIT 1";
    let Some(row) = connection.fetch_optional(sql).await? else { return Ok(None) };
    let mut columns = Columns::new(&row);
    Ok(Some(CheckpointRow {
        number: columns.take()?,
        taken_at: columns.time()?,
        leaves: columns.take()?,
        root: {
            let bytes: &[u8] = columns.take()?;
            Hash(bytes.try_into().map_err(|_| sqlx::Error::Decode("32 bytes expected".into()))?)
        },
        published_at: columns.opt_time()?,
    }))
}

/// The last migration, the server's version and its clock.
pub async fn versions(connection: &mut MySqlConnection) -> Result<(String, String, Timestamp), sqlx::Error> {
    let sql = "SELECT (SELECT name FROM schema_migrations WHERE applied_at IS NOT NULL ORDER BY version DESC LIMIT 1), \
               VERSION(), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
    let row = connection.fetch_one(sql).await?;
    let mut columns = Columns::new(&row);
    Ok((columns.text()?.unwrap_or_default(), columns.text()?.unwrap_or_default(), columns.time()?))
}
