//! Real handshakes, and raw sockets for those that never end.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use testkit::certificates::{Authority, CertificateFiles};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::serve_tls;
use crate::http::tests::trickle;

/// Longer than any limit below, as a bound for waiting.
const LONG: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(3_600);
const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

fn limits() -> HttpLimits {
    HttpLimits {
        http_connections_max: 64,
        http_header_timeout_ms: 1_000,
        http_idle_timeout_ms: 3_000,
        http_write_timeout_ms: 300,
        http_handshakes_max: 4,
        http_handshake_timeout_ms: 1_000,
        http_drain_timeout_ms: 5_000,
        ..HttpLimits::default()
    }
}

struct Server {
    address: SocketAddr,
    authority: Authority,
    files: CertificateFiles,
    /// Whom clients trust.
    trusted: String,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    gate: Arc<Notify>,
    arrived: Arc<Notify>,
}

impl Server {
    async fn start(limits: HttpLimits, reload_interval: Duration) -> Self {
        let authority = Authority::new();
        let files = authority.files(&["bank.test", "127.0.0.1"]);
        Self::start_with(limits, reload_interval, authority, files).await
    }

    async fn start_with(
        limits: HttpLimits,
        reload_interval: Duration,
        authority: Authority,
        files: CertificateFiles,
    ) -> Self {
        let trusted = std::fs::read_to_string(files.authority()).unwrap();
        let (gate, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (handler_gate, handler_arrived) = (gate.clone(), arrived.clone());
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/large", get(async || vec![b'x'; 64 << 20]))
            .route(
                "/wait",
                get(async move || {
                    handler_arrived.notify_one();
                    handler_gate.notified().await;
                    "waited"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(Certificate::read(&files.chain(), &files.key()).unwrap(), &limits).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_tls(listener, tls, reload_interval, app, limits, shutdown.clone()));
        Self { address, authority, files, trusted, shutdown, task, gate, arrived }
    }

    fn config(&self, version: &'static SupportedProtocolVersion, protocols: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusted.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    async fn try_connect(&self, config: ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(LONG, connecting).await.expect("a handshake in time")
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.try_connect(self.config(TLS13, &[]), "bank.test").await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.unwrap().unwrap();
    }
}

/// Everything until the server closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset ends the connection just as well.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    bytes
}

/// Asks and reads the answer, which ends with this word.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &[u8], end: &str) {
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with(end) {
        let byte = tokio::time::timeout(LONG, stream.read_u8()).await.expect("an answer in time");
        answer.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {answer:?}"))));
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_protocol_is_http_1() {
    let server = Server::start(limits(), NEVER).await;
    for version in [TLS12, TLS13] {
        for (offered, chosen) in [
            (&[][..], None),
            (&["http/1.1"][..], Some("http/1.1")),
            (&["h2", "http/1.1"][..], Some("http/1.1")),
        ] {
            let config = server.config(version, offered);
            let mut stream = server.try_connect(config, "bank.test").await.unwrap();
            let connection = stream.get_ref().1;
            assert_eq!(connection.protocol_version(), Some(version.version));
            assert_eq!(connection.alpn_protocol(), chosen.map(str::as_bytes));
            for _ in 0..3 {
                ask(&mut stream, GET, "hello").await;
            }
        }
    }
    let only_h2 = server.try_connect(server.config(TLS13, &["h2"]), "bank.test").await;
    assert!(only_h2.unwrap_err().to_string().contains("NoApplicationProtocol"));
    server.stop().await;
}

#[tokio::test]
async fn another_name_is_shown_the_same_certificate_and_its_client_refuses_that_by_itself() {
    let server = Server::start(limits(), NEVER).await;
    // An address is not sent as a name at all.
    let mut stream = server.try_connect(server.config(TLS13, &[]), "127.0.0.1").await.unwrap();
    ask(&mut stream, GET, "hello").await;
    let other = server.try_connect(server.config(TLS13, &[]), "other.test").await;
    let error = other.unwrap_err().to_string();
    assert!(error.contains("NotValidForName") || error.contains("not valid for name"), "{error}");
    ask(&mut server.connect().await, GET, "hello").await;
    server.stop().await;
}

/// Runs the script that compose makes its certificates with.
fn compose_certificates(folder: &std::path::Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/compose/certificates");
    let output = std::process::Command::new(script).arg(folder.join("tls")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_certificates_of_compose_are_accepted_kept_and_renewed_when_due() {
    let folder = tempfile::tempdir().unwrap();
    compose_certificates(folder.path());
    let read = |name: &str| std::fs::read_to_string(folder.path().join("tls").join(name)).unwrap();
    for (service, other) in [("ingest", "admin-api"), ("admin-api", "ingest")] {
        let authority = Authority::new();
        let files = authority.files(&[]);
        files.write(&read(&format!("{service}/chain.pem")), &read(&format!("{service}/key.pem")));
        std::fs::write(files.authority(), read("ca.pem")).unwrap();
        let server = Server::start_with(limits(), NEVER, authority, files).await;
        for name in [service, "localhost", "127.0.0.1"] {
            let mut stream = server.try_connect(server.config(TLS13, &[]), name).await.unwrap();
            ask(&mut stream, GET, "hello").await;
        }
        server.try_connect(server.config(TLS13, &[]), other).await.unwrap_err();
        server.stop().await;
    }
    let (ca, ingest, admin) = (read("ca.pem"), read("ingest/chain.pem"), read("admin-api/chain.pem"));
    let (ending, _) = Authority::new().issue(&["ingest"], 29);
    std::fs::write(folder.path().join("tls/ingest/chain.pem"), &ending).unwrap();
    compose_certificates(folder.path());
    assert_eq!((read("ca.pem"), read("admin-api/chain.pem")), (ca, admin));
    assert!(![ingest, ending].contains(&read("ingest/chain.pem")));
    let renewed = folder.path().join("tls/ingest");
    Certificate::read(&renewed.join("chain.pem"), &renewed.join("key.pem")).unwrap();
}

/// A client's first message, as TLS 1.1 wrote it (RFC 4346, section 7.4.1.2), with the one extension that every later
/// version wants, so that nothing but the version is to be refused.
fn hello_of_tls_11() -> Vec<u8> {
    let suites = [0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, suites.len() as u8]);
    hello.extend(suites);
    hello.extend([1, 0]);
    // signature_algorithms (13): ecdsa_secp256r1_sha256.
    let extensions = [0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut message = vec![1, 0, 0, hello.len() as u8];
    message.extend(hello);
    let mut record = vec![HANDSHAKE, 3, 1, 0, message.len() as u8];
    record.extend(message);
    record
}

#[tokio::test]
async fn an_older_version_is_refused() {
    let server = Server::start(limits(), NEVER).await;
    let mut stream = server.raw().await;
    stream.write_all(&hello_of_tls_11()).await.unwrap();
    let answer = rest(&mut stream).await;
    // A fatal alert, protocol_version (RFC 8446, section 6.2).
    assert_eq!((answer.first(), answer.get(5..)), (Some(&21), Some(&[2, 70][..])), "{answer:?}");
    ask(&mut server.connect().await, GET, "hello").await;
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_live() {
    let server = Server::start(limits(), Duration::from_millis(20)).await;
    let mut old = server.connect().await;
    ask(&mut old, GET, "hello").await;
    let first = shown(&old);
    old.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;

    let (chain, key) = server.authority.issue(&["bank.test"], 1);
    server.files.write(&chain, &key);
    testkit::wait_until("the new certificate is shown", LONG, async || {
        shown(&server.connect().await) != first
    })
    .await;

    server.gate.notify_one();
    ask(&mut old, b"", "waited").await;
    ask(&mut old, GET, "hello").await;
    assert_eq!(shown(&old), first);
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_finish_a_handshake_is_cut_off_and_gives_its_place_back() {
    let server = Server::start(limits(), NEVER).await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for beginning in [&[][..], &[HANDSHAKE], &hello_of_tls_11()[..20], &[HANDSHAKE, 3, 1]] {
        let mut stream = server.raw().await;
        stream.write_all(beginning).await.unwrap();
        slow.push(stream);
    }
    // All places are taken, which is told at once.
    assert_eq!(rest(&mut server.raw().await).await, b"");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    for stream in &mut slow {
        assert_eq!(rest(stream).await, b"");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    let begun = Instant::now();
    trickle(&mut server.raw().await, &[HANDSHAKE, 3, 1, 1, 0], 1).await;
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    ask(&mut server.connect().await, GET, "hello").await;
    server.stop().await;
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so_and_who_speaks_nonsense_is_not_listened_to() {
    let server = Server::start(limits(), NEVER).await;
    let mut stream = server.raw().await;
    stream.write_all(GET).await.unwrap();
    let answer = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "this address speaks HTTPS, not plain HTTP\n");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let mut stream = server.raw().await;
    stream.write_all(&[HANDSHAKE; 4_096]).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.len() < 100, "{answer:?}");
    ask(&mut server.connect().await, GET, "hello").await;
    server.stop().await;
}

#[tokio::test]
async fn the_bounds_of_a_connection_hold_under_tls() {
    let server = Server::start(HttpLimits { http_connections_max: 1, ..limits() }, NEVER).await;
    // Says nothing after the handshake.
    let begun = Instant::now();
    assert_eq!(rest(&mut server.connect().await).await, b"");
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    // Trickles its head.
    let mut stream = freed(&server).await;
    let begun = Instant::now();
    trickle(&mut stream, b"GET / HTTP/1.1\r\nx: ", b'y').await;
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    // Is idle for longer than a head may take, and not for longer than idling may.
    let mut stream = freed(&server).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ask(&mut stream, GET, "hello").await;
    assert_eq!(rest(&mut stream).await, b"");
    // Does not read its answer.
    let mut deaf = freed(&server).await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    freed(&server).await;
    drop(deaf);
    server.stop().await;
}

/// A connection in the only place there is, when it is free again.
async fn freed(server: &Server) -> TlsStream<TcpStream> {
    testkit::wait_until("the place is given back", LONG, async || {
        let mut stream = server.try_connect(server.config(TLS13, &[]), "bank.test").await.ok()?;
        stream.write_all(GET).await.ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.ok()?;
        assert_eq!(first, *b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"hello") {
            rest.push(stream.read_u8().await.ok()?);
        }
        Some(stream)
    })
    .await
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_ends_the_idle_and_the_handshakes() {
    let server = Server::start(limits(), NEVER).await;
    let (mut busy, mut idle, mut shaking) =
        (server.connect().await, server.connect().await, server.raw().await);
    ask(&mut idle, GET, "hello").await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    server.shutdown.cancel();
    let begun = Instant::now();
    assert_eq!(rest(&mut idle).await, b"");
    assert_eq!(rest(&mut shaking).await, b"");
    assert!(begun.elapsed() < Duration::from_millis(900), "at once: {:?}", begun.elapsed());
    assert!(!server.task.is_finished());
    server.gate.notify_one();
    assert!(rest(&mut busy).await.ends_with(b"waited"));
    tokio::time::timeout(LONG, server.task).await.unwrap().unwrap();
}
