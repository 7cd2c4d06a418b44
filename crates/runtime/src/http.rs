//! An HTTP/1 server that no client can hold up: every wait on a client has a deadline, every size a bound.
//!
//! | a client that | meets |
//! |---|---|
//! | connects and says nothing, or sends its head byte by byte | `http_header_timeout_ms`, then the connection ends |
//! | keeps a connection open between requests | `http_idle_timeout_ms` |
//! | sends its body slowly | `http_body_timeout_ms`: reading the body fails ([`is_body_timeout`]) |
//! | is refused before its body was read | the rest is read, at most 64 KiB and 500 ms, or `Connection: close` |
//! | does not read its answer | `http_write_timeout_ms` without progress |
//! | sends a large head or many headers | 431 |
//! | comes when all connections are taken | 503 with `Retry-After`, at once (with TLS: the connection ends) |
//! | with TLS: does not finish its handshake, or one of too many | `http_handshake_timeout_ms`, `http_handshakes_max` |
//! | speaks plain HTTP where there is TLS | 400 that says so |
//!
//! Connections above the cap are answered and closed rather than left waiting: a client that waits unseen in the
//! kernel's queue learns nothing, and the load balancer neither. When few slots are left, answers carry
//! `Connection: close`, so that idle connections do not keep new clients out.
//!
//! It bounds neither the size of bodies nor how long a handler takes: routes differ, so that is each service's.
//! No upgrades, no HTTP/2. [`serve`] speaks plain HTTP; with TLS a listener is a [`crate::public::PublicListener`].

mod body;
mod certificate;
mod connection;
mod tls;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub use body::{BodyTimedOut, is_body_timeout};
use body::{TimedBody, Unread};
pub use certificate::{Certificate, CertificateError};
use connection::{GuardedStream, Phase};
pub(crate) use tls::Tls;

/// What one listener bears.
#[derive(Debug, Clone, clap::Args)]
pub struct HttpLimits {
    /// Connections open at once. Each may hold 100 KiB, with TLS 200, so a higher number needs the memory; a lower one
    /// refuses clients that keep connections open.
    #[arg(long, env = "WIRED_HTTP_CONNECTIONS_MAX", default_value_t = 2_048)]
    pub http_connections_max: usize,
    /// Milliseconds for the head of a request, from its first byte. Lower cuts off clients on bad lines, higher
    /// lets slow ones hold a connection for longer.
    #[arg(long, env = "WIRED_HTTP_HEADER_TIMEOUT_MS", default_value_t = 10_000)]
    pub http_header_timeout_ms: u64,
    /// Milliseconds that a connection may wait for its next request. Should be longer than the clients' own, so
    /// that it is they who close.
    #[arg(long, env = "WIRED_HTTP_IDLE_TIMEOUT_MS", default_value_t = 75_000)]
    pub http_idle_timeout_ms: u64,
    /// Milliseconds for the whole body of a request. Lower cuts off large bodies on slow lines.
    #[arg(long, env = "WIRED_HTTP_BODY_TIMEOUT_MS", default_value_t = 15_000)]
    pub http_body_timeout_ms: u64,
    /// Milliseconds that sending an answer may stand still.
    #[arg(long, env = "WIRED_HTTP_WRITE_TIMEOUT_MS", default_value_t = 15_000)]
    pub http_write_timeout_ms: u64,
    /// Bytes of the head of a request, with its first line.
    #[arg(long, env = "WIRED_HTTP_HEADER_BYTES_MAX", default_value_t = 16_384)]
    pub http_header_bytes_max: usize,
    /// Headers of a request.
    #[arg(long, env = "WIRED_HTTP_HEADERS_MAX", default_value_t = 64)]
    pub http_headers_max: usize,
    /// With TLS: handshakes under way at once. More leave fewer connections to those who are through, fewer refuse
    /// clients when many come at once.
    #[arg(long, env = "WIRED_HTTP_HANDSHAKES_MAX", default_value_t = 512)]
    pub http_handshakes_max: usize,
    /// With TLS: milliseconds for the handshake, from the moment of connecting. Lower cuts off clients on bad lines,
    /// higher lets silent ones hold a connection for longer.
    #[arg(long, env = "WIRED_HTTP_HANDSHAKE_TIMEOUT_MS", default_value_t = 5_000)]
    pub http_handshake_timeout_ms: u64,
    /// Milliseconds that requests in progress have to finish after the signal to stop.
    #[arg(long, env = "WIRED_HTTP_DRAIN_TIMEOUT_MS", default_value_t = 10_000)]
    pub http_drain_timeout_ms: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            http_connections_max: 2_048,
            http_header_timeout_ms: 10_000,
            http_idle_timeout_ms: 75_000,
            http_body_timeout_ms: 15_000,
            http_write_timeout_ms: 15_000,
            http_header_bytes_max: 16_384,
            http_headers_max: 64,
            http_handshakes_max: 512,
            http_handshake_timeout_ms: 5_000,
            http_drain_timeout_ms: 10_000,
        }
    }
}

