//! Raw sockets, because a well-behaved client library would hide what is tested.

use std::time::Instant;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// Short, but long enough not to strike on a busy machine before it should.
fn limits() -> HttpLimits {
    HttpLimits {
        http_connections_max: 64,
        http_header_timeout_ms: 300,
        http_idle_timeout_ms: 1_500,
        http_body_timeout_ms: 300,
        http_write_timeout_ms: 300,
        http_header_bytes_max: 8_192,
        http_headers_max: 16,
        http_handshakes_max: 16,
        http_handshake_timeout_ms: 300,
        http_drain_timeout_ms: 5_000,
    }
}

/// Longer than any limit above, as a bound for waiting.
const LONG: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    /// Lets a request to `/wait` go on.
    gate: Arc<Notify>,
    /// Told when a request to `/wait` has arrived.
    arrived: Arc<Notify>,
}

impl Server {
    async fn start(limits: HttpLimits) -> Self {
        let (gate, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (handler_gate, handler_arrived) = (gate.clone(), arrived.clone());
        let app = Router::new()
            .route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()))
            .route("/large", get(async || vec![b'x'; 64 << 20]))
            .route(
                "/body",
                post(async |body: Body| match axum::body::to_bytes(body, 1 << 20).await {
                    Ok(bytes) => bytes.len().to_string(),
                    Err(error) => format!("timed out: {}", is_body_timeout(&error)),
                }),
            )
            // Decides by the head alone.
            .route("/refuse", post(async || axum::http::StatusCode::UNAUTHORIZED))
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
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, app, limits, shutdown.clone()));
        Self { address, shutdown, task, gate, arrived }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.unwrap().unwrap();
    }
}

/// Everything until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends the connection just as well.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer with a content-length, leaving the connection open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length =
                length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        let byte = tokio::time::timeout(LONG, stream.read_u8()).await.expect("an answer in time");
        bytes.push(byte.expect("an answer before the end"));
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn an_answer_with_the_clients_address_and_a_connection_for_the_next() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("127.0.0.1"), "{answer}");
    }
    server.stop().await;
}

/// Sends these bytes and then this one again and again, one every 20 ms, which is never idle, until the server has enough.
pub(super) async fn trickle(stream: &mut (impl AsyncWrite + Unpin), beginning: &[u8], again: u8) {
    let trickle = async {
        for byte in beginning.iter().chain(std::iter::repeat(&again)) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, trickle).await.expect("the server ends what trickles");
}

#[tokio::test]
async fn who_says_nothing_or_trickles_its_head_is_cut_off() {
    let server = Server::start(limits()).await;
    let begun = Instant::now();
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(250), "not at once");
    assert!(begun.elapsed() < Duration::from_millis(1_400), "after the head's time, not the idle time");

    // The second request on a connection has no more time than the first.
    for first in [false, true] {
        let mut stream = server.connect().await;
        if first {
            stream.write_all(GET).await.unwrap();
            answer(&mut stream).await;
        }
        let begun = Instant::now();
        trickle(&mut stream, b"GET / HTTP/1.1\r\nx: ", b'y').await;
        assert!(begun.elapsed() < Duration::from_millis(1_400), "{:?}", begun.elapsed());
    }
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_heads_time_and_then_ends() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    answer(&mut stream).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    stream.write_all(GET).await.unwrap();
    answer(&mut stream).await;
    let begun = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "{:?}", begun.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_slow_handler_is_not_cut_off_by_the_heads_time() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.gate.notify_one();
    assert!(answer(&mut stream).await.ends_with("waited"));
    server.stop().await;
}

#[tokio::test]
async fn a_trickling_body_fails_in_the_handler() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
    assert!(answer(&mut stream).await.ends_with("\r\n\r\n3"));
    let begun = Instant::now();
    stream.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = vec![0; 4_096];
    let length = tokio::time::timeout(LONG, reading.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.ends_with("timed out: true"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    tokio::time::timeout(LONG, trickle).await.expect("the connection ends").unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_cut_off() {
    let server = Server::start(HttpLimits { http_connections_max: 1, ..limits() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Its slot is free again although it never reads.
    let freed = async {
        loop {
            let mut other = server.connect().await;
            other.write_all(GET).await.unwrap();
            if rest(&mut other).await.starts_with("HTTP/1.1 200") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, freed).await.expect("the slot is given back");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn large_heads_and_many_headers_are_refused() {
    let server = Server::start(limits()).await;
    let many = "x: y\r\n".repeat(20);
    // Above the limit of 8,192 bytes and below that of the buffer.
    for head in [format!("x: {}\r\n", "y".repeat(10_000)), many] {
        let mut stream = server.connect().await;
        // The server may close before it has read all.
        let _ = stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
    // A head that never ends, as fast as it can.
    let mut stream = server.connect().await;
    let flood = async { while stream.write_all(&[b'y'; 4_096]).await.is_ok() {} };
    tokio::time::timeout(LONG, flood).await.expect("an endless head is cut off");
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_before_the_body_leaves_a_connection_for_the_next_request_or_says_that_it_does_not() {
    let server = Server::start(limits()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        // Many clients send head and body apart, and a refusal may overtake the body.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"hello").await.unwrap();
        let refused = answer(&mut stream).await;
        assert!(
            refused.starts_with("HTTP/1.1 401 ") && !refused.contains("connection: close"),
            "{refused:?}"
        );
    }
    stream.write_all(GET).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    // A body that does not come, and one that is too long to read for nothing.
    for length in [5, 100 << 20] {
        let mut stream = server.connect().await;
        let head = format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let refused = answer(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("connection: close"), "{refused:?}");
        assert_eq!(rest(&mut stream).await, "");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_cap_are_told_so_and_slow_ones_give_their_slot_back() {
    let server = Server::start(HttpLimits { http_connections_max: 8, ..limits() }).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    let answer = rest(&mut server.connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer:?}");
    for stream in &mut slow {
        assert_eq!(rest(stream).await, "");
    }
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    assert!(self::answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    server.stop().await;
}

#[tokio::test]
async fn connections_are_not_kept_when_few_slots_are_left() {
    let server = Server::start(HttpLimits { http_connections_max: 16, ..limits() }).await;
    let mut kept = Vec::new();
    let mut closing = 0;
    for _ in 0..16 {
        let mut stream = server.connect().await;
        stream.write_all(GET).await.unwrap();
        closing += usize::from(answer(&mut stream).await.contains("connection: close"));
        kept.push(stream);
    }
    assert!((1..=4).contains(&closing), "{closing} of 16 connections were asked to close");
    server.stop().await;
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_ends_the_idle() {
    let server = Server::start(limits()).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    idle.write_all(GET).await.unwrap();
    answer(&mut idle).await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    server.shutdown.cancel();
    let begun = Instant::now();
    assert_eq!(rest(&mut idle).await, "");
    assert!(begun.elapsed() < Duration::from_secs(1), "at once, not after the idle time");
    assert!(!server.task.is_finished());
    server.gate.notify_one();
    assert!(rest(&mut busy).await.ends_with("waited"));
    tokio::time::timeout(LONG, server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let server = Server::start(HttpLimits { http_drain_timeout_ms: 100, ..limits() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    server.stop().await;
    assert_eq!(rest(&mut busy).await, "");
}
