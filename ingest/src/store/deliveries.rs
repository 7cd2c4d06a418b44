//! Deliveries and their attempts, which the notifier writes.
//!
//! A page is a dive into an index for each endpoint and status, merged: whatever the backlog, a page costs as much as
//! it shows.

use std::collections::HashMap;

use domain::event::EventType;
use domain::ids::{EndpointId, EventId, PartnerId, event_position};
use domain::notice::{Flaw, NoticeType};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::{Columns, StoreError, bytes};

/// The most attempts that a delivery can have, and a little more.
const ATTEMPTS_READ_MAX: u32 = 256;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Under way, or to be attempted again.
    Pending,
    /// Received.
    Delivered,
    /// Given up.
    Dead,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Pending => 1,
            Self::Delivered => 2,
            Self::Dead => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// The text is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownStatus;

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// Which deliveries are wanted.
#[derive(Debug, Clone)]
pub struct Filter {
    /// To these endpoints.
    pub endpoints: Vec<EndpointId>,
    /// Of this event.
    pub event: Option<EventId>,
    /// In these states.
    pub statuses: Vec<Status>,
    /// First recorded then or later.
    pub since: Option<Timestamp>,
    /// First recorded before.
    pub until: Option<Timestamp>,
}

/// Where a delivery stands in the list, which is newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When it was first recorded.
    pub created_at: Timestamp,
    /// Its event.
    pub event: EventId,
    /// Its endpoint.
    pub endpoint: EndpointId,
}

/// A delivery.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Where it stands in the list.
    pub place: Place,
    /// Where it stands.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u8,
    /// When the next attempt is due, or the lease of the present one ends.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was received or given up.
    pub finished_at: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT endpoint_id, event_id, status, attempts, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) AS created, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at) FROM deliveries ";

fn delivery(row: &MySqlRow) -> Result<DeliveryRow, StoreError> {
    let mut columns = Columns::new("deliveries", row);
    let endpoint = EndpointId::from_uuid(columns.uuid()?);
    let event = EventId::from_uuid(columns.uuid()?);
    let status = columns.code(Status::from_code)?;
    let attempts = columns.take()?;
    let next_attempt_at = columns.opt_time()?;
    let created_at = columns.time()?;
    let finished_at = columns.opt_time()?;
    Ok(DeliveryRow {
        place: Place { created_at, event, endpoint },
        status,
        attempts,
        next_attempt_at,
        finished_at,
    })
}

/// The ids of a partner's endpoints.
pub async fn endpoints_of(
    pool: &MySqlPool,
    partner: PartnerId,
    max: u32,
) -> Result<Vec<EndpointId>, StoreError> {
    let rows = sqlx::query("SELECT id FROM endpoints WHERE partner_id = ? ORDER BY created_at, id LIMIT ?")
        .bind(bytes(&partner))
        .bind(max)
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Columns::new("endpoints", row).uuid().map(EndpointId::from_uuid)).collect()
}

/// Deliveries, newest first, behind a place.
pub async fn list(
    pool: &MySqlPool,
    filter: &Filter,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let mut sql = Sql::with_capacity(600 * filter.endpoints.len().max(1) * filter.statuses.len().max(1));
    let mut dives = 0;
    for endpoint in &filter.endpoints {
        // By event it is one row of the primary key, whatever its status.
        let groups: Vec<&[Status]> = match filter.event {
            Some(_) => vec![&filter.statuses],
            None => filter.statuses.chunks(1).collect(),
        };
        for statuses in groups {
            sql.text(if dives == 0 { "(" } else { " UNION ALL (" });
            push_dive(&mut sql, filter, *endpoint, statuses, after, limit);
            sql.text(")");
            dives += 1;
        }
    }
    if dives == 0 {
        return Ok(Vec::new());
    }
    sql.text(" ORDER BY created DESC, event_id DESC, endpoint_id DESC LIMIT ").int(limit as u64);
    let rows = sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?;
    rows.iter().map(delivery).collect()
}

