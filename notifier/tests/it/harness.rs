//! A bank without a processor: partners and endpoints as rows, events written to the log and the topic as the
//! processor does it, sinks that record what they receive, and notifiers that can be stopped or killed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::event::{EventRecord, EventType};
use domain::ids::{EndpointId, PartnerId, PaymentId, event_id};
use domain::time::Timestamp;
use domain::topic;
use domain::webhook::{Secret, VerifyingKeys};
use notifier::Config;
use notifier::resolver::{Lookup, SystemLookup};
use runtime::config::PrivateListenConfig;
use serde_json::value::RawValue;
use testkit::Env;
use testkit::fixtures::{self, Kek, PartnerRow};
use testkit::wait_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The bank as the notifier sees it.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) kek: Kek,
    sequences: Mutex<HashMap<Uuid, u64>>,
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        // With WIRED_LOG set, what the notifier logs is part of a failing test's output.
        if std::env::var_os("WIRED_LOG").is_some() {
            static LOG: std::sync::Once = std::sync::Once::new();
            LOG.call_once(|| runtime::telemetry::init("notifier"));
        }
        Self { env: Env::new(name).await, kek: fixtures::kek(), sequences: Mutex::default() }
    }

    pub(crate) async fn partner(&self) -> PartnerId {
        fixtures::insert_partner(self.env.pool(), PartnerRow::default()).await
    }

    /// An endpoint at `url`; returns its id and secret.
    pub(crate) async fn endpoint(&self, partner: PartnerId, url: &str) -> (EndpointId, String) {
        fixtures::insert_endpoint(self.env.pool(), &self.kek.keys, partner, url, None).await
    }

    /// Writes the partner's next events to the event log, and returns them unannounced.
    pub(crate) async fn decide(&self, partner: PartnerId, count: u64) -> Vec<EventRecord> {
        let payments: Vec<_> = (0..count).map(|_| PaymentId::from_uuid(Uuid::now_v7())).collect();
        self.decide_of(partner, &payments).await
    }

    /// As [`Self::decide`], one event of each of the payments.
    pub(crate) async fn decide_of(&self, partner: PartnerId, payments: &[PaymentId]) -> Vec<EventRecord> {
        let first = {
            let mut sequences = self.sequences.lock().unwrap();
            let last = sequences.entry(partner.uuid()).or_default();
            let first = *last + 1;
            *last += payments.len() as u64;
            first
        };
        let events: Vec<_> = payments
            .iter()
            .zip(first..)
            .map(|(payment, sequence)| event(partner, sequence, *payment))
            .collect();
        for chunk in events.chunks(500) {
            let mut sql = String::from(
                "INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) VALUES ",
            );
            for (index, event) in chunk.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let partner = hex(event.partner.uuid().as_bytes());
                let data = hex(event.data.get().as_bytes());
                let micros = event.timestamp.micros();
                let _ = write!(
                    sql,
                    "{comma}(0x{partner},{},{},{},TIMESTAMPADD(MICROSECOND,{micros},'1970-01-01'),0x{data})",
                    event.sequence,
                    event.epoch,
                    event.event_type.code()
                );
            }
            sqlx::raw_sql(&sql).execute(self.env.pool()).await.expect("events are inserted");
        }
        events
    }

    /// Announces events on the topic, each partner in its own partition.
    pub(crate) async fn announce(&self, events: &[EventRecord]) {
        let records: Vec<_> = events
            .iter()
            .map(|event| (event.partner.uuid().as_bytes().to_vec(), serde_json::to_vec(event).unwrap()))
            .collect();
        self.env.produce_all(topic::EVENTS, None, &records).await;
    }

    /// Decides and announces.
    pub(crate) async fn events(&self, partner: PartnerId, count: u64) -> Vec<EventRecord> {
        let events = self.decide(partner, count).await;
        self.announce(&events).await;
        events
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            mysql: self.env.service_mysql("notifier"),
            kafka: self.env.kafka.clone(),
            private: PrivateListenConfig {
                private_listen: SocketAddr::from(([127, 0, 0, 1], self.env.free_port())),
            },
            webhook_secrets_kek_file: PathBuf::from(self.kek.path()),
            webhook_allow_loopback_http: true,
            webhook_in_flight_max: 256,
            webhook_endpoint_in_flight_max: 32,
            webhook_suspect_percent: 25,
        }
    }

    pub(crate) fn notifier(&self) -> Notifier {
        Notifier::start(self.config(), Arc::new(SystemLookup::default()))
    }

    /// How many deliveries of the endpoint have the status (1 pending, 2 delivered, 3 dead).
    pub(crate) async fn deliveries(&self, endpoint: EndpointId, status: u8) -> u64 {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ? AND status = ?")
                .bind(endpoint.uuid().as_bytes().as_slice())
                .bind(status)
                .fetch_one(self.env.pool())
                .await
                .expect("deliveries can be counted");
        count.unsigned_abs()
    }

    pub(crate) async fn delivered(&self, endpoint: EndpointId, count: u64) {
        wait_until("deliveries to be recorded", BOUND, async || self.deliveries(endpoint, 2).await == count)
            .await;
    }

    /// The error classes of the endpoint's attempts, in order; a success is "ok".
    pub(crate) async fn attempts(&self, endpoint: EndpointId) -> Vec<String> {
        let words: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT COALESCE(error_class, 'ok') FROM attempts WHERE endpoint_id = ? ORDER BY event_id, attempt",
        )
        .bind(endpoint.uuid().as_bytes().as_slice())
        .fetch_all(self.env.pool())
        .await
        .expect("attempts can be read");
        words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    /// Makes everything that waits for a retry due now.
    pub(crate) async fn hurry(&self, endpoint: EndpointId) {
        // The notifier writes the same rows in another order: MySQL may end either of the two.
        wait_until("deliveries to be changed", BOUND, async || {
            let changed = sqlx::query(
                "UPDATE deliveries SET next_attempt_at = UTC_TIMESTAMP(6), leased_by = NULL WHERE endpoint_id = ? AND status = 1",
            )
            .bind(endpoint.uuid().as_bytes().as_slice())
            .execute(self.env.pool())
            .await;
            changed.is_ok()
        })
        .await;
    }
}

