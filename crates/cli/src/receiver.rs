//! A webhook receiver: verifies what arrives and hands it on.
//!
//! Answers 204 to a good signature, 401 with the reason to a bad one, and 503 when whoever prints cannot follow, so
//! that the bank tries again.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use domain::webhook::{ID_HEADER, VerifyError, VerifyingKeys};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::settings::now_seconds;

/// Webhooks are at most 64 KiB; more is nobody's webhook.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Webhooks that wait to be looked at.
const QUEUE_MAX: usize = 1_000;

/// Something that arrived.
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) at_clock: SystemTime,
    /// `webhook-id` as sent.
    pub(crate) id: String,
    pub(crate) verified: Result<(), VerifyError>,
    pub(crate) body: Bytes,
}

/// Listens until `shutdown`.
pub(crate) async fn start(
    address: SocketAddr,
    keys: VerifyingKeys,
    shutdown: CancellationToken,
) -> anyhow::Result<(mpsc::Receiver<Received>, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there (another `wired listen`?), or set WIRED_WEBHOOK_LISTEN")
    })?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let app = Router::new()
        .fallback_service(post(receive).with_state(Arc::new((keys, sender))))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let limits = runtime::http::HttpLimits { http_drain_timeout_ms: 1_000, ..Default::default() };
    Ok((receiver, tokio::spawn(runtime::http::serve(listener, app, limits, shutdown))))
}

type Shared = Arc<(VerifyingKeys, mpsc::Sender<Received>)>;

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (keys, sender) = &*shared;
    let id = headers.get(ID_HEADER).and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
    let verified = keys.verify_headers(&headers, &body, now_seconds()).map(|_| ());
    let answer = match &verified {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::UNAUTHORIZED, error.to_string()).into_response(),
    };
    let received = Received { at: Instant::now(), at_clock: SystemTime::now(), id, verified, body };
    match sender.try_send(received) {
        Ok(()) => answer,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
