//! An ingest of its own for each test, a signing client that can also sign wrongly, and a stand-in for the
//! processor that writes what it would write.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use domain::command::{PartnerCommand, PartnerEnvelope};
use domain::http_signature::{RequestParts, content_digest, sign};
use domain::ids::{KeyId, PartnerId};
use domain::payment::{PaymentStatus, Reason};
use domain::secret::HmacKey;
use domain::topic::PARTNER_COMMANDS;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use sqlx::{Executor, MySqlPool};
use testkit::fixtures::{self, Kek, PartnerRow};
use testkit::{Env, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The host that partners address the tested server by.
pub(crate) const AUTHORITY: &str = "api.bank.test";
/// For anything that should happen at once, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const MANDATE: &str = "mdt_00000000000000000000000001";

pub(crate) struct Bench {
    pub(crate) env: Env,
    pub(crate) kek: Kek,
    pub(crate) webhook_kek: Kek,
    pub(crate) address: SocketAddr,
    pub(crate) private: SocketAddr,
    pub(crate) partner: PartnerId,
    pub(crate) key: Key,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ingest::Error>>,
    arguments: Vec<String>,
    _token_key: tempfile::NamedTempFile,
}

/// A further ingest of the same bank.
pub(crate) struct Replica {
    pub(crate) private: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ingest::Error>>,
}

impl Replica {
    pub(crate) async fn close(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("ingest stops").unwrap().unwrap();
    }
}

/// A key as its partner has it.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) hmac: HmacKey,
    /// In base64.
    pub(crate) secret: String,
}

impl Key {
    pub(crate) fn new(id: KeyId, secret: &str) -> Self {
        let hmac = HmacKey::from_base64(secret).unwrap();
        Self { id: id.to_string(), hmac, secret: secret.to_owned() }
    }
}

/// What a test changes about its server.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) requests_per_second: Option<u32>,
    pub(crate) mysql_url: Option<String>,
    pub(crate) kafka_brokers: Option<String>,
    pub(crate) more: Vec<(&'static str, String)>,
    /// The server is not ready at the end of the start.
    pub(crate) unready: bool,
}