fn event(partner: PartnerId, sequence: u64, payment: PaymentId) -> EventRecord {
    let data = format!(
        r#"{{"payment":{{"id":"{payment}","root":"{payment}","amount":"12.50","sequence":{sequence}}}}}"#
    );
    EventRecord {
        schema: domain::command::SCHEMA,
        id: event_id(partner, 1, sequence),
        partner,
        sequence,
        epoch: 1,
        event_type: EventType::PaymentPosted,
        timestamp: now(),
        data: RawValue::from_string(data).unwrap(),
    }
}

pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A notifier on a runtime of its own, so that it can be killed with everything it has under way.
pub(crate) struct Notifier {
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<Result<(), notifier::RunError>>>,
    shutdown: CancellationToken,
    private: SocketAddr,
}

impl Notifier {
    pub(crate) fn start(config: Config, lookup: Arc<dyn Lookup>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let private = config.private.private_listen;
        let task = runtime.spawn(notifier::run_with_lookup(config, lookup, shutdown.clone()));
        Self { runtime: Some(runtime), task: Some(task), shutdown, private }
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(BOUND, task).await.expect("it ends in time").unwrap().expect("it runs");
        self.kill_runtime();
    }

    /// Ends it as SIGKILL does: nothing is flushed, nothing is committed.
    pub(crate) fn kill(mut self) {
        self.kill_runtime();
    }

    fn kill_runtime(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// GET on the private listener: status and body.
    pub(crate) async fn private(&self, path: &str) -> Option<(u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.private).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.kill_runtime();
    }
}

/// A received webhook.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    pub(crate) at_wall: Timestamp,
}

impl Received {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }

    pub(crate) fn verifies_with(&self, secret: &str) -> bool {
        VerifyingKeys::new(Secret::parse(secret).unwrap())
            .verify_headers(&self.headers, &self.body, now().seconds())
            .is_ok()
    }
}

type Answer = Arc<dyn Fn(&Received, u64) -> Reply + Send + Sync>;

/// What a sink does with a webhook.
pub(crate) enum Reply {
    Now(Response),
    Never,
    After(Duration, StatusCode),
}

/// A receiver in this process.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    count: Arc<AtomicU64>,
    answer: Answer,
}

impl Sink {
    /// Answers 204 to everything.
    pub(crate) async fn ok() -> Self {
        Self::new(|_, _| Reply::Now(StatusCode::NO_CONTENT.into_response())).await
    }

    /// `answer` gets what was received and how many came before it.
    pub(crate) async fn new(answer: impl Fn(&Received, u64) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let sink = Self { url, received: Arc::default(), count: Arc::default(), answer: Arc::new(answer) };
        let app = axum::Router::new().fallback(receive).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        sink
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Distinct event ids received.
    pub(crate) fn ids(&self) -> HashSet<String> {
        self.received.lock().unwrap().iter().map(|received| received.id.clone()).collect()
    }

    pub(crate) async fn wait_for(&self, events: &[EventRecord]) {
        let wanted: HashSet<String> = events.iter().map(|event| event.id.to_string()).collect();
        wait_until("all webhooks to arrive", BOUND, async || wanted.is_subset(&self.ids())).await;
    }
}

async fn receive(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> Response {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let received = Received { id, headers, body, at: Instant::now(), at_wall: now() };
    let before = sink.count.fetch_add(1, Ordering::Relaxed);
    let reply = (sink.answer)(&received, before);
    sink.received.lock().unwrap().push(received);
    match reply {
        Reply::Now(response) => response,
        Reply::Never => std::future::pending().await,
        Reply::After(wait, status) => {
            tokio::time::sleep(wait).await;
            status.into_response()
        }
    }
}
