//! Endpoints and what was delivered to them.

use super::*;

/// Deliveries are kept for 30 days; what is nearly as old may be going.
const KEPT_DAYS: u32 = 29;
/// Events of one partner may come out of order by their source partitions, but not by as much.
const SETTLED_MINUTES: u32 = 15;

/// An endpoint that is not disabled.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: Uuid,
    pub(crate) partner: Uuid,
    /// Comma separated; `None` for all.
    pub(crate) event_types: Option<String>,
    /// When its settings were changed last.
    pub(crate) changed_at: i64,
}

/// Endpoints that are not disabled, after an id.
pub(crate) async fn endpoints_after(pool: &MySqlPool, after: Option<Uuid>) -> Result<Vec<Endpoint>> {
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT e.id, e.partner_id, e.event_types, ",
        micros!("e.changed_at"),
        " FROM endpoints e LEFT JOIN endpoint_states s ON s.endpoint_id = e.id WHERE s.disabled_at IS NULL "
    ));
    if let Some(after) = after {
        sql.text("AND e.id > ").uuid(after);
    }
    sql.text(" ORDER BY e.id LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        Ok(Endpoint {
            id: uuid(row, 0)?,
            partner: uuid(row, 1)?,
            event_types: opt_text(row, 2)?,
            changed_at: row.try_get(3)?,
        })
    })
    .await
}

/// An event on its way.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) sequence: u64,
    pub(crate) epoch: u16,
    pub(crate) kind: u8,
    pub(crate) occurred_at: i64,
    /// Young enough that its deliveries are kept.
    pub(crate) kept: bool,
    /// Old enough that nothing overtakes it any more.
    pub(crate) settled: bool,
}

/// A partner's last events below a sequence, the last one first.
pub(crate) async fn events_below(
    pool: &MySqlPool,
    partner: Uuid,
    below: u64,
    most: u64,
) -> Result<Vec<Sent>> {
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT sequence, epoch, type, ",
        micros!("occurred_at"),
        ", occurred_at > UTC_TIMESTAMP(6) - INTERVAL "
    ));
    sql.int(KEPT_DAYS).text(" DAY, occurred_at < UTC_TIMESTAMP(6) - INTERVAL ").int(SETTLED_MINUTES);
    sql.text(" MINUTE FROM events WHERE partner_id = ").uuid(partner).text(" AND sequence < ").int(below);
    sql.text(" ORDER BY sequence DESC LIMIT ").int(most);
    rows(pool, &sql, |row| {
        Ok(Sent {
            sequence: row.try_get(0)?,
            epoch: row.try_get(1)?,
            kind: row.try_get(2)?,
            occurred_at: row.try_get(3)?,
            kept: row.try_get::<i64, _>(4)? != 0,
            settled: row.try_get::<i64, _>(5)? != 0,
        })
    })
    .await
}

/// Those of these events that have a delivery to an endpoint.
pub(crate) async fn deliveries_of(pool: &MySqlPool, endpoint: Uuid, events: &[Uuid]) -> Result<Vec<Uuid>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text("SELECT event_id FROM deliveries WHERE endpoint_id = ").uuid(endpoint);
    sql.text(" AND event_id IN (").list(events, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(")");
    rows(pool, &sql, |row| uuid(row, 0)).await
}
