//! The OpenAPI document and the pages that problems link to. Public, unsigned, the same for everybody.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::schema;
use crate::app::App;
use crate::problem::{Code, Problem};

/// Documents change with a release only.
const CACHE: &str = "public, max-age=300";

/// This document
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "documents", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, example = json!({"openapi": "3.1.0"})))
)]
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    document("application/json", app.openapi.clone().into_response())
}

/// What a problem means
///
/// The `type` of a problem document is the path of its page.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "documents", operation_id = "problem_page",
    params(("code" = String, Path, description = "The `code` of a problem", example = "idempotency_conflict")),
    responses(
        (status = 200, description = "What it means and what to do", body = String, content_type = "text/plain", example = json!("422 idempotency_conflict\nThe Idempotency-Key was used for another request\n…")),
        (status = 404, description = "There is no such problem", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn problem(code: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let code = code.ok().and_then(|Path(word)| Code::find(&word));
    let code = code.ok_or_else(|| Problem::new(Code::NotFound, "there is no problem of this code"))?;
    let page = format!("{} {}\n{}\n\n{}\n", code.status().as_u16(), code.as_str(), code.title(), code.page());
    Ok(document("text/plain; charset=utf-8", page.into_response()))
}

fn document(media_type: &'static str, mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
    response
}
