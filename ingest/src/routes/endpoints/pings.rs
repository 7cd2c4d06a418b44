//! `/v1/endpoints/{id}/ping` and `/rehearsals`: is the receiver right?
//!
//! A ping is signed well and should be answered 2xx; a rehearsal has a flaw that a good receiver notices. Both are sent
//! once, count neither for nor against the endpoint, and reach one that is disabled. The verdict follows from the
//! answer's status ([`domain::notice::Verdict`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::ids::{EndpointId, EndpointSecretId, EventId, PartnerId};
use domain::notice::{Flaw, Verdict};
use domain::time::Timestamp;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::MySqlConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::deliveries::Attempt;
use super::super::refusals::{OfReads, OfWrites};
use super::{id_of, lock, not_found};
use crate::app::App;
use crate::fields::Fields;
use crate::prefer;
use crate::problem::{Code, Problem};
use crate::signed::{self, Caller, Signed};
use crate::store::deliveries;
use crate::store::endpoints as endpoint_store;
use crate::store::notices::{self as store, PingRow};
use crate::write::{self, Answer, Failure};
use crate::{query, read};

/// Pings of an endpoint that wait for their answer.
const OPEN_MAX: u64 = 5;
/// The notifier sends a ping within a second; a receiver may take 15.
const RETRY_AFTER_S: u32 = 5;
/// Between two looks at a ping that somebody waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A ping, and what the receiver made of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ping {
    /// Its id, sent as `webhook-id`.
    #[schema(value_type = String, example = "evt_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EventId,
    /// The endpoint.
    #[schema(value_type = String)]
    endpoint: EndpointId,
    /// What is wrong with it on purpose: `wrong_signature`, `old_timestamp`, `doubled`; `null` for nothing.
    #[schema(value_type = Option<String>)]
    flaw: Option<Flaw>,
    /// The only secret that signs it; `null` for all that live.
    #[schema(value_type = Option<String>)]
    secret: Option<EndpointSecretId>,
    /// `passed`: the receiver did what it should; `failed`: it refused a good one or accepted a forged one;
    /// `no_answer`: no answer, or one that says nothing; `null` until it was sent.
    #[schema(value_type = Option<String>, example = "passed")]
    verdict: Option<Verdict>,
    /// By how many seconds the receiver's clock is ahead of the bank's, by the Date of its answer.
    clock_skew_s: Option<i32>,
    /// When it was asked for.
    #[schema(value_type = String)]
    created_at: Timestamp,
    /// The requests that were made; a doubled one has two.
    attempts: Vec<Attempt>,
    /// Where to ask for the verdict.
    status_url: String,
}

fn path_of(endpoint: EndpointId, id: EventId) -> String {
    format!("/v1/endpoints/{endpoint}/pings/{id}")
}

fn ping_of(endpoint: EndpointId, row: PingRow, attempts: Vec<Attempt>) -> Ping {
    Ping {
        id: row.id,
        endpoint,
        flaw: row.flaw,
        secret: row.secret,
        verdict: row.verdict,
        clock_skew_s: row.clock_skew_s,
        created_at: row.created_at,
        attempts,
        status_url: path_of(endpoint, row.id),
    }
}

fn example() -> Value {
    json!({
        "id": "evt_01k9q5m3v7f8h9j0kamcneprqs", "endpoint": "ep_01k9q5m3v7f8h9j0kamcneprqs", "flaw": null,
        "secret": null, "verdict": "passed", "clock_skew_s": 0, "created_at": "2026-11-01T12:00:00.000000Z",
        "attempts": [super::super::deliveries::attempt_example()],
        "status_url": "/v1/endpoints/ep_01k9q5m3v7f8h9j0kamcneprqs/pings/evt_01k9q5m3v7f8h9j0kamcneprqs"
    })
}

fn open_example() -> Value {
    let mut example = example();
    example["verdict"] = Value::Null;
    example["clock_skew_s"] = Value::Null;
    example["attempts"] = json!([]);
    example
}

/// What to ping with.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct PingRequest {
    /// A live secret that alone shall sign: a receiver that accepts knows it.
    secret: Option<String>,
}

/// What to rehearse.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct RehearsalRequest {
    /// `wrong_signature` and `old_timestamp` are to be refused with a 4xx, `doubled` (one id, sent twice) is to be
    /// accepted twice.
    #[schema(example = "wrong_signature")]
    flaw: String,
}

/// Send a ping
///
/// A signed webhook of type `ping`. With `Prefer: wait=N` the answer is 200 with the verdict when it is known in time.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/ping", tag = "endpoints", operation_id = "ping_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "ping-1"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the verdict", example = "wait=5")
    ),
    request_body(content = PingRequest, content_type = "application/json", example = json!({})),
    responses(
        (status = 200, description = "Sent; the verdict", body = Ping, example = json!(example())),
        (status = 202, description = "To be sent; ask at `status_url`", body = Ping, example = json!(open_example())),
        OfWrites
    )
)]
pub async fn ping(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let mut fields = Fields::of_optional_body(&signed.body)?;
    let secret: Option<EndpointSecretId> = fields.optional_string("secret").and_then(|text| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            fields.refuse(
                "secret",
                "invalid_id",
                "a secret's id begins with `eps_` and has 26 more characters",
            );
        }
        parsed
    });
    fields.finish(Some(()))?;
    send(&app, &signed, id, None, secret).await
}

