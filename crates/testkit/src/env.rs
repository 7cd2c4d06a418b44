//! One test's own database, users and topics.
//!
//! Names hold the minute of their making, so that what a killed run left can be recognised and swept:
//! database `t_<name>_<minute>_<random>`, users `t_<minute>_<random>_<role>`, topics `t-<name>-<minute>-<random>.…`.

use std::time::Duration;

use domain::command::{BankEnvelope, PartnerEnvelope};
use domain::topic::{self, Topic};
use migrations::users::Role;
use migrations::{schema, topics, users};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use runtime::config::{KafkaConfig, MysqlConfig};
use runtime::kafka::LogContext;
use sqlx::{Executor, MySqlPool};

use crate::sweep::{self, Stamp};

/// How long setting up and tearing down may take; both take a part of a second on a quiet machine.
const BOUND: Duration = Duration::from_secs(60);
/// Connections of the test's own pool.
const CONNECTIONS: u32 = 4;

/// A database with the schema, the five users, and the topics, all for one test.
pub struct Env {
    /// The test's database, as administrator.
    pub mysql: MysqlConfig,
    /// The brokers with the test's prefix.
    pub kafka: KafkaConfig,
    urls: Vec<(Role, String)>,
    pool: MySqlPool,
    producer: FutureProducer<LogContext>,
    removed: bool,
}

