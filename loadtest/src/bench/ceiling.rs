//! The ceiling: what MySQL can do with the rows of a posting when nobody reads Kafka, decodes, decides or announces.
//!
//! A database of its own on the same server, with the same schema, a copy of the same rows, and texts that were
//! written before the clock starts. Each transaction does what a posting cannot do without:
//!
//! - lock the positions, look all payments up by id, lock mandates, accounts and sequences, by sorted primary keys;
//! - insert payments, entries and events of the widths that the processor writes; update each touched account,
//!   sequence and position once;
//! - commit.
//!
//! The reads are one round trip, the writes with COMMIT another; it neither reads partners and dead letters nor
//! checks what it reads. That is less than any processor can do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::command::{PartnerCommand, PartnerEnvelope};
use domain::event::EventType;
use domain::ids::{AccountId, PartnerId};
use domain::time::Timestamp;
use domain::topic::PARTNER_COMMANDS;
use futures_util::TryStreamExt as _;
use runtime::config::MysqlConfig;
use runtime::sql::Sql;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, MySqlPool, Row as _};
use url::Url;
use uuid::Uuid;

use super::city::Mandate;
use crate::driver::{now_us, scatter};

/// What a database with the same rows holds.
const TABLES: [&str; 8] = [
    "partners",
    "accounts",
    "settlement_accounts",
    "mandates",
    "partner_sequences",
    "payments",
    "entries",
    "events",
];

/// The bare database.
pub(super) struct Ceiling {
    connection: MySqlConnection,
    name: String,
    accounts: HashMap<AccountId, State>,
    sequences: HashMap<PartnerId, u64>,
    offsets: Vec<i64>,
    /// `events.data` as the processor writes it.
    event_data: String,
}

#[derive(Clone, Copy)]
struct State {
    version: u64,
    balance_minor: i64,
}

/// The two texts of a transaction.
pub(super) struct Texts {
    reads: Sql,
    writes: Sql,
}

impl Ceiling {
    /// Makes the database as a copy of `mysql`'s, which must hold an event of a posted payment.
    pub(super) async fn copy_of(mysql: &MysqlConfig, pool: &MySqlPool) -> anyhow::Result<Self> {
        let mut url = Url::parse(&mysql.mysql_url)?;
        let original = url.path().trim_start_matches('/').to_owned();
        let name = format!("{original}_ceiling");
        url.set_path(&name);
        let mysql = MysqlConfig { mysql_url: url.to_string() };
        migrations::schema::apply(&mysql).await?;
        let mut connection = mysql.connect().await?;
        // It idles while the others are measured.
        sqlx::raw_sql("SET SESSION wait_timeout = 3600").execute(&mut connection).await?;
        for table in TABLES {
            // MySQL computes generated columns itself and takes no values for them.
            let columns: Vec<String> = sqlx::query_scalar(
                "SELECT CONVERT(COLUMN_NAME USING utf8mb4) FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND GENERATION_EXPRESSION = ''",
            )
            .bind(&original)
            .bind(table)
            .fetch_all(&mut connection)
            .await?;
            let columns = columns.join(", ");
            let copy = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM `{original}`.{table}");
            sqlx::raw_sql(&copy).execute(&mut connection).await?;
        }
        let mut accounts = HashMap::new();
        for row in
            sqlx::query("SELECT id, version, balance_minor FROM accounts").fetch_all(&mut connection).await?
        {
            let state = State { version: row.try_get(1)?, balance_minor: row.try_get(2)? };
            accounts.insert(AccountId::from_uuid(Uuid::from_slice(row.try_get(0)?)?), state);
        }
        let mut sequences = HashMap::new();
        let rows = sqlx::query("SELECT partner_id, last_sequence FROM partner_sequences");
        for row in rows.fetch_all(&mut connection).await? {
            sequences.insert(PartnerId::from_uuid(Uuid::from_slice(row.try_get(0)?)?), row.try_get(1)?);
        }
        let event = sqlx::query("SELECT data FROM events WHERE type = ? LIMIT 1")
            .bind(EventType::PaymentPosted.code());
        let event = event.fetch_optional(pool).await?.context("no payment has been posted yet")?;
        let runtime::mysql::Text(event_data) = event.try_get(0)?;
        let last = sqlx::query(
            "SELECT CAST(COALESCE(MAX(kafka_offset), 0) AS SIGNED) FROM payments WHERE source = 1",
        );
        let last: i64 = last.fetch_one(&mut connection).await?.try_get(0)?;
        let offsets = vec![last + 1; PARTNER_COMMANDS.partitions as usize];
        Ok(Self { connection, name, accounts, sequences, offsets, event_data })
    }

