//! Gives accounts a past that nobody waited for: payments, entries and events written by SQL alone, with the widths
//! and the keys that the processor gives them.
//!
//! - **Honest for what is measured.** Ids are as random as derived ones, so that the index on ids is as large and as
//!   scattered. Every account's versions, balance and last time, and every partner's sequence, go on where the past
//!   ends. Several passes over all accounts leave pages as full as a ledger that grew.
//! - **Not a ledger.** Hashes are random, amounts are 1, and the commands are of a partition that no topic has
//!   ([`PARTITION`]), since the positions of the real ones are where their topics end. The verifier finds all of that.
//! - **Bounded.** A statement writes some 10,000 payments, and nothing goes to the binary log.

use anyhow::{Context as _, bail};
use domain::event::EventType;
use domain::ids::PartnerId;
use domain::topic::PARTNER_COMMANDS;
use runtime::sql::Sql;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Row as _};

use crate::driver::now_us;
use crate::system::System;

/// Where the past came from.
const PARTITION: i32 = 1_000;
const _: () = assert!(PARTITION > PARTNER_COMMANDS.partitions, "the past came by no real partition");
/// Payments of one statement.
const CHUNK: u64 = 10_000;
/// Numbers that the scratch table of numbers has, and so the most payments of an account in one pass.
const NUMBERS: u64 = 10_000;
/// Times that the past comes by each account.
const PASSES: u64 = 10;

/// What kind of past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// All that the payments left, just now.
    Whole,
    /// What a statement of the credited accounts reads, so many seconds between two entries of an account.
    Credited {
        /// Seconds.
        every_s: u64,
    },
}

/// Makes `payments` payments or some more, evenly under all mandates but those of `except`, which must each have an
/// account to debit and one to credit of their own. Gives how many it made.
pub(super) async fn fill(
    system: &System,
    payments: u64,
    past: Past,
    except: Option<PartnerId>,
) -> anyhow::Result<u64> {
    let mut connection = system.mysql().connect().await?;
    let made = Filling { connection: &mut connection, past }.run(system, payments, except).await;
    connection.close().await?;
    made
}

struct Filling<'a> {
    connection: &'a mut MySqlConnection,
    past: Past,
}

