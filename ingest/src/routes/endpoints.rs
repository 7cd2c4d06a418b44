//! `/v1/endpoints`: where a partner's webhooks go.
//!
//! A change takes effect before the notifier's next send. Secrets are shown once, when they are made. What belongs to
//! an endpoint has modules of its own: [`secrets`], [`pings`], [`replays`].

pub mod pings;
pub mod replays;
pub mod secrets;
pub mod settings;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::endpoint_headers::Headers;
use domain::ids::{EndpointId, EndpointSecretId, PartnerId};
use domain::notice::DisabledReason;
use domain::replay::ReplayKind;
use domain::time::Timestamp;
use http::{StatusCode, header};
use runtime::precondition::{self, Expected};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::MySqlConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::refusals::{OfReads, OfWrites};
use super::schema;
use crate::app::App;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::{Code, Problem};
use crate::query::Query;
use crate::signed::{self, Signed};
use crate::store::endpoints::{self as store, EndpointRow, NewSecret, State as EndpointState};
use crate::store::events;
use crate::write::{self, Answer, Failure};
use crate::{read, seal};
use settings::{Change, NewEndpoint};

/// By how much the clocks of two services may differ.
const CLOCKS_APART_MICROS: i64 = 10_000_000;

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoint {
    /// Its id.
    #[schema(value_type = String, example = "ep_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EndpointId,
    /// Where to post.
    url: String,
    /// The types it receives; `null` for all. A ping comes always.
    event_types: Option<Vec<String>>,
    /// Its owner's words.
    description: Option<String>,
    /// The names of the header fields that are added; their values are not shown.
    header_names: Vec<String>,
    /// At most so many deliveries in a second; `null` for no limit of its own.
    deliveries_per_second: Option<u32>,
    /// The version of the bodies.
    api_version: String,
    /// With which `v1a` signatures verify (`whpk_…`); `null` when it is not signed with ed25519.
    public_key: Option<String>,
    /// `enabled` or `disabled`.
    status: &'static str,
    /// Since when it gets no deliveries.
    #[schema(value_type = Option<String>)]
    disabled_at: Option<Timestamp>,
    /// `gone`: it answered 410; `failing`: every attempt of five days failed; `owner`: it was asked for.
    disabled_reason: Option<&'static str>,
    /// Since when every attempt has failed.
    #[schema(value_type = Option<String>)]
    failing_since: Option<Timestamp>,
    /// After which sequence events may have got no delivery, because it was disabled.
    missed_after: Option<u64>,
    /// Counts the changes of its settings; also in ETag.
    version: u32,
    /// When it was created.
    #[schema(value_type = String)]
    created_at: Timestamp,
}

impl Endpoint {
    fn of(app: &App, row: EndpointRow) -> Self {
        let headers = row
            .headers_sealed
            .and_then(|sealed| seal::open(&app.webhook_kek, "headers_sealed", row.id, &sealed))
            .and_then(|json| serde_json::from_slice::<Headers>(&json).ok());
        let public_key =
            row.signing_key_sealed.and_then(|sealed| seal::public_key(&app.webhook_kek, row.id, &sealed));
        Self {
            id: row.id,
            url: row.url,
            event_types: row.event_types.map(|words| words.split(',').map(str::to_owned).collect()),
            description: row.description,
            header_names: headers.unwrap_or_default().into_keys().collect(),
            deliveries_per_second: row.deliveries_per_second,
            api_version: row.api_version,
            public_key,
            status: if row.state.disabled_at.is_some() { "disabled" } else { "enabled" },
            disabled_at: row.state.disabled_at,
            disabled_reason: row.state.disabled_reason.map(DisabledReason::as_str),
            failing_since: row.state.failing_since,
            missed_after: row.state.missed_after,
            version: row.version,
            created_at: row.created_at,
        }
    }
}

