//! How far each partition is applied and announced.

use domain::time::Timestamp;
use domain::topic::{Position, Source};
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;

use super::error::StoreError;
use super::row::{Columns as _, unreadable};
use super::session::Session;

/// A partition of a command topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: i32,
}

impl PartitionKey {
    /// The partition of a position.
    pub const fn of(position: Position) -> Self {
        Self { source: position.source, partition: position.partition }
    }
}

/// A row of `positions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The partition.
    pub key: PartitionKey,
    /// The first offset that is not applied.
    pub next_offset: i64,
    /// The first offset whose event may not be on the event topic.
    pub announced_offset: i64,
    /// SHA-256 of the record at `next_offset - 1`.
    pub record_hash: Option<[u8; 32]>,
}

/// MySQL's clock, when a row of [`select_for_update`] was asked for.
pub fn database_clock(row: &MySqlRow) -> Result<Timestamp, StoreError> {
    row.time(5)
}

impl StoredPosition {
    /// Reads a row of [`select_for_update`].
    pub fn read(row: &MySqlRow) -> Result<Self, StoreError> {
        let record_hash = match row.opt_bytes(4)? {
            Some(bytes) => Some(bytes.try_into().map_err(|_| unreadable(4))?),
            None => None,
        };
        Ok(Self {
            key: PartitionKey { source: row.code(0, Source::from_code)?, partition: row.small(1)? },
            next_offset: row.int(2)?,
            announced_offset: row.int(3)?,
            record_hash,
        })
    }
}

/// The clock costs no statement of its own here.
const COLUMNS: &str = "SELECT source, kafka_partition, next_offset, announced_offset, record_hash, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) FROM positions FORCE INDEX (PRIMARY) \
     WHERE (source, kafka_partition) IN (";

/// The fence: whoever locks a partition's row owns the partition until he commits.
pub fn select_for_update(sql: &mut Sql, partitions: impl Iterator<Item = PartitionKey>) {
    select(sql, partitions);
    sql.text(" ORDER BY source, kafka_partition FOR UPDATE");
}

/// Reads positions without a lock.
pub async fn read(
    session: &mut Session,
    partitions: &[PartitionKey],
) -> Result<Vec<StoredPosition>, StoreError> {
    let mut sql = Sql::new();
    select(&mut sql, partitions.iter().copied());
    let answer = session.send(&sql).await?;
    answer.rows.iter().flatten().map(StoredPosition::read).collect()
}

/// Moves `announced_offset` forward, never back, outside any batch: what was announced before a pause is then not
/// announced again after it.
pub async fn store_announced(
    session: &mut Session,
    announced: &[(PartitionKey, i64)],
) -> Result<(), StoreError> {
    let mut sql = Sql::new();
    for (index, (key, offset)) in announced.iter().enumerate() {
        if index > 0 {
            sql.text("; ");
        }
        sql.text("UPDATE positions SET announced_offset = GREATEST(announced_offset, ").int(*offset);
        sql.text(") WHERE source = ").int(key.source.code());
        sql.text(" AND kafka_partition = ").int(key.partition);
    }
    session.send(&sql).await.map(drop)
}

fn select(sql: &mut Sql, partitions: impl Iterator<Item = PartitionKey>) {
    sql.text(COLUMNS);
    sql.list(partitions, |sql, key| {
        sql.text("(").int(key.source.code()).text(",").int(key.partition).text(")");
    });
    sql.text(")");
}
