//! `/v1/endpoints/{id}/replays`: to be sent something again.
//!
//! One resource for one event, for what failed since a time, for a range of sequences, and for what came while the
//! endpoint was disabled. Each is worked off in order and at a bounded pace, behind live traffic; the number of open
//! ones is bounded and of the bulky ones there is one at a time, so that no client can make a loop of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::ids::{EndpointId, EventId, PartnerId, ReplayId, event_position};
use domain::replay::{OPEN_MAX, ReplayKind, ReplayStatus};
use domain::time::Timestamp;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::MySqlConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::refusals::{OfReads, OfWrites};
use super::super::schema;
use super::{id_of, lock, no_body, not_found};
use crate::app::App;
use crate::fields::Fields;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::{Code, Problem};
use crate::query::{self, Query};
use crate::read;
use crate::signed::{self, Signed};
use crate::store::endpoints as endpoint_store;
use crate::store::events;
use crate::store::replays::{self as store, ReplayRow};
use crate::write::{self, Answer, Failure};

/// What was asked to be sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replay {
    /// Its id.
    #[schema(value_type = String, example = "rpl_01k9q5m3v7f8h9j0kamcneprqs")]
    id: ReplayId,
    /// The endpoint.
    #[schema(value_type = String)]
    endpoint: EndpointId,
    /// `event`, `failed`, `range` or `missing`.
    #[schema(value_type = String, example = "range")]
    kind: ReplayKind,
    /// `open`, `done` (all of it is queued; how it fares stands in the deliveries) or `cancelled`.
    #[schema(value_type = String, example = "open")]
    status: ReplayStatus,
    /// The one event.
    #[schema(value_type = Option<String>)]
    event: Option<EventId>,
    /// Since when deliveries failed.
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// The first sequence of the range.
    from_sequence: Option<u64>,
    /// The last sequence of the range.
    to_sequence: Option<u64>,
    /// How far the range is worked off.
    last_sequence: Option<u64>,
    /// Deliveries that it queued.
    queued: u64,
    /// Deliveries that it left as they were: under way, attempted too often, of a type that is not subscribed to.
    skipped: u64,
    /// When it was asked for.
    #[schema(value_type = String)]
    created_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>)]
    finished_at: Option<Timestamp>,
    /// Where to ask how it fares.
    status_url: String,
}

fn replay_of(endpoint: EndpointId, row: ReplayRow) -> Replay {
    Replay {
        id: row.id,
        endpoint,
        kind: row.kind,
        status: row.status,
        event: row.event,
        since: row.since,
        from_sequence: row.from_sequence,
        to_sequence: row.to_sequence,
        last_sequence: row.last_sequence,
        queued: row.queued,
        skipped: row.skipped,
        created_at: row.created_at,
        finished_at: row.finished_at,
        status_url: path_of(endpoint, row.id),
    }
}

fn path_of(endpoint: EndpointId, id: ReplayId) -> String {
    format!("/v1/endpoints/{endpoint}/replays/{id}")
}

fn example() -> Value {
    json!({
        "id": "rpl_01k9q5m3v7f8h9j0kamcneprqs", "endpoint": "ep_01k9q5m3v7f8h9j0kamcneprqs", "kind": "range",
        "status": "open", "event": null, "since": null, "from_sequence": 4700, "to_sequence": 4811,
        "last_sequence": 4750, "queued": 50, "skipped": 0, "created_at": "2026-11-01T12:00:00.000000Z",
        "finished_at": null,
        "status_url": "/v1/endpoints/ep_01k9q5m3v7f8h9j0kamcneprqs/replays/rpl_01k9q5m3v7f8h9j0kamcneprqs"
    })
}

/// What to send again.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct ReplayRequest {
    /// `event`: one event, even of a type that is not subscribed to; `failed`: what failed since a time; `range`: all
    /// events of a range of sequences; `missing`: those of a range that have no delivery.
    #[schema(example = "range")]
    kind: String,
    /// With `event`: its id.
    event: Option<String>,
    /// With `failed`: deliveries first recorded then or later, RFC 3339.
    since: Option<String>,
    /// With `range` and `missing`: the first sequence.
    from_sequence: Option<u64>,
    /// With `range` and `missing`: the last sequence; the newest when it is left out.
    to_sequence: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Event(EventId),
    Failed(Timestamp),
    Sequences { kind: ReplayKind, from: u64, to: Option<u64> },
}