impl Filling<'_> {
    async fn run(
        &mut self,
        system: &System,
        payments: u64,
        except: Option<PartnerId>,
    ) -> anyhow::Result<u64> {
        // It is no part of what is measured, and would be twice the size of the store.
        self.execute("SET SESSION sql_log_bin = 0").await?;
        self.execute("SET SESSION wait_timeout = 3600").await?;
        self.scratch(except).await?;
        let mandates = self.count("SELECT COUNT(*) FROM bench_fill").await?;
        if mandates == 0 || mandates != self.count("SELECT COUNT(DISTINCT credit) FROM bench_fill").await? {
            bail!("{mandates} mandates with an account of their own to credit are no base for a past");
        }
        let each = payments.div_ceil(mandates);
        let passes = PASSES.max(each.div_ceil(NUMBERS)).min(each);
        let each = each.div_ceil(passes.max(1)) * passes;
        let spacing_us = match self.past {
            Past::Whole => 1,
            Past::Credited { every_s } => every_s * 1_000_000,
        };
        // The last one was a moment ago.
        let start_us = now_us() - 1_000_000 - (each * spacing_us) as i64;
        let event = self.event(system).await?;
        for pass in 0..passes {
            let versions = each / passes;
            let step = (CHUNK / versions).max(1);
            for first in (0..mandates).step_by(step as usize) {
                let last = mandates.min(first + step) - 1;
                let slice = Slice { first, last, done: pass * versions, versions, start_us, spacing_us };
                let offset = pass * versions * mandates;
                self.execute(slice.payments(offset).as_str()).await?;
                self.execute(slice.entries(self.past).as_str()).await?;
                if self.past == Past::Whole {
                    self.execute(slice.events(&event).as_str()).await?;
                }
            }
        }
        self.carry_over(each, start_us + (each * spacing_us) as i64).await?;
        self.execute("DROP TABLE bench_fill").await?;
        self.execute("DROP TABLE bench_numbers").await?;
        Ok(each * mandates)
    }

    /// Tables of whom there is to pay and of the numbers from 0.
    async fn scratch(&mut self, except: Option<PartnerId>) -> anyhow::Result<()> {
        self.execute("DROP TABLE IF EXISTS bench_fill, bench_numbers").await?;
        self.execute("CREATE TABLE bench_numbers (k BIGINT UNSIGNED NOT NULL PRIMARY KEY)").await?;
        self.execute(
            "INSERT INTO bench_numbers WITH RECURSIVE d (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM d WHERE n < 9) \
             SELECT a.n + 10 * b.n + 100 * c.n + 1000 * e.n FROM d a, d b, d c, d e",
        )
        .await?;
        self.execute(
            "CREATE TABLE bench_fill (n BIGINT UNSIGNED NOT NULL PRIMARY KEY, mandate BINARY(16) NOT NULL, \
             partner BINARY(16) NOT NULL, debit BINARY(16) NOT NULL, credit BINARY(16) NOT NULL, \
             debit_version BIGINT UNSIGNED NOT NULL, debit_balance BIGINT NOT NULL, \
             credit_version BIGINT UNSIGNED NOT NULL, credit_balance BIGINT NOT NULL, sequence BIGINT UNSIGNED NOT NULL)",
        )
        .await?;
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO bench_fill SELECT ROW_NUMBER() OVER (ORDER BY m.id) - 1, m.id, m.partner_id, m.account_id, \
             s.account_id, d.version, d.balance_minor, c.version, c.balance_minor, q.last_sequence FROM mandates m \
             JOIN settlement_accounts s ON s.partner_id = m.partner_id AND s.currency = m.currency \
             JOIN accounts d ON d.id = m.account_id JOIN accounts c ON c.id = s.account_id \
             JOIN partner_sequences q ON q.partner_id = m.partner_id WHERE m.partner_id <> ",
        );
        sql.uuid(except.map_or(uuid::Uuid::nil(), |partner| partner.uuid()));
        self.execute(sql.as_str()).await
    }

    /// `data` of an event as the processor writes it.
    async fn event(&mut self, system: &System) -> anyhow::Result<String> {
        if self.past != Past::Whole {
            return Ok(String::new());
        }
        let event = sqlx::query("SELECT data FROM events WHERE type = ? LIMIT 1")
            .bind(EventType::PaymentPosted.code());
        let event = event.fetch_optional(system.pool()).await?.context("no payment has been posted yet")?;
        let runtime::mysql::Text(data) = event.try_get(0)?;
        Ok(data)
    }

    /// Accounts and sequences go on where the past ends.
    async fn carry_over(&mut self, each: u64, last_us: i64) -> anyhow::Result<()> {
        let sides: &[(&'static str, &'static str, i64)] = match self.past {
            Past::Whole => &[("debit", "debit_version", -1), ("credit", "credit_version", 1)],
            Past::Credited { .. } => &[("credit", "credit_version", 1)],
        };
        for (account, version, sign) in sides {
            let mut sql = Sql::new();
            sql.text("UPDATE accounts a JOIN bench_fill f ON a.id = f.").text(account);
            sql.text(" SET a.version = f.").text(version).text(" + ").int(each);
            sql.text(", a.balance_minor = a.balance_minor + ").int(*sign * each as i64);
            sql.text(", a.entered_at = ");
            at(&mut sql, last_us);
            self.execute(sql.as_str()).await?;
        }
        let mut sql = Sql::new();
        sql.text(
            "UPDATE partner_sequences q JOIN bench_fill f ON q.partner_id = f.partner SET q.last_sequence = ",
        );
        sql.text("f.sequence + ").int(each);
        match self.past {
            Past::Whole => self.execute(sql.as_str()).await,
            Past::Credited { .. } => Ok(()),
        }
    }

    async fn execute(&mut self, sql: &str) -> anyhow::Result<()> {
        sqlx::Executor::execute(&mut *self.connection, sql).await?;
        Ok(())
    }

    async fn count(&mut self, sql: &'static str) -> anyhow::Result<u64> {
        Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *self.connection).await? as u64)
    }
}

/// The payments under the mandates `first..=last`, `versions` under each behind `done` earlier ones.
struct Slice {
    first: u64,
    last: u64,
    done: u64,
    versions: u64,
    start_us: i64,
    spacing_us: u64,
}