    /// Writes the texts of these payments, `batch` in each transaction.
    pub(super) fn texts(&mut self, payments: &[(Mandate, PartnerEnvelope)], batch: usize) -> Vec<Texts> {
        payments.chunks(batch).map(|payments| self.transaction(payments)).collect()
    }

    fn transaction(&mut self, payments: &[(Mandate, PartnerEnvelope)]) -> Texts {
        // The order of the primary key, as the processor folds a batch.
        let mut placed: Vec<_> =
            payments.iter().map(|it| (partition(&it.1, self.offsets.len()), it)).collect();
        placed.sort_by_key(|(partition, _)| *partition);
        let now = Timestamp::from_micros(now_us()).civil();
        let mut payments_sql = Sql::with_capacity(700 * payments.len());
        let mut entries_sql = Sql::with_capacity(400 * payments.len());
        let mut events_sql = Sql::with_capacity((2 * self.event_data.len() + 150) * payments.len());
        let (mut accounts, mut partners, mut partitions) =
            (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for (index, (partition, (mandate, envelope))) in placed.into_iter().enumerate() {
            if index > 0 {
                for sql in [&mut payments_sql, &mut entries_sql, &mut events_sql] {
                    sql.text(",");
                }
            }
            let PartnerCommand::Payment(command) = &envelope.command else {
                unreachable!("the city makes payments alone")
            };
            let offset = self.offsets[partition];
            self.offsets[partition] += 1;
            let sequence = self.sequences.entry(mandate.partner).or_default();
            *sequence += 1;
            let sequence = *sequence;
            let sides =
                [(1, mandate.debit, -command.amount_minor), (2, mandate.credit, command.amount_minor)];
            let versions = sides.map(|(direction, account, change)| {
                let state = self.accounts.entry(account).or_insert(State { version: 0, balance_minor: 0 });
                state.version += 1;
                state.balance_minor += change;
                if direction == 2 {
                    entries_sql.text(",");
                }
                entries_sql.text("(").uuid(account.uuid()).text(",").int(state.version);
                entries_sql.text(",").uuid(envelope.id.uuid()).text(",").int(direction);
                entries_sql.text(",").int(command.amount_minor).text(",").int(state.balance_minor);
                entries_sql
                    .text(",")
                    .datetime(now)
                    .text(",")
                    .bytes(&noise(envelope.id.uuid(), direction))
                    .text(")");
                state.version
            });
            payments_sql.text("(1,").int(partition as i64).text(",").int(offset);
            payments_sql
                .text(",")
                .uuid(envelope.id.uuid())
                .text(",")
                .uuid(envelope.root.uuid())
                .text(",1,2,NULL,1,");
            payments_sql.uuid(mandate.partner.uuid()).text(",").uuid(mandate.id.uuid());
            payments_sql.text(",").string(command.currency.code()).text(",").int(command.amount_minor);
            payments_sql.text(",").int(command.amount_minor).text(",0");
            for ((_, account, _), version) in sides.iter().zip(versions) {
                payments_sql.text(",").uuid(account.uuid()).text(",").int(version);
            }
            payments_sql.text(",").int(sequence).text(",").bytes(envelope.fingerprint.as_bytes()).text(",1,");
            payments_sql
                .opt_string(command.reference.as_deref())
                .text(",NULL,NULL,")
                .uuid(envelope.key.uuid());
            payments_sql.text(",NULL,").uuid(envelope.request_id).text(",").bytes(&[127, 0, 0, 1]).text(",");
            payments_sql
                .string(&envelope.idempotency_key)
                .text(",")
                .datetime(now)
                .text(",")
                .datetime(now)
                .text(",NULL,NULL,NULL)");
            events_sql
                .text("(")
                .uuid(mandate.partner.uuid())
                .text(",")
                .int(sequence)
                .text(",1,1,")
                .datetime(now);
            events_sql.text(",").string(&self.event_data).text(")");
            accounts.extend([mandate.debit, mandate.credit]);
            partners.insert(mandate.partner, sequence);
            partitions.insert(partition);
        }
        let reads = reads(payments, &partitions, &accounts, &partners);
        let mut writes =
            Sql::with_capacity(payments_sql.len() + entries_sql.len() + events_sql.len() + 100_000);
        writes.text(INSERT_PAYMENTS).append(&payments_sql);
        writes.text(INSERT_ENTRIES).append(&entries_sql);
        writes.text(INSERT_EVENTS).append(&events_sql);
        writes.text(INSERT_ACCOUNTS).list(&accounts, |sql, account| {
            let state = self.accounts[account];
            // Accounts of the city have neither holds nor limits.
            sql.text("(")
                .uuid(account.uuid())
                .text(",1,")
                .uuid(account.uuid())
                .text(",'EUR',1,")
                .int(state.balance_minor);
            sql.text(",0,0,NULL,NULL,20000,").int(state.version).text(",").int(state.version);
            sql.text(",").bytes(&noise(account.uuid(), state.version)).text(",").datetime(now).text(",1)");
        });
        writes.text(UPDATE_ACCOUNTS);
        writes.text("; INSERT INTO partner_sequences (partner_id, last_sequence, epoch) VALUES ");
        writes.list(&partners, |sql, (partner, sequence)| {
            sql.text("(").uuid(partner.uuid()).text(",").int(*sequence).text(",1)");
        });
        writes.text(" ON DUPLICATE KEY UPDATE last_sequence = VALUES(last_sequence)");
        writes.text(INSERT_POSITIONS);
        writes.list(&partitions, |sql, partition| {
            let next = self.offsets[*partition];
            sql.text("(1,").int(*partition as i64).text(",").int(next).text(",").int(next).text(",");
            sql.bytes(&noise(Uuid::nil(), next as u64)).text(")");
        });
        writes.text(UPDATE_POSITIONS);
        writes.text("; COMMIT");
        Texts { reads, writes }
    }

    /// Sends all transactions one after the other; gives how long each took.
    pub(super) async fn run(&mut self, texts: &[Texts]) -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(texts.len());
        for Texts { reads, writes } in texts {
            let started = Instant::now();
            for text in [reads, writes] {
                let mut answers = sqlx::raw_sql(text.as_str()).fetch_many(&mut self.connection);
                while answers.try_next().await?.is_some() {}
            }
            took.push(started.elapsed());
        }
        Ok(took)
    }

