//! `/v1/endpoints/{id}/secrets`: rotation without a lost message.
//!
//! A rotation makes a new current secret; the one before signs along for the overlap, so a receiver may change at any
//! time within it. Whether the older ones are still needed is told by pings that one secret alone signs.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::ids::{EndpointId, EndpointSecretId};
use domain::notice::Verdict;
use domain::time::Timestamp;
use http::StatusCode;
use runtime::precondition::Expected;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::refusals::{OfReads, OfWrites};
use super::super::schema;
use super::{id_of, lock, not_found};
use crate::app::App;
use crate::fields::Fields;
use crate::problem::{Code, Problem};
use crate::signed::{self, Signed};
use crate::store::StoreError;
use crate::store::endpoints::{self as store, NewSecret, SecretRow};
use crate::write::{self, Answer};
use crate::{query, read, seal};

/// Secrets of an endpoint that sign at once: each lengthens the header that a receiver reads.
pub const LIVE_MAX: usize = 3;
/// How long the secret before signs along, unless another time is chosen.
const OVERLAP_DEFAULT_S: i64 = 24 * 3_600;
/// The longest overlap.
const OVERLAP_MAX_S: i64 = 7 * 24 * 3_600;

/// A live secret, without what is secret of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Secret {
    /// Its id.
    #[schema(value_type = String, example = "eps_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EndpointSecretId,
    /// `current`, or `previous` for one that signs along.
    role: &'static str,
    /// When it was made.
    #[schema(value_type = String)]
    created_at: Timestamp,
    /// Until when it signs along.
    #[schema(value_type = Option<String>)]
    expires_at: Option<Timestamp>,
    /// What the last ping that it signed alone has shown; `null` before the first.
    last_check: Option<Check>,
    /// Whether the receiver still needs it: `yes`, `no`, or `unknown` until a ping signed by the current secret alone
    /// has passed or failed.
    needed: &'static str,
}

/// What a ping has shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// `passed`: the receiver knows the secret; `failed`: it refused; `no_answer`.
    #[schema(value_type = String, example = "passed")]
    verdict: Verdict,
    /// When the ping was sent.
    #[schema(value_type = String)]
    at: Timestamp,
}

/// The live secrets.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretList {
    /// The current one first.
    data: Vec<Secret>,
}

fn example() -> Value {
    json!({
        "id": "eps_01k9q5m3v7f8h9j0kamcneprqs", "role": "current", "created_at": "2026-11-01T12:00:00.000000Z",
        "expires_at": null, "last_check": {"verdict": "passed", "at": "2026-11-01T12:05:00.000000Z"}, "needed": "yes"
    })
}

async fn checked(app: &App, endpoint: EndpointId) -> Result<SecretList, StoreError> {
    let mut data: Vec<Secret> = Vec::new();
    for row in store::secrets(&app.reads, endpoint).await? {
        let last = store::last_check(&app.reads, row.id).await?;
        data.push(secret(&row, last, data.first()));
    }
    Ok(SecretList { data })
}

fn secret(row: &SecretRow, last: Option<(Verdict, Timestamp)>, current: Option<&Secret>) -> Secret {
    // Whoever verifies with the current secret needs no older one.
    let needed = match current.map(|current| current.last_check.as_ref().map(|check| check.verdict)) {
        None | Some(Some(Verdict::Failed)) => "yes",
        Some(Some(Verdict::Passed)) => "no",
        Some(Some(Verdict::NoAnswer) | None) => "unknown",
    };
    Secret {
        id: row.id,
        role: if row.expires_at.is_none() { "current" } else { "previous" },
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_check: last.map(|(verdict, at)| Check { verdict, at }),
        needed,
    }
}

/// The live secrets
///
/// Which sign, until when, and whether the receiver still needs them. A ping with `secret` is signed by that secret
/// alone: when it passes with the current one, older ones are not needed any more.
#[utoipa::path(
    get, path = "/v1/endpoints/{id}/secrets", tag = "endpoints", operation_id = "list_secrets",
    security(("message_signature" = ["endpoints"])),
    params(("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The live secrets, without what is secret of them", body = SecretList, example = json!({"data": [example()]})),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Json<SecretList>, Problem> {
    let id = id_of(id)?;
    query::none(signed.parts.uri.query())?;
    let partner = signed.caller.partner.id;
    let found = async {
        let endpoint = store::find(&app.reads, partner, id).await?;
        if endpoint.is_some() { checked(&app, id).await.map(Some) } else { Ok(None) }
    };
    Ok(Json(read::within(&app, signed.caller.request_id, found).await?.ok_or_else(not_found)?))
}

/// How to rotate.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Rotation {
    /// Seconds for which the secret before signs along: 86400 by default, at most 604800; 0 ends it at once.
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_s: Option<u32>,
}

