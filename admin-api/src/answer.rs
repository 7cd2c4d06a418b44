//! What every answer has in common: a request id, the client's address and its rate, security headers, problems
//! rendered, metrics, a report of the call, and no panic that reaches a client.
//!
//! Each request runs in a task of its own: a client that goes away ends no transaction in the middle, and one that
//! waits has an answer in bounded time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use uuid::Uuid;

use crate::app::App;
use crate::audit::Origin;
use crate::calls::Begun;
use crate::client_address::client_address;
use crate::metrics;
use crate::personal::network;
use crate::problem::{Code, Problem};
use crate::throttle::seconds;

/// How long a client waits; what it asked for goes on and ends by itself.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What every answer says to browsers: show nothing of it anywhere, keep nothing, and come back over TLS only.
const SECURITY: [(HeaderName, &str); 6] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
];

/// Wraps every route and fallback.
pub async fn complete(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = Uuid::now_v7();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let address = peer.map(|peer| client_address(peer, request.headers(), &app.trusted_proxies));
    let origin = Origin { request_id, address };
    request.extensions_mut().insert(origin);
    let begun = Begun::of(&mut request, origin);
    let rate = address.map_or(Ok(()), |address| app.throttles.requests.try_take(network(address)));
    let mut response = match rate {
        Ok(()) => run(request_id, request, next).await,
        Err(wait) => Problem::plain(Code::TooManyRequests).retry_after(seconds(wait)).into_response(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        metrics::problem(problem.code.as_str());
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.render(request_id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    // Hexadecimal digits and hyphens are always a valid value.
    if let Ok(value) = HeaderValue::try_from(request_id.to_string()) {
        headers.insert("x-request-id", value);
    }
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let took = started.elapsed();
    metrics::answered(response.status().as_u16(), took);
    app.calls.answered(&begun, response.status(), took);
    response
}

async fn run(request_id: Uuid, request: Request, next: Next) -> Response {
    let work = tokio::spawn(next.run(request));
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(request.id = %request_id, error = %error, "a request panicked");
            Problem::plain(Code::Internal).into_response()
        }
        Err(_) => {
            tracing::warn!(request.id = %request_id, "a request took too long");
            Problem::plain(Code::Unavailable).retry_after(5).into_response()
        }
    }
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
