//! The event log of a partner. Its sequences have no gap, so where it stands and where it begins are one row each.

use domain::event::{EventRecord, EventType};
use domain::ids::{PartnerId, event_id};
use domain::time::Timestamp;
use runtime::sql::Sql;
use serde_json::value::RawValue;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlConnection, MySqlPool, Row};
use uuid::Uuid;

use super::{Columns, StoreError, bytes};

/// What a partner's log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// The last sequence that was given out; 0 before the first.
    pub last: u64,
    /// The first sequence that is kept; `last + 1` when none is.
    pub first_kept: u64,
}

/// Where the partner's log begins and ends.
///
/// The end is read first: everything up to it is then seen by whatever reads events later.
pub async fn extent(connection: &mut MySqlConnection, partner: PartnerId) -> Result<Extent, StoreError> {
    let last = sqlx::query("SELECT last_sequence FROM partner_sequences WHERE partner_id = ?")
        .bind(bytes(&partner))
        .fetch_optional(&mut *connection)
        .await?;
    let last: u64 = last.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let first = sqlx::query("SELECT sequence FROM events WHERE partner_id = ? ORDER BY sequence LIMIT 1")
        .bind(bytes(&partner))
        .fetch_optional(connection)
        .await?;
    let first: Option<u64> = first.map(|row| row.try_get(0)).transpose()?;
    Ok(Extent { last, first_kept: first.unwrap_or(last + 1) })
}

/// Events of the types with a sequence above `after` and up to `through`, oldest first.
pub async fn between(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    after: u64,
    through: u64,
    types: Option<&[EventType]>,
    limit: usize,
) -> Result<Vec<EventRecord>, StoreError> {
    let mut sql = Sql::new();
    sql.text(COLUMNS).uuid(partner.uuid()).text(" AND sequence > ").int(after).text(" AND sequence <= ");
    sql.int(through);
    if let Some(types) = types {
        sql.text(" AND type IN (").list(types, |sql, event_type| {
            sql.int(event_type.code());
        });
        sql.text(")");
    }
    sql.text(" ORDER BY sequence LIMIT ").int(limit as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| event(partner, row)).collect()
}

/// One event by its sequence.
pub async fn at(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    sequence: u64,
) -> Result<Option<EventRecord>, StoreError> {
    let mut sql = Sql::new();
    sql.text(COLUMNS).uuid(partner.uuid()).text(" AND sequence = ").int(sequence);
    let row = connection.fetch_optional(sql.as_str()).await?;
    row.map(|row| event(partner, &row)).transpose()
}

const COLUMNS: &str = "SELECT sequence, epoch, type, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', occurred_at), data \
     FROM events FORCE INDEX (PRIMARY) WHERE partner_id = ";

fn event(partner: PartnerId, row: &MySqlRow) -> Result<EventRecord, StoreError> {
    let mut columns = Columns::new("events", row);
    let sequence = columns.take()?;
    let epoch = columns.take()?;
    let event_type = columns.code(EventType::from_code)?;
    let timestamp = columns.time()?;
    let data: String = columns.take()?;
    Ok(EventRecord {
        schema: domain::command::SCHEMA,
        id: event_id(partner, epoch, sequence),
        partner,
        sequence,
        epoch,
        event_type,
        timestamp,
        data: RawValue::from_string(data).map_err(|error| columns.wrong(&error))?,
    })
}

/// The last sequence of an event that occurred before `time`; 0 when there is none that is kept.
///
/// A partner's events never go back in time, so a look at some thirty of them tells, whatever their number.
pub async fn last_before(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    time: Timestamp,
) -> Result<u64, StoreError> {
    let extent = extent(&mut *connection, partner).await?;
    let (mut before, mut from) = (extent.first_kept.saturating_sub(1), extent.last + 1);
    while before + 1 < from {
        let middle = before + (from - before) / 2;
        let event = at(&mut *connection, partner, middle).await?;
        // A hole can only be what retention removes at this moment.
        if event.is_none_or(|event| event.timestamp < time) {
            before = middle;
        } else {
            from = middle;
        }
    }
    Ok(before)
}

/// The last sequences of several partners, for who waits for more; partners without events are not in it.
pub async fn last_sequences(
    pool: &MySqlPool,
    partners: &[PartnerId],
) -> Result<Vec<(PartnerId, u64)>, StoreError> {
    let mut sql = Sql::with_capacity(100 + 40 * partners.len());
    sql.text("SELECT partner_id, last_sequence FROM partner_sequences WHERE partner_id IN (");
    sql.list(partners, |sql, partner| {
        sql.uuid(partner.uuid());
    });
    sql.text(")");
    let rows = sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new("partner_sequences", row);
            let partner: Uuid = columns.uuid()?;
            Ok((PartnerId::from_uuid(partner), columns.take()?))
        })
        .collect()
}
