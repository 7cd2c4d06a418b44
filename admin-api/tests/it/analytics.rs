//! Figures: equal to what the ledger holds whatever happened while they were counted, and read without the ledger.

use std::collections::{BTreeMap, BTreeSet};

use admin_api::analytics::{self, RebuildConfig, Step, facts::Grain};
use admin_api::store::analytics as store;
use clap::Parser;
use domain::ids::{PartnerId, UserId};
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use domain::topic::Source;
use jiff::tz::TimeZone;
use sqlx::{MySqlPool, Row as _};
use testkit::{Env, fixtures, wait_until};
use uuid::Uuid;

use crate::books::{Books, Row};
use crate::harness::{Bank, LONG};

#[derive(Parser)]
struct RebuildCli {
    #[command(flatten)]
    config: RebuildConfig,
}

fn rebuild_config(env: &Env) -> RebuildConfig {
    RebuildCli::parse_from(["rebuild", "--mysql-url", &env.service_url("admin-api")]).config
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's linear congruential generator; its high bits are good enough for tests.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// A bank that grows.
struct Growing<'a> {
    books: Books<'a>,
    dice: Dice,
    next: BTreeMap<(u8, u16), u64>,
    partners: Vec<PartnerId>,
    customers: Vec<(UserId, domain::ids::AccountId)>,
    cash: domain::ids::AccountId,
    open_letters: Vec<(u16, u64, Uuid)>,
    at: Timestamp,
}

impl Growing<'_> {
    fn place(&mut self, source: Source) -> (u16, u64) {
        let partition = self.dice.below(source.topic().partitions as u64) as u16;
        // A hole now and then: commands that left nothing here.
        let next = self.next.entry((source.code(), partition)).or_default();
        let offset = *next + u64::from(self.dice.below(10) == 0);
        *next = offset + 1;
        (partition, offset)
    }

    fn random_row(&mut self, source: Source, partition: u16, offset: u64) -> Row {
        // From one bucket into the next.
        self.at = self.at.plus_seconds(self.dice.below(900) as i64);
        let mut row = Row::new(offset, &self.at.to_string());
        let (_, debit) = self.customers[self.dice.below(self.customers.len() as u64) as usize];
        (row.source, row.partition, row.debit, row.credit) =
            (source, partition, Some(debit), Some(self.cash));
        row.partner = (source == Source::Partner).then(|| self.dice.of(&self.partners));
        row.livemode = self.dice.below(8) > 0;
        row.amount_minor = 1 + self.dice.below(100_000) as i64;
        row.decided_at = row.accepted_at.plus_micros(self.dice.below(1_u64 << (3 + self.dice.0 % 25)) as i64);
        let kinds = match source {
            Source::Partner => &[
                PaymentKind::Payment,
                PaymentKind::Payment,
                PaymentKind::Capture,
                PaymentKind::Void,
                PaymentKind::Refund,
            ][..],
            Source::Bank => &[PaymentKind::Deposit, PaymentKind::Withdrawal, PaymentKind::Reversal][..],
        };
        row.kind = self.dice.of(kinds);
        match self.dice.below(6) {
            0 => {
                row.status = PaymentStatus::Rejected;
                row.reason = Some(self.dice.of(&[Reason::InsufficientFunds, Reason::PaymentUnknown]));
                (row.debit, row.credit) = (None, None);
                row.two_phases = row.kind == PaymentKind::Payment && self.dice.below(2) == 0;
                row.currency = row.currency.filter(|_| row.kind != PaymentKind::Void);
                row.amount_minor *= i64::from(row.currency.is_some());
            }
            1 if row.kind == PaymentKind::Payment => {
                row.status = PaymentStatus::Authorized;
                row.two_phases = true;
            }
            _ => row.moved = row.kind != PaymentKind::Void,
        }
        row
    }

    async fn grow(&mut self, commands: usize) {
        for _ in 0..commands {
            match self.dice.below(20) {
                0 => {
                    let (partition, offset) = self.place(Source::Partner);
                    let id = Uuid::new_v4();
                    self.books.dead_letter(Source::Partner, partition, offset, id).await;
                    self.open_letters.push((partition, offset, id));
                }
                1 if !self.open_letters.is_empty() => {
                    let index = self.dice.below(self.open_letters.len() as u64) as usize;
                    let (partition, offset, root) = self.open_letters.swap_remove(index);
                    let (at, change_offset) = self.place(Source::Bank);
                    // One transaction in the processor: the position moves last.
                    let row = self.random_row(Source::Partner, partition, offset);
                    self.books.insert(&row).await;
                    self.books.redrive(at, change_offset, root).await;
                }
                2 => {
                    // A root moves on; what was decided on it first does not.
                    let sql = "UPDATE payments SET status = 2, captured_minor = amount_minor, version = 2 \
                               WHERE status = 5 ORDER BY id LIMIT 1";
                    sqlx::query(sql).execute(self.books.pool).await.unwrap();
                }
                other => {
                    let source = if other < 6 { Source::Bank } else { Source::Partner };
                    let (partition, offset) = self.place(source);
                    let row = self.random_row(source, partition, offset);
                    self.books.insert(&row).await;
                }
            }
        }
    }
}

