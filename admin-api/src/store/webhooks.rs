//! Endpoints of partners and their deliveries, as staff see them. What is written here is what an owner could ask for
//! himself: to be sent an event again, and to get deliveries again; the notifier does the rest.

use domain::event::EventType;
use domain::ids::{EndpointId, EventId, PartnerId, ReplayId, event_position};
use domain::notice::NoticeType;
use domain::replay::{ReplayKind, ReplayStatus};
use domain::time::Timestamp;
use runtime::sql::Sql;
use serde::Serialize;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor as _, MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::Columns;

/// The most attempts that a delivery can have, and a little more.
pub const ATTEMPTS_READ_MAX: usize = 256;

/// An endpoint with how it fares.
#[derive(Debug, Clone)]
pub struct EndpointRow {
    /// The id.
    pub id: EndpointId,
    /// Where to post.
    pub url: String,
    /// Words of the types it receives, comma separated; `None` for all.
    pub event_types: Option<String>,
    /// The version of the bodies it wants.
    pub api_version: String,
    /// Its owner's words.
    pub description: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// Since when it gets no deliveries.
    pub disabled_at: Option<Timestamp>,
    /// Why, in a word.
    pub disabled_reason: Option<String>,
    /// After which sequence events may have got no delivery.
    pub missed_after: Option<u64>,
}

const ENDPOINT_COLUMNS: &str = "SELECT e.id, e.url, e.event_types, e.api_version, e.description, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.created_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.failing_since), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.disabled_at), s.disabled_reason, s.missed_after \
     FROM endpoints e LEFT JOIN endpoint_states s ON s.endpoint_id = e.id WHERE e.partner_id = ?";

fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn time(columns: &mut Columns<'_>) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(columns.take::<Option<i64>>()?.map(Timestamp::from_micros))
}

fn endpoint(row: &MySqlRow) -> Result<EndpointRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(EndpointRow {
        id: EndpointId::from_uuid(columns.uuid()?),
        url: columns.text()?.unwrap_or_default(),
        event_types: columns.text()?,
        api_version: columns.text()?.unwrap_or_default(),
        description: columns.text()?,
        created_at: Timestamp::from_micros(columns.take()?),
        failing_since: time(&mut columns)?,
        disabled_at: time(&mut columns)?,
        disabled_reason: columns.text()?,
        missed_after: columns.take()?,
    })
}

/// A partner's endpoints, oldest first, behind a place.
pub async fn endpoints(
    pool: &MySqlPool,
    partner: PartnerId,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<EndpointRow>, sqlx::Error> {
    let (at, id) = after.map_or((0, Vec::new()), |(at, id)| (at.micros(), bytes(id)));
    let text = format!(
        "{ENDPOINT_COLUMNS} AND (e.created_at, e.id) > (TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, ?) \
         ORDER BY e.created_at, e.id LIMIT ?"
    );
    let query = sqlx::query(&text).bind(bytes(partner.uuid())).bind(at).bind(id).bind(limit);
    query.fetch_all(pool).await?.iter().map(endpoint).collect()
}

/// One of the partner's endpoints.
pub async fn find_endpoint(
    db: impl MySqlExecutor<'_>,
    partner: PartnerId,
    id: EndpointId,
) -> Result<Option<EndpointRow>, sqlx::Error> {
    let text = format!("{ENDPOINT_COLUMNS} AND e.id = ?");
    let row =
        sqlx::query(&text).bind(bytes(partner.uuid())).bind(bytes(id.uuid())).fetch_optional(db).await?;
    row.as_ref().map(endpoint).transpose()
}

/// One of the partner's endpoints, locked as ingest locks it.
pub async fn lock_endpoint(
    db: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
) -> Result<Option<EndpointRow>, sqlx::Error> {
    sqlx::query("SELECT 1 FROM endpoints WHERE id = ? AND partner_id = ? FOR UPDATE")
        .bind(bytes(id.uuid()))
        .bind(bytes(partner.uuid()))
        .fetch_optional(&mut *db)
        .await?;
    find_endpoint(db, partner, id).await
}

/// Lets a locked endpoint get deliveries again. Its version tells notifiers.
pub async fn enable(db: &mut MySqlConnection, id: EndpointId) -> Result<(), sqlx::Error> {
    for text in [
        "UPDATE endpoint_states SET failing_since = NULL, disabled_at = NULL, disabled_reason = NULL \
         WHERE endpoint_id = ?",
        "UPDATE endpoints SET version = version + 1 WHERE id = ?",
    ] {
        sqlx::query(text).bind(bytes(id.uuid())).execute(&mut *db).await?;
    }
    Ok(())
}

/// Where a delivery stands, as `deliveries.status` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum DeliveryStatus {
    /// Under way, or to be attempted again.
    Pending = 1,
    /// Received.
    Delivered = 2,
    /// Given up.
    Dead = 3,
}

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// From the word in the API.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "pending" => Some(Self::Pending),
            "delivered" => Some(Self::Delivered),
            "dead" => Some(Self::Dead),
            _ => None,
        }
    }
}

