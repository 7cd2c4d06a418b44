//! The whole ledger of a running bank, read as the administrator and in the shapes of the naive bank, and the commands
//! on Kafka that it was made of; with these the tests of money compare.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use domain::account::{AccountStatus, Owner, OwnerKind};
use domain::command::{BankEnvelope, PartnerEnvelope};
use domain::event::EventType;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::{Day, Timestamp};
use domain::topic::Source;
use futures_util::StreamExt as _;
use loadtest::faults::audit::{self, Ends};
use loadtest::system::System;
use migrations::users::Role;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use runtime::mysql::Text;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlPool, Row as _};
use testkit::naive_bank::{Account, Command, Event, Mandate, Payment};
use uuid::Uuid;

/// How long the bank may take to apply what a test sent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Records that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 500;

/// Source code, partition and offset.
pub(crate) type Place = (u8, u16, u64);

/// Everything that was decided.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) settlement: BTreeMap<(PartnerId, Currency), AccountId>,
    pub(crate) mandates: BTreeMap<MandateId, Mandate>,
    pub(crate) payments: BTreeMap<PaymentId, Payment>,
    pub(crate) changes: BTreeMap<Uuid, Option<Reason>>,
    pub(crate) follow_ups: BTreeSet<(PaymentId, PaymentId)>,
    pub(crate) events: BTreeMap<PartnerId, Vec<Event>>,
    /// When the command at each place was decided, if it left anything.
    pub(crate) decided: HashMap<Place, Timestamp>,
    /// Where each payment's command stands.
    pub(crate) places: HashMap<PaymentId, Place>,
    /// When each payment's command was accepted.
    pub(crate) accepted: HashMap<PaymentId, Timestamp>,
    /// The event of each payment's and each change's outcome.
    pub(crate) told: HashMap<Uuid, u64>,
}

impl Ledger {
    /// Reads all of it, after everything sent was applied.
    pub(crate) async fn read(system: &System) -> Self {
        audit::applied(system, PATIENCE).await.unwrap();
        Self::read_now(system.pool()).await
    }

    /// Reads all of it, table by table: of one moment only when nobody writes.
    pub(crate) async fn read_now(pool: &MySqlPool) -> Self {
        let mut ledger = Self::default();
        for row in rows(pool, "SELECT * FROM settlement_accounts").await {
            let key = (PartnerId::from_uuid(id(&row, "partner_id")), currency(&row).unwrap());
            ledger.settlement.insert(key, AccountId::from_uuid(id(&row, "account_id")));
        }
        for row in rows(pool, "SELECT * FROM accounts").await {
            let kind = OwnerKind::from_code(row.get("owner_kind")).unwrap();
            let account = Account {
                livemode: row.get::<u8, _>("livemode") == 1,
                status: AccountStatus::from_code(row.get("status")).unwrap(),
                balance: row.get::<i64, _>("balance_minor").into(),
                overdraft: row.get("overdraft_minor"),
                payment_max: row.get("payment_max_minor"),
                daily_max: row.get("daily_max_minor"),
                spent: (Day(row.get("spent_day")), row.get("spent_minor")),
                version: row.get("version"),
                ..Account::new(Owner::from_stored(kind, id(&row, "owner_id")), currency(&row).unwrap())
            };
            ledger.accounts.insert(AccountId::from_uuid(id(&row, "id")), account);
        }
        for row in rows(pool, "SELECT * FROM holds").await {
            let account = ledger.accounts.get_mut(&AccountId::from_uuid(id(&row, "account_id"))).unwrap();
            account.holds.insert(PaymentId::from_uuid(id(&row, "payment_id")), row.get("amount_minor"));
        }
        let mandates =
            "SELECT mandates.*, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) AS ends FROM mandates";
        for row in rows(pool, mandates).await {
            let mandate = Mandate {
                partner: PartnerId::from_uuid(id(&row, "partner_id")),
                account: optional_id(&row, "account_id").map(AccountId::from_uuid),
                kind: MandateKind::from_code(row.get("kind")).unwrap(),
                status: MandateStatus::from_code(row.get("status")).unwrap(),
                version: row.get("version"),
                currency: currency(&row).unwrap(),
                payment_max: row.get("payment_max_minor"),
                daily_max: row.get("daily_max_minor"),
                spent: (Day(row.get("spent_day")), row.get("spent_minor")),
                expires_at: time(&row, "ends"),
            };
            ledger.mandates.insert(MandateId::from_uuid(id(&row, "id")), mandate);
        }
        ledger.read_outcomes(pool).await;
        for row in rows(pool, "SELECT * FROM follow_ups").await {
            let of = |column| PaymentId::from_uuid(id(&row, column));
            ledger.follow_ups.insert((of("root_id"), of("payment_id")));
        }
        for row in rows(pool, "SELECT * FROM events ORDER BY partner_id, sequence").await {
            let log = ledger.events.entry(PartnerId::from_uuid(id(&row, "partner_id"))).or_default();
            let event_type = EventType::from_code(row.get("type")).unwrap();
            log.push(Event::read(event_type, &String::from(row.get::<Text, _>("data"))));
            assert_eq!(row.get::<u64, _>("sequence"), log.len() as u64, "a log has no gap");
        }
        ledger
    }

