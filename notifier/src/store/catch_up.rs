//! Reads the event log of partners, for what the topic no longer holds.

use domain::event::EventRecord;
use runtime::sql::Sql;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::claims::{EVENTS, event};
use super::{fetch, uuid};

/// The id of the last recorded delivery of each endpoint. Ids of a partner's events sort by sequence.
pub async fn last_recorded(pool: &MySqlPool) -> Result<Vec<(Uuid, Option<Uuid>)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let rows = fetch(
        &mut connection,
        "SELECT e.id, (SELECT d.event_id FROM deliveries d FORCE INDEX (PRIMARY) WHERE d.endpoint_id = e.id \
         ORDER BY d.event_id DESC LIMIT 1) FROM endpoints e",
        1,
    )
    .await?;
    let read = |row: &sqlx::mysql::MySqlRow| {
        let last: Option<Vec<u8>> = row.try_get(1)?;
        Ok((uuid(row, 0)?, last.and_then(|bytes| Uuid::from_slice(&bytes).ok())))
    };
    rows.iter().map(read).collect()
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