/// A new secret.
#[derive(Serialize, ToSchema)]
pub struct NewSecretView {
    /// Its id.
    #[schema(value_type = String, example = "eps_01k9q5m3v7f8h9j0kamcneprqs")]
    id: EndpointSecretId,
    /// `current`.
    role: &'static str,
    /// When it was made.
    #[schema(value_type = String)]
    created_at: Timestamp,
    /// Until when the secret before it signs along.
    #[schema(value_type = String)]
    previous_expires_at: Timestamp,
    /// The secret; shown here and never again, not even to a repeated request.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

fn rotated_example() -> Value {
    json!({
        "id": "eps_01k9q5m3v7f8h9j0kamcneprqs", "role": "current", "created_at": "2026-11-01T12:00:00.000000Z",
        "previous_expires_at": "2026-11-02T12:00:00.000000Z",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw2fK1Yy7sQ8o="
    })
}

/// Rotate the secret
///
/// From now on webhooks are signed with the new secret and, during the overlap, with the one before as well. Give the
/// new one to the receiver at any time within it.
#[utoipa::path(
    post, path = "/v1/endpoints/{id}/secrets", tag = "endpoints", operation_id = "rotate_secret",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "rotate-1")
    ),
    request_body(content = Rotation, content_type = "application/json", example = json!({"overlap_s": 86_400})),
    responses(
        (status = 201, description = "The new secret", body = NewSecretView, example = json!(rotated_example())),
        (status = 409, description = "Too many secrets are live: delete one, or wait until one ends", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn rotate(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let mut fields = Fields::of_optional_body(&signed.body)?;
    let overlap_s = fields.optional_integer("overlap_s", 0..=OVERLAP_MAX_S);
    let overlap_s = fields.finish(Some(overlap_s.unwrap_or(OVERLAP_DEFAULT_S)))?;
    let (partner, shared) = (signed.caller.partner.id, app.clone());
    let done = write::run(&app, &signed, move |connection| {
        let app = shared.clone();
        Box::pin(async move {
            lock(connection, partner, id).await?;
            let live = store::secrets(&mut *connection, id).await?.len();
            if overlap_s > 0 && live >= LIVE_MAX {
                let detail = format!(
                    "{live} secrets are live, at most {LIVE_MAX} sign at once; delete a previous one first"
                );
                return Err(Problem::new(Code::LimitReached, detail).into());
            }
            let secret_id = EndpointSecretId::from_uuid(Uuid::now_v7());
            let (text, sealed) = seal::new_secret(&app.webhook_kek, secret_id)?;
            let now = signed::now();
            let end = now.plus_micros(overlap_s.saturating_mul(1_000_000));
            store::rotate(connection, id, &NewSecret { id: secret_id, sealed }, now, end).await?;
            let view = NewSecretView {
                id: secret_id,
                role: "current",
                created_at: now,
                previous_expires_at: end,
                secret: None,
            };
            let mut answer = Answer::json(StatusCode::CREATED, &view)?;
            answer.once.insert("secret".to_owned(), text.as_str().into());
            Ok(answer)
        })
    });
    Ok(done.await?.into_response())
}

/// Delete a previous secret
///
/// It signs no more, from the notifier's next send on. The current secret cannot be deleted: rotate it.
#[utoipa::path(
    delete, path = "/v1/endpoints/{id}/secrets/{secret}", tag = "endpoints", operation_id = "delete_secret",
    security(("message_signature" = ["endpoints"])),
    params(
        ("id" = String, Path, description = "The endpoint", example = "ep_01k9q5m3v7f8h9j0kamcneprqs"),
        ("secret" = String, Path, description = "The secret's id", example = "eps_01k9q5m3v7f8h9j0kamcneprqs"),
        ("If-Match" = String, Header, description = "The endpoint's ETag, or *", example = "*"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "delete-1")
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "It is the current one", body = schema::Problem, content_type = "application/problem+json"),
        (status = 412, description = "The endpoint was changed meanwhile", body = schema::Problem, content_type = "application/problem+json"),
        (status = 428, description = "There is no If-Match", body = schema::Problem, content_type = "application/problem+json"),
        OfWrites
    )
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    signed: Signed<signed::Endpoints>,
) -> Result<Response, Problem> {
    let no_secret = || Problem::new(Code::NotFound, "there is no such live secret of this endpoint");
    let Path((endpoint, secret)) = path.map_err(|_| not_found())?;
    let id: EndpointId = endpoint.parse().map_err(|_| not_found())?;
    let secret: EndpointSecretId = secret.parse().map_err(|_| no_secret())?;
    let expected = Arc::new(Expected::of(&signed.parts.headers)?);
    let partner = signed.caller.partner.id;
    let done = write::run(&app, &signed, move |connection| {
        let expected = expected.clone();
        Box::pin(async move {
            let row = lock(connection, partner, id).await?;
            expected.check(row.version)?;
            let live = store::secrets(&mut *connection, id).await?;
            let found = live.iter().find(|row| row.id == secret).ok_or_else(no_secret)?;
            if found.expires_at.is_none() {
                let detail = "the current secret cannot be deleted; rotate it, with overlap_s 0 if it is known to others";
                return Err(Problem::new(Code::StateConflict, detail).into());
            }
            store::delete_secret(connection, id, secret).await?;
            Ok(Answer::empty())
        })
    });
    Ok(done.await?.into_response())
}