impl Env {
    /// Makes everything. `name` (at most 20 of `a-z`, `0-9` and `-`) says which tests it is for.
    ///
    /// # Panics
    /// With what to do, when the servers are not named in the environment or not reachable.
    pub async fn new(name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(
            (1..=20).contains(&name.len()) && name.bytes().all(plain),
            "name an environment with at most 20 of a-z, 0-9 and -"
        );
        let (server, brokers) = (variable("WIRED_MYSQL_URL"), variable("WIRED_KAFKA_BROKERS"));
        sweep::once(&server, &brokers).await;
        let stamp = Stamp::new();
        let env = Self::named(name, &stamp, &server, &brokers);
        match tokio::time::timeout(BOUND, env.set_up()).await {
            Ok(Ok(())) => env,
            Ok(Err(error)) => panic!("the test environment cannot be made: {error:#}"),
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("making the test environment took longer than {BOUND:?}")
            }
        }
    }

    fn named(name: &str, stamp: &Stamp, server: &str, brokers: &str) -> Self {
        let database = format!("t_{}_{stamp}", name.replace('-', "_"));
        let mut url = url::Url::parse(server).expect("WIRED_MYSQL_URL is a URL");
        url.set_path(&database);
        let mysql = MysqlConfig { mysql_url: url.to_string() };
        let user_url = |role: Role| {
            let mut url = url.clone();
            // The server's superuser may change these, but no password is worth less care for being a test's.
            let password = hex(&random::<16>());
            let name = format!("t_{stamp}_{}", role.name());
            url.set_username(&name)
                .and_then(|()| url.set_password(Some(&password)))
                .expect("a mysql URL has a user");
            (role, url.to_string())
        };
        let kafka = KafkaConfig::new(brokers, format!("t-{name}-{stamp}.").replace('_', "-"));
        Self {
            urls: Role::ALL.map(user_url).to_vec(),
            pool: mysql.pool("test", CONNECTIONS).expect("WIRED_MYSQL_URL is a mysql:// URL"),
            producer: kafka.producer().create_with_context(LogContext).expect("the producer's settings"),
            mysql,
            kafka,
            removed: false,
        }
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        let mysql = async {
            schema::apply(&self.mysql).await?;
            users::apply(&self.mysql, &self.urls).await?;
            anyhow::Ok(())
        };
        let kafka = async {
            topics::apply(&self.kafka, &topic::ALL, 1).await?;
            let producer = self.producer.clone();
            let topics = topic::ALL.map(|topic| (self.kafka.topic(topic.name), topic.partitions));
            // A producer that has not heard of a topic holds its first record back for up to a second, and a broker
            // may answer for a moment that a new topic has no partitions yet.
            tokio::task::spawn_blocking(move || {
                for (name, partitions) in topics {
                    let known = || {
                        let metadata = producer.client().fetch_metadata(Some(&name), BOUND)?;
                        let led = metadata.topics().iter().flat_map(MetadataTopic::partitions);
                        anyhow::Ok(
                            led.filter(|partition| partition.leader() >= 0).count() == partitions as usize,
                        )
                    };
                    let deadline = std::time::Instant::now() + BOUND;
                    while !known()? {
                        anyhow::ensure!(std::time::Instant::now() < deadline, "topic {name} gets no leaders");
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                }
                anyhow::Ok(())
            })
            .await??;
            anyhow::Ok(())
        };
        tokio::try_join!(mysql, kafka).map(drop)
    }

    /// A pool on the test's database, as administrator.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The URL of a service's least-privilege user: `ingest`, `processor`, `notifier`, `admin-api`, `verifier`.
    pub fn service_url(&self, service: &str) -> String {
        let found = self.urls.iter().find(|(role, _)| role.name() == service);
        found.unwrap_or_else(|| panic!("no MySQL user is called {service}")).1.clone()
    }

    /// [`Self::service_url`] as configuration.
    pub fn service_mysql(&self, service: &str) -> MysqlConfig {
        MysqlConfig { mysql_url: self.service_url(service) }
    }

    /// The full name of a topic in this environment.
    pub fn topic(&self, topic: Topic) -> String {
        self.kafka.topic(topic.name)
    }

    /// A free port; see [`crate::free_port`].
    pub fn free_port(&self) -> u16 {
        crate::free_port()
    }

    /// Writes a partner's command as ingest does; returns its partition and offset.
    pub async fn produce_partner(&self, envelope: &PartnerEnvelope) -> (i32, i64) {
        self.produce(topic::PARTNER_COMMANDS, envelope.root.uuid().as_bytes(), &envelope.encode()).await
    }

    /// Writes a bank command as admin-api does; returns its partition and offset.
    pub async fn produce_bank(&self, envelope: &BankEnvelope) -> (i32, i64) {
        self.produce(topic::BANK_COMMANDS, envelope.command.kafka_key().as_bytes(), &envelope.encode()).await
    }

    /// Writes any record; returns its partition and offset once it is acknowledged.
    pub async fn produce(&self, topic: Topic, key: &[u8], value: &[u8]) -> (i32, i64) {
        let name = self.topic(topic);
        let record = FutureRecord::to(&name).key(key).payload(value);
        match self.producer.send(record, BOUND).await {
            Ok(delivery) => (delivery.partition, delivery.offset),
            Err((error, _)) => panic!("a record for {name} was not acknowledged: {error}"),
        }
    }

    /// Writes records to one partition (chosen by key where `None`), all at once, and waits for them all.
    pub async fn produce_all(&self, topic: Topic, partition: Option<i32>, records: &[(Vec<u8>, Vec<u8>)]) {
        let name = self.topic(topic);
        let mut deliveries = Vec::with_capacity(records.len());
        for (key, value) in records {
            let mut record = FutureRecord::to(&name).key(key).payload(value);
            record.partition = partition;
            // `send` waits for room in the queue when it is first polled, so a plain loop keeps the order.
            let delivery = loop {
                match self.producer.send_result(record) {
                    Ok(delivery) => break delivery,
                    Err((_, returned)) => {
                        record = returned;
                        tokio::task::yield_now().await;
                    }
                }
            };
            deliveries.push(delivery);
        }
        for delivery in deliveries {
            delivery.await.expect("the producer lives").expect("the record is acknowledged");
        }
    }

    /// Removes everything, and fails when something is left. A test that panics does the same without failing
    /// once more.
    pub async fn close(mut self) {
        self.removed = true;
        match tokio::time::timeout(BOUND, self.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("the test environment was not removed: {error:#}"),
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("removing the test environment took longer than {BOUND:?}")
            }
        }
    }

    async fn remove(&self) -> anyhow::Result<()> {
        self.pool.close().await;
        let mysql = async {
            users::drop_users(&self.mysql, &self.urls).await?;
            let mut url = url::Url::parse(&self.mysql.mysql_url)?;
            let database = url.path().trim_start_matches('/').to_owned();
            url.set_path("");
            let mut server = MysqlConfig { mysql_url: url.to_string() }.connect().await?;
            // A service that the test forgot to stop may hold a lock.
            server.execute("SET SESSION lock_wait_timeout = 10").await?;
            server.execute(format!("DROP DATABASE IF EXISTS `{database}`").as_str()).await?;
            anyhow::Ok(())
        };
        let kafka = async { anyhow::Ok(topics::delete(&self.kafka, &topic::ALL).await?) };
        tokio::try_join!(mysql, kafka).map(drop)
    }
}

impl Drop for Env {
    /// For tests that panic before they close. A thread of its own, since the test's runtime may be ending.
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let removal = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(BOUND, self.remove()).await? })
        };
        let removed = std::thread::scope(|scope| scope.spawn(removal).join());
        if let Ok(Err(error)) = removed {
            eprintln!("the test environment was not removed and will be swept later: {error:#}");
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run `make test`, or start the servers (deploy/local/wired-local start-servers) and `set -a; . .local/servers.env; set +a`"
        )
    })
}

pub(crate) fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