impl Bench {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, |_| Options::default()).await
    }

    pub(crate) async fn with(name: &str, options: impl FnOnce(&Env) -> Options) -> Self {
        let env = Env::new(name).await;
        let options = options(&env);
        let (kek, webhook_kek) = (fixtures::kek(), fixtures::kek());
        let token_key = fixtures::secret_file(&[9; 32]);
        let requests_per_second =
            options.requests_per_second.unwrap_or(PartnerRow::default().requests_per_second);
        let partner =
            fixtures::insert_partner(env.pool(), PartnerRow { requests_per_second, ..PartnerRow::default() })
                .await;
        let (id, secret) =
            fixtures::insert_api_key(env.pool(), &kek.keys, partner, fixtures::ALL_SCOPES).await;
        let address = testkit::free_address();
        let private = testkit::free_address();
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments = vec![
            "ingest".to_owned(),
            format!("--mysql-url={}", options.mysql_url.unwrap_or_else(|| env.service_url("ingest"))),
            format!(
                "--kafka-brokers={}",
                options.kafka_brokers.unwrap_or_else(|| env.kafka.kafka_brokers.clone())
            ),
            format!("--topic-prefix={}", env.kafka.topic_prefix),
            format!("--listen={address}"),
            format!("--private-listen={private}"),
            format!("--authorities=other.bank.test,{AUTHORITY},{address}"),
            "--insecure-http=true".to_owned(),
            format!("--partner-keys-kek-file={}", path(kek.path().to_path_buf())),
            format!("--webhook-secrets-kek-file={}", path(webhook_kek.path().to_path_buf())),
            format!("--status-token-key-file={}", path(token_key.path().to_path_buf())),
            "--keys-refresh-ms=100".to_owned(),
            // On a busy machine a look-up may take its time; skipping it would change the answers.
            "--lookup-budget-ms=5000".to_owned(),
            "--echo-per-second=1000".to_owned(),
        ];
        for (flag, value) in options.more {
            arguments.retain(|argument| !argument.starts_with(&format!("--{flag}=")));
            arguments.push(format!("--{flag}={value}"));
        }
        let config = ingest::Config::try_parse_from(&arguments).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(ingest::run(config, stop.clone()));
        let bench = Self {
            env,
            kek,
            webhook_kek,
            address,
            private,
            partner,
            key: Key::new(id, &secret),
            stop,
            task,
            arguments,
            _token_key: token_key,
        };
        wait_until("ingest listens", SOON, async || TcpStream::connect(address).await.is_ok()).await;
        if !options.unready {
            wait_until("ingest is ready", SOON, async || bench.ready().await == Some(200)).await;
            // Not part of being ready, but the tests below mean a server that reaches MySQL.
            wait_until("ingest reads MySQL", SOON, async || {
                bench.get("/v1/balances").await.status == 200 && {
                    let answer = bench.get("/v1/payments/pay_00000000000000000000000000").await;
                    answer.status == 404
                }
            })
            .await;
        }
        bench
    }

    /// The configuration of another ingest of this bank, with these flags changed.
    pub(crate) fn config(&self, changes: &[(&str, String)]) -> ingest::Config {
        let is_changed =
            |argument: &&String| changes.iter().any(|(flag, _)| argument.starts_with(&format!("--{flag}=")));
        let kept = self.arguments.iter().filter(|argument| !is_changed(argument)).cloned();
        let changed = changes.iter().map(|(flag, value)| format!("--{flag}={value}"));
        ingest::Config::try_parse_from(kept.chain(changed)).unwrap()
    }

    /// Starts another ingest; whether it is ready, nobody waits for.
    pub(crate) fn another(&self, changes: &[(&str, String)]) -> Replica {
        let private = testkit::free_address();
        let changes = [changes, &[("private-listen", private.to_string())]].concat();
        let stop = CancellationToken::new();
        let task = tokio::spawn(ingest::run(self.config(&changes), stop.clone()));
        Replica { private, stop, task }
    }

    /// The status of the readiness, or `None` when nobody listens yet.
    pub(crate) async fn ready(&self) -> Option<u16> {
        let request =
            format!("GET /health/ready HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.private);
        exchange(self.private, request.as_bytes()).await.ok().map(|answer| answer.status)
    }

    /// The text of the metrics; other tests of this process have recorded in it, too.
    pub(crate) async fn metrics(&self) -> String {
        metrics_of(self.private).await
    }

    pub(crate) async fn close(self) {
        self.stop().await.close().await;
    }

    /// Ends ingest alone.
    pub(crate) async fn stop(self) -> Env {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("ingest stops").unwrap().unwrap();
        self.env
    }

    /// A signed request.
    pub(crate) fn request(&self, method: Method, target: &str) -> Request {
        Request::new(method, target, &self.key)
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.request(Method::GET, target).send(self.address).await
    }

    /// A signed write other than a payment, under an idempotency key.
    pub(crate) fn write(&self, method: Method, target: &str, idempotency_key: &str, body: &Value) -> Request {
        let request = self.request(method, target).header("idempotency-key", idempotency_key);
        if body.is_null() { request } else { request.body("application/json", body.to_string()) }
    }

    /// Posts JSON under an idempotency key of its own.
    pub(crate) async fn post_json(&self, target: &str, body: &Value) -> Answer {
        let key = uuid::Uuid::now_v7().to_string();
        self.write(Method::POST, target, &key, body).send(self.address).await
    }

    /// The Rust client with the bench's key.
    pub(crate) fn client(&self) -> client::Client {
        client::Client::new(&format!("http://{}", self.address), &self.key.id, &self.key.secret).unwrap()
    }

    /// Another partner with a key of these scopes.
    pub(crate) async fn other_partner(&self, scopes: u32) -> (PartnerId, Key) {
        let partner = fixtures::insert_partner(self.env.pool(), PartnerRow::default()).await;
        let (id, secret) = fixtures::insert_api_key(self.env.pool(), &self.kek.keys, partner, scopes).await;
        let key = Key::new(id, &secret);
        wait_until("the new key is known", SOON, async || {
            let echo = Request::new(Method::POST, "/v1/sandbox/echo", &key).header("idempotency-key", "k");
            echo.send(self.address).await.json()["verified"] == true
        })
        .await;
        (partner, key)
    }

    /// A payment of 12.50 EUR.
    pub(crate) fn payment(&self, idempotency_key: &str) -> Request {
        let body =
            format!(r#"{{"amount":"12.50","currency":"EUR","mandate":"{MANDATE}","reference":"order"}}"#);
        self.post(idempotency_key, body)
    }

    pub(crate) fn post(&self, idempotency_key: &str, body: impl Into<Vec<u8>>) -> Request {
        self.request(Method::POST, "/v1/payments")
            .header("idempotency-key", idempotency_key)
            .body("application/json", body)
    }

    /// Every record of the partners' commands: position, time, key and value.
    pub(crate) fn records(&self) -> Vec<Record> {
        let consumer: BaseConsumer = self.env.kafka.consumer("reader").create().unwrap();
        let topic = self.env.topic(PARTNER_COMMANDS);
        let mut assignment = TopicPartitionList::new();
        let mut left = 0;
        for partition in 0..PARTNER_COMMANDS.partitions {
            let (low, high) = consumer.fetch_watermarks(&topic, partition, SOON).unwrap();
            left += high - low;
            assignment.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        while records.len() < left as usize {
            let message = consumer.poll(SOON).expect("a record").unwrap();
            records.push(Record {
                partition: message.partition() as u16,
                offset: message.offset() as u64,
                millis: message.timestamp().to_millis().unwrap(),
                key: message.key().unwrap().to_vec(),
                value: message.payload().unwrap().to_vec(),
            });
        }
        records
    }
}

/// The text of the metrics of a private listener.
pub(crate) async fn metrics_of(private: SocketAddr) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {private}\r\nconnection: close\r\n\r\n");
    String::from_utf8(exchange(private, request.as_bytes()).await.unwrap().body).unwrap()
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) millis: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Record {
    pub(crate) fn envelope(&self) -> PartnerEnvelope {
        PartnerEnvelope::decode(&self.value).unwrap()
    }
}

/// Writes what the processor writes for a decided payment.
pub(crate) async fn decide(pool: &MySqlPool, record: &Record, reason: Option<Reason>) {
    let envelope = record.envelope();
    let PartnerCommand::Payment(command) = &envelope.command else { panic!("a payment") };
    let status = if reason.is_some() { PaymentStatus::Rejected } else { PaymentStatus::Posted };
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version,
        partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, fingerprint, livemode,
        reference, description, metadata, actor_id, request_id, accepted_at, decided_at)
        VALUES (1, ?, ?, ?, ?, 1, ?, ?, 1, ?, ?, ?, ?, ?, 0, ?, 1, ?, ?, ?, ?, ?,
        '2026-11-01 12:00:00.123000', '2026-11-01 12:00:00.123456')",
    )
    .bind(record.partition)
    .bind(record.offset)
    .bind(envelope.id.uuid().as_bytes().as_slice())
    .bind(envelope.root.uuid().as_bytes().as_slice())
    .bind(status.code())
    .bind(reason.map(Reason::code))
    .bind(envelope.partner.uuid().as_bytes().as_slice())
    .bind(command.mandate.uuid().as_bytes().as_slice())
    .bind(command.currency.code())
    .bind(command.amount_minor)
    .bind(if reason.is_some() { 0 } else { command.amount_minor })
    .bind(envelope.fingerprint.as_bytes().as_slice())
    .bind(&command.reference)
    .bind(&command.description)
    .bind((!command.metadata.is_empty()).then(|| serde_json::to_string(&command.metadata).unwrap()))
    .bind(envelope.key.uuid().as_bytes().as_slice())
    .bind(envelope.request_id.as_bytes().as_slice())
    .execute(&mut *transaction)
    .await
    .unwrap();
    apply_position(&mut transaction, record).await;
    transaction.commit().await.unwrap();
}