/// An example.
pub fn example() -> Value {
    json!({
        "id": "ep_01k9q5m3v7f8h9j0kamcneprqs", "url": "https://shop.example/webhooks",
        "event_types": ["payment.posted", "payment.rejected"], "description": "the tills", "header_names": ["x-shop"],
        "deliveries_per_second": null, "api_version": "2026-11-01", "public_key": null, "status": "enabled",
        "disabled_at": null, "disabled_reason": null, "failing_since": null, "missed_after": null, "version": 1,
        "created_at": "2026-11-01T12:00:00.000000Z"
    })
}

fn created_example() -> Value {
    let mut example = example();
    example["secret"] = json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw2fK1Yy7sQ8o=");
    example["secret_id"] = json!("eps_01k9q5m3v7f8h9j0kamcneprqs");
    example
}

/// A new endpoint, with what is shown once.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct CreatedEndpoint {
    #[schema(inline)]
    #[serde(flatten)]
    endpoint: Endpoint,
    /// The secret that signs; shown here and never again, not even to a repeated request.
    secret: Option<String>,
    /// The secret's id.
    secret_id: String,
}

/// What is set of an endpoint.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EndpointRequest {
    /// An https URL on the public internet.
    #[schema(example = "https://shop.example/webhooks", max_length = 2048)]
    url: String,
    /// Types to receive; `null` for all.
    event_types: Option<Vec<String>>,
    /// Your words.
    #[schema(max_length = 200)]
    description: Option<String>,
    /// Up to 10 header fields to add: `authorization` and names that begin with `x-`.
    headers: Option<std::collections::BTreeMap<String, String>>,
    /// At most so many deliveries in a second; `null` for no limit of its own.
    #[schema(minimum = 1, maximum = 10_000)]
    deliveries_per_second: Option<u32>,
    /// The version of the bodies.
    api_version: Option<String>,
    /// Whether to sign with ed25519 as well; the answer then holds the public key.
    ed25519: Option<bool>,
}

/// What is changed of an endpoint: what is left out stays; `null` means none, or all types.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EndpointChange {
    /// An https URL on the public internet.
    url: Option<String>,
    /// Types to receive.
    event_types: Option<Vec<String>>,
    /// Your words.
    description: Option<String>,
    /// All header fields to add.
    headers: Option<std::collections::BTreeMap<String, String>>,
    /// At most so many deliveries in a second.
    deliveries_per_second: Option<u32>,
    /// The version of the bodies.
    api_version: Option<String>,
    /// Whether to sign with ed25519 as well. A key that is taken away is never used again.
    ed25519: Option<bool>,
}

fn request_example() -> Value {
    json!({
        "url": "https://shop.example/webhooks", "event_types": ["payment.posted", "payment.rejected"],
        "description": "the tills", "headers": {"x-shop": "7"}
    })
}

/// The answer about an endpoint that is not there or another's.
pub fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is no such endpoint of yours")
}

/// An endpoint's id in a path.
pub fn id_of(path: Result<Path<String>, PathRejection>) -> Result<EndpointId, Problem> {
    path.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)
}

/// Locks one of the partner's endpoints within a write.
pub async fn lock(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
) -> Result<EndpointRow, Failure> {
    store::lock(connection, partner, id).await?.ok_or_else(|| not_found().into())
}

async fn view(
    app: &App,
    connection: &mut MySqlConnection,
    partner: PartnerId,
    id: EndpointId,
) -> Result<Endpoint, Failure> {
    let row = store::find(connection, partner, id).await?.ok_or_else(not_found)?;
    Ok(Endpoint::of(app, row))
}

fn sealed_headers(app: &App, id: EndpointId, headers: Option<&Headers>) -> Result<Option<Vec<u8>>, Problem> {
    let json = headers.map(serde_json::to_vec).transpose().map_err(|_| Problem::plain(Code::Internal))?;
    json.map(|json| seal::seal(&app.webhook_kek, "endpoints", "headers_sealed", &id, &json)).transpose()
}

