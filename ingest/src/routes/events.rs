//! `/v1/events`: the gap-free log of a partner's events, for who missed webhooks or does not want any.
//!
//! `body` holds the very bytes that a webhook carries. `scanned_through` says up to which sequence the log was looked
//! through, whether or not an event of the wanted types was there; it is `after` of the next request.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::event::{API_VERSION, EventRecord, EventType};
use domain::ids::{EventId, PartnerId, event_position};
use domain::webhook::ID_HEADER;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::refusals::OfReads;
use super::schema;
use crate::app::App;
use crate::prefer;
use crate::problem::{Code, Problem};
use crate::query::Query;
use crate::read;
use crate::signed::{self, Signed};
use crate::store::StoreError;
use crate::store::events::{self as store, Extent};

/// Sequences that one request looks through when it wants some types only.
const SCAN_MAX: u64 = 10_000;
const LIMIT_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 200;
/// Bytes of bodies in one answer; the next request goes on behind them. One body has at most 64 KiB.
const BODIES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// The events, oldest first.
    data: Vec<LoggedEvent>,
    /// The log was looked through up to here: `after` of the next request.
    scanned_through: u64,
    /// The last sequence that there is.
    last_sequence: u64,
}

/// An event.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedEvent {
    /// Its id: `webhook-id`.
    #[schema(value_type = String, example = "evt_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EventId,
    /// The bytes of the webhook's body.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
}

fn body_example() -> Value {
    json!({
        "type": "payment.posted", "api_version": "2026-11-01", "timestamp": "2026-11-01T12:00:00.004100Z",
        "sequence": 4711, "epoch": 1, "data": {"payment": schema::payment()}
    })
}

fn page_example() -> Value {
    json!({
        "data": [{"id": "evt_01k9q5m3v7f8h9j0kamcneprqs", "body": body_example()}],
        "scanned_through": 4711, "last_sequence": 4711
    })
}

struct Wanted {
    after: Option<u64>,
    types: Option<Vec<EventType>>,
    limit: usize,
}

fn parse(query: Option<&str>) -> Result<Wanted, Problem> {
    let mut query = Query::parse(query);
    // Sequences are BIGINT; nobody comes near.
    let after = query.integer("after", 0..=u64::MAX >> 2);
    let known: Vec<_> = EventType::ALL.iter().map(|event_type| event_type.as_str()).collect();
    let types = query.words("types", &known.join(", "));
    let limit = query.integer("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    version(&mut query);
    query.finish()?;
    Ok(Wanted { after, types, limit: usize::try_from(limit).unwrap_or_default() })
}

fn version(query: &mut Query<'_>) {
    if query.text("api_version").is_some_and(|version| version != API_VERSION) {
        query.refuse("api_version", "unknown_value", format!("unknown; the one version is {API_VERSION}"));
    }
}

/// The event log
///
/// Oldest first, from the event behind `after`; from the first kept one without it. With `Prefer: wait=N` the answer
/// comes as soon as there is an event, at most N seconds later. Events are kept for 400 days: an `after` before the
/// first kept one is 410 `history_gone` with `first_kept_sequence`.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "list_events",
    security(("message_signature" = ["events"])),
    params(
        ("after" = Option<u64>, Query, description = "`scanned_through` of the page before", example = 4710),
        ("types" = Option<String>, Query, description = "Types, separated by commas; all by default", example = "payment.posted,payment.rejected"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 by default", example = 50),
        ("api_version" = Option<String>, Query, description = "The version of the bodies", example = "2026-11-01"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for an event", example = "wait=10")
    ),
    responses(
        (status = 200, description = "A page of the log", body = EventPage, example = json!(page_example())),
        (status = 410, description = "`after` lies before the first kept event", body = schema::Problem, content_type = "application/problem+json"),
        OfReads
    )
)]
pub async fn list(State(app): State<Arc<App>>, signed: Signed<signed::Events>) -> Result<Response, Problem> {
    let mut wanted = parse(signed.parts.uri.query())?;
    let caller = &signed.caller;
    let partner = caller.partner.id;
    let wish = prefer::wait(&signed.parts.headers);
    let place = wish.and_then(|_| caller.partner.wait(app.waiters_per_partner));
    let until = wish.filter(|_| place.is_some()).map(|wish| Instant::now() + wish);
    loop {
        let found = scan(&app, partner, &wanted);
        let (extent, events) = read::within(&app, caller.request_id, found).await?;
        check(&wanted, extent)?;
        let page = page(events, &wanted, extent)?;
        let goes_on = until.filter(|until| page.data.is_empty() && Instant::now() < *until);
        let Some(until) = goes_on else { return Ok(answer(page, place.is_some())) };
        wanted.after = Some(page.scanned_through);
        // Behind what was looked through there may be more of the log, or only the future.
        if page.scanned_through >= page.last_sequence
            && !app.watch.wait(partner, page.scanned_through, until).await
        {
            return Ok(answer(page, true));
        }
    }
}

fn answer(page: EventPage, waited: bool) -> Response {
    let mut response = Json(page).into_response();
    if waited {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("wait"));
    }
    response
}

