//! The private listener: `/metrics` for Prometheus, `/health/live` and `/health/ready` for whoever restarts and
//! routes. Not for the outside: it names internal parts and has no authentication.

use std::time::UNIX_EPOCH;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, PrivateListenConfig};
use crate::health::Health;
use crate::http::{self, HttpLimits};
use crate::recorder;

/// A scraper, a probe and a human at a time; more is a mistake.
const CONNECTIONS_MAX: usize = 32;

/// Binds and serves until `shutdown`. Installs the metrics recorder.
pub async fn serve(
    config: &PrivateListenConfig,
    health: Health,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, ConfigError> {
    let address = config.private_listen;
    let listener = TcpListener::bind(address).await.map_err(|source| ConfigError::Listen {
        variable: "WIRED_PRIVATE_LISTEN",
        address,
        source,
    })?;
    recorder::install();
    let limits = HttpLimits {
        http_connections_max: CONNECTIONS_MAX,
        http_drain_timeout_ms: 1_000,
        ..HttpLimits::default()
    };
    Ok(tokio::spawn(http::serve(listener, router(health), limits, shutdown)))
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { axum::Json(json!({"live": true})) }))
        .route("/health/ready", get(ready))
        .with_state(health)
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorder::render())
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let ready = health.ready().is_ok();
    let components: serde_json::Map<String, Value> = health
        .components()
        .into_iter()
        .map(|(name, why)| (name.to_owned(), Value::String(why.unwrap_or_else(|| "up".to_owned()))))
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({"ready": ready, "components": components});
    if let Some(expires_at) = health.certificate_expires_at() {
        let since_1970 = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        body["certificate_expires_at"] = since_1970.as_secs().into();
    }
    (status, axum::Json(body))
}
