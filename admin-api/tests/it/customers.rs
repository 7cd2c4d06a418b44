//! What customers do: open accounts, transfer, answer merchants and take mandates back; with the processor as a process
//! of its own.

use domain::account::Owner;
use domain::command::{BankCommand, SetLimits};
use domain::ids::{AccountId, MandateId, PartnerId};
use domain::mandate::request_code_hash;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use testkit::{fixtures, wait_until};
use uuid::Uuid;

use crate::harness::{Bank, Client, LONG};
use crate::teller::{account_of, decide, decide_partner, hex, mandate_on, neutral, open_bank, payment, user};

/// A request for a mandate as ingest writes it, answerable for so many seconds.
pub(crate) async fn request(bank: &Bank, merchant: PartnerId, code: &str, seconds: i64) -> MandateId {
    let id = fixtures::mandate_id();
    sqlx::query(
        "INSERT INTO mandate_requests (id, partner_id, kind, currency, payment_max_minor, daily_max_minor, expires_at, \
         reference, return_url, code_hash, answer_by, created_at) VALUES (?, ?, 2, 'EUR', 5000, 10000, '2031-01-31', \
         'customer-7', 'https://shop.example/return?order=1', ?, UTC_TIMESTAMP(6) + INTERVAL ? SECOND, UTC_TIMESTAMP(6))",
    )
    .bind(&id.uuid().as_bytes()[..])
    .bind(&merchant.uuid().as_bytes()[..])
    .bind(&request_code_hash(code)[..])
    .bind(seconds)
    .execute(bank.env.pool())
    .await
    .unwrap();
    id
}

async fn register_url(bank: &Bank, merchant: PartnerId, url: &str) {
    sqlx::query("INSERT INTO return_urls (partner_id, url) VALUES (?, ?)")
        .bind(&merchant.uuid().as_bytes()[..])
        .bind(url)
        .execute(bank.env.pool())
        .await
        .unwrap();
}