/// Livemode, grain, bucket, kind, currency, outcome and reason, with commands, asked for, moved.
type OutcomeKey = (u8, u8, i32, u8, String, u8, u8);
/// Livemode, day, partner and currency.
type PartnerKey = (u8, i32, Uuid, String);
/// Commands, rejected, taken, returned.
type PartnerSums = (u64, u64, i128, i128);

/// What the ledger says, reckoned in another way than the program does: row by row, and what moved by its entries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reckoned {
    outcomes: BTreeMap<OutcomeKey, (u64, i128, i128)>,
    /// By grain and bucket.
    latency: BTreeMap<(u8, i32), u64>,
    partners: BTreeMap<PartnerKey, PartnerSums>,
    customers: BTreeMap<i32, u64>,
}

async fn reckon(pool: &MySqlPool, zone: &TimeZone) -> Reckoned {
    let rows = sqlx::query(
        "SELECT p.livemode, p.kind, COALESCE(p.currency, ''), p.status, COALESCE(p.reason, 0), p.expires_at IS NOT NULL, \
         p.amount_minor, COALESCE((SELECT SUM(e.amount_minor) FROM entries e WHERE e.account_id = p.debit_account \
         AND e.version = p.debit_version), 0), p.partner_id, a.owner_kind, a.owner_id, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.decided_at) FROM payments p \
         LEFT JOIN accounts a ON a.id = p.debit_account",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let (mut reckoned, mut customers) = (Reckoned::default(), BTreeMap::<i32, BTreeSet<Vec<u8>>>::new());
    for row in rows {
        let byte = |index: usize| -> u8 { row.get_unchecked(index) };
        let (livemode, kind, reason) = (byte(0), byte(1), byte(4));
        let currency: String = row.get_unchecked(2);
        let two_phases: i64 = row.get_unchecked(5);
        let outcome = if kind == 1 && byte(3) != 3 && two_phases != 0 { 5 } else { byte(3) };
        let amount = i128::from(row.get_unchecked::<i64, _>(6));
        let moved: i128 = row.get_unchecked::<String, _>(7).parse().unwrap();
        let partner: Option<Vec<u8>> = row.get_unchecked(8);
        let owner_kind: Option<u8> = row.get_unchecked(9);
        let decided_at = Timestamp::from_micros(row.get_unchecked(11));
        let (hour, day) = ((decided_at.seconds() / 3_600) as i32, decided_at.day_in(zone).0);
        for (grain, bucket) in [(1, hour), (2, day)] {
            let key = (livemode, grain, bucket, kind, currency.clone(), outcome, reason);
            let sums = reckoned.outcomes.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + amount, sums.2 + moved);
            *reckoned.latency.entry((grain, bucket)).or_default() += 1;
        }
        if let Some(partner) = partner {
            let key = (livemode, day, Uuid::from_slice(&partner).unwrap(), currency);
            let sums = reckoned.partners.entry(key).or_default();
            let (taken, returned) = match kind {
                1 | 4 => (moved, 0),
                7 | 10 => (0, moved),
                _ => (0, 0),
            };
            let rejected = u64::from(outcome == 3);
            *sums = (sums.0 + 1, sums.1 + rejected, sums.2 + taken, sums.3 + returned);
        }
        if livemode == 1 && [2, 5].contains(&outcome) && owner_kind == Some(1) {
            customers.entry(day).or_default().insert(row.get_unchecked(10));
        }
    }
    reckoned.customers = customers.into_iter().map(|(day, who)| (day, who.len() as u64)).collect();
    reckoned
}

