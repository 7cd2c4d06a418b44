//! A webhook receiver: one fast HTTP/1 server with a path for each endpoint.
//!
//! Each path verifies signatures with its endpoint's secret and compares bodies with their schemas, and remembers what
//! it received: ids, sequences, times, repeats. A path can be told to misbehave ([`Behaviour`]), and to verify with
//! another secret. What was received is kept when those change.
//!
//! A delivery counts as received only when its signature is good and it was answered 2xx; bodies are read to
//! 64 KiB, records kept to five million a path.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::ids::{EventId, PaymentId};
use domain::payment::PaymentStatus;
use domain::secret::SecretError;
use domain::time::Timestamp;
use domain::webhook::{Secret, VerifyingKeys};
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::now_us;
use crate::loopback;

/// The longest body that a webhook has.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Deliveries remembered per path, some 80 bytes each.
const RECORDS_MAX: usize = 5_000_000;
/// How long connections have to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two bytes of [`Behaviour::Drip`].
const DRIP_INTERVAL: Duration = Duration::from_secs(1);

/// How a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// 204 at once.
    #[default]
    Accept,
    /// 204 after a while.
    Slow(Duration),
    /// This status at once; only 2xx counts as received.
    Status(u16),
    /// Never an answer: the connection stays open until the sender gives up.
    Hang,
    /// The connection is reset instead of an answer.
    Reset,
    /// 200 at once, and then a byte a second for ever. Counts as turned away: no sender can wait for its end.
    Drip,
    /// 200 with a body of so many bytes, which is more than a sender needs to read.
    Long(usize),
}

/// A delivery that was verified and accepted.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// The event, `webhook-id`.
    pub event: EventId,
    /// Its number in the partner's log; 0 for a notice.
    pub sequence: u64,
    /// The partner's epoch.
    pub epoch: u16,
    /// The payment that it tells of.
    pub payment: Option<PaymentId>,
    /// What became of that.
    pub status: Option<PaymentStatus>,
    /// When that was decided, in microseconds since 1970.
    pub decided_us: Option<i64>,
    /// When it was received, in microseconds since 1970.
    pub received_us: i64,
    /// Whether this event had been received before.
    pub repeated: bool,
}

/// What a path has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests, whatever they were.
    pub requests: u64,
    /// Different events.
    pub events: u64,
    /// Accepted deliveries of events that had been accepted before.
    pub repeats: u64,
    /// Requests whose signature or body was bad. There must be none.
    pub invalid: u64,
    /// Requests that were answered otherwise than 2xx or not at all, as the path's behaviour wants.
    pub turned_away: u64,
}

/// A running receiver. Dropping it stops it without waiting.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Shared {
    paths: Mutex<HashMap<String, Arc<Endpoint>>>,
    /// Requests to paths that nobody registered.
    strays: Mutex<u64>,
    /// Bodies are not compared with their schemas.
    trusting: AtomicBool,
    changed: Notify,
}

struct Endpoint {
    keys: Mutex<Arc<VerifyingKeys>>,
    behaviour: Mutex<Behaviour>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    counts: Counts,
    received: Vec<Received>,
    seen: HashMap<EventId, u32>,
    /// The first bad request, for the message of whoever expected none.
    first_problem: Option<String>,
}