/// Create an endpoint
///
/// `secret` is shown in this answer and never again: a repeated request is answered without it. Rotate it when it got
/// lost. The URL must be https on the public internet; `errors` names the rule that it breaks.
#[utoipa::path(
    post, path = "/v1/endpoints", tag = "endpoints", operation_id = "create_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "endpoint-1")),
    request_body(content = EndpointRequest, content_type = "application/json", example = json!(request_example())),
    responses(
        (status = 201, description = "Created", body = CreatedEndpoint, example = json!(created_example())),
        (status = 409, description = "There may be no more endpoints", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let new = settings::new_endpoint(&signed.body, app.loopback)?;
    let partner = signed.caller.partner.id;
    let (shared, new) = (app.clone(), Arc::new(new));
    let done = write::run(&app, &signed, move |connection| {
        let (app, new) = (shared.clone(), new.clone());
        Box::pin(async move { insert(&app, connection, partner, &new).await })
    });
    Ok(done.await?.into_response())
}

async fn insert(
    app: &App,
    connection: &mut MySqlConnection,
    partner: PartnerId,
    new: &NewEndpoint,
) -> Result<Answer, Failure> {
    if store::count(connection, partner).await? >= u64::from(app.endpoints_per_partner) {
        let detail = format!("you have {} endpoints, and there may be no more", app.endpoints_per_partner);
        return Err(Problem::new(Code::LimitReached, detail).into());
    }
    let id = EndpointId::from_uuid(Uuid::now_v7());
    let secret_id = EndpointSecretId::from_uuid(Uuid::now_v7());
    let (text, sealed) = seal::new_secret(&app.webhook_kek, secret_id)?;
    let signing_key = new.ed25519.then(|| seal::new_signing_key(&app.webhook_kek, id)).transpose()?;
    let row = EndpointRow {
        id,
        url: new.url.clone(),
        event_types: new.event_types.clone(),
        api_version: new.api_version.clone(),
        description: new.description.clone(),
        deliveries_per_second: new.deliveries_per_second,
        headers_sealed: sealed_headers(app, id, new.headers.as_ref())?,
        signing_key_sealed: signing_key,
        version: 1,
        created_at: signed::now(),
        state: EndpointState::default(),
    };
    store::insert(connection, partner, &row, &NewSecret { id: secret_id, sealed }).await?;
    let mut answer = Answer::json(StatusCode::CREATED, &Endpoint::of(app, row))?;
    if let Some(body) = answer.body.as_mut().and_then(Value::as_object_mut) {
        body.insert("secret_id".to_owned(), secret_id.to_string().into());
    }
    answer.once.insert("secret".to_owned(), text.as_str().into());
    Ok(answer.at(format!("/v1/endpoints/{id}")))
}

/// A page of endpoints.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EndpointList {
    data: Vec<Endpoint>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

/// The endpoints
///
/// Oldest first.
#[utoipa::path(
    get, path = "/v1/endpoints", tag = "endpoints", operation_id = "list_endpoints",
    security(("message_signature" = ["endpoints"])),
    params(
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 by default", example = 50),
        ("cursor" = Option<String>, Query, description = "`next` of the page before")
    ),
    responses(
        (status = 200, description = "A page", body = EndpointList, example = json!({"data": [example()], "next": null})),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<Page<Endpoint>>, Problem> {
    let partner = signed.caller.partner.id;
    let mut query = Query::parse(signed.parts.uri.query());
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let cursors = Cursors::new(&app.token_key, "endpoints", partner, &());
    let wanted = cursors.wanted(page)?;
    let after = wanted.after.as_deref().and_then(|place| {
        let (at, id) = place.split_first_chunk::<8>()?;
        let id = EndpointId::from_uuid(Uuid::from_slice(id).ok()?);
        Some((Timestamp::from_micros(i64::from_be_bytes(*at)), id))
    });
    let found = store::list(&app.reads, partner, after, wanted.limit + 1);
    let rows = read::within(&app, signed.caller.request_id, found).await?;
    let page = cursors.page(rows, wanted.limit, |row| {
        [&row.created_at.micros().to_be_bytes()[..], row.id.uuid().as_bytes()].concat()
    });
    let data = page.data.into_iter().map(|row| Endpoint::of(&app, row)).collect();
    Ok(Json(Page { data, next: page.next }))
}

/// An endpoint
#[utoipa::path(
    get, path = "/v1/endpoints/{id}", tag = "endpoints", operation_id = "read_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The endpoint; its version in ETag", body = Endpoint, example = json!(example())),
        OfReads
    )
)]
pub async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    crate::query::none(signed.parts.uri.query())?;
    let found = store::find(&app.reads, signed.caller.partner.id, id);
    let row = read::within(&app, signed.caller.request_id, found).await?.ok_or_else(not_found)?;
    let etag = precondition::etag(row.version);
    Ok(([(header::ETAG, etag)], Json(Endpoint::of(&app, row))).into_response())
}