    async fn read_outcomes(&mut self, pool: &MySqlPool) {
        let times = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', decided_at) AS decided";
        let payments = format!(
            "SELECT payments.*, {times}, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at) AS accepted,
            TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) AS ends FROM payments"
        );
        for row in rows(pool, &payments).await {
            let payment = PaymentId::from_uuid(id(&row, "id"));
            let minor = row.get("amount_minor");
            let both = |column: [&str; 2]| {
                let [debit, credit] =
                    column.map(|column| optional_id(&row, column).map(AccountId::from_uuid));
                debit.zip(credit).map(|(debit, credit)| [debit, credit])
            };
            let version = |column: &str| row.get::<Option<u64>, _>(column);
            self.decided.insert(place(&row), time(&row, "decided").unwrap());
            self.places.insert(payment, place(&row));
            self.accepted.insert(payment, time(&row, "accepted").unwrap());
            if let Some(sequence) = row.get("event_sequence") {
                self.told.insert(payment.uuid(), sequence);
            }
            let value = Payment {
                kind: PaymentKind::from_code(row.get("kind")).unwrap(),
                root: PaymentId::from_uuid(id(&row, "root_id")),
                status: PaymentStatus::from_code(row.get("status")).unwrap(),
                reason: reason(&row),
                version: row.get("version"),
                partner: optional_id(&row, "partner_id").map(PartnerId::from_uuid),
                livemode: row.get::<u8, _>("livemode") == 1,
                mandate: optional_id(&row, "mandate_id").map(MandateId::from_uuid),
                amount: currency(&row).and_then(|currency| Amount::new(minor, currency).ok()),
                captured: row.get("captured_minor"),
                refunded: row.get("refunded_minor"),
                accounts: both(["debit_account", "credit_account"]),
                versions: version("debit_version").zip(version("credit_version")).map(|(a, b)| [a, b]),
                expires_at: time(&row, "ends"),
            };
            assert!(self.payments.insert(payment, value).is_none(), "{payment} twice");
        }
        for row in rows(pool, &format!("SELECT changes.*, {times} FROM changes")).await {
            self.decided.insert(place(&row), time(&row, "decided").unwrap());
            if let Some(sequence) = row.get("event_sequence") {
                self.told.insert(id(&row, "id"), sequence);
            }
            self.changes.insert(id(&row, "id"), reason(&row));
        }
    }

    /// Status and reason of a payment.
    pub(crate) fn outcome(&self, id: PaymentId) -> (PaymentStatus, Option<Reason>) {
        let payment = self.payments.get(&id).unwrap_or_else(|| panic!("{id} was lost"));
        (payment.status, payment.reason)
    }
}

