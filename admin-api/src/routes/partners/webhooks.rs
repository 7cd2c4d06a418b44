//! Endpoints of a partner and their deliveries, as staff see them: what the owner sees but for what may be a secret, to
//! send again and to enable. The rest of an endpoint is its owner's.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::ids::{EndpointId, EventId, PartnerId, ReplayId};
use domain::replay::OPEN_MAX;
use domain::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::commands::Why;
use super::super::documents::ProblemShape;
use super::keys::Part;
use super::{cut, nobody, word};
use crate::access::{Operator, Reader};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::problem::{Code, Problem};
use crate::store::webhooks::{self as store, AttemptRow, DeliveryRow, DeliveryStatus, EndpointRow};
use crate::store::{audit, partners};

/// An endpoint.
#[derive(Serialize, ToSchema)]
pub struct PartnerEndpoint {
    /// The id.
    #[schema(value_type = String, example = "ep_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EndpointId,
    /// Where to post; a query, which may be a secret of its owner, is not shown.
    #[schema(example = "https://shop.example/webhooks?…")]
    url: String,
    /// The types that it receives; nothing for all.
    #[schema(example = json!(["payment.posted"]))]
    event_types: Option<Vec<String>>,
    /// The version of the bodies.
    #[schema(example = "2026-11-01")]
    api_version: String,
    /// Its owner's words.
    #[schema(example = "the tills")]
    description: Option<String>,
    /// Whether it gets deliveries.
    #[schema(example = true)]
    enabled: bool,
    /// Since when it does not.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.000000Z")]
    disabled_at: Option<Timestamp>,
    /// `gone`: it answered 410; `failing`: every attempt of five days failed; `owner`: it was asked for.
    #[schema(example = "failing")]
    disabled_reason: Option<String>,
    /// Since when every attempt has failed.
    #[schema(value_type = Option<String>, example = "2026-01-26T12:00:00.000000Z")]
    failing_since: Option<Timestamp>,
    /// After which sequence events may have got no delivery; its owner replays them.
    #[schema(example = 4711)]
    missed_after: Option<u64>,
    /// Since when it is there.
    #[schema(value_type = String, example = "2026-01-01T12:00:00.000000Z")]
    created_at: Timestamp,
}

/// Endpoints, oldest first.
#[derive(Serialize, ToSchema)]
pub struct PartnerEndpoints {
    /// The endpoints.
    data: Vec<PartnerEndpoint>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AAY-…")]
    next: Option<String>,
}

/// One event or notice to one endpoint.
#[derive(Serialize, ToSchema)]
pub struct PartnerDelivery {
    /// The event or notice: `webhook-id`.
    #[schema(value_type = String, example = "evt_01k9q5m3v7f8h9j0kamcneprqs")]
    event: EventId,
    /// Its type; nothing when it is not stored any more.
    #[schema(example = "payment.posted")]
    r#type: Option<&'static str>,
    /// The event's place in the partner's log; nothing for a notice.
    #[schema(example = 4711)]
    sequence: Option<u64>,
    /// Where it stands.
    #[schema(inline)]
    status: DeliveryStatus,
    /// Attempts so far.
    #[schema(example = 3)]
    attempt_count: u8,
    /// When the next attempt is due; while one is made, when it must have ended.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:05:00.000000Z")]
    next_attempt_at: Option<Timestamp>,
    /// When it was first recorded.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
    /// When it was received or given up.
    #[schema(value_type = Option<String>, example = "2026-02-03T12:00:00.000000Z")]
    finished_at: Option<Timestamp>,
}

/// Deliveries, newest first.
#[derive(Serialize, ToSchema)]
pub struct PartnerDeliveries {
    /// The deliveries.
    data: Vec<PartnerDelivery>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AAY-…")]
    next: Option<String>,
}