/// Change an endpoint
///
/// `If-Match` names the version that you read, so that two changes at once do not undo each other. A change holds from
/// the notifier's next send on.
#[utoipa::path(
    patch, path = "/v1/endpoints/{id}", tag = "endpoints", operation_id = "change_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("If-Match" = String, Header, description = "The ETag as it was answered, or *", example = "\"1\""),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "change-1")
    ),
    request_body(content = EndpointChange, content_type = "application/json", example = json!({"event_types": null})),
    responses(
        (status = 200, description = "Changed; the new version in ETag", body = Endpoint, example = json!(example())),
        (status = 412, description = "It was changed meanwhile", body = schema::Problem, content_type = "application/problem+json"),
        (status = 428, description = "There is no If-Match", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let expected = Arc::new(Expected::of(&signed.parts.headers)?);
    let change = Arc::new(settings::change(&signed.body, app.loopback)?);
    let (partner, shared) = (signed.caller.partner.id, app.clone());
    let done = write::run(&app, &signed, move |connection| {
        let (app, expected, change) = (shared.clone(), expected.clone(), change.clone());
        Box::pin(async move {
            let row = lock(connection, partner, id).await?;
            expected.check(row.version)?;
            store::update(connection, &changed(&app, row, &change)?).await?;
            Answer::json(StatusCode::OK, &view(&app, connection, partner, id).await?)
        })
    });
    Ok(done.await?.into_response())
}

fn changed(app: &App, row: EndpointRow, change: &Change) -> Result<EndpointRow, Problem> {
    let headers_sealed = match &change.headers {
        Some(headers) => sealed_headers(app, row.id, headers.as_ref())?,
        None => row.headers_sealed,
    };
    let signing_key_sealed = match (change.ed25519, row.signing_key_sealed) {
        (Some(true), None) => Some(seal::new_signing_key(&app.webhook_kek, row.id)?),
        (Some(false), _) => None,
        (_, key) => key,
    };
    Ok(EndpointRow {
        url: change.url.clone().unwrap_or(row.url),
        event_types: change.event_types.clone().unwrap_or(row.event_types),
        description: change.description.clone().unwrap_or(row.description),
        deliveries_per_second: change.deliveries_per_second.unwrap_or(row.deliveries_per_second),
        api_version: change.api_version.clone().unwrap_or(row.api_version),
        headers_sealed,
        signing_key_sealed,
        ..row
    })
}

/// Delete an endpoint
///
/// Nothing more is sent to it. Its deliveries go with it; the event log keeps every event.
#[utoipa::path(
    delete, path = "/v1/endpoints/{id}", tag = "endpoints", operation_id = "delete_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("If-Match" = String, Header, description = "The ETag as it was answered, or *", example = "\"1\""),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "delete-1")
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 412, description = "It was changed meanwhile", body = schema::Problem, content_type = "application/problem+json"),
        (status = 428, description = "There is no If-Match", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let expected = Arc::new(Expected::of(&signed.parts.headers)?);
    let partner = signed.caller.partner.id;
    let done = write::run(&app, &signed, move |connection| {
        let expected = expected.clone();
        Box::pin(async move {
            let row = lock(connection, partner, id).await?;
            expected.check(row.version)?;
            store::delete(connection, id).await?;
            Ok(Answer::empty())
        })
    });
    Ok(done.await?.into_response())
}

