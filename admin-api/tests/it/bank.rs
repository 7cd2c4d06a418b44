//! Commands of the bank behind endpoints, with the processor as a process of its own: carried out once, whatever is
//! repeated, away or killed; within thresholds that two at once cannot pass.

use std::time::{Duration, Instant};

use domain::account::Owner;
use domain::ids::{AccountId, bank_account_id};
use domain::money::Currency::{self, EUR, USD};
use serde_json::{Value, json};
use testkit::{fixtures, wait_until};

use crate::harness::{Answer, Bank, Client, LONG, Somebody};
use crate::seed::{Running, start_processor};

/// A bank with a processor, two operators and a customer's account.
pub(crate) struct Desk {
    pub(crate) bank: Bank,
    pub(crate) processor: Option<Running>,
    pub(crate) otto: Somebody,
    pub(crate) olga: Somebody,
    pub(crate) anna: Somebody,
    pub(crate) account: String,
}

impl Desk {
    pub(crate) async fn new(name: &str) -> Self {
        let bank = Bank::new(name).await;
        let processor = Some(start_processor(&bank.env));
        for currency in [EUR, USD] {
            let open = fixtures::open_account(bank_account_id(currency), Owner::Bank, currency);
            bank.env.produce_bank(&fixtures::bank(fixtures::user_id(), open)).await;
        }
        let otto = bank.staff("otto@example.com", 2).await;
        let olga = bank.staff("olga@example.com", 2).await;
        let anna = bank.customer("anna@example.com").await;
        wait_until("the bank's accounts", LONG, async || bank.count("accounts").await == 2).await;
        let account = open(&otto.client, "first", &anna.id, EUR).await;
        Self { bank, processor, otto, olga, anna, account }
    }

    pub(crate) fn deposit_of(&self, amount: &str) -> Value {
        json!({"account": self.account, "amount": amount, "currency": "EUR", "reason": "cash desk"})
    }

    pub(crate) async fn deposit(&self, who: &Somebody, key: &str, amount: &str) -> Answer {
        who.client.ask("/v1/deposits", key, self.deposit_of(amount)).await
    }

    pub(crate) async fn balance(&self) -> i64 {
        balance(&self.bank, &self.account).await
    }

    pub(crate) async fn close(self) {
        let report = verifier::verify(self.bank.env.pool(), None).await.unwrap();
        assert!(report.is_whole(), "{:#?}", report.findings);
        drop(self.processor);
        self.bank.close().await;
    }
}

pub(crate) async fn open(client: &Client, key: &str, owner: &str, currency: Currency) -> String {
    let body = json!({"owner": owner, "currency": currency, "reason": "first account"});
    let opened = client.ask("/v1/accounts", key, body).await.expect(201);
    let account = opened.json()["target"].as_str().unwrap().to_owned();
    assert_eq!(opened.header("location"), Some(format!("/v1/accounts/{account}").as_str()));
    account
}

pub(crate) async fn balance(bank: &Bank, account: &str) -> i64 {
    let account: AccountId = account.parse().unwrap();
    sqlx::query_scalar("SELECT balance_minor FROM accounts WHERE id = ?")
        .bind(account.uuid().as_bytes().to_vec())
        .fetch_one(bank.env.pool())
        .await
        .unwrap()
}

