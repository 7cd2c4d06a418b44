//! TLS 1.2 and 1.3 in front of the HTTP server, bounded like everything else that a client may hold up.
//!
//! A handshake has its time, from the connection's first moment, and only so many are under way at once, so that
//! clients which never finish one leave connections to those that do; above that number a connection is closed at
//! once, since there is nothing that could be said to it. A client that speaks plain HTTP is told so.
//!
//! No client certificates, no early data (a request in it could be replayed), no HTTP/2, no other certificate for
//! another name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::HttpLimits;
use super::certificate::Certificate;
use super::connection::GuardedStream;

/// What a TLS connection begins with: the content type of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;
/// What is read of a plain request before it is answered, so that the answer is not lost in a reset.
const PLAIN_BYTES_MAX: usize = 16 * 1024;
const PLAIN_REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
    content-length: 42\r\n\r\nthis address speaks HTTPS, not plain HTTP\n";

/// Makes TLS streams of connections.
pub(crate) struct Tls {
    certificate: Certificate,
    acceptor: TlsAcceptor,
    handshakes: Semaphore,
    timeout: Duration,
}

impl Tls {
    pub(crate) fn new(certificate: Certificate, limits: &HttpLimits) -> Result<Self, rustls::Error> {
        metrics::describe_counter!("wired_tls_handshakes_total", "TLS handshakes and how they ended");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            certificate,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Semaphore::new(limits.http_handshakes_max),
            timeout: Duration::from_millis(limits.http_handshake_timeout_ms),
        })
    }

    /// What clients are shown.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The connection after its handshake; `None` when there was none, which is counted.
    ///
    /// `guard` puts the bounds of a connection underneath TLS, where every byte passes.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        guard: impl FnOnce(TcpStream) -> GuardedStream,
    ) -> Option<TlsStream<GuardedStream>> {
        let Ok(_slot) = self.handshakes.try_acquire() else {
            count("refused");
            return None;
        };
        let handshake = async {
            if !begins_a_handshake(&stream).await? {
                refuse_plain(stream).await;
                return Ok(None);
            }
            self.acceptor.accept(guard(stream)).await.map(Some)
        };
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(Some(stream))) => {
                count("done");
                Some(stream)
            }
            Ok(Ok(None)) => {
                count("plain");
                None
            }
            Ok(Err(error)) => {
                // Clients vanish, scan and refuse certificates all day long.
                tracing::debug!(error = %error, "handshake failed");
                count("failed");
                None
            }
            Err(_) => {
                count("timed_out");
                None
            }
        }
    }
}

fn count(outcome: &'static str) {
    counter!("wired_tls_handshakes_total", "outcome" => outcome).increment(1);
}

async fn begins_a_handshake(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == HANDSHAKE),
    }
}

async fn refuse_plain(mut stream: TcpStream) {
    let _ = stream.try_read(&mut [0; PLAIN_BYTES_MAX]);
    // Whoever does not read this does not matter.
    let _ = stream.write_all(PLAIN_REFUSAL).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests;