/// An endpoint, with what to do about the time when it was disabled.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EnabledEndpoint {
    #[schema(inline)]
    #[serde(flatten)]
    endpoint: Endpoint,
    /// What to post to `/v1/endpoints/{id}/replays` to be sent what was missed; `null` when nothing can be missing.
    replay_offer: Option<ReplayOffer>,
}

/// The body of a replay.
#[derive(Serialize, ToSchema)]
pub struct ReplayOffer {
    /// `missing`.
    #[schema(value_type = String, example = "missing")]
    kind: ReplayKind,
    /// The first sequence that may be missing.
    from_sequence: u64,
}

fn enabled_example() -> Value {
    let mut example = example();
    example["missed_after"] = json!(4711);
    example["replay_offer"] = json!({"kind": "missing", "from_sequence": 4712});
    example
}

/// Enable an endpoint
///
/// Deliveries are made again, for events from now on. What came meanwhile can be replayed: `replay_offer` is the body
/// to post. To enable what is enabled changes nothing.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/enable", tag = "endpoints", operation_id = "enable_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "enable-1")
    ),
    responses(
        (status = 200, description = "Enabled", body = EnabledEndpoint, example = json!(enabled_example())),
        OfWrites
    )
)]
pub async fn enable(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    no_body(&signed.body)?;
    let (partner, shared) = (signed.caller.partner.id, app.clone());
    let done = write::run(&app, &signed, move |connection| {
        let app = shared.clone();
        Box::pin(async move {
            let row = lock(connection, partner, id).await?;
            if row.state.disabled_at.is_some() {
                store::enable(connection, id).await?;
            }
            let endpoint = view(&app, connection, partner, id).await?;
            let offer = offer(connection, partner, &endpoint).await?;
            let mut answer = Answer::json(StatusCode::OK, &endpoint)?;
            if let Some(body) = answer.body.as_mut().and_then(Value::as_object_mut) {
                body.insert("replay_offer".to_owned(), json!(offer));
            }
            Ok(answer)
        })
    });
    Ok(done.await?.into_response())
}

/// What was missed, if anything: not what came before the endpoint was there.
async fn offer(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    endpoint: &Endpoint,
) -> Result<Option<ReplayOffer>, Failure> {
    let Some(missed_after) = endpoint.missed_after else { return Ok(None) };
    let created_at = endpoint.created_at.plus_micros(-CLOCKS_APART_MICROS);
    let before = events::last_before(connection, partner, created_at).await?;
    let from_sequence = missed_after.max(before).saturating_add(1);
    let last = events::extent(connection, partner).await?.last;
    let offer = ReplayOffer { kind: ReplayKind::Missing, from_sequence };
    Ok((from_sequence <= last).then_some(offer))
}

/// Disable an endpoint
///
/// No deliveries are created and none attempted until it is enabled; pings still come. To disable what is disabled
/// changes nothing.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/disable", tag = "endpoints", operation_id = "disable_endpoint",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "disable-1")
    ),
    responses(
        (status = 200, description = "Disabled", body = Endpoint, example = json!(example())),
        OfWrites
    )
)]
pub async fn disable(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    no_body(&signed.body)?;
    let (partner, shared) = (signed.caller.partner.id, app.clone());
    let done = write::run(&app, &signed, move |connection| {
        let app = shared.clone();
        Box::pin(async move {
            let row = lock(connection, partner, id).await?;
            if row.state.disabled_at.is_none() {
                store::disable(connection, partner, id).await?;
            }
            Answer::json(StatusCode::OK, &view(&app, connection, partner, id).await?)
        })
    });
    Ok(done.await?.into_response())
}

/// Refuses members where none is known; no body is as good as an empty object.
pub fn no_body(body: &[u8]) -> Result<(), Problem> {
    crate::fields::Fields::of_optional_body(body)?.finish(Some(()))
}