/// Where the log stands, and what is wanted of it.
async fn scan(
    app: &App,
    partner: PartnerId,
    wanted: &Wanted,
) -> Result<(Extent, Vec<EventRecord>), StoreError> {
    let mut connection = app.reads.acquire().await?;
    let extent = store::extent(&mut connection, partner).await?;
    let after = after_in(wanted, extent);
    let through = last_scanned(wanted, after, extent);
    let types = wanted.types.as_deref();
    if after >= through {
        return Ok((extent, Vec::new()));
    }
    let events = store::between(&mut connection, partner, after, through, types, wanted.limit).await?;
    Ok((extent, events))
}

const fn after_in(wanted: &Wanted, extent: Extent) -> u64 {
    match wanted.after {
        Some(after) => after,
        None => extent.first_kept.saturating_sub(1),
    }
}

fn last_scanned(wanted: &Wanted, after: u64, extent: Extent) -> u64 {
    match wanted.types {
        Some(_) => extent.last.min(after.saturating_add(SCAN_MAX)),
        None => extent.last,
    }
}

fn check(wanted: &Wanted, extent: Extent) -> Result<(), Problem> {
    match wanted.after {
        Some(after) if after.saturating_add(1) < extent.first_kept => Err(Problem::gone(extent.first_kept)),
        Some(after) if after > extent.last => {
            let mut query = Query::parse(None);
            let detail = format!("is above the last sequence, {}; has `epoch` been raised?", extent.last);
            query.refuse("after", "out_of_range", detail);
            query.finish()
        }
        _ => Ok(()),
    }
}

fn page(events: Vec<EventRecord>, wanted: &Wanted, extent: Extent) -> Result<EventPage, Problem> {
    let mut scanned_through = last_scanned(wanted, after_in(wanted, extent), extent);
    if events.len() >= wanted.limit {
        scanned_through = events.last().map_or(scanned_through, |event| event.sequence);
    }
    let (mut data, mut bytes) = (Vec::with_capacity(events.len()), 0);
    let mut last = None;
    for event in events {
        let body = event.webhook_body(API_VERSION);
        bytes += body.len();
        if bytes > BODIES_BYTES_MAX && !data.is_empty() {
            scanned_through = last.unwrap_or(scanned_through);
            break;
        }
        last = Some(event.sequence);
        data.push(LoggedEvent { id: event.id, body: raw(event.id, body)? });
    }
    Ok(EventPage { data, scanned_through, last_sequence: extent.last })
}

fn raw(id: EventId, body: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(body).map_err(|error| {
        tracing::error!(event.id = %id, error = %error, "an event's body is no JSON");
        Problem::plain(Code::Internal)
    })
}

/// An event
///
/// The answer's body has the very bytes that a webhook carries.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "events", operation_id = "read_event",
    security(("message_signature" = ["events"])),
    params(
        ("id" = String, Path, description = "The event", example = "evt_01k9q5m3v7f8h9j0kamcneprqs"),
        ("api_version" = Option<String>, Query, description = "The version of the body", example = "2026-11-01")
    ),
    responses(
        (status = 200, description = "The webhook's body; its id in `webhook-id`", body = Object, example = json!(body_example())),
        (status = 410, description = "It is not kept any more", body = schema::Problem, content_type = "application/problem+json"),
        OfReads
    )
)]
pub async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Events>,
) -> Result<Response, Problem> {
    let not_found = || Problem::new(Code::NotFound, "there is no such event of yours");
    let id: EventId = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)?;
    let mut query = Query::parse(signed.parts.uri.query());
    version(&mut query);
    query.finish()?;
    let partner = signed.caller.partner.id;
    let (_, sequence) = event_position(partner, id).ok_or_else(not_found)?;
    let found = async {
        let mut connection = app.reads.acquire().await?;
        let extent = store::extent(&mut connection, partner).await?;
        let event = store::at(&mut connection, partner, sequence).await?;
        Ok((extent, event))
    };
    let (extent, event) = read::within(&app, signed.caller.request_id, found).await?;
    match event.filter(|event| event.id == id) {
        Some(event) => {
            let mut response = event.webhook_body(API_VERSION).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Ok(value) = HeaderValue::try_from(id.to_string()) {
                headers.insert(ID_HEADER, value);
            }
            Ok(response)
        }
        None if sequence > 0 && sequence < extent.first_kept => Err(Problem::gone(extent.first_kept)),
        None => Err(not_found()),
    }
}
