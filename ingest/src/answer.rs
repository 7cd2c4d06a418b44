//! What every answer has in common: a request id, problems rendered, metrics, a report of the call, and no panic that
//! reaches a client.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, header};
use uuid::Uuid;

use crate::app::App;
use crate::calls::Begun;
use crate::metrics::{self, Route};
use crate::problem::{Code, Problem};

/// The id of a request, as in the answer, the command and the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(pub Uuid);

/// Wraps every route and fallback.
pub async fn complete(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::now_v7();
    request.extensions_mut().insert(RequestId(id));
    let route = Route::of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let begun = Begun::of(&mut request, route, id);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(request.id = %id, http.route = route.as_str(), "a request panicked");
        Problem::plain(Code::Internal).into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        metrics::problem(problem.code.as_str());
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.render(id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    // Hexadecimal digits and hyphens are always a valid value.
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert("x-request-id", value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Two years; clients heed it under TLS only (RFC 6797).
    let strict = HeaderValue::from_static("max-age=63072000; includeSubDomains");
    headers.insert(header::STRICT_TRANSPORT_SECURITY, strict);
    let took = started.elapsed();
    metrics::request(route, response.status(), took);
    app.calls.answered(&begun, response.status(), took);
    response
}

/// No route has this path.
pub async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is nothing under this path; see /v1/openapi.json for what there is")
}

/// The path exists, the method does not. axum adds `Allow`, which is all that OPTIONS asks for.
pub async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!("{method} is not allowed here; the header field Allow lists what is");
    Problem::new(Code::MethodNotAllowed, detail).into_response()
}
