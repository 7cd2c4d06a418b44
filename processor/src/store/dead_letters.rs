//! Open dead letters that a batch deals with.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::command::BankCommand;
use domain::topic::{Position, Source};
use jiff::tz::TimeZone;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::error::StoreError;
use super::row::Columns as _;
use super::session::Session;
use crate::decide::{DeadLetter, Slot};
use crate::item::{Content, Item};

/// How many of one root are dealt with at once. It bounds the transaction and its memory; the rest stays open for the
/// next command.
const OF_ROOT_MAX: usize = 500;

/// How many bytes of them, likewise.
const BYTES_MAX: usize = 3 * 1024 * 1024;

/// Which dead letters commands name.
#[derive(Debug, Default)]
pub struct Named {
    roots: BTreeSet<Uuid>,
    /// Of those that are keyed by no id.
    positions: BTreeSet<Position>,
}

/// Open dead letters by their place, and roots that have more of them.
pub type Open = (BTreeMap<Position, Slot<DeadLetter>>, HashSet<Uuid>);

impl Named {
    /// Those of a batch.
    pub fn of(items: &[Item]) -> Self {
        let mut named = Self::default();
        for item in items {
            let Content::Bank(envelope, _) = &item.content else { continue };
            match &envelope.command {
                BankCommand::RedriveDeadLetters { root } => {
                    named.roots.insert(*root);
                }
                BankCommand::RejectDeadLetter(letter) => {
                    named.roots.extend(letter.root);
                    if letter.root.is_none() {
                        let (source, partition, offset) = (letter.source, letter.partition, letter.offset);
                        named.positions.insert(Position { source, partition, offset });
                    }
                }
                _ => {}
            }
        }
        named
    }

    /// Whether there are none, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.positions.is_empty()
    }

    /// The statement that reads them.
    pub fn select(&self, sql: &mut Sql) {
        for (index, root) in self.roots.iter().enumerate() {
            sql.text(if index > 0 { " UNION ALL (" } else { "(" }).text(COLUMNS);
            sql.text("root_id = ").uuid(*root);
            sql.text(" ORDER BY source, kafka_partition, kafka_offset LIMIT ").int(OF_ROOT_MAX as i64 + 1);
            sql.text(")");
        }
        for (index, at) in self.positions.iter().enumerate() {
            sql.text(if index > 0 || !self.roots.is_empty() { " UNION ALL (" } else { "(" }).text(COLUMNS);
            sql.text("source = ").int(at.source.code()).text(" AND kafka_partition = ").int(at.partition);
            sql.text(" AND kafka_offset = ").int(at.offset).text(" AND root_id IS NULL)");
        }
    }

    /// Reads them before anything is locked, so that what they refer to is known.
    pub async fn read(&self, session: &mut Session, zone: &TimeZone) -> Result<Open, StoreError> {
        if self.is_empty() {
            return Ok(Open::default());
        }
        let mut sql = Sql::new();
        self.select(&mut sql);
        let answer = session.send(&sql).await?;
        open(answer.rows.iter().flatten(), zone)
    }
}

/// The rows of [`Named::select`].
pub fn open<'a>(rows: impl Iterator<Item = &'a MySqlRow>, zone: &TimeZone) -> Result<Open, StoreError> {
    let (mut letters, mut crowded, mut counts) =
        (BTreeMap::new(), HashSet::new(), HashMap::<Uuid, usize>::new());
    let mut bytes = 0;
    for row in rows {
        let position = Position {
            source: row.code(0, Source::from_code)?,
            partition: row.small(1)?,
            offset: row.int(2)?,
        };
        let root = row.opt_uuid(3)?;
        if let Some(root) = root {
            let count = counts.entry(root).or_default();
            *count += 1;
            bytes += row.bytes(5)?.len();
            // Later ones wait behind the first that does not fit.
            if *count > OF_ROOT_MAX || (*count > 1 && bytes > BYTES_MAX) || crowded.contains(&root) {
                crowded.insert(root);
                continue;
            }
        }
        let accepted_at = row.time(6)?;
        let item = Item::read(
            position,
            accepted_at,
            accepted_at.day_in(zone),
            row.opt_bytes(4)?,
            Some(row.bytes(5)?),
        );
        letters.insert(position, Slot::read(DeadLetter { item, root, end: None }));
    }
    Ok((letters, crowded))
}

const COLUMNS: &str = "SELECT source, kafka_partition, kafka_offset, root_id, record_key, record_value, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at) FROM dead_letters WHERE status = 1 AND ";
