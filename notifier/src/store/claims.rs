//! Finds due deliveries, takes leases on them and reads their events.

use std::collections::{HashMap, HashSet};

use domain::event::{EventRecord, EventType};
use domain::ids::{EventId, PartnerId, event_position};
use domain::notice::NoticeType;
use domain::time::Timestamp;
use runtime::sql::Sql;
use serde_json::value::RawValue;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::deliveries::push_key;
use super::{DeliveryKey, execute, fetch, instant, text, uuid};

/// A delivery on which a lease was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub key: DeliveryKey,
    /// Whose event it is.
    pub partner: Uuid,
    /// Attempts recorded since it was last asked for.
    pub made: u8,
}

/// Endpoints asked for in one statement by [`next_due`].
const ENDPOINTS_MAX: usize = 500;

/// When each endpoint's next delivery is due: one dive into the index per endpoint.
///
/// A dive each, with literal bounds: an aggregate or a correlated subquery would walk over all finished deliveries.
pub async fn next_due(pool: &MySqlPool, endpoints: &[Uuid]) -> Result<Vec<(Uuid, Timestamp)>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut due = Vec::new();
    for chunk in endpoints.chunks(ENDPOINTS_MAX) {
        let mut sql = Sql::with_capacity(260 * chunk.len());
        for (index, endpoint) in chunk.iter().enumerate() {
            sql.text(if index == 0 { "(" } else { " UNION ALL (" });
            sql.text("SELECT endpoint_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at) FROM deliveries FORCE INDEX (deliveries_due) WHERE endpoint_id = ");
            sql.uuid(*endpoint).text(" AND next_attempt_at > 0 ORDER BY next_attempt_at LIMIT 1)");
        }
        for row in fetch(&mut connection, sql.as_str(), 1).await? {
            due.push((uuid(&row, 0)?, instant(&row, 1)?));
        }
    }
    Ok(due)
}

/// Leases up to so many due deliveries of each endpoint, until `lease_end`, which must differ from call to call.
///
/// The look comes first and locks nothing; the conditional UPDATE decides, so that of two claimants one has each.
pub async fn claim(
    pool: &MySqlPool,
    wanted: &[(Uuid, usize)],
    now: Timestamp,
    owner: Uuid,
    lease_end: Timestamp,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::with_capacity(300 * wanted.len());
    for (index, (endpoint, limit)) in wanted.iter().enumerate() {
        sql.text(if index == 0 { "(" } else { " UNION ALL (" });
        sql.text("SELECT endpoint_id, event_id, partner_id, attempts, attempts_before FROM deliveries FORCE INDEX (deliveries_due) WHERE endpoint_id = ");
        sql.uuid(*endpoint).text(" AND next_attempt_at <= ").datetime(now.civil());
        sql.text(" ORDER BY next_attempt_at LIMIT ").int(i64::try_from(*limit).unwrap_or(i64::MAX)).text(")");
    }
    let mut claims = Vec::new();
    for row in fetch(&mut connection, sql.as_str(), 1).await? {
        let key = DeliveryKey { endpoint: uuid(&row, 0)?, event: uuid(&row, 1)? };
        let (attempts, before): (u8, u8) = (row.try_get(3)?, row.try_get(4)?);
        claims.push(Claim { key, partner: uuid(&row, 2)?, made: attempts.saturating_sub(before) });
    }
    if claims.is_empty() {
        return Ok(claims);
    }
    let mut sorted: Vec<_> = claims.iter().map(|claim| claim.key).collect();
    sorted.sort_unstable();
    let mut sql = Sql::with_capacity(200 + 80 * sorted.len());
    sql.text("UPDATE deliveries FORCE INDEX (PRIMARY) SET leased_by = ").uuid(owner);
    sql.text(", next_attempt_at = ").datetime(lease_end.civil());
    sql.text(" WHERE (endpoint_id, event_id) IN (").list(&sorted, push_key);
    sql.text(") AND status = 1 AND next_attempt_at <= ").datetime(now.civil());
    let leased = execute(&mut connection, sql.as_str(), 1).await?;
    if leased != claims.len() as u64 {
        let mut sql = Sql::with_capacity(200 + 80 * sorted.len());
        sql.text("SELECT endpoint_id, event_id FROM deliveries FORCE INDEX (PRIMARY) WHERE (endpoint_id, event_id) IN (");
        sql.list(&sorted, push_key).text(") AND leased_by = ").uuid(owner);
        sql.text(" AND next_attempt_at = ").datetime(lease_end.civil());
        let mut ours = HashSet::new();
        for row in fetch(&mut connection, sql.as_str(), 1).await? {
            ours.insert(DeliveryKey { endpoint: uuid(&row, 0)?, event: uuid(&row, 1)? });
        }
        claims.retain(|claim| ours.contains(&claim.key));
    }
    Ok(claims)
}