/// Writes what the processor writes for a record that it cannot apply.
pub(crate) async fn bury(pool: &MySqlPool, record: &Record, readable: bool) {
    let envelope = record.envelope();
    let id = readable.then(|| envelope.id.uuid().as_bytes().to_vec());
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO dead_letters (source, kafka_partition, kafka_offset, status, id, root_id, reason, detail,
        record_key, record_value, accepted_at, recorded_at)
        VALUES (1, ?, ?, 1, ?, ?, 'data_error', 'test', ?, ?, '2026-11-01 12:00:00.123', '2026-11-01 12:00:01')",
    )
    .bind(record.partition)
    .bind(record.offset)
    .bind(&id)
    .bind(&id)
    .bind(&record.key)
    .bind(&record.value)
    .execute(&mut *transaction)
    .await
    .unwrap();
    apply_position(&mut transaction, record).await;
    transaction.commit().await.unwrap();
}

/// Moves the position behind the record.
pub(crate) async fn apply_position(executor: &mut sqlx::MySqlConnection, record: &Record) {
    let statement =
        sqlx::query("UPDATE positions SET next_offset = ? WHERE source = 1 AND kafka_partition = ?")
            .bind(record.offset + 1)
            .bind(record.partition);
    executor.execute(statement).await.unwrap();
}