fn push_dive(
    sql: &mut Sql,
    filter: &Filter,
    endpoint: EndpointId,
    statuses: &[Status],
    after: Option<Place>,
    limit: usize,
) {
    let index =
        if filter.event.is_some() { "FORCE INDEX (PRIMARY)" } else { "FORCE INDEX (deliveries_of_endpoint)" };
    sql.text(COLUMNS).text(index).text(" WHERE endpoint_id = ").uuid(endpoint.uuid());
    sql.text(" AND status IN (").list(statuses, |sql, status| {
        sql.int(status.code());
    });
    sql.text(")");
    if let Some(event) = filter.event {
        sql.text(" AND event_id = ").uuid(event.uuid());
    }
    if let Some(since) = filter.since {
        sql.text(" AND created_at >= ").datetime(since.civil());
    }
    if let Some(until) = filter.until {
        sql.text(" AND created_at < ").datetime(until.civil());
    }
    if let Some(place) = after {
        let at = place.created_at.civil();
        // Of one event the endpoint decides.
        let behind =
            if endpoint.uuid() < place.endpoint.uuid() { " AND event_id <= " } else { " AND event_id < " };
        sql.text(" AND created_at <= ").datetime(at).text(" AND (created_at < ").datetime(at);
        sql.text(" OR (created_at = ").datetime(at).text(behind).uuid(place.event.uuid()).text("))");
    }
    sql.text(" ORDER BY created_at DESC, event_id DESC LIMIT ").int(limit as u64);
}

/// One delivery.
pub async fn find(
    pool: &MySqlPool,
    partner: PartnerId,
    endpoint: EndpointId,
    event: EventId,
) -> Result<Option<DeliveryRow>, StoreError> {
    let mut sql = Sql::new();
    sql.text(COLUMNS).text("WHERE endpoint_id = ").uuid(endpoint.uuid());
    sql.text(" AND event_id = ").uuid(event.uuid()).text(" AND partner_id = ").uuid(partner.uuid());
    // The notifier removes the deliveries of a deleted endpoint later.
    sql.text(" AND EXISTS (SELECT 1 FROM endpoints WHERE id = ").uuid(endpoint.uuid()).text(")");
    let rows = sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?;
    rows.first().map(delivery).transpose()
}

/// What a delivery brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The type of the event or notice.
    pub type_word: &'static str,
    /// The event's sequence; `None` for a notice.
    pub sequence: Option<u64>,
    /// What is wrong with a rehearsal.
    pub flaw: Option<Flaw>,
}

/// What the deliveries bring, as far as it is still stored.
pub async fn contents(
    pool: &MySqlPool,
    partner: PartnerId,
    places: &[Place],
) -> Result<HashMap<(EndpointId, EventId), Content>, StoreError> {
    let mut sequences = Vec::new();
    let mut notices = Vec::new();
    for place in places {
        match event_position(partner, place.event) {
            Some((_, sequence)) => sequences.push((sequence, place)),
            None => notices.push(place),
        }
    }
    let mut found = HashMap::with_capacity(places.len());
    if !sequences.is_empty() {
        let mut sql = Sql::new();
        sql.text("SELECT sequence, type FROM events FORCE INDEX (PRIMARY) WHERE partner_id = ");
        sql.uuid(partner.uuid()).text(" AND sequence IN (").list(&sequences, |sql, (sequence, _)| {
            sql.int(*sequence);
        });
        sql.text(")");
        let mut types = HashMap::new();
        for row in sqlx::raw_sql(sql.as_str()).fetch_all(pool).await? {
            let mut columns = Columns::new("events", &row);
            let sequence: u64 = columns.take()?;
            types.insert(sequence, columns.code(EventType::from_code)?);
        }
        for (sequence, place) in sequences {
            if let Some(event_type) = types.get(&sequence) {
                let content =
                    Content { type_word: event_type.as_str(), sequence: Some(sequence), flaw: None };
                found.insert((place.endpoint, place.event), content);
            }
        }
    }
    if !notices.is_empty() {
        let mut sql = Sql::new();
        sql.text("SELECT endpoint_id, id, type, flaw FROM notices WHERE (endpoint_id, id) IN (");
        sql.list(notices, |sql, place| {
            sql.text("(").uuid(place.endpoint.uuid()).text(",").uuid(place.event.uuid()).text(")");
        });
        sql.text(")");
        for row in sqlx::raw_sql(sql.as_str()).fetch_all(pool).await? {
            let mut columns = Columns::new("notices", &row);
            let key = (EndpointId::from_uuid(columns.uuid()?), EventId::from_uuid(columns.uuid()?));
            let type_word = columns.code(NoticeType::from_code)?.as_str();
            let flaw = columns.opt_code(Flaw::from_code)?;
            found.insert(key, Content { type_word, sequence: None, flaw });
        }
    }
    Ok(found)
}

