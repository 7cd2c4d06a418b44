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
    let own = "SELECT t.kafka_offset, t.partner_id, t.event_sequence FROM payments AS t";
    rows_of(&mut sql, own, partition, from, to);
    sql.text(" UNION ALL ");
    let second = "SELECT t.kafka_offset, t.told_partner_id, t.told_sequence FROM payments AS t";
    rows_of(&mut sql, second, partition, from, to);
    sql.text(" UNION ALL ");
    let changes = "SELECT t.kafka_offset, t.partner_id, t.event_sequence FROM changes AS t";
    rows_of(&mut sql, changes, partition, from, to);
    // What a command applied of dead letters stands at their own places.
    for redriven in REDRIVEN {
        sql.text(" UNION ALL ");
        rows_of(&mut sql, redriven, partition, from, to);
    }
    sql.text(
        ") AS told JOIN events AS e ON e.partner_id = told.partner_id AND e.sequence = told.event_sequence \
         ORDER BY told.kafka_offset, e.sequence",
    );
    let answer = session.send(&sql).await?;
    answer.rows.iter().flatten().map(event).collect()
}

const REDRIVEN: [&str; 3] = [
    "SELECT t.kafka_offset, p.partner_id, p.event_sequence FROM changes AS t \
     JOIN dead_letters AS d ON d.change_id = t.id JOIN payments AS p ON p.source = d.source \
     AND p.kafka_partition = d.kafka_partition AND p.kafka_offset = d.kafka_offset",
    "SELECT t.kafka_offset, p.told_partner_id, p.told_sequence FROM changes AS t \
     JOIN dead_letters AS d ON d.change_id = t.id JOIN payments AS p ON p.source = d.source \
     AND p.kafka_partition = d.kafka_partition AND p.kafka_offset = d.kafka_offset",
    "SELECT t.kafka_offset, c.partner_id, c.event_sequence FROM changes AS t \
     JOIN dead_letters AS d ON d.change_id = t.id JOIN changes AS c ON c.source = d.source \
     AND c.kafka_partition = d.kafka_partition AND c.kafka_offset = d.kafka_offset",
];

fn rows_of(sql: &mut Sql, select: &'static str, partition: PartitionKey, from: i64, to: i64) {
    sql.text(select).text(" WHERE t.source = ").int(partition.source.code());
    sql.text(" AND t.kafka_partition = ").int(partition.partition);
    sql.text(" AND t.kafka_offset >= ").int(from).text(" AND t.kafka_offset < ").int(to);
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