/// The events of the claims, by their ids; what is not stored any more is not in it.
pub async fn events(pool: &MySqlPool, claims: &[Claim]) -> Result<HashMap<Uuid, EventRecord>, sqlx::Error> {
    let positions: Vec<(Uuid, u16, u64)> = claims
        .iter()
        .filter_map(|claim| {
            let partner = PartnerId::from_uuid(claim.partner);
            let (epoch, sequence) = event_position(partner, EventId::from_uuid(claim.key.event))?;
            Some((claim.partner, epoch, sequence))
        })
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    if positions.is_empty() {
        return Ok(HashMap::new());
    }
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::with_capacity(200 + 80 * positions.len());
    sql.text(EVENTS).text("(partner_id, sequence) IN (");
    sql.list(&positions, |sql, (partner, _, sequence)| {
        sql.text("(").uuid(*partner).text(",").int(*sequence).text(")");
    });
    sql.text(")");
    let mut events = HashMap::new();
    for row in fetch(&mut connection, sql.as_str(), 1).await? {
        let event = event(&row)?;
        events.insert(event.id.uuid(), event);
    }
    Ok(events)
}

/// A notice that is delivered as events are.
#[derive(Debug)]
pub struct NoticeRow {
    /// What it tells.
    pub notice_type: NoticeType,
    /// When it was caused.
    pub created_at: Timestamp,
    /// JSON.
    pub data: String,
}

/// The notices among the claims, by delivery.
pub async fn notices(
    pool: &MySqlPool,
    keys: &[DeliveryKey],
) -> Result<HashMap<DeliveryKey, NoticeRow>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let mut connection = pool.acquire().await?;
    let mut sql = Sql::with_capacity(200 + 80 * keys.len());
    sql.text("SELECT endpoint_id, id, type, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), data FROM notices FORCE INDEX (PRIMARY) WHERE (endpoint_id, id) IN (");
    sql.list(keys, push_key).text(")");
    let mut notices = HashMap::new();
    for row in fetch(&mut connection, sql.as_str(), 1).await? {
        let code: u8 = row.try_get(2)?;
        let notice_type = NoticeType::from_code(code)
            .ok_or_else(|| sqlx::Error::Decode(format!("unknown notice type {code}").into()))?;
        let notice = NoticeRow { notice_type, created_at: instant(&row, 3)?, data: text(&row, 4)? };
        notices.insert(DeliveryKey { endpoint: uuid(&row, 0)?, event: uuid(&row, 1)? }, notice);
    }
    Ok(notices)
}

/// Selects what [`event`] reads.
pub(super) const EVENTS: &str = "SELECT partner_id, sequence, epoch, type, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', occurred_at), data FROM events FORCE INDEX (PRIMARY) WHERE ";

pub(super) fn event(row: &sqlx::mysql::MySqlRow) -> Result<EventRecord, sqlx::Error> {
    let partner = PartnerId::from_uuid(uuid(row, 0)?);
    let sequence: u64 = row.try_get(1)?;
    let epoch: u16 = row.try_get(2)?;
    let code: u8 = row.try_get(3)?;
    let data = text(row, 5)?;
    let decode = |what: String| sqlx::Error::Decode(what.into());
    Ok(EventRecord {
        schema: domain::command::SCHEMA,
        id: domain::ids::event_id(partner, epoch, sequence),
        partner,
        sequence,
        epoch,
        event_type: EventType::from_code(code).ok_or_else(|| decode(format!("unknown event type {code}")))?,
        timestamp: instant(row, 4)?,
        data: RawValue::from_string(data)
            .map_err(|error| decode(format!("event data is no JSON: {error}")))?,
    })
}
