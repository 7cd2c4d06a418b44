//! A bank of a test's own: a partner with a settlement account, and customers with mandates.

use std::collections::HashMap;
use std::time::Duration;

use domain::account::Owner;
use domain::command::{BankCommand, BankEnvelope, PartnerEnvelope};
use domain::event::EventRecord;
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, bank_account_id};
use domain::money::Currency::EUR;
use domain::time::{Day, Timestamp};
use domain::topic::{EVENTS, PARTNER_COMMANDS, Position, Source};
use processor::Config;
use processor::announce::Announcer;
use processor::apply::{Applier, Components};
use processor::item::Item;
use processor::store::session::Session;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use runtime::config::PrivateListenConfig;
use runtime::health::Health;
use testkit::{Env, fixtures, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for anything; the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What each customer begins with, in cents.
pub(crate) const FUNDS_MINOR: i64 = 1_000_000;

pub(crate) struct Bank {
    pub(crate) env: Env,
    pub(crate) partner: PartnerId,
    pub(crate) customers: Vec<(AccountId, MandateId)>,
    pub(crate) key: KeyId,
}

/// A processor running in this process.
pub(crate) struct Running {
    pub(crate) config: Config,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bank {
    /// A bank with `customers` customers, all of it made by commands of the bank.
    pub(crate) async fn new(name: &str, customers: usize) -> Self {
        let env = Env::new(name).await;
        let partner = fixtures::insert_partner(env.pool(), fixtures::PartnerRow::default()).await;
        let shop = fixtures::account_id();
        let mut bank = Self { env, partner, customers: Vec::new(), key: KeyId::from_uuid(Uuid::now_v7()) };
        let running = bank.start();
        bank.apply(fixtures::open_account(bank_account_id(EUR), Owner::Bank, EUR)).await;
        bank.apply(fixtures::open_account(shop, Owner::Partner(partner), EUR)).await;
        for _ in 0..customers {
            let (account, mandate) = (fixtures::account_id(), fixtures::mandate_id());
            bank.apply(fixtures::open_account(account, Owner::Customer(fixtures::user_id()), EUR)).await;
            bank.apply(fixtures::deposit(account, FUNDS_MINOR, EUR)).await;
            bank.apply(fixtures::grant_mandate(mandate, partner, account, EUR)).await;
            bank.customers.push((account, mandate));
        }
        running.stop().await;
        bank
    }

    pub(crate) fn start(&self) -> Running {
        Self::start_with(self.config())
    }

    pub(crate) fn start_with(config: Config) -> Running {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(processor::run(config.clone(), shutdown.clone()));
        Running { config, shutdown, task }
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            mysql: self.env.service_mysql("processor"),
            kafka: self.env.kafka.clone(),
            private: PrivateListenConfig { private_listen: testkit::free_address() },
            batch_max: 500,
            accepted_ahead_max_seconds: 60,
            bank_time_zone: jiff::tz::TimeZone::UTC,
        }
    }

    /// An applier that is given its batches by the test, since how Kafka's records fall into batches is chance.
    pub(crate) fn applier(&self) -> (Applier, Health) {
        let (health, shutdown, config) = (Health::new(), CancellationToken::new(), self.config());
        let session = || Session::new(config.mysql.clone());
        let announcer =
            Announcer::start(&config.kafka, session(), health.component("events"), shutdown.clone());
        let announcer = announcer.expect("a producer");
        let (zone, ahead, components) =
            (jiff::tz::TimeZone::UTC, config.accepted_ahead_max_seconds, Components::of(&health));
        (Applier::new(session(), announcer, zone, ahead, components, shutdown), health)
    }

    /// Asks for `command` and waits until it is applied.
    pub(crate) async fn apply(&self, command: BankCommand) {
        let envelope = self.send(command).await;
        self.decided(envelope.id).await;
    }

    pub(crate) async fn send(&self, command: BankCommand) -> BankEnvelope {
        let envelope = fixtures::bank(fixtures::user_id(), command);
        self.env.produce_bank(&envelope).await;
        envelope
    }

    /// A payment of the first customer.
    pub(crate) fn payment(&self, key: &str, amount_minor: i64) -> PartnerEnvelope {
        self.payment_of(0, key, amount_minor)
    }

    pub(crate) fn payment_of(&self, customer: usize, key: &str, amount_minor: i64) -> PartnerEnvelope {
        let mandate = self.customers[customer % self.customers.len()].1;
        fixtures::payment(self.partner, self.key, key, mandate, amount_minor, EUR)
    }

    /// Sends payments as ingest does, all at once.
    pub(crate) async fn pay(&self, payments: &[PartnerEnvelope]) {
        let records: Vec<_> = payments
            .iter()
            .map(|payment| (payment.root.uuid().as_bytes().to_vec(), payment.encode()))
            .collect();
        self.env.produce_all(PARTNER_COMMANDS, None, &records).await;
    }

    /// Waits for the row of a payment or change.
    pub(crate) async fn decided(&self, id: Uuid) {
        wait_until(&format!("{id} is decided"), PATIENCE, async || {
            self.count("SELECT (SELECT COUNT(*) FROM payments WHERE id = ?1) + (SELECT COUNT(*) FROM changes WHERE id = ?1)", id).await == 1
        })
        .await;
    }

    async fn count(&self, sql: &str, id: Uuid) -> i64 {
        let hex = format!("0x{}", id.simple());
        self.number(&sql.replace("?1", &hex)).await
    }

    /// The number that a statement selects; -1 while MySQL does not answer.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.env.pool()).await.unwrap_or(-1)
    }

    /// The words that a statement selects.
    pub(crate) async fn words(&self, sql: &str) -> Vec<String> {
        let rows: Vec<runtime::mysql::Text> =
            sqlx::query_scalar(sql).fetch_all(self.env.pool()).await.expect("the statement runs");
        rows.into_iter().map(|text| text.0).collect()
    }

    /// Changes the database as administrator.
    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(self.env.pool()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Waits until so many payments have the status (its number).
    pub(crate) async fn settled(&self, count: i64) {
        wait_until(&format!("{count} payments are decided"), PATIENCE, async || {
            self.number("SELECT COUNT(*) FROM payments WHERE kind <> 2").await >= count
        })
        .await;
    }

    /// Money is where the entries say, nothing was made or lost, and no sequence is missing.
    pub(crate) async fn assert_sound(&self) {
        for (what, sql) in [
            ("accounts do not sum to zero", "SELECT CAST(SUM(balance_minor) AS SIGNED) FROM accounts"),
            (
                "balances are not their entries",
                "SELECT COUNT(*) FROM accounts a WHERE a.balance_minor <> (SELECT COALESCE(SUM(IF(direction = 1, \
                 -amount_minor, amount_minor)), 0) FROM entries e WHERE e.account_id = a.id)",
            ),
            (
                "versions do not count entries",
                "SELECT COUNT(*) FROM accounts a WHERE a.version <> (SELECT COUNT(*) FROM entries e WHERE \
                 e.account_id = a.id)",
            ),
            (
                "a posting has not two entries",
                "SELECT (SELECT COUNT(*) * 2 FROM payments WHERE status = 2) - (SELECT COUNT(*) FROM entries)",
            ),
            (
                "sequences have gaps",
                "SELECT COUNT(*) FROM partner_sequences s WHERE s.last_sequence <> (SELECT COUNT(*) FROM events e \
                 WHERE e.partner_id = s.partner_id)",
            ),
        ] {
            assert_eq!(self.number(sql).await, 0, "{what}");
        }
    }

    /// Reads the event topic until it has told `count` different events; says how often each was told.
    pub(crate) async fn announced(&self, count: usize) -> HashMap<Uuid, (EventRecord, usize)> {
        let (kafka, topic) = (self.env.kafka.clone(), self.env.topic(EVENTS));
        let reading = tokio::task::spawn_blocking(move || {
            let group = format!("reader-{}", Uuid::now_v7().simple());
            let consumer: BaseConsumer = kafka.consumer(&group).create().expect("a consumer");
            consumer.subscribe(&[&topic]).expect("the event topic");
            let mut told = HashMap::new();
            let begun = std::time::Instant::now();
            while told.len() < count {
                assert!(begun.elapsed() < PATIENCE, "{} of {count} events are on the topic", told.len());
                let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
                let message = message.expect("a record");
                let event: EventRecord =
                    serde_json::from_slice(message.payload().unwrap_or_default()).expect("an event");
                told.entry(event.id.uuid()).or_insert((event, 0)).1 += 1;
            }
            told
        });
        reading.await.expect("reading ends")
    }
}

/// A record that stands where the test says.
pub(crate) fn item(source: Source, partition: i32, offset: i64, value: &[u8]) -> Item {
    Item::read(Position { source, partition, offset }, Timestamp::from_micros(1), Day(0), None, Some(value))
}

impl Running {
    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("a processor ends in bounded time")
            .expect("no panic")
            .expect("a clean end");
    }

    /// Ends it as SIGKILL does, as far as that is possible within a process: nothing is drained.
    pub(crate) async fn abort(self) {
        self.task.abort();
        // Its consumer thread notices that nobody takes its records any more.
        let _ = self.task.await;
        self.shutdown.cancel();
    }

    /// What the health check says.
    pub(crate) async fn ready(&self) -> (u16, String) {
        let address = self.config.private.private_listen;
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return (0, String::new()) };
        let request = "GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).await.is_err()
            || stream.read_to_string(&mut answer).await.is_err()
        {
            return (0, answer);
        }
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// Waits until the health check says `status` with `words`.
    pub(crate) async fn says(&self, status: u16, words: &str) {
        wait_until(&format!("health says {status} with {words:?}"), PATIENCE, async || {
            let (found, answer) = self.ready().await;
            found == status && answer.contains(words)
        })
        .await;
    }
}