fn parse(body: &[u8]) -> Result<Wanted, Problem> {
    let mut fields = Fields::of_body(body)?;
    let word = fields.required_string("kind", "\"range\"");
    let kind: Option<ReplayKind> = word.and_then(|word| {
        let parsed = word.parse().ok();
        if parsed.is_none() {
            let known: Vec<_> = ReplayKind::ALL.iter().map(|kind| kind.as_str()).collect();
            fields.refuse("kind", "unknown_value", format!("unknown; the kinds are {}", known.join(", ")));
        }
        parsed
    });
    let wanted = match kind {
        None => None,
        Some(ReplayKind::Event) => fields.required_id("event", "an event's id", "evt").map(Wanted::Event),
        Some(ReplayKind::Failed) => {
            let since = fields.optional_time("since");
            if since.is_none() {
                fields.refuse("since", "missing", "required; send a time such as \"2026-01-31T12:00:00Z\"");
            }
            since.map(Wanted::Failed)
        }
        Some(kind @ (ReplayKind::Range | ReplayKind::Missing)) => {
            let from = fields.optional_integer("from_sequence", 1..=i64::MAX);
            let to = fields.optional_integer("to_sequence", from.unwrap_or(1)..=i64::MAX);
            if from.is_none() {
                fields.refuse("from_sequence", "missing", "required; send the first sequence to be sent");
            }
            let positive = |value: i64| u64::try_from(value).unwrap_or_default();
            from.map(|from| Wanted::Sequences { kind, from: positive(from), to: to.map(positive) })
        }
    };
    if kind.is_none() {
        // Whatever else is in the body belongs to a kind that is not known; one fault is enough.
        for name in ["event", "since", "from_sequence", "to_sequence"] {
            drop(fields.take(name));
        }
    }
    fields.finish(wanted)
}

/// Replay
///
/// To resend one event: `{"kind": "event", "event": "evt_…"}`. The answer is 202 and where to ask how it fares. An
/// event that is not kept any more, or a range that begins before the first kept one, is 410 `history_gone` with
/// `first_kept_sequence`.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/replays", tag = "deliveries", operation_id = "create_replay",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "replay-1")
    ),
    request_body(content = ReplayRequest, content_type = "application/json", example = json!({"kind": "range", "from_sequence": 4700})),
    responses(
        (status = 202, description = "To be sent", body = Replay, example = json!(example())),
        (status = 409, description = "The endpoint is disabled, or another replay is open", body = schema::Problem, content_type = "application/problem+json"),
        (status = 410, description = "What is asked for is not kept any more", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let wanted = parse(&signed.body)?;
    let partner = signed.caller.partner.id;
    let done = write::run(&app, &signed, move |connection| {
        Box::pin(async move { insert(connection, partner, id, wanted).await })
    });
    Ok(done.await?.into_response())
}

async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
    wanted: Wanted,
) -> Result<Answer, Failure> {
    let endpoint = lock(connection, partner, id).await?;
    if endpoint.state.disabled_at.is_some() {
        let detail = "the endpoint is disabled; enable it first";
        return Err(Problem::new(Code::StateConflict, detail).into());
    }
    let row = checked(connection, partner, wanted).await?;
    check_open(&store::open(connection, id).await?, &row)?;
    store::insert(connection, partner, id, &row).await?;
    if row.kind == ReplayKind::Missing && endpoint.state.missed_after.is_some() {
        endpoint_store::clear_missed(connection, id).await?;
    }
    let location = path_of(id, row.id);
    Ok(Answer::json(StatusCode::ACCEPTED, &replay_of(id, row))?.at(location))
}

/// The row to be inserted, for what is kept.
async fn checked(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    wanted: Wanted,
) -> Result<ReplayRow, Failure> {
    let now = signed::now();
    let mut row = ReplayRow {
        id: ReplayId::from_uuid(Uuid::now_v7()),
        kind: ReplayKind::Event,
        status: ReplayStatus::Open,
        event: None,
        since: None,
        from_sequence: None,
        to_sequence: None,
        last_sequence: None,
        queued: 0,
        skipped: 0,
        created_at: now,
        finished_at: None,
    };
    match wanted {
        Wanted::Event(event) => {
            let none =
                || Problem::new(Code::NotFound, "there is no such event of yours; a ping is not sent again");
            let (_, sequence) = event_position(partner, event).ok_or_else(none)?;
            let stored = events::at(connection, partner, sequence).await?;
            if stored.is_none_or(|stored| stored.id != event) {
                let extent = events::extent(connection, partner).await?;
                let gone = sequence < extent.first_kept;
                return Err(if gone { Problem::gone(extent.first_kept) } else { none() }.into());
            }
            row.event = Some(event);
        }
        Wanted::Failed(since) => {
            if since > now {
                return Err(field("/since", "lies in the future").into());
            }
            row.kind = ReplayKind::Failed;
            row.since = Some(since);
        }
        Wanted::Sequences { kind, from, to } => {
            let extent = events::extent(connection, partner).await?;
            if from < extent.first_kept.min(extent.last + 1) {
                return Err(Problem::gone(extent.first_kept).into());
            }
            if from > extent.last {
                let detail = format!("is above the last sequence, {}", extent.last);
                return Err(field("/from_sequence", detail).into());
            }
            row.kind = kind;
            row.from_sequence = Some(from);
            row.to_sequence = Some(to.unwrap_or(extent.last).min(extent.last));
        }
    }
    Ok(row)
}

fn field(pointer: &str, detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::fields(vec![crate::problem::FieldError {
        pointer: pointer.to_owned(),
        code: "out_of_range".into(),
        detail: detail.into(),
    }])
}