/// What was counted.
async fn counted(pool: &MySqlPool) -> Reckoned {
    let generation = store::shown(pool).await.unwrap().unwrap().number;
    let rows = async |sql: &str| sqlx::query(sql).bind(generation).fetch_all(pool).await.unwrap();
    let mut counted = Reckoned::default();
    let number = |row: &sqlx::mysql::MySqlRow, index: usize| -> i128 {
        row.get_unchecked::<String, _>(index).parse().unwrap()
    };
    for row in rows(
        "SELECT livemode, grain, bucket, kind, currency, outcome, reason, commands, CAST(requested_minor AS CHAR), \
         CAST(moved_minor AS CHAR) FROM analytics_outcomes WHERE generation = ?",
    )
    .await
    {
        let byte = |index: usize| -> u8 { row.get_unchecked(index) };
        let key = (byte(0), byte(1), row.get_unchecked(2), byte(3), row.get_unchecked(4), byte(5), byte(6));
        counted.outcomes.insert(key, (row.get_unchecked(7), number(&row, 8), number(&row, 9)));
    }
    for row in rows("SELECT grain, bucket, commands FROM analytics_latency WHERE generation = ?").await {
        *counted.latency.entry((row.get_unchecked(0), row.get_unchecked(1))).or_default() +=
            row.get_unchecked::<u64, _>(2);
    }
    for row in rows(
        "SELECT livemode, day, partner_id, currency, commands, rejected, CAST(taken_minor AS CHAR), \
         CAST(returned_minor AS CHAR) FROM analytics_partners WHERE generation = ?",
    )
    .await
    {
        let partner = Uuid::from_slice(row.get_unchecked(2)).unwrap();
        let key = (row.get_unchecked(0), row.get_unchecked(1), partner, row.get_unchecked(3));
        let sums = (row.get_unchecked(4), row.get_unchecked(5), number(&row, 6), number(&row, 7));
        counted.partners.insert(key, sums);
    }
    for row in rows("SELECT day, customers FROM analytics_days WHERE generation = ?").await {
        counted.customers.insert(row.get_unchecked(0), row.get_unchecked(1));
    }
    counted
}

async fn count_all(pool: &MySqlPool, zone: &TimeZone) {
    let generation = analytics::shown_or_begun(pool, zone).await.unwrap().number;
    while analytics::step(pool, generation, zone, 40).await.unwrap() == Step::More {}
}

