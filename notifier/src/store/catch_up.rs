//! Reads the event log of partners, for what the topic no longer holds.

use std::collections::HashMap;

use domain::event::EventRecord;
use domain::ids::{PartnerId, event_id};
use runtime::sql::Sql;
use sqlx::MySqlPool;
use uuid::Uuid;

use super::claims::{EVENTS, event};
use super::{fetch, uuid};

/// Endpoints asked for in one statement by [`last_recorded`].
const ENDPOINTS_MAX: usize = 500;

/// The last recorded event of each endpoint (given with its partner) that has one. Ids of a partner's events sort by
/// sequence.
pub async fn last_recorded(
    pool: &MySqlPool,
    endpoints: &[(Uuid, Uuid)],
) -> Result<HashMap<Uuid, Uuid>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut last = HashMap::new();
    for chunk in endpoints.chunks(ENDPOINTS_MAX) {
        let mut sql = Sql::with_capacity(300 * chunk.len());
        for (index, (endpoint, partner)) in chunk.iter().enumerate() {
            sql.text(if index == 0 { "" } else { " UNION ALL " });
            push_last_event(&mut sql, *endpoint, *partner);
        }
        for row in fetch(&mut connection, sql.as_str(), 1).await? {
            last.insert(uuid(&row, 0)?, uuid(&row, 1)?);
        }
    }
    Ok(last)
}

/// Selects the last recorded event of an endpoint. Its notices stand in the same table under random ids, so the range
/// of ids is that of its partner's events.
pub(super) fn push_last_event(sql: &mut Sql, endpoint: Uuid, partner: Uuid) {
    let partner = PartnerId::from_uuid(partner);
    let (first, last) = (event_id(partner, 0, 0), event_id(partner, u16::MAX, u64::MAX));
    sql.text("(SELECT endpoint_id, event_id FROM deliveries FORCE INDEX (PRIMARY) WHERE endpoint_id = ")
        .uuid(endpoint);
    sql.text(" AND event_id BETWEEN ").uuid(first.uuid()).text(" AND ").uuid(last.uuid());
    sql.text(" ORDER BY event_id DESC LIMIT 1)");
}

/// The next events of a partner after a sequence, oldest first.
pub async fn events_after(
    pool: &MySqlPool,
    partner: Uuid,
    sequence: u64,
    limit: u32,
) -> Result<Vec<EventRecord>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::new();
    sql.text(EVENTS).text("partner_id = ").uuid(partner).text(" AND sequence > ").int(sequence);
    sql.text(" ORDER BY sequence LIMIT ").int(limit);
    fetch(&mut connection, sql.as_str(), 1).await?.iter().map(event).collect()
}