/// Refuses what would send the same twice or too much at once.
fn check_open(open: &[ReplayRow], new: &ReplayRow) -> Result<(), Problem> {
    let clash = open.iter().find(|other| match new.kind {
        ReplayKind::Event => other.event == new.event && new.event.is_some(),
        ReplayKind::Failed | ReplayKind::Range | ReplayKind::Missing => other.kind != ReplayKind::Event,
    });
    if let Some(other) = clash {
        let detail = format!("the replay {} is open; wait until it is done, or cancel it", other.id);
        return Err(Problem::new(Code::StateConflict, detail));
    }
    if open.len() >= OPEN_MAX {
        let detail = format!("{} replays of this endpoint are open; wait until one is done", open.len());
        return Err(Problem::new(Code::LimitReached, detail));
    }
    Ok(())
}

/// A page of replays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct ReplayList {
    data: Vec<Replay>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

/// The replays of an endpoint
///
/// Newest first; ended ones are kept for 30 days.
#[utoipa::path(
    get, path = "/v1/endpoints/{id}/replays", tag = "deliveries", operation_id = "list_replays",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 by default", example = 50),
        ("cursor" = Option<String>, Query, description = "`next` of the page before")
    ),
    responses(
        (status = 200, description = "A page", body = ReplayList, example = json!({"data": [example()], "next": null})),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Page<Replay>>, Problem> {
    let id = id_of(id)?;
    let partner = signed.caller.partner.id;
    let mut query = Query::parse(signed.parts.uri.query());
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let cursors = Cursors::new(&app.token_key, "replays", partner, &id);
    let wanted = cursors.wanted(page)?;
    let after = wanted.after.as_deref().and_then(|place| {
        let (at, id) = place.split_first_chunk::<8>()?;
        let id = ReplayId::from_uuid(Uuid::from_slice(id).ok()?);
        Some((Timestamp::from_micros(i64::from_be_bytes(*at)), id))
    });
    let found = async {
        let endpoint = endpoint_store::find(&app.reads, partner, id).await?;
        if endpoint.is_none() {
            return Ok(None);
        }
        store::list(&app.reads, id, after, wanted.limit + 1).await.map(Some)
    };
    let rows = read::within(&app, signed.caller.request_id, found).await?.ok_or_else(not_found)?;
    let page = cursors.page(rows, wanted.limit, |row| {
        [&row.created_at.micros().to_be_bytes()[..], row.id.uuid().as_bytes()].concat()
    });
    let data = page.data.into_iter().map(|row| replay_of(id, row)).collect();
    Ok(Json(Page { data, next: page.next }))
}

/// The ids of a path to a replay.
fn ids_of(path: Result<Path<(String, String)>, PathRejection>) -> Result<(EndpointId, ReplayId), Problem> {
    let Path((endpoint, replay)) = path.map_err(|_| not_found())?;
    let endpoint = endpoint.parse().map_err(|_| not_found())?;
    Ok((endpoint, replay.parse().map_err(|_| no_replay())?))
}

fn no_replay() -> Problem {
    Problem::new(Code::NotFound, "there is no such replay of this endpoint")
}

/// A replay
#[utoipa::path(
    get, path = "/v1/endpoints/{id}/replays/{replay}", tag = "deliveries", operation_id = "read_replay",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("replay" = String, Path, description = "The replay", example = "rpl_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    responses((status = 200, description = "How it fares", body = Replay, example = json!(example())), OfReads)
)]
pub async fn one(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Replay>, Problem> {
    let (endpoint, id) = ids_of(path)?;
    query::none(signed.parts.uri.query())?;
    let found = store::find(&app.reads, signed.caller.partner.id, endpoint, id);
    let row = read::within(&app, signed.caller.request_id, found).await?.ok_or_else(no_replay)?;
    Ok(Json(replay_of(endpoint, row)))
}

/// Cancel a replay
///
/// What it has queued is sent nevertheless.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/replays/{replay}/cancel", tag = "deliveries", operation_id = "cancel_replay",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("replay" = String, Path, description = "The replay", example = "rpl_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "cancel-1")
    ),
    responses(
        (status = 200, description = "Cancelled", body = Replay, example = json!(example())),
        (status = 409, description = "It is done already", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let (endpoint, id) = ids_of(path)?;
    no_body(&signed.body)?;
    let partner = signed.caller.partner.id;
    let done = write::run(&app, &signed, move |connection| {
        Box::pin(async move {
            let find = store::find(&mut *connection, partner, endpoint, id).await?;
            let before = find.ok_or_else(no_replay)?;
            if !store::cancel(connection, id).await? && before.status != ReplayStatus::Cancelled {
                return Err(Problem::new(Code::StateConflict, "the replay is done already").into());
            }
            let row = store::find(&mut *connection, partner, endpoint, id).await?.ok_or_else(no_replay)?;
            Answer::json(StatusCode::OK, &replay_of(endpoint, row))
        })
    });
    Ok(done.await?.into_response())
}
