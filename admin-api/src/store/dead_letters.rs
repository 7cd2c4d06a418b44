//! Dead letters: read-only, the ledger's. There are few of them, so lists go by the primary key.

use domain::time::Timestamp;
use domain::topic::Source;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::Columns;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
}

/// A dead letter.
#[derive(Debug)]
pub struct DeadLetterRow {
    /// Where its record stands.
    pub place: Place,
    /// 1 open, 2 redriven, 3 rejected.
    pub status: u8,
    /// What it asked for, when it could be read.
    pub id: Option<Uuid>,
    /// What it was keyed by.
    pub root: Option<Uuid>,
    /// Why, as a word.
    pub reason: String,
    /// Why, as the program said it; may quote the record.
    pub detail: String,
    /// The record's value.
    pub value: Vec<u8>,
    /// When the broker took it.
    pub accepted_at: Timestamp,
    /// When it was set aside.
    pub recorded_at: Timestamp,
    /// What ended it.
    pub change: Option<Uuid>,
}

const COLUMNS: &str = "SELECT source, kafka_partition, kafka_offset, status, id, root_id, reason, detail, record_value, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', recorded_at), \
     change_id FROM dead_letters";

fn read(row: &MySqlRow) -> Result<DeadLetterRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    let id = |stored: Option<Vec<u8>>| stored.and_then(|stored| Uuid::from_slice(&stored).ok());
    Ok(DeadLetterRow {
        place: Place {
            source: columns.named(Source::from_code)?,
            partition: columns.take()?,
            offset: columns.take()?,
        },
        status: columns.take()?,
        id: id(columns.take()?),
        root: id(columns.take()?),
        reason: columns.text()?.unwrap_or_default(),
        detail: columns.text()?.unwrap_or_default(),
        value: columns.take()?,
        accepted_at: Timestamp::from_micros(columns.take()?),
        recorded_at: Timestamp::from_micros(columns.take()?),
        change: id(columns.take()?),
    })
}

/// The dead letter at this place.
pub async fn at(pool: &MySqlPool, place: Place) -> Result<Option<DeadLetterRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE source = ? AND kafka_partition = ? AND kafka_offset = ?");
    let row = sqlx::query(&text)
        .bind(place.source.code())
        .bind(place.partition)
        .bind(place.offset)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Dead letters behind a place, in the order of their places.
pub async fn list(
    pool: &MySqlPool,
    status: Option<u8>,
    after: Option<Place>,
    limit: u32,
) -> Result<Vec<DeadLetterRow>, sqlx::Error> {
    let text = format!(
        "{COLUMNS} WHERE (source, kafka_partition, kafka_offset) > (?, ?, ?) AND (status = ? OR ?) \
         ORDER BY source, kafka_partition, kafka_offset LIMIT ?"
    );
    let (source, partition, offset) =
        after.map_or((0, 0, 0), |place| (place.source.code(), place.partition, place.offset));
    let rows = sqlx::query(&text)
        .bind(source)
        .bind(partition)
        .bind(offset)
        .bind(status.unwrap_or_default())
        .bind(status.is_none())
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(read).collect()
}