    /// Removes the database.
    pub(super) async fn remove(mut self) -> anyhow::Result<()> {
        let drop_database = format!("DROP DATABASE `{}`", self.name);
        sqlx::raw_sql(&drop_database).execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}

const INSERT_PAYMENTS: &str = "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, \
     reason, version, partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, \
     debit_version, credit_account, credit_version, event_sequence, fingerprint, livemode, reference, description, \
     metadata, actor_id, actor_reason, request_id, address, idempotency_key, accepted_at, decided_at, expires_at, \
     told_partner_id, told_sequence) VALUES ";
const INSERT_ENTRIES: &str = "; INSERT INTO entries (account_id, version, payment_id, direction, amount_minor, \
     balance_minor, entered_at, hash) VALUES ";
const INSERT_EVENTS: &str =
    "; INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) VALUES ";
const INSERT_ACCOUNTS: &str = "; INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, \
     held_minor, overdraft_minor, payment_max_minor, daily_max_minor, spent_day, spent_minor, version, head, \
     entered_at, livemode) VALUES ";
const UPDATE_ACCOUNTS: &str = " ON DUPLICATE KEY UPDATE status = VALUES(status), balance_minor = VALUES(balance_minor), \
     held_minor = VALUES(held_minor), overdraft_minor = VALUES(overdraft_minor), \
     payment_max_minor = VALUES(payment_max_minor), daily_max_minor = VALUES(daily_max_minor), spent_day = VALUES(spent_day), spent_minor = VALUES(spent_minor), version = VALUES(version), head = VALUES(head), \
     entered_at = VALUES(entered_at)";
const INSERT_POSITIONS: &str = "; INSERT INTO positions (source, kafka_partition, next_offset, announced_offset, \
     record_hash) VALUES ";
const UPDATE_POSITIONS: &str = " ON DUPLICATE KEY UPDATE next_offset = VALUES(next_offset), \
     announced_offset = GREATEST(announced_offset, VALUES(announced_offset)), record_hash = VALUES(record_hash)";

fn reads(
    payments: &[(Mandate, PartnerEnvelope)],
    partitions: &BTreeSet<usize>,
    accounts: &BTreeSet<AccountId>,
    partners: &BTreeMap<PartnerId, u64>,
) -> Sql {
    let mut sql = Sql::with_capacity(300 * payments.len() + 2_000);
    sql.text("START TRANSACTION; SELECT next_offset, announced_offset, record_hash FROM positions FORCE INDEX (PRIMARY) \
              WHERE (source, kafka_partition) IN (");
    sql.list(partitions, |sql, partition| {
        sql.text("(1,").int(*partition as i64).text(")");
    });
    sql.text(
        ") ORDER BY source, kafka_partition FOR UPDATE; SELECT id, fingerprint FROM payments WHERE id IN (",
    );
    let ids: BTreeSet<Uuid> = payments.iter().map(|(_, envelope)| envelope.id.uuid()).collect();
    sql.list(ids, |sql, id| {
        sql.uuid(id);
    });
    sql.text(
        "); SELECT id, partner_id, account_id, kind, status, version, currency, payment_max_minor, daily_max_minor, \
         spent_day, spent_minor, expires_at, granted_at FROM mandates FORCE INDEX (PRIMARY) WHERE id IN (",
    );
    let mandates: BTreeSet<_> = payments.iter().map(|(mandate, _)| mandate.id).collect();
    sql.list(mandates, |sql, id| {
        sql.uuid(id.uuid());
    });
    sql.text(
        ") ORDER BY id FOR UPDATE; SELECT id, owner_kind, owner_id, currency, status, balance_minor, held_minor, \
         overdraft_minor, payment_max_minor, daily_max_minor, spent_day, spent_minor, version, head, entered_at, livemode \
         FROM accounts FORCE INDEX (PRIMARY) WHERE id IN (",
    );
    sql.list(accounts, |sql, id| {
        sql.uuid(id.uuid());
    });
    sql.text(
        ") ORDER BY id FOR UPDATE; SELECT partner_id, last_sequence, epoch FROM partner_sequences FORCE INDEX (PRIMARY) \
         WHERE partner_id IN (",
    );
    sql.list(partners.keys(), |sql, id| {
        sql.uuid(id.uuid());
    });
    sql.text(") ORDER BY partner_id FOR UPDATE");
    sql
}

fn partition(envelope: &PartnerEnvelope, partitions: usize) -> usize {
    (scatter(envelope.root.uuid().as_u128() as u64) % partitions as u64) as usize
}

/// 32 bytes as random as a hash.
fn noise(id: Uuid, salt: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let seed = id.as_u128() as u64 ^ salt.rotate_left(32);
    for (index, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&scatter(seed.wrapping_add(index as u64)).to_be_bytes());
    }
    bytes
}
