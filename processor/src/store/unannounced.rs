//! Events that are stored and may not be on the event topic: what a new owner of a partition announces first.

use domain::command::SCHEMA;
use domain::event::{EventRecord, EventType};
use domain::ids::{PartnerId, event_id};
use runtime::sql::Sql;
use serde_json::value::RawValue;
use sqlx::mysql::MySqlRow;

use super::error::StoreError;
use super::positions::PartitionKey;
use super::row::{Columns as _, unreadable};
use super::session::Session;

/// How many commands one read looks at. It bounds memory; more only saves round trips of a rare path.
pub const PAGE: i64 = 1_000;

/// Events of the commands at `from..to` of a partition, in the order of their offsets; at most [`PAGE`] offsets.
pub async fn read(
    session: &mut Session,
    partition: PartitionKey,
    from: i64,
    to: i64,
) -> Result<Vec<EventRecord>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT e.partner_id, e.sequence, e.epoch, e.type, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.occurred_at), e.data FROM (");
    rows_of(&mut sql, "SELECT kafka_offset, partner_id, event_sequence FROM payments", partition, from, to);
    sql.text(" UNION ALL ");
    rows_of(&mut sql, "SELECT kafka_offset, partner_id, event_sequence FROM changes", partition, from, to);
    sql.text(
        ") AS told JOIN events AS e ON e.partner_id = told.partner_id AND e.sequence = told.event_sequence \
         ORDER BY told.kafka_offset",
    );
    let answer = session.send(&sql).await?;
    answer.rows.iter().flatten().map(event).collect()
}

fn rows_of(sql: &mut Sql, select: &'static str, partition: PartitionKey, from: i64, to: i64) {
    sql.text(select).text(" WHERE source = ").int(partition.source.code());
    sql.text(" AND kafka_partition = ").int(partition.partition);
    sql.text(" AND kafka_offset >= ").int(from).text(" AND kafka_offset < ").int(to);
    sql.text(" AND event_sequence IS NOT NULL");
}

fn event(row: &MySqlRow) -> Result<EventRecord, StoreError> {
    let partner = PartnerId::from_uuid(row.uuid(0)?);
    let (sequence, epoch) = (row.small(1)?, row.small(2)?);
    Ok(EventRecord {
        schema: SCHEMA,
        id: event_id(partner, epoch, sequence),
        partner,
        sequence,
        epoch,
        event_type: row.code(3, EventType::from_code)?,
        timestamp: row.time(4)?,
        data: RawValue::from_string(row.string(5)?.to_owned()).map_err(|_| unreadable(5))?,
    })
}