/// The id of a payment: 16 bytes that are spread like those of a derived id.
const ID: &str = "UNHEX(LEFT(SHA2(CONCAT('payment', f.n, '-', k.k + ";
const ID_END: &str = "), 256), 32))";

impl Slice {
    fn payments(&self, offset: u64) -> Sql {
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version, \
             partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, \
             debit_version, credit_account, credit_version, event_sequence, fingerprint, livemode, reference, actor_id, \
             request_id, address, idempotency_key, accepted_at, decided_at) SELECT 1, ",
        );
        sql.int(PARTITION).text(", ").int(offset).text(" + f.n * ").int(self.versions).text(" + k.k, ");
        for _ in 0..2 {
            self.id(&mut sql);
            sql.text(", ");
        }
        sql.text("1, 2, NULL, 1, f.partner, f.mandate, 'EUR', 1, 1, 0, f.debit, f.debit_version + ");
        self.version(&mut sql);
        sql.text(", f.credit, f.credit_version + ");
        self.version(&mut sql);
        sql.text(", f.sequence + ");
        self.version(&mut sql);
        sql.text(", CONCAT(0x01, UNHEX(SHA2(CONCAT('asked', f.n, '-', k.k), 256))), 1, CONCAT('past-', LPAD(f.n * ");
        sql.int(NUMBERS).text(
            " + k.k, 10, '0')), f.partner, UNHEX(LEFT(SHA2(CONCAT('request', f.n, '-', k.k), 256), 32)), ",
        );
        sql.text("0x7f000001, CONCAT('past-', LPAD(f.n, 6, '0'), '-', LPAD(k.k + ").int(self.done);
        sql.text(", 8, '0')), ");
        self.time(&mut sql);
        sql.text(", ");
        self.time(&mut sql);
        self.rows(&mut sql);
        sql
    }

    fn entries(&self, past: Past) -> Sql {
        let sides: &[(&'static str, &'static str)] = match past {
            Past::Whole => &[
                ("f.debit, f.debit_version + ", ", 1, 1, f.debit_balance - "),
                ("f.credit, f.credit_version + ", ", 2, 1, f.credit_balance + "),
            ],
            Past::Credited { .. } => &[("f.credit, f.credit_version + ", ", 2, 1, f.credit_balance + ")],
        };
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO entries (account_id, version, payment_id, direction, amount_minor, balance_minor, entered_at, \
             hash) ",
        );
        for (index, (account, balance)) in sides.iter().enumerate() {
            sql.text(if index == 0 { "SELECT " } else { " UNION ALL SELECT " }).text(account);
            self.version(&mut sql);
            sql.text(", ");
            self.id(&mut sql);
            sql.text(balance);
            self.version(&mut sql);
            sql.text(", ");
            self.time(&mut sql);
            sql.text(", UNHEX(SHA2(CONCAT('entry").int(index as i64).text("-', f.n, '-', k.k), 256))");
            self.rows(&mut sql);
        }
        sql
    }

    fn events(&self, data: &str) -> Sql {
        let mut sql = Sql::new();
        sql.text("INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) SELECT f.partner, f.sequence + ");
        self.version(&mut sql);
        sql.text(", 1, ").int(EventType::PaymentPosted.code()).text(", ");
        self.time(&mut sql);
        sql.text(", ").string(data);
        self.rows(&mut sql);
        sql
    }

    fn id(&self, sql: &mut Sql) {
        sql.text(ID).int(self.done).text(ID_END);
    }

    /// Counts from 1.
    fn version(&self, sql: &mut Sql) {
        sql.text("k.k + ").int(self.done + 1);
    }

    fn time(&self, sql: &mut Sql) {
        at(sql, self.start_us);
        sql.text(" + INTERVAL (k.k + ").int(self.done).text(") * ").int(self.spacing_us).text(" MICROSECOND");
    }

    fn rows(&self, sql: &mut Sql) {
        sql.text(" FROM bench_fill f JOIN bench_numbers k WHERE f.n BETWEEN ").int(self.first);
        sql.text(" AND ").int(self.last).text(" AND k.k < ").int(self.versions);
    }
}

fn at(sql: &mut Sql, micros: i64) {
    sql.text("TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ").int(micros).text(" MICROSECOND");
}