/// How long to wait after `accept` failed: with all file descriptors taken it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Below this share of free slots (one in eight), answers ask the client to close.
const FEW_SLOTS_DIVISOR: usize = 8;
/// The smallest buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8_192;
/// How long ended connections have to go away after the drain's deadline.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves plain HTTP until `shutdown`, then lets requests in progress finish within the drain's deadline.
///
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, app: Router, limits: HttpLimits, shutdown: CancellationToken) {
    serve_connections(listener, None, app, limits, shutdown).await;
}

/// As [`serve`], with TLS; the certificate's files are looked at every `reload_interval`.
pub(crate) async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    reload_interval: Duration,
    app: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let stop = CancellationToken::new();
    let _stop_at_the_end = stop.clone().drop_guard();
    tokio::spawn(tls.certificate().clone().follow(reload_interval, stop));
    serve_connections(listener, Some(tls), app, limits, shutdown).await;
}

async fn serve_connections(
    listener: TcpListener,
    tls: Option<Tls>,
    app: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    metrics::describe_counter!("wired_http_connections_refused_total", "Connections above the cap");
    let slots = Arc::new(Semaphore::new(limits.http_connections_max));
    let drain_timeout = Duration::from_millis(limits.http_drain_timeout_ms);
    let server = Arc::new(Server { app, tls, limits, slots: slots.clone(), shutdown: shutdown.clone() });
    let (connections, abort) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match slots.clone().try_acquire_owned() {
                Ok(slot) => {
                    let connection = server.clone().connection(stream, peer, slot);
                    connections.spawn(abort.clone().run_until_cancelled_owned(connection));
                }
                Err(_) => refuse(stream, server.tls.is_none()),
            },
            Err(error) => {
                tracing::warn!(error = %error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections.count = connections.len(), "requests cut off at the drain's deadline");
        abort.cancel();
        // A task that does not even notice its end cannot be waited for for ever.
        let _ = tokio::time::timeout(ABORT_TIMEOUT, connections.wait()).await;
    }
}

fn refuse(stream: TcpStream, is_plain: bool) {
    metrics::counter!("wired_http_connections_refused_total").increment(1);
    if !is_plain {
        return;
    }
    // The socket is non-blocking and its buffer empty, so this never waits; a client already gone does not matter.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(REFUSAL);
    }
}

struct Server {
    app: Router,
    tls: Option<Tls>,
    limits: HttpLimits,
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let _slot = slot;
        // An answer is one write; Nagle's algorithm would only hold it back.
        let _ = stream.set_nodelay(true);
        let phase = Phase::default();
        let guard = |stream| {
            GuardedStream::new(
                stream,
                phase.clone(),
                Duration::from_millis(self.limits.http_header_timeout_ms),
                Duration::from_millis(self.limits.http_write_timeout_ms),
            )
        };
        match &self.tls {
            None => self.clone().requests(guard(stream), peer, phase.clone()).await,
            Some(tls) => {
                // A handshake under way when the service stops has asked for nothing yet.
                let accepted = self.shutdown.run_until_cancelled(tls.accept(stream, guard)).await;
                if let Some(Some(stream)) = accepted {
                    self.clone().requests(stream, peer, phase.clone()).await;
                }
            }
        }
    }

    /// Answers one request after the other.
    async fn requests<S>(self: Arc<Self>, stream: S, peer: SocketAddr, phase: Phase)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.limits;
        let server = self.clone();
        let service = service_fn(move |request| server.clone().respond(request, peer, phase.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Hyper begins to count when the previous answer is out, so this is the idle time; that of the head
            // alone is GuardedStream's.
            .header_read_timeout(Duration::from_millis(limits.http_idle_timeout_ms))
            .max_buf_size(limits.http_header_bytes_max.max(BUFFER_BYTES_MIN) * 2)
            .max_header_size(limits.http_header_bytes_max)
            .max_headers(limits.http_headers_max)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // Clients vanish and misbehave all day long.
            tracing::debug!(error = %error, peer.address = %peer, "connection ended");
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        phase: Phase,
    ) -> Result<Response<Body>, Infallible> {
        phase.busy();
        let body_timeout = Duration::from_millis(self.limits.http_body_timeout_ms);
        let unread = Unread::default();
        let mut request = request.map(|body| Body::new(TimedBody::new(body, body_timeout, unread.clone())));
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut response = self.app.clone().oneshot(request).await?;
        let drained = body::drain(&unread).await;
        if !drained || self.slots.available_permits() < self.limits.http_connections_max / FEW_SLOTS_DIVISOR {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        phase.waiting();
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