/// Rehearse a failure
///
/// A ping with a flaw, and a verdict whether the receiver notices.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/rehearsals", tag = "endpoints", operation_id = "rehearse",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "rehearsal-1"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the verdict", example = "wait=5")
    ),
    request_body(content = RehearsalRequest, content_type = "application/json", example = json!({"flaw": "wrong_signature"})),
    responses(
        (status = 200, description = "Sent; the verdict", body = Ping, example = json!(example())),
        (status = 202, description = "To be sent; ask at `status_url`", body = Ping, example = json!(open_example())),
        OfWrites
    )
)]
pub async fn rehearse(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let mut fields = Fields::of_body(&signed.body)?;
    let text = fields.required_string("flaw", "\"wrong_signature\"");
    let flaw: Option<Flaw> = text.and_then(|text| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let known: Vec<_> = Flaw::ALL.iter().map(|flaw| flaw.as_str()).collect();
            fields.refuse("flaw", "unknown_value", format!("unknown; the flaws are {}", known.join(", ")));
        }
        parsed
    });
    let flaw = fields.finish(flaw)?;
    send(&app, &signed, id, Some(flaw), None).await
}

async fn send(
    app: &Arc<App>,
    signed: &Signed<signed::Endpoints>,
    endpoint: EndpointId,
    flaw: Option<Flaw>,
    secret: Option<EndpointSecretId>,
) -> Result<Response, Problem> {
    let partner = signed.caller.partner.id;
    let done = write::run(app, signed, move |connection| {
        Box::pin(async move {
            lock(connection, partner, endpoint).await?;
            check(connection, endpoint, secret).await?;
            let row = PingRow {
                id: EventId::from_uuid(Uuid::new_v4()),
                flaw,
                secret,
                created_at: signed::now(),
                verdict: None,
                clock_skew_s: None,
            };
            store::insert(connection, partner, endpoint, &row).await?;
            let location = path_of(endpoint, row.id);
            let answer = Answer::json(StatusCode::ACCEPTED, &ping_of(endpoint, row, Vec::new()))?;
            Ok(answer.at(location))
        })
    });
    let done = done.await?;
    let Some(wish) = prefer::wait(&signed.parts.headers) else { return Ok(done.into_response()) };
    let id = done.answer.body.as_ref().and_then(|body| body["id"].as_str()?.parse().ok());
    let Some(id) = id else { return Ok(done.into_response()) };
    match answered(app, &signed.caller, partner, endpoint, id, Instant::now() + wish).await {
        Some(ping) => {
            let mut response = Json(ping).into_response();
            response.headers_mut().insert("preference-applied", HeaderValue::from_static("wait"));
            if done.replayed {
                response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            }
            if let Ok(location) = HeaderValue::try_from(path_of(endpoint, id)) {
                response.headers_mut().insert(header::CONTENT_LOCATION, location);
            }
            Ok(response)
        }
        None => Ok(done.into_response()),
    }
}

/// Refuses a ping too many, and one by a secret that does not sign.
async fn check(
    connection: &mut MySqlConnection,
    endpoint: EndpointId,
    secret: Option<EndpointSecretId>,
) -> Result<(), Failure> {
    if store::open(connection, endpoint).await? >= OPEN_MAX {
        let detail = format!("{OPEN_MAX} pings of this endpoint wait for their answer; wait for those first");
        return Err(Problem::new(Code::RateLimited, detail).retry_after(RETRY_AFTER_S).into());
    }
    if let Some(secret) = secret {
        let live = endpoint_store::secrets(&mut *connection, endpoint).await?;
        if !live.iter().any(|row| row.id == secret) {
            return Err(Problem::new(Code::NotFound, "there is no such live secret of this endpoint").into());
        }
    }
    Ok(())
}

/// The ping once it has its verdict; `None` when that is not known in time, or too many wait.
async fn answered(
    app: &App,
    caller: &Caller,
    partner: PartnerId,
    endpoint: EndpointId,
    id: EventId,
    until: Instant,
) -> Option<Ping> {
    let _place = caller.partner.wait(app.waiters_per_partner)?;
    let _look = app.ping_waiters.try_acquire().ok()?;
    loop {
        let found = look(app, partner, endpoint, id);
        let ping = read::within(app, caller.request_id, found).await.ok()??;
        if ping.verdict.is_some() {
            return Some(ping);
        }
        if Instant::now() + LOOK_INTERVAL >= until {
            return None;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn look(
    app: &App,
    partner: PartnerId,
    endpoint: EndpointId,
    id: EventId,
) -> Result<Option<Ping>, crate::store::StoreError> {
    let Some(row) = store::find(&app.reads, partner, endpoint, id).await? else { return Ok(None) };
    let attempts = match row.verdict {
        Some(_) => deliveries::attempts(&app.reads, endpoint, id).await?,
        None => Vec::new(),
    };
    Ok(Some(ping_of(endpoint, row, attempts.into_iter().map(Attempt::from).collect())))
}

/// A ping or rehearsal
///
/// Kept for 30 days.
#[utoipa::path(
    get, path = "/v1/endpoints/{id}/pings/{ping}", tag = "endpoints", operation_id = "read_ping",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("ping" = String, Path, description = "The ping", example = "evt_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    responses((status = 200, description = "The ping", body = Ping, example = json!(example())), OfReads)
)]
pub async fn one(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Ping>, Problem> {
    let no_ping = || Problem::new(Code::NotFound, "there is no such ping of this endpoint");
    let Path((endpoint, ping)) = path.map_err(|_| not_found())?;
    let endpoint: EndpointId = endpoint.parse().map_err(|_| not_found())?;
    let ping: EventId = ping.parse().map_err(|_| no_ping())?;
    query::none(signed.parts.uri.query())?;
    let found = look(&app, signed.caller.partner.id, endpoint, ping);
    Ok(Json(read::within(&app, signed.caller.request_id, found).await?.ok_or_else(no_ping)?))
}
