//! MySQL and Kafka away, and a configuration that would be unsafe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use domain::topic::PARTNER_COMMANDS;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;
use testkit::{Env, wait_until};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::harness::{Bench, MANDATE, Options, SOON};

/// A TCP proxy that can be shut.
pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    open: Arc<AtomicBool>,
    connections: Arc<std::sync::Mutex<Vec<AbortHandle>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of `upstream`, listening on loopback.
    fn new(upstream: String) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let connections = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (accepts, kept) = (open.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                let (mut inbound, _) = listener.accept().await.unwrap();
                if !accepts.load(Ordering::Relaxed) {
                    continue;
                }
                let upstream = upstream.clone();
                let handle = tasks.spawn(async move {
                    if let Ok(mut outbound) = TcpStream::connect(upstream).await {
                        let _ = inbound.set_nodelay(true);
                        let _ = outbound.set_nodelay(true);
                        let _ = copy_bidirectional(&mut inbound, &mut outbound).await;
                    }
                });
                kept.lock().unwrap().push(handle);
            }
        });
        Self { address, open, connections, task }
    }

    pub(crate) fn shut(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.connections.lock().unwrap().drain(..).for_each(|handle| handle.abort());
    }

    pub(crate) fn reopen(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shut();
        self.task.abort();
    }
}