/// The verifier's whole report must be clean.
pub(crate) async fn verify(system: &System) {
    let verifier = system.mysql_of(Role::Verifier).pool("verifier", 2).unwrap();
    let report = verifier::verify(&verifier, None).await.unwrap();
    assert!(report.is_whole(), "{:#?}", report.findings);
    verifier.close().await;
}

/// Writes commands to their topics, as only services may.
pub(crate) struct Writer {
    producer: FutureProducer,
    topics: [String; 2],
}

impl Writer {
    pub(crate) fn new(system: &System) -> Self {
        let topics = [Source::Partner, Source::Bank].map(|source| system.kafka().topic(source.topic().name));
        Self { producer: system.kafka().producer().create().unwrap(), topics }
    }

    pub(crate) async fn write(&self, command: &Command) {
        let topic = match command {
            Command::Partner(_) => &self.topics[0],
            Command::Bank(_) => &self.topics[1],
        };
        let (key, value) = (command.kafka_key(), command.encode());
        let record = FutureRecord::to(topic).key(key.as_bytes()).payload(&value);
        let sent = self.producer.send(record, Duration::from_secs(20)).await;
        sent.map_err(|(error, _)| error).unwrap();
    }

    /// Many of them, each partition in this order.
    pub(crate) async fn write_all(&self, commands: &[Command]) {
        let sent = futures_util::stream::iter(commands).map(|command| self.write(command));
        sent.buffered(IN_FLIGHT).collect::<Vec<()>>().await;
    }
}

/// A record of a command topic.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) accepted_at: Timestamp,
    pub(crate) command: Command,
}

/// Reads the records of both command topics before these ends.
pub(crate) async fn records(system: &System, ends: Ends) -> Vec<Record> {
    let kafka = system.kafka().clone();
    let read = move || {
        let consumer: BaseConsumer = kafka.client().set("group.id", "test").create().unwrap();
        let mut from = TopicPartitionList::new();
        for source in Source::ALL {
            for partition in 0..source.topic().partitions {
                let topic = kafka.topic(source.topic().name);
                from.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&from).unwrap();
        let expected: u64 = ends.values().sum();
        let mut records = Vec::new();
        while (records.len() as u64) < expected {
            let message = consumer.poll(Duration::from_secs(20)).expect("a record").unwrap();
            let value = message.payload().unwrap();
            let (source, command) = if message.topic() == kafka.topic(Source::Partner.topic().name) {
                (Source::Partner, Command::Partner(PartnerEnvelope::decode(value).unwrap()))
            } else {
                (Source::Bank, Command::Bank(BankEnvelope::decode(value).unwrap()))
            };
            let place = (source.code(), message.partition() as u16, message.offset() as u64);
            // The sweepers go on asking for expiries.
            if ends.get(&(place.0, place.1)).is_none_or(|end| place.2 >= *end) {
                continue;
            }
            let accepted_at = Timestamp::from_millis(message.timestamp().to_millis().unwrap());
            records.push(Record { place, accepted_at, command });
        }
        records
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

async fn rows(pool: &MySqlPool, sql: &str) -> Vec<MySqlRow> {
    sqlx::query(sql).fetch_all(pool).await.unwrap()
}

fn place(row: &MySqlRow) -> Place {
    (row.get("source"), row.get("kafka_partition"), row.get("kafka_offset"))
}

fn id(row: &MySqlRow, column: &str) -> Uuid {
    optional_id(row, column).unwrap()
}

fn optional_id(row: &MySqlRow, column: &str) -> Option<Uuid> {
    row.get::<Option<Vec<u8>>, _>(column).map(|bytes| Uuid::from_slice(&bytes).unwrap())
}

fn time(row: &MySqlRow, column: &str) -> Option<Timestamp> {
    row.get::<Option<i64>, _>(column).map(Timestamp::from_micros)
}

fn currency(row: &MySqlRow) -> Option<Currency> {
    row.get::<Option<Text>, _>("currency").map(|text| String::from(text).parse().unwrap())
}

fn reason(row: &MySqlRow) -> Option<Reason> {
    row.get::<Option<u8>, _>("reason").map(|code| Reason::from_code(code).unwrap())
}