/// Counts in two tasks at once, and ends both wherever they are.
async fn count_and_kill(env: &Env, zone: &TimeZone, dice: &mut Dice) {
    let pool = env.service_mysql("admin-api").pool("killed", 2).unwrap();
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let (pool, zone) = (pool.clone(), zone.clone());
            tokio::spawn(async move { count_all(&pool, &zone).await })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_micros(dice.below(30_000))).await;
    for task in tasks {
        task.abort();
        // A deadlock of the two would be an error, a panic, and not a cancellation.
        if let Err(error) = task.await {
            assert!(error.is_cancelled(), "{error}");
        }
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_equal_the_ledger_after_random_loads_kills_and_counting_anew() {
    let env = Env::new("admin-figures").await;
    let zone = TimeZone::get("Europe/Vienna").unwrap();
    let pool = env.service_mysql("admin-api").pool("counting", 2).unwrap();
    let books = Books { pool: env.pool() };
    let (mut partners, mut customers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        partners.push(fixtures::insert_partner(env.pool(), fixtures::PartnerRow::default()).await);
        customers.push(books.customer().await);
    }
    let cash = books.cash().await;
    let at = "2026-10-24T19:00:00Z".parse().unwrap();
    let dice = Dice(4_711);
    let mut bank = Growing {
        books,
        dice,
        next: BTreeMap::new(),
        partners,
        customers,
        cash,
        open_letters: Vec::new(),
        at,
    };
    // Before anything: nothing to count is nothing.
    count_all(&pool, &zone).await;
    for _ in 0..6 {
        bank.grow(60).await;
        for _ in 0..3 {
            count_and_kill(&env, &zone, &mut bank.dice).await;
        }
        count_all(&pool, &zone).await;
        assert_eq!(counted(env.pool()).await, reckon(env.pool(), &zone).await);
    }
    // Anew, while the bank goes on and what is shown is counted on, with one that gives way to the next.
    let before = counted(env.pool()).await;
    // What is forgotten is not counted once more.
    while admin_api::store::analytics::count::forget(&pool, 1).await.unwrap() > 0 {}
    assert!(before.customers.values().sum::<u64>() > 3 && before.partners.len() > 3, "{before:?}");
    let config = rebuild_config(&env);
    let (rebuilt, again, (), ()) = tokio::join!(
        analytics::rebuild(&config),
        analytics::rebuild(&config),
        bank.grow(60),
        count_all(&pool, &zone)
    );
    assert!(rebuilt.is_ok() || again.is_ok(), "{rebuilt:?} {again:?}");
    count_all(&pool, &zone).await;
    assert_eq!(counted(env.pool()).await, reckon(env.pool(), &zone).await);
    let generations: Vec<u32> = sqlx::query_scalar("SELECT generation FROM analytics_generations")
        .fetch_all(env.pool())
        .await
        .unwrap();
    assert_eq!(generations.len(), 1);
    for table in [
        "analytics_outcomes",
        "analytics_latency",
        "analytics_partners",
        "analytics_days",
        "analytics_positions",
    ] {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE generation NOT IN (0, ?)");
        let left: i64 = sqlx::query_scalar(&sql).bind(generations[0]).fetch_one(env.pool()).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
    pool.close().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_shown_by_hour_and_day() {
    let bank = Bank::new("admin-analytics").await;
    let auditor = bank.staff("aud@example.com", 3).await.client;
    let pool = bank.env.pool();
    let books = Books { pool };
    let partner = fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await;
    let ((_, anna), (_, bert), shop) = (books.customer().await, books.customer().await, books.cash().await);
    let paid = |offset, at: &str, debit| Row {
        partner: Some(partner),
        debit: Some(debit),
        credit: Some(shop),
        moved: true,
        ..Row::new(offset, at)
    };
    for row in [
        paid(0, "2026-11-09T22:59:59.9Z", anna),
        paid(1, "2026-11-09T23:00:00Z", anna),
        paid(2, "2026-11-10T08:00:00Z", bert),
        Row { kind: PaymentKind::Refund, ..paid(3, "2026-11-10T08:30:00Z", shop) },
        Row { livemode: false, ..paid(4, "2026-11-10T08:30:00Z", anna) },
        Row {
            status: PaymentStatus::Rejected,
            reason: Some(Reason::InsufficientFunds),
            moved: false,
            ..paid(5, "2026-11-10T09:00:00Z", anna)
        },
        Row {
            status: PaymentStatus::Voided,
            two_phases: true,
            moved: false,
            ..paid(6, "2026-11-10T09:00:01Z", anna)
        },
    ] {
        books.insert(&row).await;
    }
    sqlx::query("INSERT INTO delivery_counts VALUES (?, 1, 60, 0, 7), (?, 1, 60, 1, 1), (?, 2, 70, 0, 2)")
        .bind(498_416)
        .bind(498_416)
        .bind(498_416)
        .execute(pool)
        .await
        .unwrap();
    let window = "from=2026-11-09T00:00:00Z&to=2026-11-11T00:00:00Z&step=day";
    wait_until("everything is counted", LONG, async || {
        let volume = auditor.get(&format!("/v1/analytics/volume?{window}")).await.expect(200).json();
        volume["behind"] == 0 && volume["counted_at"].is_string()
    })
    .await;
    for name in ["volume", "outcomes", "latency", "top-partners", "active-users", "deliveries"] {
        let query = if name == "top-partners" {
            window.replace("&step=day", "&currency=EUR")
        } else {
            window.to_owned()
        };
        let mut answer = auditor.get(&format!("/v1/analytics/{name}?{query}")).await.expect(200).json();
        answer["counted_at"] = "[time]".into();
        for row in answer["data"].as_array_mut().unwrap() {
            if row.get("partner").is_some() {
                row["partner"] = "[partner]".into();
            }
        }
        insta::assert_json_snapshot!(format!("analytics_{name}"), answer);
    }
    let hours =
        auditor.get("/v1/analytics/volume?from=2026-11-10T08:00:00Z&to=2026-11-10T09:00:00Z&step=hour").await;
    assert_eq!(hours.expect(200).json()["data"].as_array().unwrap().len(), 2, "a payment and a refund");
    let test_money =
        auditor.get(&format!("/v1/analytics/volume?{window}&livemode=false")).await.expect(200).json();
    assert_eq!(test_money["data"][0]["amount"], "12.50");
    assert_eq!(auditor.get("/v1/analytics/api-calls").await.expect(200).json()["step"], "hour");
    for wrong in [
        "volume?step=week",
        "volume?from=yesterday",
        "volume?from=1969-12-31T00:00:00Z",
        "volume?from=2026-11-11T00:00:00Z&to=2026-11-10T00:00:00Z",
        "volume?from=2020-01-01T00:00:00Z&step=hour",
        "volume?to=9999-12-31T23:59:59Z&from=2026-01-01T00:00:00Z",
        "active-users?step=hour",
        "top-partners?limit=101",
        "top-partners?currency=XXX",
        "volume?colour=red",
    ] {
        auditor.get(&format!("/v1/analytics/{wrong}")).await.expect_problem(400, "malformed_request");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_once_by_partner() {
    let bank = Bank::new("admin-calls-count").await;
    let client = bank.staff("otto@example.com", 2).await.client;
    let pool = bank.env.pool();
    let partner = fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await;
    let count_and_kill = async || {
        for micros in [100, 2_000, 5_000] {
            let (pool, zone) = (pool.clone(), TimeZone::get("Europe/Vienna").unwrap());
            let task = tokio::spawn(async move { store::calls::step(&pool, &zone).await });
            tokio::time::sleep(std::time::Duration::from_micros(micros)).await;
            task.abort();
            let _ = task.await;
        }
    };
    // Far behind what this test's own requests have: a hole counts nothing.
    for (offset, who, status) in [
        (1_000_000, Some(partner), 200),
        (1_000_001, Some(partner), 404),
        (1_000_003, Some(partner), 503),
        (1_000_004, None, 401),
    ] {
        let mut sql = runtime::sql::Sql::new();
        sql.text("INSERT INTO api_calls (kafka_partition, kafka_offset, at, service, method, route, status, duration_us, ");
        sql.text("request_id, partner_id) VALUES (0,")
            .int(offset)
            .text(", '2026-11-10 08:15:00', 1, 'GET', '/v1/payments',");
        sql.int(status).text(", 2000,").uuid(Uuid::now_v7()).text(",");
        sql.opt_uuid(who.map(|it| it.uuid())).text(")");
        Books { pool }.run(&sql).await;
    }
    bank.sql("UPDATE api_call_positions SET next_offset = 1000004").await;
    count_and_kill().await;
    bank.sql("UPDATE api_call_positions SET next_offset = 1000005").await;
    count_and_kill().await;
    let window = "from=2026-11-10T08:00:00Z&to=2026-11-10T09:00:00Z&step=hour";
    let rows = wait_until("all are counted", LONG, async || {
        let answer = client.get(&format!("/v1/analytics/api-calls?{window}")).await.expect(200).json();
        let rows = answer["data"].as_array().unwrap().clone();
        (rows.len() == 2).then_some(rows)
    })
    .await;
    let of = |partner: serde_json::Value, calls: u64, client_errors: u64, server_errors: u64| {
        serde_json::json!({
            "start": "2026-11-10T08:00:00.000000Z", "api": "partners", "partner": partner, "calls": calls,
            "client_errors": client_errors, "server_errors": server_errors, "mean_ms": 2.0
        })
    };
    assert_eq!(rows, [of(partner.to_string().into(), 3, 1, 1), of(serde_json::Value::Null, 1, 1, 0)]);
    let day = format!("/v1/analytics/api-calls?{}&partner={partner}", window.replace("hour", "day"));
    assert_eq!(client.get(&day).await.expect(200).json()["data"][0]["calls"], 3);
    bank.close().await;
}

/// A page of figures costs as much over ten million payments as over ten: its rows are those of buckets.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_figures_reads_sums_alone() {
    let env = Env::new("admin-page").await;
    let pool = env.pool();
    // 30 days of a bank with 300 partners and two currencies that rejects for ten reasons, hour by hour.
    let numbers = |count: u32| {
        let digits = "SELECT 0 n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                      SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9";
        format!(
            "(SELECT a.n + 10 * b.n + 100 * c.n i FROM ({digits}) a JOIN ({digits}) b JOIN ({digits}) c \
             HAVING i < {count})"
        )
    };
    let first_hour = 493_000;
    let first_day = first_hour / 24;
    let tens = numbers(10);
    for text in [
        "INSERT INTO analytics_generations VALUES (1, 2, 'Europe/Vienna', NOW(), NOW())".to_owned(),
        "INSERT INTO analytics_positions SELECT 1, source, kafka_partition, 0 FROM positions".to_owned(),
        format!(
            "INSERT INTO analytics_outcomes SELECT 1, 1, 1, {first_hour} + h.i, 1 + r.i, c.c, 2, 0, 500, 1000, 1000 FROM {} h \
             JOIN {tens} r JOIN (SELECT 'EUR' c UNION ALL SELECT 'USD') c",
            numbers(720)
        ),
        format!(
            "INSERT INTO analytics_outcomes SELECT 1, 1, 1, {first_hour} + h.i, 1, 'EUR', 3, 1 + r.i, 5, 10, 0 FROM {} h \
             JOIN {tens} r",
            numbers(720)
        ),
        format!(
            "INSERT INTO analytics_latency SELECT 1, 1, {first_hour} + h.i, 60 + s.i, 500 FROM {} h JOIN {} s",
            numbers(720),
            numbers(40)
        ),
        format!(
            "INSERT INTO analytics_partners SELECT 1, 1, {first_day} + d.i, UNHEX(LPAD(HEX(1 + p.i), 32, '0')), c.c, 100, 5, \
             1000, 10 FROM {} d JOIN {} p JOIN (SELECT 'EUR' c UNION ALL SELECT 'USD') c",
            numbers(30),
            numbers(300)
        ),
        "INSERT INTO analytics_outcomes SELECT generation, livemode, 2, bucket DIV 24, kind, currency, outcome, reason, \
         SUM(commands), SUM(requested_minor), SUM(moved_minor) FROM analytics_outcomes WHERE grain = 1 \
         GROUP BY generation, livemode, bucket DIV 24, kind, currency, outcome, reason"
            .to_owned(),
        "INSERT INTO analytics_latency SELECT generation, 2, bucket DIV 24, step, SUM(commands) FROM analytics_latency \
         WHERE grain = 1 GROUP BY generation, bucket DIV 24, step"
            .to_owned(),
        format!("INSERT INTO analytics_days SELECT 1, {first_day} + d.i, 5000 FROM {} d", numbers(30)),
        format!(
            "INSERT INTO delivery_counts SELECT {first_hour} + h.i, 1, 60 + s.i, 0, 100 FROM {} h JOIN {} s",
            numbers(720),
            numbers(30)
        ),
    ] {
        sqlx::query(&text).execute(pool).await.unwrap();
    }
    let buckets = |grain, first, count| store::Buckets {
        generation: 1,
        livemode: true,
        grain,
        first,
        last: first + count - 1,
    };
    let (hours, days) = (buckets(Grain::Hour, first_hour, 720), buckets(Grain::Day, first_day, 30));
    // What a page shows of a month: by day.
    let began = std::time::Instant::now();
    let rows = [
        store::volume(pool, &days).await.unwrap().len(),
        store::outcomes(pool, &days).await.unwrap().len(),
        store::latency(pool, &days).await.unwrap().len(),
        store::top_partners(pool, &days, Some(Currency::EUR), 10).await.unwrap().len(),
        store::active(pool, &days).await.unwrap().len(),
        store::calls(pool, &days, None, 1_000).await.unwrap().len(),
    ];
    println!("a month by day: {rows:?} rows in {:?}", began.elapsed());
    assert!(rows[0] <= 31 * 20 && rows[2] <= 31 * 40, "{rows:?}");
    // The same by hour, which is the most that one answer holds.
    let mut took = Vec::new();
    let began = std::time::Instant::now();
    let mut lap = |what: &'static str, rows: usize| took.push((what, rows, began.elapsed()));
    lap("volume", store::volume(pool, &hours).await.unwrap().len());
    lap("outcomes", store::outcomes(pool, &hours).await.unwrap().len());
    lap("latency", store::latency(pool, &hours).await.unwrap().len());
    lap("top", store::top_partners(pool, &days, Some(Currency::EUR), 10).await.unwrap().len());
    lap("active", store::active(pool, &days).await.unwrap().len());
    lap("calls", store::calls(pool, &hours, None, 1_000).await.unwrap().len());
    lap("deliveries", store::deliveries(pool, first_hour, first_hour + 719).await.unwrap().len());
    println!("{took:?}");
    assert_eq!(took[0].1, 720 * 20);
    assert_eq!(took[1].1, 720 * 20);
    assert_eq!(took[3].1, 20);
    // A debug build on a busy machine; the figures of a quiet one stand in admin-api/README.md.
    assert!(took.last().unwrap().2 < std::time::Duration::from_secs(3), "{took:?}");
    env.close().await;
}