pub(crate) fn mysql_through(env: &Env) -> (Proxy, String) {
    let mut url = url::Url::parse(&env.service_url("ingest")).unwrap();
    let proxy = Proxy::new(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(3306)));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    (proxy, url.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_accepted_while_mysql_is_away() {
    let mut proxy = None;
    let bench = Bench::with("mysql-away", |env| {
        let (made, mysql_url) = mysql_through(env);
        proxy = Some(made);
        Options { mysql_url: Some(mysql_url), ..Options::default() }
    })
    .await;
    let proxy = proxy.unwrap();
    assert_eq!(bench.payment("before").send(bench.address).await.status, 202);
    proxy.shut();
    for index in 0..50 {
        let started = Instant::now();
        // Nobody can wait for an outcome that cannot be read.
        let answer =
            bench.payment(&format!("away{index}")).header("prefer", "wait=10").send(bench.address).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(8));
    }
    // What follows a payment, a transfer and a batch need MySQL as little; a mandate is a row.
    let capture = "/v1/payments/pay_00000000000000000000000001/capture";
    let accounts = ["acct_00000000000000000000000001", "acct_00000000000000000000000002"];
    let transfer = json!({"from": accounts[0], "to": accounts[1], "amount": "1.00", "currency": "EUR"});
    let item = json!({"idempotency_key": "item", "amount": "1.00", "currency": "EUR", "mandate": MANDATE});
    assert_eq!(bench.post_json(capture, &serde_json::Value::Null).await.status, 202);
    assert_eq!(bench.post_json("/v1/transfers", &transfer).await.status, 202);
    let batch = bench.post_json("/v1/payments/batch", &json!({"payments": [item]})).await;
    assert_eq!((batch.status, &batch.json()["items"][0]["status"]), (200, &json!(202)));
    let mandate = json!({"kind": "single", "currency": "EUR"});
    let cancel = format!("/v1/mandates/{MANDATE}/cancel");
    for (target, body) in [("/v1/mandates", &mandate), (cancel.as_str(), &serde_json::Value::Null)] {
        let answer = bench.post_json(target, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{target}");
    }
    assert_eq!(bench.ready().await, Some(200), "payments are accepted, so it is ready");
    for target in [
        "/v1/balances",
        "/v1/payments/pay_00000000000000000000000001",
        "/v1/payments",
        "/v1/mandates",
        "/v1/accounts/acct_00000000000000000000000001/entries",
    ] {
        let answer = bench.get(target).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert!(answer.header("retry-after").is_some());
        let said = String::from_utf8_lossy(&answer.body).to_lowercase();
        assert!(!said.contains("mysql") && !said.contains("connection"), "{said}");
    }
    assert_eq!(bench.records().len(), 54, "all are on Kafka");
    proxy.reopen();
    wait_until("MySQL is read again", SOON, async || bench.get("/v1/balances").await.status == 200).await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_keys_verify_nothing_and_a_server_without_keys_is_not_ready() {
    let mut proxy = None;
    let bench = Bench::with("keys-away", |env| {
        let (made, mysql_url) = mysql_through(env);
        proxy = Some(made);
        let more = vec![("keys-age-max-s", "2".to_owned())];
        Options { mysql_url: Some(mysql_url), more, ..Options::default() }
    })
    .await;
    let proxy = proxy.unwrap();
    assert_eq!(bench.payment("k").send(bench.address).await.status, 202);
    proxy.shut();
    let refused = wait_until("the keys are too old", SOON, async || {
        let answer = bench.payment("k").send(bench.address).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "keys_unavailable"));
    assert!(refused.header("retry-after").is_some());
    wait_until("not ready", SOON, async || bench.ready().await == Some(503)).await;
    proxy.reopen();
    wait_until("accepts again", SOON, async || bench.payment("k").send(bench.address).await.status == 202)
        .await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_reached_kafka_refuses_at_once() {
    let closed = testkit::free_address();
    let bench = Bench::with("kafka-never", |_| Options {
        kafka_brokers: Some(closed.to_string()),
        unready: true,
        ..Options::default()
    })
    .await;
    wait_until("keys are loaded", SOON, async || bench.get("/v1/balances").await.status == 200).await;
    let started = Instant::now();
    let answer = bench.payment("k").send(bench.address).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "queue_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(started.elapsed() < Duration::from_secs(4), "it does not try");
    assert_eq!(bench.ready().await, Some(503));
    assert!(bench.records().is_empty());
    bench.close().await;
}

/// A Kafka inside librdkafka that fails as it is told.
fn mock(env: &Env) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    let topic = env.topic(PARTNER_COMMANDS);
    cluster.create_topic(&topic, PARTNER_COMMANDS.partitions, 1).unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_refused_at_once_while_kafka_is_away() {
    let mut cluster = None;
    let bench = Bench::with("kafka-away", |env| {
        let made = mock(env);
        let kafka_brokers = Some(made.bootstrap_servers());
        cluster = Some(made);
        Options { kafka_brokers, ..Options::default() }
    })
    .await;
    let cluster = cluster.unwrap();
    assert_eq!(bench.payment("before").send(bench.address).await.status, 202);
    cluster.broker_down(1).unwrap();
    wait_until("Kafka is known to be away", SOON, async || bench.ready().await == Some(503)).await;
    for index in 0..20 {
        let started = Instant::now();
        let answer = bench.payment(&format!("away{index}")).send(bench.address).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "queue_unavailable"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(started.elapsed() < Duration::from_secs(4), "it does not try");
    }
    let item = json!({"idempotency_key": "item", "amount": "1.00", "currency": "EUR", "mandate": MANDATE});
    let batch = bench.post_json("/v1/payments/batch", &json!({"payments": [item]})).await;
    let answer = batch.json();
    assert_eq!((batch.status, &answer["items"][0]["status"]), (200, &json!(503)));
    assert_eq!(answer["items"][0]["problem"]["code"], "queue_unavailable");
    cluster.broker_up(1).unwrap();
    wait_until("payments are accepted again", SOON, async || {
        bench.payment("after").send(bench.address).await.status == 202
    })
    .await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_does_not_come_leaves_the_outcome_unknown() {
    let mut cluster = None;
    let bench = Bench::with("kafka-mute", |env| {
        let made = mock(env);
        let kafka_brokers = Some(made.bootstrap_servers());
        cluster = Some(made);
        let more = vec![("delivery-timeout-ms", "1500".to_owned())];
        Options { kafka_brokers, more, ..Options::default() }
    })
    .await;
    let cluster = cluster.unwrap();
    assert_eq!(bench.payment("before").send(bench.address).await.status, 202);
    cluster.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
    let answer = bench.payment("k").send(bench.address).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "outcome_unknown"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    wait_until("a retry is accepted", SOON, async || {
        bench.payment("k").send(bench.address).await.status == 202
    })
    .await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_for_good_is_replaced() {
    let mut cluster = None;
    let bench = Bench::with("kafka-fatal", |env| {
        let made = mock(env);
        let kafka_brokers = Some(made.bootstrap_servers());
        cluster = Some(made);
        Options { kafka_brokers, ..Options::default() }
    })
    .await;
    let cluster = cluster.unwrap();
    assert_eq!(bench.payment("before").send(bench.address).await.status, 202);
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    let answer = bench.payment("k").send(bench.address).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    wait_until("a retry is accepted", SOON, async || {
        bench.payment("k").send(bench.address).await.status == 202
    })
    .await;
    let metrics = bench.metrics().await;
    assert!(metrics.contains("wired_ingest_producers_replaced_total"), "it was a fatal error");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_configurations_are_refused_with_what_to_do() {
    let config = |listen: &str, insecure: &str, authorities: &str| {
        let arguments = [
            "ingest",
            "--mysql-url=mysql://u:p@127.0.0.1/x",
            "--kafka-brokers=127.0.0.1:1",
            "--private-listen=127.0.0.1:1",
            "--partner-keys-kek-file=/nowhere",
            "--webhook-secrets-kek-file=/nowhere",
            "--status-token-key-file=/nowhere",
            &format!("--listen={listen}"),
            &format!("--insecure-http={insecure}"),
            &format!("--authorities={authorities}"),
        ];
        ingest::Config::try_parse_from(arguments).unwrap()
    };
    let said = |config: ingest::Config| config.check().unwrap_err().to_string();
    assert!(said(config("0.0.0.0:8080", "true", "a")).contains("WIRED_TLS_CERT_FILE"));
    assert!(said(config("127.0.0.1:8080", "false", "a")).contains("WIRED_INSECURE_HTTP=true"));
    assert!(said(config("127.0.0.1:8080", "true", "http://a")).contains("WIRED_AUTHORITIES"));
    let error =
        ingest::run(config("127.0.0.1:8080", "true", "a"), tokio_util::sync::CancellationToken::new())
            .await
            .unwrap_err()
            .to_string();
    assert!(error.contains("WIRED_PARTNER_KEYS_KEK_FILE"), "{error}");
}