/// Numbers and ids that differ from run to run.
pub(crate) fn redact(mut value: Value) -> Value {
    fn walk(name: &str, value: &mut Value) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(name, value)| walk(name, value)),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(name, item)),
            Value::String(text) if name.ends_with("_at") || name == "digest" => {
                *text = format!("[{name}]");
            }
            Value::String(text) => {
                for prefix in ["pay", "chg", "acct", "apr", "usr"] {
                    let mut rest = text.as_str();
                    let mut shown = String::new();
                    while let Some(at) = rest.find(&format!("{prefix}_")) {
                        let end = at + prefix.len() + 1;
                        shown.push_str(&rest[..end]);
                        shown.push('…');
                        rest = &rest[(end + 26).min(rest.len())..];
                    }
                    *text = shown + rest;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    walk("", &mut value);
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_run_an_account_from_its_first_day_to_its_last() {
    let desk = Desk::new("admin-bank").await;
    let (otto, account) = (&desk.otto.client, &desk.account);
    let at = |what: &str| format!("/v1/accounts/{account}/{what}");
    let why = || json!({"reason": "asked for by the customer"});

    // The same request is the same account; another one under its key is a conflict.
    assert_eq!(&open(otto, "first", &desk.anna.id, EUR).await, account);
    let other = json!({"owner": desk.anna.id, "currency": "USD", "reason": "first account"});
    otto.ask("/v1/accounts", "first", other).await.expect_problem(409, "idempotency_conflict");
    // Keys of different people have nothing to do with each other.
    let second = open(&desk.olga.client, "first", &desk.anna.id, EUR).await;
    assert_ne!(&second, account);

    let deposit = desk.deposit(&desk.otto, "d1", "150.00").await.expect(201);
    insta::assert_json_snapshot!("deposit", redact(deposit.json()));
    let payment = deposit.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(deposit.header("location"), Some(format!("/v1/payments/{payment}").as_str()));
    assert_eq!(desk.deposit(&desk.otto, "d1", "150.00").await.expect(201).json(), deposit.json());
    desk.deposit(&desk.otto, "d1", "150.01").await.expect_problem(409, "idempotency_conflict");
    // One space of ids: a key that moved money changes no account.
    otto.ask(&at("freeze"), "d1", why()).await.expect_problem(409, "idempotency_conflict");
    assert_eq!(desk.balance().await, 15_000);

    otto.ask(&at("freeze"), "f1", why()).await.expect(200);
    let refused = otto.ask(&at("freeze"), "f2", why()).await.expect_problem(422, "command_rejected");
    assert_eq!(refused.json()["reason"], "status_unchanged");
    let command = refused.json()["command"].as_str().unwrap().to_owned();
    let read = otto.get(&format!("/v1/commands/{command}")).await.expect(200).json();
    insta::assert_json_snapshot!("rejected_command", redact(read));
    let withdrawal = desk.deposit_of("20.00");
    let frozen = otto.ask("/v1/withdrawals", "w1", withdrawal.clone()).await;
    assert_eq!(frozen.expect_problem(422, "command_rejected").json()["reason"], "account_frozen");
    otto.ask(&at("unfreeze"), "u1", why()).await.expect(200);
    // What was refused stays refused, and another key is another try.
    otto.ask("/v1/withdrawals", "w1", withdrawal.clone()).await.expect_problem(422, "command_rejected");
    otto.ask("/v1/withdrawals", "w2", withdrawal).await.expect(201);
    let transfer =
        json!({"from": account, "to": second, "amount": "30.00", "currency": "EUR", "reason": "by letter"});
    let moved = otto.ask("/v1/transfers", "t1", transfer).await.expect(201).json();
    assert_eq!((desk.balance().await, balance(&desk.bank, &second).await), (10_000, 3_000));
    let part = json!({"payment": moved["id"], "amount": "10.00", "currency": "EUR", "reason": "paid twice"});
    otto.ask("/v1/reversals", "r1", part).await.expect(201);
    let rest = json!({"payment": moved["id"], "reason": "paid twice"});
    let reversed = otto.ask("/v1/reversals", "r2", rest.clone()).await.expect(201).json();
    assert_eq!((&reversed["kind"], &reversed["amount"]), (&json!("reversal"), &json!("20.00")));
    let nothing_left = otto.ask("/v1/reversals", "r3", rest).await.expect_problem(422, "command_rejected");
    assert_eq!(nothing_left.json()["reason"], "payment_not_reversible");
    let full = otto.ask(&at("close"), "c1", why()).await.expect_problem(422, "command_rejected");
    assert_eq!(full.json()["reason"], "account_not_empty");
    otto.ask("/v1/withdrawals", "w3", desk.deposit_of("130.00")).await.expect(201);
    otto.ask(&at("close"), "c2", why()).await.expect(200);

    // A customer sees neither what staff did nor whether it was done.
    for path in [&command, &payment] {
        desk.anna.client.get(&format!("/v1/commands/{path}")).await.expect_problem(404, "not_found");
    }
    let wrong_prefix = payment.replace("pay_", "chg_");
    otto.get(&format!("/v1/commands/{wrong_prefix}")).await.expect_problem(404, "not_found");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_alone_moves_no_more_than_the_thresholds() {
    let desk = Desk::new("admin-thresholds").await;
    let (otto, olga) = (&desk.otto, &desk.olga);
    desk.deposit(otto, "above", "1000.01").await.expect(202);
    let first = desk.deposit(otto, "limit", "1000.00").await.expect(201).json();
    // A repetition counts once.
    for _ in 0..3 {
        desk.deposit(otto, "limit", "1000.00").await.expect(201);
    }
    // A reversal counts with the whole payment when it names no part.
    let reversal = json!({"payment": first["id"], "reason": "paid twice"});
    otto.client.ask("/v1/reversals", "r", reversal).await.expect(201);
    let withdrawal = desk.deposit_of("999.99");
    let refused = otto.client.ask("/v1/withdrawals", "w", withdrawal).await;
    // What was asked for counts, though the ledger refused it.
    refused.expect_problem(422, "command_rejected");
    desk.deposit(otto, "d3", "1000.00").await.expect(201);
    desk.deposit(otto, "d4", "1000.01").await.expect(202);
    desk.deposit(otto, "d5", "1000.00").await.expect(201);
    desk.deposit(otto, "one-cent", "0.01").await.expect(201);
    let more = desk.deposit(otto, "one-more", "0.01").await.expect(202);
    insta::assert_json_snapshot!("approval", redact(more.json()));
    let id = more.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(more.header("location"), Some(format!("/v1/approvals/{id}").as_str()));
    // Another currency and another person have sums of their own.
    let dollars = open(&otto.client, "usd", &desk.anna.id, USD).await;
    let body = json!({"account": dollars, "amount": "1000.00", "currency": "USD", "reason": "cash desk"});
    otto.client.ask("/v1/deposits", "usd-1", body).await.expect(201);
    desk.deposit(olga, "d1", "1000.00").await.expect(201);
    // Of many at once just under the sum, no more pass than the sum bears: 1,000 + 4 × 900.
    let keys: Vec<_> = (0..8).map(|n| format!("at-once-{n}")).collect();
    let answers = keys.iter().map(|key| desk.deposit(olga, key, "900.00"));
    let mut statuses: Vec<u16> =
        futures_util::future::join_all(answers).await.iter().map(|it| it.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 201, 201, 202, 202, 202, 202]);
    // The day begins anew at midnight UTC.
    desk.bank.sql("UPDATE commands SET created_at = created_at - INTERVAL 1 DAY").await;
    desk.deposit(otto, "tomorrow", "1000.00").await.expect(201);
    assert_eq!(desk.bank.count("approvals").await, 3 + 4);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_moves_money_of_an_own_account_alone() {
    let desk = Desk::new("admin-own").await;
    let own = desk.account.parse::<AccountId>().unwrap().uuid().as_bytes().to_vec();
    sqlx::query("UPDATE accounts SET owner_id = ? WHERE id = ?")
        .bind(crate::harness::uuid_of(&desk.otto.id))
        .bind(own)
        .execute(desk.bank.env.pool())
        .await
        .unwrap();
    desk.deposit(&desk.otto, "own", "1.00").await.expect(202);
    desk.deposit(&desk.olga, "foreign", "1.00").await.expect(201);
    drop(desk.processor);
    desk.bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_field_by_field() {
    let bank = Bank::new("admin-bad-money").await;
    let otto = bank.staff("otto@example.com", 2).await.client;
    let account = "acct_00000000000000000000000001";
    let good = json!({"account": account, "amount": "1.00", "currency": "EUR", "reason": "cash desk"});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, pointer, code) in [
        (with("account", json!("usr_00000000000000000000000001")), "/account", "invalid_id"),
        (with("account", json!("acct_1")), "/account", "invalid_id"),
        (with("account", json!("")), "/account", "invalid_id"),
        (with("account", json!(1)), "/account", "wrong_type"),
        (with("amount", json!(1.0)), "/amount", "wrong_type"),
        (with("amount", json!("1")), "/amount", "invalid_amount"),
        (with("amount", json!("-1.00")), "/amount", "invalid_amount"),
        (with("amount", json!("0.00")), "/amount", "invalid_amount"),
        (with("amount", json!("1e9")), "/amount", "invalid_amount"),
        (with("amount", json!("NaN")), "/amount", "invalid_amount"),
        (with("amount", json!("10000000000.01")), "/amount", "invalid_amount"),
        (with("amount", json!("9".repeat(5_000) + ".00")), "/amount", "invalid_amount"),
        (with("currency", json!("eur")), "/currency", "unknown_currency"),
        (with("currency", json!("XXX")), "/currency", "unknown_currency"),
        (with("reason", json!("")), "/reason", "missing"),
        (with("reason", json!("four")), "/reason", "too_short"),
        (with("reason", json!("x".repeat(301))), "/reason", "too_long"),
        (with("reason", json!("line\nbreak")), "/reason", "invalid_text"),
        (with("reference", json!("x".repeat(101))), "/reference", "too_long"),
        (with("reference", json!("\u{202e}evil")), "/reference", "invalid_text"),
        (with("owner", json!(account)), "/owner", "unknown_field"),
    ] {
        for path in ["/v1/deposits", "/v1/withdrawals"] {
            let refused = otto.ask(path, "key", body.clone()).await.expect_problem(400, "invalid_field");
            let errors = refused.json()["errors"].clone();
            assert_eq!(
                (&errors[0]["pointer"], &errors[0]["code"]),
                (&json!(pointer), &json!(code)),
                "{errors}"
            );
        }
    }
    let missing = otto.ask("/v1/deposits", "key", json!({"amount": "1.00"})).await;
    assert_eq!(missing.expect_problem(400, "invalid_field").json()["errors"][0]["code"], "missing");
    let unknown_payment = json!({"payment": "pay_00000000000000000000000001", "reason": "paid twice"});
    for (path, body, pointer) in [
        (
            "/v1/transfers",
            json!({"from": account, "to": "x", "amount": "1.00", "currency": "EUR", "reason": "letter"}),
            "/to",
        ),
        ("/v1/reversals", unknown_payment, "/payment"),
        ("/v1/reversals", json!({"payment": account, "reason": "paid twice"}), "/payment"),
        (
            "/v1/reversals",
            json!({"payment": "pay_00000000000000000000000001", "amount": "1.00", "reason": "twice"}),
            "/currency",
        ),
        ("/v1/accounts", json!({"owner": account, "currency": "EUR", "reason": "first"}), "/owner"),
        ("/v1/accounts", json!({"owner": "bank", "currency": "EUR", "reason": "first"}), "/owner"),
        (
            "/v1/accounts",
            json!({"owner": "usr_00000000000000000000000001", "currency": "EUR", "reason": "first"}),
            "/owner",
        ),
        (
            "/v1/accounts",
            json!({"owner": "ptr_00000000000000000000000001", "currency": "EUR", "reason": "first"}),
            "/owner",
        ),
    ] {
        let refused = otto.ask(path, "key", body).await.expect_problem(400, "invalid_field");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{path}");
    }
    // An account is never opened for staff.
    let me = otto.get("/v1/me").await.json()["id"].clone();
    let body = json!({"owner": me, "currency": "EUR", "reason": "first account"});
    otto.ask("/v1/accounts", "key", body).await.expect_problem(400, "invalid_field");
    otto.post("/v1/deposits", good.clone()).await.expect_problem(400, "idempotency_key_missing");
    otto.ask("/v1/deposits", "two words", good).await.expect_problem(400, "idempotency_key_invalid");
    let freeze = format!("/v1/accounts/{account}/freeze");
    otto.ask(&freeze, "key", json!({"reason": "card lost"})).await.expect_problem(404, "not_found");
    for path in ["/v1/approvals?status=open", "/v1/approvals?limit=0", "/v1/dead-letters?status=waiting"] {
        otto.get(path).await.expect_problem(400, "malformed_request");
    }
    for path in ["/v1/approvals?cursor=x", "/v1/dead-letters?cursor=partner-1"] {
        otto.get(path).await.expect_problem(400, "invalid_cursor");
    }
    assert_eq!(bank.count("commands").await, 0, "nothing of all this was written down");
    assert_eq!(bank.count("approvals").await, 0);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_nothing_is_lost_and_nothing_done_twice() {
    let desk = Desk::new("admin-kafka-away").await;
    let cut_off = desk.bank.another_not_ready(&[("--kafka-brokers", "127.0.0.1:1".to_owned())]).await;
    let away = Client { server: cut_off.address, ..desk.otto.client.clone() };
    let asked = || away.ask("/v1/deposits", "away", desk.deposit_of("5.00"));
    let refused = asked().await.expect_problem(503, "queue_unavailable");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(desk.bank.count("commands WHERE due_at IS NOT NULL AND amount_minor = 500").await, 1);
    // The other replica brings it to the ledger once it is its turn, and so does whoever repeats the request there.
    desk.bank.sql("UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE due_at IS NOT NULL").await;
    let posted = async || desk.bank.count("payments WHERE amount_minor = 500").await == 1;
    wait_until("the dispatcher to carry it out", LONG, posted).await;
    desk.deposit(&desk.otto, "away", "5.00").await.expect(201);
    asked().await.expect(201);
    assert_eq!(desk.balance().await, 500);
    let decided = async || desk.bank.count("commands WHERE due_at IS NOT NULL").await == 0;
    desk.bank.sql("UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE due_at IS NOT NULL").await;
    wait_until("nobody to look at it any more", LONG, decided).await;
    cut_off.stop().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_processor_is_away_commands_are_pending_and_then_done_once() {
    let mut desk = Desk::new("admin-no-processor").await;
    drop(desk.processor.take());
    let begun = Instant::now();
    let pending = desk.deposit(&desk.otto, "slow", "5.00").await.expect(202);
    assert!((5..10).contains(&begun.elapsed().as_secs()), "it waits for 5 s");
    insta::assert_json_snapshot!("pending", redact(pending.json()));
    let location = pending.header("location").unwrap().to_owned();
    assert_eq!(desk.otto.client.get(&location).await.expect(200).json(), pending.json());
    let headers = [("idempotency-key", "async"), ("prefer", "respond-async")];
    let begun = Instant::now();
    desk.otto.client.request("POST", "/v1/deposits", &headers, &desk.deposit_of("7.00")).await.expect(202);
    assert!(begun.elapsed() < Duration::from_secs(4), "it does not wait");
    // However often it is published, it is carried out once.
    for attempts in 1..=2 {
        desk.bank.sql("UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE amount_minor IS NOT NULL").await;
        let published = format!("commands WHERE amount_minor IS NOT NULL AND attempts >= {attempts}");
        let again = async || desk.bank.count(&published).await == 2;
        wait_until("the dispatcher to publish both again", LONG, again).await;
    }
    desk.processor = Some(start_processor(&desk.bank.env));
    let applied = async || desk.otto.client.get(&location).await.expect(200).json()["status"] == "applied";
    wait_until("it to be applied", LONG, applied).await;
    desk.deposit(&desk.otto, "slow", "5.00").await.expect(201);
    desk.deposit(&desk.otto, "async", "7.00").await.expect(201);
    assert_eq!(desk.balance().await, 1_200);
    assert_eq!(desk.bank.count("payments").await, 2);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_altered_in_the_database_is_never_published() {
    let mut desk = Desk::new("admin-altered").await;
    drop(desk.processor.take());
    let headers = [("idempotency-key", "x"), ("prefer", "respond-async")];
    // Nobody published it yet but for this replica, which is cut off.
    let cut_off = desk.bank.another_not_ready(&[("--kafka-brokers", "127.0.0.1:1".to_owned())]).await;
    let away = Client { server: cut_off.address, ..desk.otto.client.clone() };
    away.request("POST", "/v1/deposits", &headers, &desk.deposit_of("5.00"))
        .await
        .expect_problem(503, "queue_unavailable");
    desk.bank
        .sql("UPDATE commands SET envelope = REPLACE(envelope, '\"amount_minor\":500', '\"amount_minor\":50000'), due_at = UTC_TIMESTAMP(6) WHERE amount_minor = 500")
        .await;
    let claimed =
        async || desk.bank.count("commands WHERE amount_minor = 500 AND claim IS NOT NULL").await == 1;
    wait_until("a dispatcher to look at it", LONG, claimed).await;
    desk.processor = Some(start_processor(&desk.bank.env));
    // Nor when whoever asked repeats it. What comes after it is carried out.
    desk.deposit(&desk.otto, "x", "5.00").await.expect_problem(500, "internal_error");
    desk.deposit(&desk.olga, "after", "7.00").await.expect(201);
    assert_eq!(desk.balance().await, 700);
    assert_eq!(desk.bank.count("commands WHERE amount_minor = 500 AND attempts > 0").await, 0);
    cut_off.stop().await;
    desk.close().await;
}
