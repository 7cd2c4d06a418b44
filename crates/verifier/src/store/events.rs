//! Partners' sequences and events.

use super::*;

/// A partner that has events and no sequence, between two ids.
pub(crate) async fn orphaned_events(
    pool: &MySqlPool,
    after: Option<Uuid>,
    up_to: Option<Uuid>,
) -> Result<Option<Uuid>> {
    let select = [
        "SELECT d.partner_id FROM (SELECT DISTINCT partner_id FROM events WHERE ",
        "partner_id",
        ") d LEFT JOIN partner_sequences s ON s.partner_id = d.partner_id WHERE s.partner_id IS NULL \
         ORDER BY d.partner_id LIMIT 1",
    ];
    orphan(pool, select, after, up_to).await
}

/// A row of `partner_sequences`, with the sequence of the partner's last event at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub(crate) partner: Uuid,
    pub(crate) last: u64,
    pub(crate) epoch: u16,
    pub(crate) last_event: Option<u64>,
}

/// Sequences after `after`, by partner.
pub(crate) async fn sequences_after(pool: &MySqlPool, after: Option<Uuid>) -> Result<Vec<Sequence>> {
    let mut sql = Sql::new();
    // Ordered by the whole key: by the sequence alone, MySQL would read and sort all events of a partner.
    sql.text(
        "SELECT s.partner_id, s.last_sequence, s.epoch, (SELECT e.sequence FROM events e \
         WHERE e.partner_id = s.partner_id ORDER BY e.partner_id DESC, e.sequence DESC LIMIT 1) \
         FROM partner_sequences s ",
    );
    if let Some(after) = after {
        sql.text("WHERE s.partner_id > ").uuid(after);
    }
    sql.text(" ORDER BY s.partner_id LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        Ok(Sequence {
            partner: uuid(row, 0)?,
            last: row.try_get(1)?,
            epoch: row.try_get(2)?,
            last_event: row.try_get(3)?,
        })
    })
    .await
}

/// Partner, sequence, epoch and type of the events of these ranges, by partner and sequence.
pub(crate) async fn event_numbers_in(
    pool: &MySqlPool,
    ranges: &[Range],
) -> Result<Vec<(Uuid, u64, u16, u8)>> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id, sequence, epoch, type FROM events FORCE INDEX (PRIMARY) WHERE ");
    in_ranges(&mut sql, "partner_id", "sequence", ranges);
    rows(pool, &sql, |row| Ok((uuid(row, 0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))).await
}

/// A row of `events`.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) partner: Uuid,
    pub(crate) sequence: u64,
    pub(crate) kind: u8,
    pub(crate) occurred_at: i64,
    pub(crate) data: String,
}

/// The events at these partners and sequences; absent ones are not in the answer.
pub(crate) async fn events_at(pool: &MySqlPool, keys: &[(Uuid, u64)]) -> Result<Vec<Event>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT partner_id, sequence, type, ",
        micros!("occurred_at"),
        ", data FROM events WHERE "
    ));
    sql.text("(partner_id, sequence) IN (").list(keys, |sql, (partner, sequence)| {
        sql.text("(").uuid(*partner).text(",").int(*sequence).text(")");
    });
    sql.text(")");
    rows(pool, &sql, |row| {
        Ok(Event {
            partner: uuid(row, 0)?,
            sequence: row.try_get(1)?,
            kind: row.try_get(2)?,
            occurred_at: row.try_get(3)?,
            data: text(row, 4)?,
        })
    })
    .await
}
