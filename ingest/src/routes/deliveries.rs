//! `/v1/deliveries`: what was sent where, with every attempt.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use domain::ids::{EndpointId, EventId, PartnerId};
use domain::notice::Flaw;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::refusals::OfReads;
use crate::app::App;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::{Code, Problem};
use crate::query::{self, Query};
use crate::read;
use crate::signed::{self, Signed};
use crate::store::StoreError;
use crate::store::deliveries::{self as store, AttemptRow, Content, DeliveryRow, Filter, Place, Status};

/// Attempts that a list shows of each delivery; more than a schedule has.
const ATTEMPTS_SHOWN: u8 = 10;
/// Endpoints that one list looks at: as many as a partner may have (`WIRED_ENDPOINTS_PER_PARTNER`).
const ENDPOINTS_MAX: u32 = 200;

/// One event or notice to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The endpoint.
    #[schema(value_type = String, example = "ep_01k9q5m3v7f8h9j0kamcneprqs")]
    endpoint: EndpointId,
    /// The event or notice: `webhook-id`.
    #[schema(value_type = String, example = "evt_01k9q5m3v7f8h9j0kamcneprqs")]
    event: EventId,
    /// Its type; `null` when it is not stored any more.
    r#type: Option<&'static str>,
    /// The event's place in the log; `null` for a notice.
    sequence: Option<u64>,
    /// What is wrong with a rehearsal.
    #[schema(value_type = Option<String>)]
    flaw: Option<Flaw>,
    /// `pending`, `delivered` or `dead`.
    status: &'static str,
    /// Attempts so far.
    attempt_count: u8,
    /// When the next attempt is due; while one is made, when it must have ended.
    #[schema(value_type = Option<String>)]
    next_attempt_at: Option<Timestamp>,
    /// When it was first recorded.
    #[schema(value_type = String)]
    created_at: Timestamp,
    /// When it was received or given up.
    #[schema(value_type = Option<String>)]
    finished_at: Option<Timestamp>,
    /// The attempts in their order; a list shows the last ten.
    attempts: Vec<Attempt>,
}

/// One HTTP request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Which, from 1.
    attempt: u8,
    /// When it began.
    #[schema(value_type = String)]
    started_at: Timestamp,
    /// Microseconds that it took.
    duration_us: u32,
    /// The status of the answer; `null` when there was none.
    status_code: Option<u16>,
    /// Why it failed: `dns`, `connect`, `tls`, `timeout`, `refused_by_guard`, `redirect`, `status`, `body`,
    /// `interrupted`, `too_large`, `event_missing`; `body_too_long` for a delivered one that answered too much.
    error: Option<String>,
    /// The rule by which it was not sent, with `refused_by_guard`.
    refused_by: Option<String>,
    /// The beginning of the answer's body, at most 1 KiB; bytes that are no UTF-8 are shown as U+FFFD.
    excerpt: Option<String>,
}

