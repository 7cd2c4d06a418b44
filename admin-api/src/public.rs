//! The public listener: health, and a problem document (RFC 9457) for everything else.

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use uuid::Uuid;

pub(crate) fn router() -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn(count))
}

async fn health() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({"status": "ok"})))
}

async fn not_found() -> Response {
    let detail = "there is nothing at this path; GET /v1/health answers";
    problem(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
}

async fn method_not_allowed() -> Response {
    let detail = "this path does not answer this method; GET it";
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail)
}

fn problem(status: StatusCode, code: &str, title: &str, detail: &str) -> Response {
    let request_id = Uuid::new_v4();
    let body = json!({
        "type": format!("/problems/{}", code.replace('_', "-")),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "instance": format!("urn:uuid:{request_id}"),
        "request_id": request_id,
        "code": code,
    });
    let mut response = (status, Json(body)).into_response();
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

async fn count(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    crate::metrics::answered(response.status().as_u16());
    response
}