/// One event or notice to one endpoint.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// The event or notice.
    pub event: EventId,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u8,
    /// When the next attempt is due, or the lease of the present one ends.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was first recorded.
    pub created_at: Timestamp,
    /// When it was received or given up.
    pub finished_at: Option<Timestamp>,
}

const DELIVERY_COLUMNS: &str = "SELECT event_id, status, attempts, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) AS created, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at) FROM deliveries ";

fn delivery(row: &MySqlRow) -> Result<DeliveryRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(DeliveryRow {
        event: EventId::from_uuid(columns.uuid()?),
        status: columns.named(DeliveryStatus::from_number)?,
        attempts: columns.take()?,
        next_attempt_at: time(&mut columns)?,
        created_at: Timestamp::from_micros(columns.take()?),
        finished_at: time(&mut columns)?,
    })
}

/// Deliveries to an endpoint, newest first, behind a place: a dive into the index for each status, whatever the backlog.
pub async fn deliveries(
    pool: &MySqlPool,
    endpoint: EndpointId,
    statuses: &[DeliveryStatus],
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<DeliveryRow>, sqlx::Error> {
    let sql = deliveries_sql(endpoint, statuses, after, limit);
    pool.fetch_all(sql.as_str()).await?.iter().map(delivery).collect()
}

fn deliveries_sql(
    endpoint: EndpointId,
    statuses: &[DeliveryStatus],
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Sql {
    let mut sql = Sql::with_capacity(1_500);
    for (index, status) in statuses.iter().enumerate() {
        sql.text(if index == 0 { "(" } else { " UNION ALL (" });
        sql.text(DELIVERY_COLUMNS).text("FORCE INDEX (deliveries_of_endpoint) WHERE endpoint_id = ");
        sql.uuid(endpoint.uuid()).text(" AND status = ").int(*status as u8);
        if let Some((at, event)) = after {
            let at = at.civil();
            sql.text(" AND created_at <= ").datetime(at).text(" AND (created_at < ").datetime(at);
            sql.text(" OR (created_at = ").datetime(at).text(" AND event_id < ").uuid(event).text("))");
        }
        sql.text(" ORDER BY created_at DESC, event_id DESC LIMIT ").int(limit).text(")");
    }
    sql.text(" ORDER BY created DESC, event_id DESC LIMIT ").int(limit);
    sql
}

/// One delivery.
pub async fn find_delivery(
    db: impl MySqlExecutor<'_>,
    endpoint: EndpointId,
    event: EventId,
) -> Result<Option<DeliveryRow>, sqlx::Error> {
    let text = format!("{DELIVERY_COLUMNS} WHERE endpoint_id = ? AND event_id = ?");
    let row =
        sqlx::query(&text).bind(bytes(endpoint.uuid())).bind(bytes(event.uuid())).fetch_optional(db).await?;
    row.as_ref().map(delivery).transpose()
}

/// What deliveries of one endpoint bring, by event, as far as it is still stored: the word of its type, and the
/// sequence of an event.
pub async fn contents(
    pool: &MySqlPool,
    partner: PartnerId,
    endpoint: EndpointId,
    events: &[EventId],
) -> Result<Vec<(EventId, &'static str, Option<u64>)>, sqlx::Error> {
    let positions: Vec<_> =
        events.iter().filter_map(|event| Some((event_position(partner, *event)?.1, *event))).collect();
    let notices: Vec<_> = events.iter().filter(|event| event_position(partner, **event).is_none()).collect();
    let mut found = Vec::with_capacity(events.len());
    if !positions.is_empty() {
        let mut sql = Sql::new();
        sql.text("SELECT sequence, type FROM events FORCE INDEX (PRIMARY) WHERE partner_id = ");
        sql.uuid(partner.uuid()).text(" AND sequence IN (").list(&positions, |sql, (sequence, _)| {
            sql.int(*sequence);
        });
        sql.text(")");
        for row in pool.fetch_all(sql.as_str()).await? {
            let mut columns = Columns::new(&row);
            let sequence: u64 = columns.take()?;
            let word = columns.named(EventType::from_code)?.as_str();
            let at = positions.iter().filter(|(position, _)| *position == sequence);
            found.extend(at.map(|(_, event)| (*event, word, Some(sequence))));
        }
    }
    if !notices.is_empty() {
        let mut sql = Sql::new();
        sql.text("SELECT id, type FROM notices WHERE endpoint_id = ")
            .uuid(endpoint.uuid())
            .text(" AND id IN (");
        sql.list(notices, |sql, event| {
            sql.uuid(event.uuid());
        });
        sql.text(")");
        for row in pool.fetch_all(sql.as_str()).await? {
            let mut columns = Columns::new(&row);
            let event = EventId::from_uuid(columns.uuid()?);
            found.push((event, columns.named(NoticeType::from_code)?.as_str(), None));
        }
    }
    Ok(found)
}

/// One HTTP request of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// To which endpoint.
    pub endpoint: EndpointId,
    /// Of which event.
    pub event: EventId,
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

/// Up to `max` attempts of these deliveries, those of one in their order.
pub async fn attempts(
    connection: &mut MySqlConnection,
    deliveries: &[(EndpointId, EventId)],
    max: usize,
) -> Result<Vec<AttemptRow>, sqlx::Error> {
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(400 + 80 * deliveries.len());
    sql.text(
        "SELECT endpoint_id, event_id, attempt, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at), duration_us, \
         status_code, error_class, refused_by, excerpt FROM attempts FORCE INDEX (PRIMARY) \
         WHERE (endpoint_id, event_id) IN (",
    );
    sql.list(deliveries, |sql, (endpoint, event)| {
        sql.text("(").uuid(endpoint.uuid()).text(",").uuid(event.uuid()).text(")");
    });
    sql.text(") ORDER BY endpoint_id, event_id, attempt LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(AttemptRow {
            endpoint: EndpointId::from_uuid(columns.uuid()?),
            event: EventId::from_uuid(columns.uuid()?),
            attempt: columns.take()?,
            started_at: columns.time()?,
            duration_us: columns.take()?,
            status_code: columns.take()?,
            error_class: columns.text()?,
            refused_by: columns.text()?,
            excerpt: columns.take()?,
        })
    };
    rows.iter().map(read).collect()
}