/// One HTTP request of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Which, from 1.
    pub attempt: u8,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_us: u32,
    /// The status of the answer.
    pub status_code: Option<u16>,
    /// Why it failed.
    pub error_class: Option<String>,
    /// The rule by which it was not sent.
    pub refused_by: Option<String>,
    /// The beginning of the answer's body.
    pub excerpt: Option<Vec<u8>>,
}

const ATTEMPT_COLUMNS: &str = "SELECT endpoint_id, event_id, attempt, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at), duration_us, status_code, error_class, refused_by, excerpt \
     FROM attempts WHERE ";

fn attempt(row: &MySqlRow) -> Result<((Uuid, Uuid), AttemptRow), StoreError> {
    let mut columns = Columns::new("attempts", row);
    let key = (columns.uuid()?, columns.uuid()?);
    let attempt = AttemptRow {
        attempt: columns.take()?,
        started_at: columns.time()?,
        duration_us: columns.take()?,
        status_code: columns.take()?,
        error_class: columns.take()?,
        refused_by: columns.take()?,
        excerpt: columns.take()?,
    };
    Ok((key, attempt))
}

/// All attempts of a delivery, in their order.
pub async fn attempts(
    pool: &MySqlPool,
    endpoint: EndpointId,
    event: EventId,
) -> Result<Vec<AttemptRow>, StoreError> {
    let mut sql = Sql::new();
    sql.text(ATTEMPT_COLUMNS).text("endpoint_id = ").uuid(endpoint.uuid());
    sql.text(" AND event_id = ").uuid(event.uuid()).text(" ORDER BY attempt LIMIT ").int(ATTEMPTS_READ_MAX);
    let rows = sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?;
    rows.iter().map(|row| attempt(row).map(|(_, attempt)| attempt)).collect()
}

/// The last `each` attempts of every delivery, in their order.
pub async fn last_attempts(
    pool: &MySqlPool,
    deliveries: &[DeliveryRow],
    each: u8,
) -> Result<HashMap<(EndpointId, EventId), Vec<AttemptRow>>, StoreError> {
    let attempted: Vec<_> = deliveries.iter().filter(|row| row.attempts > 0).collect();
    let mut found: HashMap<_, Vec<AttemptRow>> = HashMap::new();
    if attempted.is_empty() {
        return Ok(found);
    }
    let mut sql = Sql::with_capacity(200 + 130 * attempted.len());
    sql.text(ATTEMPT_COLUMNS);
    for (index, row) in attempted.iter().enumerate() {
        sql.text(if index == 0 { "(endpoint_id = " } else { " OR (endpoint_id = " });
        sql.uuid(row.place.endpoint.uuid()).text(" AND event_id = ").uuid(row.place.event.uuid());
        sql.text(" AND attempt > ").int(row.attempts.saturating_sub(each)).text(")");
    }
    sql.text(" ORDER BY endpoint_id, event_id, attempt");
    for row in sqlx::raw_sql(sql.as_str()).fetch_all(pool).await? {
        let ((endpoint, event), attempt) = attempt(&row)?;
        let key = (EndpointId::from_uuid(endpoint), EventId::from_uuid(event));
        found.entry(key).or_default().push(attempt);
    }
    Ok(found)
}