/// A delivery with all its attempts.
#[derive(Serialize, ToSchema)]
pub struct DeliveryDetails {
    /// The delivery.
    #[serde(flatten)]
    #[schema(inline)]
    delivery: PartnerDelivery,
    /// The attempts in their order.
    #[schema(inline)]
    attempts: Vec<DeliveryAttempt>,
}

/// One HTTP request.
#[derive(Serialize, ToSchema)]
pub struct DeliveryAttempt {
    /// Which, from 1.
    #[schema(example = 1)]
    attempt: u8,
    /// When it began.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    started_at: Timestamp,
    /// Microseconds that it took.
    #[schema(example = 2140)]
    duration_us: u32,
    /// The status of the answer; nothing when there was none.
    #[schema(example = 503)]
    status_code: Option<u16>,
    /// Why it failed, in a word.
    #[schema(example = "status")]
    error: Option<String>,
    /// The rule by which it was not sent.
    #[schema(example = "address")]
    refused_by: Option<String>,
    /// The beginning of the answer's body; bytes that are no UTF-8 are shown as U+FFFD.
    #[schema(example = "down for maintenance")]
    excerpt: Option<String>,
}

/// What is sent again.
#[derive(Serialize, ToSchema)]
pub struct Resend {
    /// The replay, which its owner sees as well.
    #[schema(value_type = String, example = "rpl_01k9q5m3v7f8h9j0kamcneprqs")]
    replay: ReplayId,
    /// The endpoint.
    #[schema(value_type = String, example = "ep_01k9q5m3v7f8h9j0kamcneprqs")]
    endpoint: EndpointId,
    /// The event.
    #[schema(value_type = String, example = "evt_01k9q5m3v7f8h9j0kamcneprqs")]
    event: EventId,
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliverySearch {
    /// `pending`, `delivered` or `dead`.
    #[param(example = "dead")]
    status: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AAY-…")]
    cursor: Option<String>,
}

/// The URL without its query.
fn shown(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(before, _)| format!("{before}?…"))
}

impl From<EndpointRow> for PartnerEndpoint {
    fn from(row: EndpointRow) -> Self {
        Self {
            id: row.id,
            url: shown(&row.url),
            event_types: row.event_types.map(|words| words.split(',').map(str::to_owned).collect()),
            api_version: row.api_version,
            description: row.description,
            enabled: row.disabled_at.is_none(),
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            failing_since: row.failing_since,
            missed_after: row.missed_after,
            created_at: row.created_at,
        }
    }
}

impl From<AttemptRow> for DeliveryAttempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            attempt: row.attempt,
            started_at: row.started_at,
            duration_us: row.duration_us,
            status_code: row.status_code,
            error: row.error_class,
            refused_by: row.refused_by,
            excerpt: row.excerpt.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        }
    }
}