/// Whether the partner's event is still stored.
pub async fn event_is_kept(
    db: &mut MySqlConnection,
    partner: PartnerId,
    event: EventId,
) -> Result<bool, sqlx::Error> {
    let Some((epoch, sequence)) = event_position(partner, event) else { return Ok(false) };
    let row = sqlx::query("SELECT 1 FROM events WHERE partner_id = ? AND sequence = ? AND epoch = ?")
        .bind(bytes(partner.uuid()))
        .bind(sequence)
        .bind(epoch)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// The open replays of an endpoint: each one's id, and the one event that it sends again.
pub async fn open_replays(
    db: &mut MySqlConnection,
    endpoint: EndpointId,
) -> Result<Vec<(ReplayId, Option<EventId>)>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, event_id FROM replays WHERE endpoint_id = ? AND status = ? LIMIT 100")
        .bind(bytes(endpoint.uuid()))
        .bind(ReplayStatus::Open.code())
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            let id = ReplayId::from_uuid(columns.uuid()?);
            let event: Option<&[u8]> = columns.take()?;
            let event =
                event.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((id, event.map(EventId::from_uuid)))
        })
        .collect()
}

/// Has one event sent again.
pub async fn insert_replay(
    db: &mut MySqlConnection,
    id: ReplayId,
    partner: PartnerId,
    endpoint: EndpointId,
    event: EventId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO replays (id, endpoint_id, partner_id, kind, status, event_id, created_at, next_step_at) \
         VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .bind(bytes(id.uuid()))
    .bind(bytes(endpoint.uuid()))
    .bind(bytes(partner.uuid()))
    .bind(ReplayKind::Event.code())
    .bind(ReplayStatus::Open.code())
    .bind(bytes(event.uuid()))
    .execute(db)
    .await
    .map(drop)
}