async fn balance(client: &Client, account: AccountId) -> Value {
    client.get(&format!("/v1/me/accounts/{account}/balance")).await.expect(200).json()["balance"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_opens_at_most_ten_accounts_each_once() {
    let (bank, processor) = open_bank("admin-open").await;
    let anna = bank.customer("anna@example.com").await;
    let open = async |key: &str, currency: &str| {
        anna.client.ask("/v1/me/accounts", key, json!({ "currency": currency })).await
    };
    let first = open("a", "EUR").await.expect(201);
    let account = first.json();
    assert_eq!(
        first.header("location"),
        Some(format!("/v1/me/accounts/{}", account["id"].as_str().unwrap()).as_str())
    );
    assert_json_snapshot!("opened", neutral(&account, &[(&anna.id, "anna")]));
    assert_eq!(open("a", "EUR").await.expect(201).json()["id"], account["id"], "a retry");
    open("a", "JPY").await.expect_problem(409, "idempotency_conflict");
    for currency in ["", "eur", "XXX", "EUR "] {
        open("b", currency).await.expect_problem(400, "invalid_field");
    }
    anna.client
        .post("/v1/me/accounts", json!({"currency": "EUR"}))
        .await
        .expect_problem(400, "idempotency_key_missing");
    for number in 2..10 {
        open(&format!("key {number}").replace(' ', "-"), "EUR").await.expect(201);
    }
    // Two at once for the last place.
    let (one, other) = tokio::join!(open("x", "EUR"), open("y", "EUR"));
    let mut codes = [(one.status, one.code()), (other.status, other.code())];
    codes.sort();
    assert_eq!(codes, [(201, String::new()), (409, "conflict".to_owned())]);
    open("z", "EUR").await.expect_problem(409, "conflict");
    assert_eq!(open("a", "EUR").await.expect(201).json()["id"], account["id"], "a retry is none more");
    let all = anna.client.get("/v1/me/accounts").await.expect(200).json();
    assert_eq!(all["data"].as_array().unwrap().len(), 10);
    // A closed one makes room.
    let account = account["id"].as_str().unwrap().parse().unwrap();
    decide(&bank, BankCommand::CloseAccount { account }).await;
    open("z", "EUR").await.expect(201);
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_transfers_own_money_once_and_within_limits() {
    let (bank, processor) = open_bank("admin-transfer").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let from = account_of(&bank, Owner::Customer(user(&anna)), 10_000).await;
    let to = account_of(&bank, Owner::Customer(user(&bob)), 500).await;
    let body = |from: &dyn std::fmt::Display, to: &dyn std::fmt::Display, amount: &str| {
        json!({
            "from": from.to_string(), "to": to.to_string(), "amount": amount, "currency": "EUR", "description": "Lunch"
        })
    };
    let send = async |key: &str, body: Value| anna.client.ask("/v1/me/transfers", key, body).await;
    let done = send("a", body(&from, &to, "25.00")).await.expect(201).json();
    assert_json_snapshot!("transfer", neutral(&done, &[(&from, "from"), (&to, "to")]));
    assert_eq!(send("a", body(&from, &to, "25.00")).await.expect(201).json(), done, "a retry");
    send("a", body(&from, &to, "25.01")).await.expect_problem(409, "idempotency_conflict");
    assert_eq!(
        (balance(&anna.client, from).await, balance(&bob.client, to).await),
        (json!("75.00"), json!("30.00"))
    );
    // Two at once under one key are one.
    let (one, other) = tokio::join!(send("b", body(&from, &to, "1.00")), send("b", body(&from, &to, "1.00")));
    assert_eq!((one.status, other.status), (201, 201), "{one:?} {other:?}");
    assert_eq!(balance(&anna.client, from).await, "74.00");

    // Somebody else's money, and what is not there.
    let unknown = fixtures::account_id();
    send("c", body(&to, &from, "1.00")).await.expect_problem(404, "not_found");
    send("c", body(&unknown, &from, "1.00")).await.expect_problem(404, "not_found");
    for (key, to, amount, reason) in [
        ("d", unknown, "1.00", "account_unknown"),
        ("e", to, "74.01", "insufficient_funds"),
        ("f", from, "1.00", "same_account"),
        ("g", domain::ids::bank_account_id(domain::money::Currency::EUR), "1.00", "bank_account"),
    ] {
        let refused =
            send(key, body(&from, &to, amount)).await.expect_problem(422, "command_rejected").json();
        assert_eq!(refused["reason"], reason);
        assert_eq!(
            send(key, body(&from, &to, amount)).await.expect(422).json()["reason"],
            reason,
            "for good"
        );
    }
    decide(
        &bank,
        BankCommand::SetLimits(SetLimits {
            account: from,
            overdraft_minor: 0,
            payment_max_minor: Some(1_000),
            daily_max_minor: Some(3_000),
        }),
    )
    .await;
    let over = send("h", body(&from, &to, "10.01")).await.expect(422).json();
    assert_eq!(over["reason"], "payment_limit");
    let over = send("i", body(&from, &to, "5.00")).await.expect(422).json();
    assert_eq!(over["reason"], "daily_limit", "26.00 went out today");
    for bad in ["0.00", "-1.00", "1", "1e1", "1.001", "99999999999.00"] {
        send("j", body(&from, &to, bad)).await.expect_problem(400, "invalid_field");
    }
    for bad in [json!({}), json!([]), json!({"from": from.to_string(), "to": 7}), body(&anna.id, &to, "1.00")]
    {
        let refused = send("j", bad).await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    assert_eq!(balance(&anna.client, from).await, "74.00");
    // Without waiting.
    let headers = [("idempotency-key", "k"), ("prefer", "respond-async")];
    let sent = anna
        .client
        .request("POST", "/v1/me/transfers", &headers, &body(&from, &to, "4.00"))
        .await
        .expect(202);
    let command = sent.header("location").unwrap().to_owned();
    wait_until("the transfer to be applied", LONG, async || {
        anna.client.get(&command).await.expect(200).json()["status"] == "applied"
    })
    .await;
    bob.client.get(&command).await.expect_problem(404, "not_found");
    assert_eq!(balance(&anna.client, from).await, "70.00");
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_while_kafka_is_away_is_done_once_later() {
    let (bank, processor) = open_bank("admin-no-kafka").await;
    let anna = bank.customer("anna@example.com").await;
    let from = account_of(&bank, Owner::Customer(user(&anna)), 1_000).await;
    let to = account_of(&bank, Owner::Customer(user(&anna)), 0).await;
    let cut_off = bank.another_not_ready(&[("--kafka-brokers", "127.0.0.1:1".to_owned())]).await;
    let mut client = anna.client.clone();
    client.server = cut_off.address;
    let body = json!({"from": from.to_string(), "to": to.to_string(), "amount": "3.00", "currency": "EUR"});
    let sent = client.ask("/v1/me/transfers", "a", body.clone()).await;
    sent.expect_problem(503, "queue_unavailable");
    assert_eq!(client.get(&format!("/v1/me/accounts/{from}")).await.expect(200).json()["balance"], "10.00");
    // The same request elsewhere, and the dispatcher that goes after what was left, do it once.
    anna.client.ask("/v1/me/transfers", "a", body.clone()).await.expect(201);
    assert_eq!(balance(&anna.client, to).await, "3.00");
    cut_off.stop().await;
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_answers_a_merchant_by_code_or_link() {
    let (bank, processor) = open_bank("admin-consent").await;
    let anna = bank.customer("anna@example.com").await;
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    register_url(&bank, merchant, "https://shop.example/return").await;
    account_of(&bank, Owner::Partner(merchant), 0).await;
    let account = account_of(&bank, Owner::Customer(user(&anna)), 10_000).await;
    let yen = fixtures::account_id();
    decide(&bank, fixtures::open_account(yen, Owner::Customer(user(&anna)), domain::money::Currency::JPY))
        .await;
    let mandate = request(&bank, merchant, "K7M2XQ9P", 900).await;
    let names: &[(&dyn std::fmt::Display, &str)] =
        &[(&account, "account"), (&merchant, "merchant"), (&mandate, "mandate"), (&anna.id, "anna")];
    let get = async |named: &str| anna.client.get(&format!("/v1/me/mandate-requests/{named}")).await;
    let shown = get("k7m2-xq9p").await.expect(200).json();
    assert_json_snapshot!("request", neutral(&shown, names));
    assert_eq!(get(&mandate.to_string()).await.expect(200).json(), shown);
    let answer = async |named: &str, how: &str, key: &str, body: Option<Value>| {
        let path = format!("/v1/me/mandate-requests/{named}/{how}");
        anna.client.ask(&path, key, body.unwrap_or_default()).await
    };
    let grant =
        |account: &dyn std::fmt::Display| json!({"account": account.to_string(), "per_payment_max": "20.00"});
    // More than was asked for, and accounts that do not fit.
    let more = json!({"account": account.to_string(), "per_payment_max": "50.01", "daily_cap": "1"});
    let refused =
        answer("K7M2XQ9P", "grant", "a", Some(more)).await.expect_problem(400, "invalid_field").json();
    assert_eq!(refused["errors"].as_array().unwrap().len(), 2, "{refused}");
    let unknown = fixtures::account_id();
    answer("K7M2XQ9P", "grant", "b", Some(grant(&unknown))).await.expect_problem(404, "not_found");
    let refused = answer("K7M2XQ9P", "grant", "c", Some(json!({"account": yen.to_string()}))).await;
    assert_eq!(refused.expect_problem(422, "command_rejected").json()["reason"], "currency_mismatch");
    let granted = answer("K7M2%20xq9p", "grant", "d", Some(grant(&account))).await.expect(201);
    assert_eq!(granted.header("location"), Some(format!("/v1/me/mandates/{mandate}").as_str()));
    assert_json_snapshot!("granted", neutral(&granted.json(), names));
    let again = answer("K7M2XQ9P", "grant", "d", Some(grant(&account))).await.expect(201).json();
    assert_eq!(again, granted.json(), "a retry");
    answer("K7M2XQ9P", "grant", "e", Some(grant(&account))).await.expect_problem(409, "conflict");
    answer("K7M2XQ9P", "decline", "f", None).await.expect_problem(409, "conflict");
    assert_eq!(get("K7M2XQ9P").await.expect(200).json()["status"], "active", "who granted it sees that");
    let bob = bank.customer("bob@example.com").await;
    bob.client.get("/v1/me/mandate-requests/K7M2XQ9P").await.expect_problem(404, "not_found");

    // The merchant may debit, until it is revoked.
    decide_partner(&bank, &payment(merchant, mandate, 1_250, "order 1", "Coffee")).await;
    assert_eq!(balance(&anna.client, account).await, "87.50");
    decide_partner(&bank, &payment(merchant, mandate, 2_001, "order 2", "More than was granted")).await;
    let revoke = async |client: &Client, mandate: MandateId, key: &str| {
        client.ask(&format!("/v1/me/mandates/{mandate}/revoke"), key, Value::Null).await
    };
    revoke(&bob.client, mandate, "a").await.expect_problem(404, "not_found");
    let revoked = revoke(&anna.client, mandate, "r").await.expect(200).json();
    assert_json_snapshot!("revoked", neutral(&revoked, names));
    assert_eq!(revoke(&anna.client, mandate, "r").await.expect(200).json(), revoked, "a retry");
    let refused = revoke(&anna.client, mandate, "s").await.expect_problem(422, "command_rejected").json();
    assert_eq!(refused["reason"], "mandate_not_active");
    decide_partner(&bank, &payment(merchant, mandate, 100, "order 3", "Too late")).await;
    assert_eq!(balance(&anna.client, account).await, "87.50");

    // No.
    let other = request(&bank, merchant, "ABCD2345", 900).await;
    let declined = answer("ABCD2345", "decline", "n", None).await.expect(200).json();
    assert_json_snapshot!("declined", neutral(&declined, &[(&other, "mandate"), (&merchant, "merchant")]));
    assert_eq!(answer("ABCD2345", "decline", "n", None).await.expect(200).json(), declined, "a retry");
    answer("ABCD2345", "grant", "o", Some(grant(&account))).await.expect_problem(404, "not_found");
    get("ABCD2345").await.expect_problem(404, "not_found");
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_customers_answer_one_code_and_one_wins() {
    let (bank, processor) = open_bank("admin-consent-race").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let accounts = [
        account_of(&bank, Owner::Customer(user(&anna)), 0).await,
        account_of(&bank, Owner::Customer(user(&bob)), 0).await,
    ];
    for round in 0..5 {
        let code = ["ABCD2345", "ABCD2346", "ABCD2347", "ABCD2348", "ABCD2349"][round];
        let mandate = request(&bank, merchant, code, 900).await;
        let path = format!("/v1/me/mandate-requests/{code}/grant");
        let bodies = accounts.map(|account| json!({"account": account.to_string()}));
        let (one, other) = tokio::join!(
            anna.client.ask(&path, code, bodies[0].clone()),
            bob.client.ask(&path, code, bodies[1].clone())
        );
        let (winner, loser) = if one.status == 201 { (&one, &other) } else { (&other, &one) };
        assert_eq!(winner.status, 201, "{one:?} {other:?}");
        // Told that it was answered meanwhile, or found nothing to answer any more.
        assert!(
            [(409, "conflict"), (404, "not_found")].contains(&(loser.status, loser.code().as_str())),
            "{loser:?}"
        );
        let granted = format!("mandates WHERE id = {} AND status = 1", hex(mandate.uuid()));
        assert_eq!(bank.count(&granted).await, 1);
    }
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_granted_and_where_nobody_is_sent() {
    let (bank, processor) = open_bank("admin-consent-bad").await;
    let anna = bank.customer("anna@example.com").await;
    let account = account_of(&bank, Owner::Customer(user(&anna)), 0).await;
    let insert = async |active, livemode| {
        let row = fixtures::PartnerRow { active, livemode, ..fixtures::PartnerRow::default() };
        fixtures::insert_partner(bank.env.pool(), row).await
    };
    let (test, suspended, other) =
        (insert(true, false).await, insert(false, true).await, insert(true, true).await);
    request(&bank, test, "TEST2345", 900).await;
    request(&bank, suspended, "SUSP2345", 900).await;
    request(&bank, other, "LATE2345", -1).await;
    request(&bank, other, "AWAY2345", 900).await;
    // Registered for somebody else, or not this path.
    register_url(&bank, test, "https://shop.example/return").await;
    register_url(&bank, other, "https://shop.example/returned").await;
    let get = async |code: &str| anna.client.get(&format!("/v1/me/mandate-requests/{code}")).await;
    let grant = async |code: &str| {
        let (path, body) =
            (format!("/v1/me/mandate-requests/{code}/grant"), json!({"account": account.to_string()}));
        anna.client.ask(&path, code, body).await
    };
    let shown = get("TEST2345").await.expect(200).json();
    assert_eq!((&shown["merchant"]["verified"], &shown["accounts"]), (&json!(false), &json!([])));
    assert_eq!(
        grant("TEST2345").await.expect_problem(422, "command_rejected").json()["reason"],
        "livemode_mismatch"
    );
    assert_eq!(get("SUSP2345").await.expect(200).json()["merchant"]["verified"], false);
    grant("SUSP2345").await.expect_problem(409, "conflict");
    grant("LATE2345").await.expect_problem(404, "not_found");
    assert_eq!(get("AWAY2345").await.expect(200).json()["return_url"], Value::Null);
    assert_eq!(grant("AWAY2345").await.expect(201).json()["return_url"], Value::Null);
    // All that is not there looks the same.
    let late = get("LATE2345").await.expect_problem(404, "not_found").json();
    let unknown = get("NNNN2345").await.expect_problem(404, "not_found").json();
    let taken = {
        let bob = bank.customer("bob@example.com").await;
        bob.client.get("/v1/me/mandate-requests/AWAY2345").await.expect_problem(404, "not_found").json()
    };
    assert_eq!((&late["detail"], &taken["detail"]), (&unknown["detail"], &unknown["detail"]));
    let staff = bank.staff("otto@example.com", 2).await;
    staff.client.get("/v1/me/mandate-requests/AWAY2345").await.expect_problem(403, "role_missing");
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_codes_waits() {
    let bank = Bank::new("admin-codes").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    request(&bank, merchant, "K7M2XQ9P", 900).await;
    let get =
        async |client: &Client, code: &str| client.get(&format!("/v1/me/mandate-requests/{code}")).await;
    // A user, from however many networks, and also of many at once no more than ten.
    let guesses = (0..30).map(|number| {
        let client = bank.client().with_token(anna.client.token.as_deref().unwrap());
        let code = ["AAAA2345", "mdt_00000000000000000000000007", "x", "%20"][number % 4];
        async move { get(&client, code).await.status }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let count = |status| answers.iter().filter(|it| **it == status).count();
    assert_eq!((count(404), count(429)), (10, 20));
    let refused = get(&anna.client, "K7M2XQ9P").await.expect_problem(429, "too_many_attempts");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Somebody else does not wait.
    get(&bob.client, "K7M2XQ9P").await.expect(200);
    // A network, with however many users.
    let mut users = Vec::new();
    for number in 0..6 {
        users.push(bank.customer(&format!("c{number}@example.com")).await);
    }
    let network = bank.client();
    let mut misses = 0;
    'all: for user in &users {
        let client = network.with_token(user.client.token.as_deref().unwrap());
        for _ in 0..9 {
            let answer = get(&client, "AAAA2345").await;
            if answer.status == 429 {
                break 'all;
            }
            answer.expect_problem(404, "not_found");
            misses += 1;
        }
    }
    assert!((50..54).contains(&misses), "{misses}");
    get(&bob.client, "K7M2XQ9P").await.expect(200);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_and_grants_need_a_fresh_proof() {
    let (bank, processor) = open_bank("admin-fresh").await;
    let anna = bank.customer("anna@example.com").await;
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let account = account_of(&bank, Owner::Customer(user(&anna)), 1_000).await;
    let mandate = mandate_on(&bank, merchant, account).await;
    request(&bank, merchant, "K7M2XQ9P", 900).await;
    bank.sql("UPDATE sessions SET proven_at = UTC_TIMESTAMP(6) - INTERVAL 301 SECOND").await;
    tokio::time::sleep(admin_api::sessions::AGE_MAX).await;
    let body =
        json!({"from": account.to_string(), "to": account.to_string(), "amount": "1.00", "currency": "EUR"});
    let send = async |path: &str, body: &Value| {
        anna.client.ask(path, &Uuid::now_v7().to_string(), body.clone()).await
    };
    send("/v1/me/transfers", &body).await.expect_problem(403, "proof_too_old");
    let grant = json!({"account": account.to_string()});
    send("/v1/me/mandate-requests/K7M2XQ9P/grant", &grant).await.expect_problem(403, "proof_too_old");
    // What takes rights away, or gives none, does not.
    send(&format!("/v1/me/mandates/{mandate}/revoke"), &Value::Null).await.expect(200);
    send("/v1/me/mandate-requests/K7M2XQ9P/decline", &Value::Null).await.expect(200);
    let step_up = json!({"password": crate::harness::PASSWORD});
    anna.client.post("/v1/auth/step-up", step_up).await.expect(204);
    let refused = send("/v1/me/transfers", &body).await.expect_problem(422, "command_rejected");
    assert_eq!(refused.json()["reason"], "same_account");
    drop(processor);
    bank.close().await;
}
