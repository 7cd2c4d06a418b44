//! Dead letters and what became of them.

use super::*;

/// A row of `dead_letters`, with what stands at its position and the change that ended it at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) status: u8,
    pub(crate) reason: String,
    pub(crate) root: Option<Uuid>,
    /// A payment or a change stands at its position.
    pub(crate) applied: bool,
    /// What it says ended it.
    pub(crate) change: Option<Uuid>,
    /// Kind, target and applied of that change, when there is one.
    pub(crate) ended_by: Option<(String, Uuid, bool)>,
}

impl DeadLetter {
    pub(crate) const fn position(&self) -> (u8, u16, u64) {
        (self.source, self.partition, self.offset)
    }
}

/// Dead letters after a position.
pub(crate) async fn dead_letters_after(
    pool: &MySqlPool,
    after: Option<(u8, u16, u64)>,
) -> Result<Vec<DeadLetter>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT d.source, d.kafka_partition, d.kafka_offset, d.status, d.reason, d.root_id, \
         p.id IS NOT NULL OR c.id IS NOT NULL, d.change_id, e.kind, e.target_id, e.reason IS NULL \
         FROM dead_letters d \
         LEFT JOIN payments p ON p.source = d.source AND p.kafka_partition = d.kafka_partition \
         AND p.kafka_offset = d.kafka_offset \
         LEFT JOIN changes c ON c.source = d.source AND c.kafka_partition = d.kafka_partition \
         AND c.kafka_offset = d.kafka_offset LEFT JOIN changes e ON e.id = d.change_id ",
    );
    if let Some((source, partition, offset)) = after {
        sql.text("WHERE (d.source, d.kafka_partition, d.kafka_offset) > (").int(source).text(",");
        sql.int(partition).text(",").int(offset).text(")");
    }
    sql.text(" ORDER BY d.source, d.kafka_partition, d.kafka_offset LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        let ended_by = match opt_text(row, 8)? {
            Some(kind) => Some((kind, uuid(row, 9)?, row.try_get::<i64, _>(10)? != 0)),
            None => None,
        };
        Ok(DeadLetter {
            source: row.try_get(0)?,
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
            status: row.try_get(3)?,
            reason: text(row, 4)?,
            root: opt_uuid(row, 5)?,
            applied: row.try_get::<i64, _>(6)? != 0,
            change: opt_uuid(row, 7)?,
            ended_by,
        })
    })
    .await
}

/// Offsets of a partition within `first..=last` that are or were dead letters.
pub(crate) async fn dead_offsets(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    first: u64,
    last: u64,
) -> Result<Vec<u64>> {
    let mut sql = Sql::new();
    sql.text("SELECT kafka_offset FROM dead_letters WHERE source = ").int(source);
    sql.text(" AND kafka_partition = ").int(partition).text(" AND kafka_offset >= ").int(first);
    sql.text(" AND kafka_offset <= ").int(last);
    rows(pool, &sql, |row| row.try_get(0)).await
}

/// Positions of the dead letters that a change ended, after a position.
pub(crate) async fn dead_letters_of(
    pool: &MySqlPool,
    change: Uuid,
    after: Option<(u8, u16, u64)>,
) -> Result<Vec<(u8, u16, u64)>> {
    let mut sql = Sql::new();
    sql.text("SELECT source, kafka_partition, kafka_offset FROM dead_letters WHERE change_id = ")
        .uuid(change);
    if let Some((source, partition, offset)) = after {
        sql.text(" AND (source, kafka_partition, kafka_offset) > (").int(source).text(",");
        sql.int(partition).text(",").int(offset).text(")");
    }
    sql.text(" ORDER BY source, kafka_partition, kafka_offset LIMIT ").int(PAGE);
    rows(pool, &sql, |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).await
}