impl Sink {
    /// Listens; port 0 takes a free one.
    pub async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        loopback::check(&listen.to_string())?;
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (shared, connections, stop) =
            (Arc::new(Shared::default()), TaskTracker::new(), CancellationToken::new());
        connections.spawn(accept(listener, shared.clone(), connections.clone(), stop.clone()));
        Ok(Self { address, shared, connections, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path such as `/webhooks`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Receives at `path` what is signed with `secret` (`whsec_…`). Forgets what the path received so far.
    pub fn endpoint(&self, path: &str, secret: &str) -> Result<(), SecretError> {
        let keys = Mutex::new(Arc::new(VerifyingKeys::new(Secret::parse(secret)?)));
        let endpoint = Endpoint { keys, behaviour: Mutex::default(), log: Mutex::default() };
        lock(&self.shared.paths).insert(path.to_owned(), Arc::new(endpoint));
        Ok(())
    }

    /// From now on `path` verifies with this secret alone, as a receiver does whose secret was replaced.
    pub fn replace_secret(&self, path: &str, secret: &str) -> Result<(), SecretError> {
        let keys = Arc::new(VerifyingKeys::new(Secret::parse(secret)?));
        if let Some(endpoint) = self.shared.endpoint(path) {
            *lock(&endpoint.keys) = keys;
        }
        Ok(())
    }

    /// Bodies are not compared with their schemas any more: that costs more than a measured receiver should.
    pub fn trust_bodies(&self) {
        self.shared.trusting.store(true, Ordering::Relaxed);
    }

    /// From now on `path` answers like this.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        if let Some(endpoint) = self.shared.endpoint(path) {
            *lock(&endpoint.behaviour) = behaviour;
        }
    }

    /// What `path` has received.
    pub fn counts(&self, path: &str) -> Counts {
        self.shared.endpoint(path).map_or_else(Counts::default, |endpoint| lock(&endpoint.log).counts)
    }

    /// The sum over all paths.
    pub fn total(&self) -> Counts {
        let mut total = Counts { invalid: *lock(&self.shared.strays), ..Counts::default() };
        for endpoint in lock(&self.shared.paths).values() {
            let counts = lock(&endpoint.log).counts;
            total.requests += counts.requests;
            total.events += counts.events;
            total.repeats += counts.repeats;
            total.invalid += counts.invalid;
            total.turned_away += counts.turned_away;
        }
        total
    }

    /// Everything that `path` accepted, repeats included, in the order of arrival.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.shared.endpoint(path).map_or_else(Vec::new, |endpoint| lock(&endpoint.log).received.clone())
    }

    /// When each payment's first event arrived at `path`, in microseconds since 1970, and when it was decided.
    pub fn payments(&self, path: &str) -> HashMap<PaymentId, Received> {
        let mut first = HashMap::new();
        for received in self.received(path) {
            if let Some(payment) = received.payment {
                first.entry(payment).or_insert(received);
            }
        }
        first
    }

    /// Sequences of `path` that are missing between 1 and the highest received, by epoch.
    pub fn gaps(&self, path: &str) -> Vec<(u16, u64)> {
        let mut sequences: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        for received in self.received(path).iter().filter(|it| it.sequence > 0 && !it.repeated) {
            sequences.entry(received.epoch).or_default().push(received.sequence);
        }
        let mut gaps = Vec::new();
        for (epoch, mut sequences) in sequences {
            sequences.sort_unstable();
            let mut next = 1;
            for sequence in sequences {
                gaps.extend((next..sequence).map(|missing| (epoch, missing)));
                next = sequence + 1;
            }
        }
        gaps
    }

    /// The first request that was bad, and why.
    pub fn first_problem(&self) -> Option<String> {
        lock(&self.shared.paths).values().find_map(|endpoint| lock(&endpoint.log).first_problem.clone())
    }

    /// Waits until `done` says so of this sink, looking whenever something arrives; `false` after `patience`.
    pub async fn wait_until(&self, patience: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if done(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return done(self);
            }
            // Not at every arrival: looking takes the logs' locks.
            tokio::time::sleep(left.min(Duration::from_millis(2))).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let _ =
                tokio::time::timeout(left.min(Duration::from_millis(100)), self.shared.changed.notified())
                    .await;
        }
    }

    /// Stops listening and ends all connections.
    pub async fn stop(self) {
        self.stop.cancel();
        self.connections.close();
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.connections.wait()).await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn endpoint(&self, path: &str) -> Option<Arc<Endpoint>> {
        lock(&self.paths).get(path).cloned()
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(stop.clone().run_until_cancelled_owned(serve(stream, shared.clone())));
            }
            // Out of file descriptors, most likely: some will be given back.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Senders come and go; what a broken connection carried is simply not received.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Ok((stream, handle)) = twice(stream) else { return };
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(&shared, request));
    if http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.is_err() {
        // Closing what is left of the connection now sends a reset, unless the sender has closed it before.
        let _ = handle.set_zero_linger();
    }
}