/// A request that is signed when it is sent, unless it was signed and then changed.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) key: Key,
    pub(crate) created: i64,
    signed: bool,
}

impl Request {
    pub(crate) fn new(method: Method, target: &str, key: &Key) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let headers = [(http::header::HOST, HeaderValue::from_static(AUTHORITY))].into_iter().collect();
        let (target, key) = (target.to_owned(), key.clone());
        Self { method, target, headers, body: Vec::new(), key, created, signed: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(crate) fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.headers.insert("content-digest", content_digest::header_value(&self.body));
        self.headers.insert("content-length", self.body.len().into());
        self.header("content-type", media_type)
    }

    pub(crate) fn with_key(mut self, key: &Key) -> Self {
        self.key = key.clone();
        self
    }

    pub(crate) fn created(mut self, seconds_from_now: i64) -> Self {
        self.created += seconds_from_now;
        self
    }

    /// Signs now; what is changed afterwards is tampering.
    pub(crate) fn sign(mut self) -> Self {
        let uri: http::Uri = self.target.parse().unwrap();
        let parts = RequestParts {
            method: &self.method,
            authority: AUTHORITY,
            path: uri.path(),
            query: uri.query(),
            headers: &self.headers,
            has_body: !self.body.is_empty(),
        };
        let headers = sign(&parts, &self.key.id, &self.key.hmac, self.created, None).unwrap();
        headers.insert_into(&mut self.headers);
        self.signed = true;
        self
    }

    /// Sends it without a signature.
    pub(crate) fn unsigned(mut self) -> Self {
        self.signed = true;
        self
    }

    /// Changes a signed request.
    pub(crate) fn tamper(mut self, change: impl FnOnce(&mut Self)) -> Self {
        if !self.signed {
            self = self.sign();
        }
        change(&mut self);
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let request = if self.signed { self } else { self.sign() };
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.target).into_bytes();
        for (name, value) in &request.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        bytes
    }

    pub(crate) async fn send(self, address: SocketAddr) -> Answer {
        exchange(address, &self.bytes()).await.expect("an answer")
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of a problem document, whose frame is checked along.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], format!("/problems/{}", problem["code"].as_str().unwrap()));
        assert_eq!(Some(problem["request_id"].as_str().unwrap()), self.header("x-request-id"));
        assert_eq!(problem["instance"], format!("urn:uuid:{}", problem["request_id"].as_str().unwrap()));
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// Sends bytes and reads the answer until the server closes.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // A server that refuses early closes before everything is written; its answer counts.
    let _ = stream.write_all(request).await;
    read_answer(&mut stream).await
}

/// Reads an answer until the server closes.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match tokio::time::timeout(SOON, stream.read(&mut buffer)).await.expect("the server answers") {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            // Reset after an early answer.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    parse(&bytes)
        .ok_or_else(|| std::io::Error::other(format!("no answer: {:?}", String::from_utf8_lossy(&bytes))))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    let body = bytes[end + 4..].to_vec();
    if let Some(length) = headers.get("content-length") {
        assert_eq!(length.to_str().unwrap().parse::<usize>().unwrap(), body.len(), "the whole body arrived");
    }
    Some(Answer { status, headers, body })
}

/// An answer for a snapshot: ids by their prefix, times and digests of no interest left out.
pub(crate) fn neutral(value: &Value) -> Value {
    match value {
        Value::String(text) if text.parse::<domain::time::Timestamp>().is_ok() => "[time]".into(),
        Value::String(text) => {
            let pieces = text.split('/').map(|piece| match piece.split_once('_') {
                Some((prefix, rest)) if rest.len() == 26 => format!("[{prefix}]"),
                _ => piece.to_owned(),
            });
            pieces.collect::<Vec<_>>().join("/").into()
        }
        Value::Array(items) => items.iter().map(neutral).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), neutral(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