impl From<AttemptRow> for Attempt {
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

/// An example.
pub fn attempt_example() -> Value {
    json!({
        "attempt": 1, "started_at": "2026-11-01T12:00:00.100000Z", "duration_us": 2_140, "status_code": 204,
        "error": null, "refused_by": null, "excerpt": null
    })
}

fn example() -> Value {
    json!({
        "endpoint": "ep_01k9q5m3v7f8h9j0kamcneprqs", "event": "evt_01k9q5m3v7f8h9j0kamcneprqs",
        "type": "payment.posted", "sequence": 4711, "flaw": null, "status": "delivered", "attempt_count": 1,
        "next_attempt_at": null, "created_at": "2026-11-01T12:00:00.150000Z",
        "finished_at": "2026-11-01T12:00:00.150000Z", "attempts": [attempt_example()]
    })
}

fn delivery(row: &DeliveryRow, content: Option<&Content>, attempts: Vec<AttemptRow>) -> Delivery {
    Delivery {
        endpoint: row.place.endpoint,
        event: row.place.event,
        r#type: content.map(|content| content.type_word),
        sequence: content.and_then(|content| content.sequence),
        flaw: content.and_then(|content| content.flaw),
        status: row.status.as_str(),
        attempt_count: row.attempts,
        next_attempt_at: row.next_attempt_at,
        created_at: row.place.created_at,
        finished_at: row.finished_at,
        attempts: attempts.into_iter().map(Attempt::from).collect(),
    }
}

/// A page of deliveries.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct DeliveryList {
    data: Vec<Delivery>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

/// The deliveries
///
/// Newest first, kept for 30 days.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "deliveries", operation_id = "list_deliveries",
    security(("message_signature" = ["endpoints"])),
    params(
        ("endpoint" = Option<String>, Query, description = "To this endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("event" = Option<String>, Query, description = "Of this event or notice"),
        ("status" = Option<String>, Query, description = "`pending`, `delivered`, `dead`; several with commas", example = "pending,dead"),
        ("since" = Option<String>, Query, description = "First recorded then or later, RFC 3339"),
        ("until" = Option<String>, Query, description = "First recorded before, RFC 3339"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 by default", example = 50),
        ("cursor" = Option<String>, Query, description = "`next` of the page before")
    ),
    responses(
        (status = 200, description = "A page", body = DeliveryList, example = json!({"data": [example()], "next": null})),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let partner = signed.caller.partner.id;
    let mut query = Query::parse(signed.parts.uri.query());
    let endpoint: Option<EndpointId> =
        query.parsed("endpoint", "an endpoint's id begins with `ep_` and has 26 more characters");
    let event: Option<EventId> =
        query.parsed("event", "an event's id begins with `evt_` and has 26 more characters");
    let statuses = query.words("status", "pending, delivered, dead");
    let (since, until) = (query.time("since"), query.time("until"));
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let mut statuses: Vec<Status> = statuses.unwrap_or_else(|| Status::ALL.to_vec());
    statuses.sort_by_key(|status| status.as_str());
    statuses.dedup();
    let cursors =
        Cursors::new(&app.token_key, "deliveries", partner, &(endpoint, event, &statuses, since, until));
    let wanted = cursors.wanted(page)?;
    let after = wanted.after.as_deref().and_then(place);
    let filter = Filter { endpoints: Vec::new(), event, statuses, since, until };
    let found = pages(&app, partner, endpoint, filter, after, wanted.limit + 1);
    let rows = read::within(&app, signed.caller.request_id, found).await?;
    let page = cursors.page(rows, wanted.limit, |row| written(row.place));
    let shown = described(&app, partner, page.data);
    let data = read::within(&app, signed.caller.request_id, shown).await?;
    Ok(Json(Page { data, next: page.next }))
}

/// A foreign or unknown endpoint has no deliveries.
async fn pages(
    app: &App,
    partner: PartnerId,
    endpoint: Option<EndpointId>,
    filter: Filter,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let mut endpoints = store::endpoints_of(&app.reads, partner, ENDPOINTS_MAX).await?;
    if let Some(wanted) = endpoint {
        endpoints.retain(|id| *id == wanted);
    }
    store::list(&app.reads, &Filter { endpoints, ..filter }, after, limit).await
}

async fn described(
    app: &App,
    partner: PartnerId,
    rows: Vec<DeliveryRow>,
) -> Result<Vec<Delivery>, StoreError> {
    let places: Vec<_> = rows.iter().map(|row| row.place).collect();
    let contents = store::contents(&app.reads, partner, &places).await?;
    let mut attempts = store::last_attempts(&app.reads, &rows, ATTEMPTS_SHOWN).await?;
    let shown = rows.iter().map(|row| {
        let key = (row.place.endpoint, row.place.event);
        delivery(row, contents.get(&key), attempts.remove(&key).unwrap_or_default())
    });
    Ok(shown.collect())
}

/// The bytes of a cursor.
fn written(place: Place) -> Vec<u8> {
    let at = place.created_at.micros().to_be_bytes();
    [&at[..], place.event.uuid().as_bytes(), place.endpoint.uuid().as_bytes()].concat()
}

fn place(bytes: &[u8]) -> Option<Place> {
    let (at, rest) = bytes.split_first_chunk::<8>()?;
    let (event, endpoint) = rest.split_at_checked(16)?;
    Some(Place {
        created_at: Timestamp::from_micros(i64::from_be_bytes(*at)),
        event: EventId::from_uuid(Uuid::from_slice(event).ok()?),
        endpoint: EndpointId::from_uuid(Uuid::from_slice(endpoint).ok()?),
    })
}

/// A delivery
///
/// With all its attempts.
#[utoipa::path(
    get, path = "/v1/endpoints/{id}/deliveries/{event}", tag = "deliveries", operation_id = "read_delivery",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("event" = String, Path, description = "The event or notice", example = "evt_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    responses((status = 200, description = "The delivery", body = Delivery, example = json!(example())), OfReads)
)]
pub async fn one(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Delivery>, Problem> {
    let not_found = || Problem::new(Code::NotFound, "there is no such delivery of yours");
    let Path((endpoint, event)) = path.map_err(|_| not_found())?;
    let endpoint: EndpointId = endpoint.parse().map_err(|_| not_found())?;
    let event: EventId = event.parse().map_err(|_| not_found())?;
    query::none(signed.parts.uri.query())?;
    let partner = signed.caller.partner.id;
    let found = async {
        let Some(row) = store::find(&app.reads, partner, endpoint, event).await? else { return Ok(None) };
        let contents = store::contents(&app.reads, partner, &[row.place]).await?;
        let attempts = store::attempts(&app.reads, endpoint, event).await?;
        Ok(Some(delivery(&row, contents.get(&(endpoint, event)), attempts)))
    };
    Ok(Json(read::within(&app, signed.caller.request_id, found).await?.ok_or_else(not_found)?))
}