/// Two handles of one connection.
fn twice(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let handle = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, handle))
}

/// The answer is to be a reset.
#[derive(Debug, thiserror::Error)]
#[error("reset")]
struct Reset;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Answer>, Reset> {
    let Some(endpoint) = shared.endpoint(request.uri().path()) else {
        *lock(&shared.strays) += 1;
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(endpoint.invalid("the body broke off or is longer than 64 KiB"));
    };
    let body = body.to_bytes();
    let received_us = now_us();
    let keys = lock(&endpoint.keys).clone();
    let verified = keys.verify_headers(&head.headers, &body, received_us / 1_000_000);
    let read = verified.map_err(|error| error.to_string()).and_then(|id| read(id, &body, received_us));
    let checked = read.and_then(|received| {
        let trusting = shared.trusting.load(Ordering::Relaxed);
        if trusting { Ok(received) } else { testkit::schema::check(&body).map(|()| received) }
    });
    let received = match checked {
        Ok(received) => received,
        Err(problem) => return Ok(endpoint.invalid(&problem)),
    };
    let behaviour = *lock(&endpoint.behaviour);
    let response = match behaviour {
        Behaviour::Accept => empty(StatusCode::NO_CONTENT),
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            empty(StatusCode::NO_CONTENT)
        }
        Behaviour::Status(code) => {
            empty(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Behaviour::Hang => {
            endpoint.turned_away();
            std::future::pending().await
        }
        Behaviour::Reset => {
            endpoint.turned_away();
            return Err(Reset);
        }
        Behaviour::Drip => {
            endpoint.turned_away();
            return Ok(Response::new(StreamBody::new(drops()).boxed_unsync()));
        }
        Behaviour::Long(bytes) => Response::new(Full::from(vec![b'x'; bytes]).boxed_unsync()),
    };
    if response.status().is_success() {
        endpoint.accept(received);
        shared.changed.notify_waiters();
    } else {
        endpoint.turned_away();
    }
    Ok(response)
}

/// A byte a second, for ever.
fn drops() -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(DRIP_INTERVAL).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
    })
}

impl Endpoint {
    fn accept(&self, mut received: Received) {
        let mut log = lock(&self.log);
        log.counts.requests += 1;
        let times = log.seen.entry(received.event).or_default();
        *times += 1;
        received.repeated = *times > 1;
        if received.repeated {
            log.counts.repeats += 1;
        } else {
            log.counts.events += 1;
        }
        if log.received.len() < RECORDS_MAX {
            log.received.push(received);
        }
    }

    fn turned_away(&self) {
        let mut log = lock(&self.log);
        log.counts.requests += 1;
        log.counts.turned_away += 1;
    }

    fn invalid(&self, problem: &str) -> Response<Answer> {
        let mut log = lock(&self.log);
        log.counts.requests += 1;
        log.counts.invalid += 1;
        log.first_problem.get_or_insert_with(|| problem.to_owned());
        empty(StatusCode::BAD_REQUEST)
    }
}

/// What of a body interests a receiver that only counts.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    epoch: u16,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    payment: Option<Payment>,
}

#[derive(Deserialize)]
struct Payment {
    id: PaymentId,
    status: PaymentStatus,
    #[serde(default)]
    decided_at: Option<Timestamp>,
}

fn read(id: &str, body: &[u8], received_us: i64) -> Result<Received, String> {
    let event = id.parse().map_err(|_| format!("webhook-id `{id}` is no evt_…"))?;
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body of {id}: {error}"))?;
    let payment = body.data.payment;
    Ok(Received {
        event,
        sequence: body.sequence,
        epoch: body.epoch,
        payment: payment.as_ref().map(|it| it.id),
        status: payment.as_ref().map(|it| it.status),
        decided_us: payment.as_ref().and_then(|it| it.decided_at).map(Timestamp::micros),
        received_us,
        repeated: false,
    })
}

fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
