//! What is public and the same for everybody.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::body::FromPath;
use crate::evidence;
use crate::problem::{Code, FieldError, Problem};

/// Documents change with a release only, keys with a rotation.
const CACHE: &str = "public, max-age=300";

/// Why a request failed (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct ProblemShape {
    /// The path of the page that explains the code.
    #[schema(example = "/problems/credentials_invalid")]
    r#type: String,
    /// The same for every problem of this code.
    #[schema(example = "These credentials are not valid")]
    title: String,
    /// The HTTP status.
    #[schema(example = 401)]
    status: u16,
    /// What is wrong with this request.
    #[schema(example = "The address, the password or the code is wrong, or there is no such user.")]
    detail: String,
    /// The request as a URN.
    #[schema(example = "urn:uuid:01999999-0000-7000-8000-000000000000")]
    instance: String,
    /// The request's id, as in `x-request-id`.
    #[schema(example = "01999999-0000-7000-8000-000000000000")]
    request_id: String,
    /// A stable word.
    #[schema(example = "credentials_invalid")]
    code: String,
    /// Fields of the body that have to change.
    errors: Option<Vec<FieldError>>,
}

/// Whether the service lives.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Alive
#[utoipa::path(
    get, path = "/v1/health", tag = "documents", operation_id = "health",
    responses((status = 200, description = "The service lives", body = Health, example = json!({"status": "ok"})))
)]
pub async fn health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok" })
}

/// This document
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "documents", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, example = json!({"openapi": "3.1.0"})))
)]
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    document("application/json", app.openapi.clone().into_response())
}

/// Public keys of access tokens
///
/// JWKS (RFC 7517). During a rotation there are several; `kid` of a token says which.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "documents", operation_id = "jwks",
    responses((status = 200, description = "The keys", body = serde_json::Value, content_type = "application/jwk-set+json",
        example = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})))
)]
pub async fn jwks(State(app): State<Arc<App>>) -> Response {
    document("application/jwk-set+json", app.signer.jwks().to_string().into_response())
}

/// A signed checkpoint of the ledger
///
/// For anybody, so that whoever keeps one can prove later that nothing before it was altered (`wired verify-ledger`).
#[utoipa::path(
    get, path = "/v1/checkpoints/{number}", tag = "documents", operation_id = "checkpoint",
    params(("number" = String, Path, description = "Its number, or `latest`", example = "latest")),
    responses(
        (status = 200, description = "The checkpoint, as it is published elsewhere", body = serde_json::Value, example = json!({
            "format": 1, "number": 4711, "taken_at": "2026-11-01T12:00:00.000000Z", "leaves": 2,
            "root": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "previous": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "audit_head": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9", "signature": "…"})),
        (status = 404, description = "There is none", body = ProblemShape, content_type = "application/problem+json")
    )
)]
pub async fn checkpoint(
    State(app): State<Arc<App>>,
    FromPath(number): FromPath<String>,
) -> Result<Response, Problem> {
    let nothing = || Problem::plain(Code::NotFound);
    let number = match number.as_str() {
        "latest" => None,
        number => Some(number.parse().map_err(|_| nothing())?),
    };
    let found = evidence::published_checkpoint(&app.pool, number).await?.ok_or_else(nothing)?;
    Ok(axum::Json(found).into_response())
}

/// What a problem means
///
/// The `type` of a problem document is the path of its page.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "documents", operation_id = "problem_page",
    params(("code" = String, Path, description = "The `code` of a problem", example = "link_invalid")),
    responses(
        (status = 200, description = "What it means and what to do", body = String, content_type = "text/plain",
            example = json!("400 link_invalid\nThe link is not valid any more\n…")),
        (status = 404, description = "There is no such problem", body = ProblemShape, content_type = "application/problem+json")
    )
)]
pub async fn problem(FromPath(word): FromPath<String>) -> Result<Response, Problem> {
    let code =
        Code::find(&word).ok_or_else(|| Problem::new(Code::NotFound, "there is no problem of this code"))?;
    let page = format!("{} {}\n{}\n\n{}\n", code.status().as_u16(), code.as_str(), code.title(), code.page());
    Ok(document("text/plain; charset=utf-8", page.into_response()))
}

fn document(media_type: &'static str, mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
    response
}