async fn described(
    app: &App,
    partner: PartnerId,
    endpoint: EndpointId,
    rows: Vec<DeliveryRow>,
) -> Result<Vec<PartnerDelivery>, Problem> {
    let events: Vec<_> = rows.iter().map(|row| row.event).collect();
    let contents = store::contents(&app.pool, partner, endpoint, &events).await?;
    let shown = rows.into_iter().map(|row| {
        let content = contents.iter().find(|(event, ..)| *event == row.event);
        PartnerDelivery {
            event: row.event,
            r#type: content.map(|(_, word, _)| *word),
            sequence: content.and_then(|(.., sequence)| *sequence),
            status: row.status,
            attempt_count: row.attempts,
            next_attempt_at: row.next_attempt_at,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    });
    Ok(shown.collect())
}

/// The endpoints of a partner
///
/// Oldest first, with how they fare.
#[utoipa::path(
    get, path = "/v1/partners/{id}/endpoints", tag = "partners", operation_id = "list_partner_endpoints", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"), Part),
    responses(
        (status = 200, description = "The endpoints", body = PartnerEndpoints),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn endpoints(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(partner): FromPath<PartnerId>,
    FromQuery(part): FromQuery<Part>,
) -> Result<axum::Json<PartnerEndpoints>, Problem> {
    let limit = cursor::limit(part.limit)?;
    let after = part.cursor.as_deref().map(cursor::read_time).transpose()?;
    partners::by_id(&app.pool, partner).await?.ok_or_else(nobody)?;
    let rows = store::endpoints(&app.pool, partner, after, limit + 1).await?;
    let (rows, next) = cut(rows, limit, |row| cursor::after_time(row.created_at, row.id.uuid()));
    Ok(axum::Json(PartnerEndpoints { data: rows.into_iter().map(Into::into).collect(), next }))
}

/// The deliveries to an endpoint
///
/// Newest first, kept for 30 days.
#[utoipa::path(
    get, path = "/v1/partners/{id}/endpoints/{endpoint}/deliveries", tag = "partners", operation_id = "list_partner_deliveries", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("endpoint" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        DeliverySearch
    ),
    responses(
        (status = 200, description = "The deliveries", body = PartnerDeliveries),
        (status = 404, description = "The partner has no such endpoint", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn deliveries(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath((partner, endpoint)): FromPath<(PartnerId, EndpointId)>,
    FromQuery(search): FromQuery<DeliverySearch>,
) -> Result<axum::Json<PartnerDeliveries>, Problem> {
    let limit = cursor::limit(search.limit)?;
    let after = search.cursor.as_deref().map(cursor::read_time).transpose()?;
    let status =
        word(search.status.as_deref(), DeliveryStatus::from_word, "`status` is pending, delivered or dead")?;
    store::find_endpoint(&app.pool, partner, endpoint).await?.ok_or_else(nobody)?;
    let statuses = status.map_or_else(|| DeliveryStatus::ALL.to_vec(), |status| vec![status]);
    let rows = store::deliveries(&app.pool, endpoint, &statuses, after, limit + 1).await?;
    let (rows, next) = cut(rows, limit, |row| cursor::after_time(row.created_at, row.event.uuid()));
    Ok(axum::Json(PartnerDeliveries { data: described(&app, partner, endpoint, rows).await?, next }))
}

/// A delivery
///
/// With all its attempts.
#[utoipa::path(
    get, path = "/v1/partners/{id}/endpoints/{endpoint}/deliveries/{event}", tag = "partners", operation_id = "read_partner_delivery", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("endpoint" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("event" = String, Path, description = "The event or notice", example = "evt_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetails, example = json!({
            "event": "evt_01k9q5m3v7f8h9j0kamcneprqs", "type": "payment.posted", "sequence": 4711, "status": "dead",
            "attempt_count": 1, "next_attempt_at": null, "created_at": "2026-01-31T12:00:00.000000Z",
            "finished_at": "2026-02-03T12:00:00.000000Z", "attempts": [{
                "attempt": 1, "started_at": "2026-01-31T12:00:00.000000Z", "duration_us": 2140, "status_code": 503,
                "error": "status", "refused_by": null, "excerpt": "down for maintenance"
            }]
        })),
        (status = 404, description = "There is no such delivery", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn delivery(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath((partner, endpoint, event)): FromPath<(PartnerId, EndpointId, EventId)>,
) -> Result<axum::Json<DeliveryDetails>, Problem> {
    store::find_endpoint(&app.pool, partner, endpoint).await?.ok_or_else(nobody)?;
    let row = store::find_delivery(&app.pool, endpoint, event).await?.ok_or_else(nobody)?;
    let keys = [(endpoint, event)];
    let attempts = store::attempts(&mut *app.pool.acquire().await?, &keys, store::ATTEMPTS_READ_MAX).await?;
    let delivery = described(&app, partner, endpoint, vec![row]).await?.pop().ok_or_else(nobody)?;
    Ok(axum::Json(DeliveryDetails { delivery, attempts: attempts.into_iter().map(Into::into).collect() }))
}

/// Send an event again
///
/// To one endpoint, as its owner could. While the same is asked for already, the answer is that.
#[utoipa::path(
    post, path = "/v1/partners/{id}/endpoints/{endpoint}/deliveries/{event}/resend", tag = "partners", operation_id = "resend_delivery", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("endpoint" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("event" = String, Path, description = "The event", example = "evt_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    request_body(content = Why, example = json!({"reason": "their receiver was down, case 4711"})),
    responses(
        (status = 202, description = "To be sent", body = Resend),
        (status = 404, description = "There is no such event or endpoint, or the event is not kept any more", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "The endpoint is disabled, or too much is to be sent again already", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn resend(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    FromPath((partner, endpoint, event)): FromPath<(PartnerId, EndpointId, EventId)>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    let reason = why.checked()?;
    let mut transaction = app.pool.begin().await?;
    let row = store::lock_endpoint(&mut transaction, partner, endpoint).await?.ok_or_else(nobody)?;
    if !store::event_is_kept(&mut transaction, partner, event).await? {
        return Err(nobody());
    }
    if row.disabled_at.is_some() {
        return Err(Problem::new(Code::Conflict, "the endpoint is disabled; enable it first"));
    }
    let open = store::open_replays(&mut transaction, endpoint).await?;
    let asked = open.iter().find(|(_, replayed)| *replayed == Some(event)).map(|(id, _)| *id);
    let replay = match asked {
        Some(replay) => replay,
        None if open.len() >= OPEN_MAX => {
            let detail = format!("{} replays of this endpoint are open; wait until one is done", open.len());
            return Err(Problem::new(Code::Conflict, detail));
        }
        None => {
            let replay = ReplayId::from_uuid(Uuid::now_v7());
            store::insert_replay(&mut transaction, replay, partner, endpoint, event).await?;
            let entry = Entry {
                target: Some(event.to_string()),
                ..Entry::own(caller.user, Action::ResendDelivery, caller.origin)
            };
            let detail =
                json!({"partner": partner, "endpoint": endpoint, "replay": replay, "reason": reason});
            audit::write(&mut transaction, &entry.with(detail)).await?;
            transaction.commit().await?;
            replay
        }
    };
    Ok((StatusCode::ACCEPTED, axum::Json(Resend { replay, endpoint, event })).into_response())
}

/// Enable an endpoint
///
/// It gets deliveries again, for events from now on; its owner replays what came meanwhile. To enable what is enabled
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/partners/{id}/endpoints/{endpoint}/enabling", tag = "partners", operation_id = "enable_partner_endpoint", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("endpoint" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    request_body(content = Why, example = json!({"reason": "they say that it answers again"})),
    responses(
        (status = 200, description = "Enabled", body = PartnerEndpoint),
        (status = 404, description = "The partner has no such endpoint", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn enable(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    FromPath((partner, endpoint)): FromPath<(PartnerId, EndpointId)>,
    Json(why): Json<Why>,
) -> Result<axum::Json<PartnerEndpoint>, Problem> {
    let reason = why.checked()?;
    let mut transaction = app.pool.begin().await?;
    let row = store::lock_endpoint(&mut transaction, partner, endpoint).await?.ok_or_else(nobody)?;
    if row.disabled_at.is_none() {
        return Ok(axum::Json(row.into()));
    }
    store::enable(&mut transaction, endpoint).await?;
    let entry = Entry {
        target: Some(endpoint.to_string()),
        ..Entry::own(caller.user, Action::EnableEndpoint, caller.origin)
    };
    let detail = json!({"partner": partner, "before": {"reason": row.disabled_reason, "at": row.disabled_at}, "reason": reason});
    audit::write(&mut transaction, &entry.with(detail)).await?;
    let row = store::find_endpoint(&mut *transaction, partner, endpoint).await?.ok_or_else(nobody)?;
    transaction.commit().await?;
    Ok(axum::Json(row.into()))
}
