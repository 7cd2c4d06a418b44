//! Accounts, statements and mandates, read by customers and by staff.

use admin_api::store::ledger::{self as store, Filters, entries, mandates};
use domain::account::{AccountStatus, Owner};
use domain::ids::AccountId;
use domain::past::Search;
use domain::time::Timestamp;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use sqlx::Executor as _;
use testkit::fixtures;
use uuid::Uuid;

use crate::harness::{Answer, Bank, Client};
use crate::teller::{
    account_of, decide, decide_partner, mandate_on, mandate_row, neutral, open_bank, payment, rows_of,
    transfer, user,
};

/// The body of a streamed answer.
fn streamed(answer: &Answer) -> String {
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{}", answer.head);
    let (mut rest, mut body) = (answer.body.as_str(), String::new());
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return body;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
}

async fn versions(client: &Client, account: AccountId, query: &str) -> Vec<u64> {
    let (mut versions, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/me/accounts/{account}/entries?{query}{cursor}");
        let page = client.get(&path).await.expect(200).json();
        versions.extend(page["data"].as_array().unwrap().iter().map(|it| it["version"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return versions,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_says_who_was_on_the_other_side_and_nothing_of_other_customers() {
    let (bank, processor) = open_bank("admin-statement").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let shop = account_of(&bank, Owner::Partner(merchant), 0).await;
    let first = account_of(&bank, Owner::Customer(user(&anna)), 100_000).await;
    let second = account_of(&bank, Owner::Customer(user(&anna)), 0).await;
    let bobs = account_of(&bank, Owner::Customer(user(&bob)), 10_000).await;
    let mandate = mandate_on(&bank, merchant, first).await;
    decide_partner(&bank, &payment(merchant, mandate, 1_250, "order 7", "Two coffees")).await;
    decide(&bank, transfer(first, bobs, 2_000, "Lunch")).await;
    decide(&bank, transfer(first, second, 500, "Savings")).await;
    decide(&bank, transfer(bobs, first, 300, "=HYPERLINK(\"https://evil.example\")")).await;
    decide(&bank, transfer(first, shop, 700, "Gift, \"wrapped\"")).await;
    let names: &[(&dyn std::fmt::Display, &str)] = &[
        (&first, "first"),
        (&second, "second"),
        (&bobs, "bobs"),
        (&shop, "shop"),
        (&anna.id, "anna"),
        (&bob.id, "bob"),
        (&merchant, "merchant"),
        (&mandate, "mandate"),
    ];
    let path = format!("/v1/me/accounts/{first}");
    let own = async |path: &str| neutral(&anna.client.get(path).await.expect(200).json(), names);
    assert_json_snapshot!("account", own(&path).await);
    assert_json_snapshot!("entries", own(&format!("{path}/entries")).await);
    assert_json_snapshot!("balance", own(&format!("{path}/balance")).await);
    assert_json_snapshot!("my_mandates", own("/v1/me/mandates").await);
    let listed = anna.client.get("/v1/me/accounts").await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    // The one who received money sees no account of the one who sent it.
    let bobs_view = bob.client.get(&format!("/v1/me/accounts/{bobs}/entries")).await.expect(200);
    for secret in [&first.to_string(), &anna.id, "Anna", "anna@"] {
        assert_eq!(
            bobs_view.body.matches(secret).count(),
            usize::from(*secret == first.to_string()),
            "{secret}"
        );
    }
    let entries = bobs_view.json();
    assert_eq!(entries["data"][1]["counterparty"], "another customer");
    assert_eq!(entries["data"][1]["counterparty_account"], Value::Null, "money that came in");
    assert_eq!(entries["data"][0]["counterparty_account"], first.to_string(), "money that bob sent");

    let csv = anna.client.get(&format!("{path}/statement.csv")).await.expect(200);
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(
        csv.header("content-disposition"),
        Some(format!("attachment; filename=\"{first}.csv\"").as_str())
    );
    let text = streamed(&csv);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert!(
        text.contains(
            ",transfer,another customer,,\"'=HYPERLINK(\"\"https://evil.example\"\")\",,credit,3.00,"
        ),
        "{text}"
    );
    assert!(text.contains(",\"Gift, \"\"wrapped\"\"\",,debit,-7.00,"), "{text}");
    assert!(
        text.contains(",payment,Café Mozart,,Two coffees,order 7,debit,-12.50,987.50,EUR,pay_"),
        "{text}"
    );

    // Staff see every account, and both sides of it.
    let otto = bank.staff("otto@example.com", 3).await;
    let staff = async |path: &str| otto.client.get(path).await.expect(200).json();
    let shops = staff(&format!("/v1/accounts/{shop}/entries")).await;
    assert_json_snapshot!("entries_of_shop", neutral(&shops, names));
    let found = staff(&format!("/v1/accounts/{first}/mandates")).await;
    assert_eq!(found["data"][0]["id"], mandate.to_string());
    assert_json_snapshot!("mandate", neutral(&staff(&format!("/v1/mandates/{mandate}")).await, names));
    assert_eq!(staff(&format!("/v1/accounts/{first}")).await["balance"], "958.50");
    assert_eq!(staff(&format!("/v1/accounts/{first}/balance")).await["available"], "958.50");
    let of_staff = otto.client.get(&format!("/v1/accounts/{first}/statement.csv")).await.expect(200);
    assert!(streamed(&of_staff).contains(&bobs.to_string()));
    let search = async |query: &str| {
        let found = staff(&format!("/v1/accounts?{query}")).await;
        found["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(search("email=Bob%40example.com").await, [bobs.to_string()]);
    assert_eq!(search(&format!("owner={merchant}")).await, [shop.to_string()]);
    assert_eq!(search(&format!("owner={}&status=active", anna.id)).await.len(), 2);
    assert_eq!(search(&format!("email=anna%40example.com&owner={}", bob.id)).await, [""; 0]);
    assert_eq!(search("email=nobody%40example.com").await, [""; 0]);
    assert_eq!(search("owner=bank").await.len(), 1);
    assert_eq!(search("status=frozen").await, [""; 0]);
    assert_eq!(search("").await.len(), 5);
    drop(processor);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_instants_of_a_statement() {
    let bank = Bank::new("admin-pages").await;
    let anna = bank.customer("anna@example.com").await;
    let account = rows_of(&bank, user(&anna), 50).await;
    let client = &anna.client;
    assert_eq!(versions(client, account, "limit=7").await, (1..=50).rev().collect::<Vec<_>>());
    assert_eq!(versions(client, account, "order=asc&limit=7").await, (1..=50).collect::<Vec<_>>());
    let at = |second: u64| format!("2026-11-01T00:00:{second:02}Z");
    let between = |from, to| format!("from={}&to={}", at(from), at(to));
    assert_eq!(versions(client, account, &between(2, 4)).await, [12, 11, 10, 9, 8, 7]);
    let ascending = format!("{}&order=asc&limit=4", between(2, 4));
    assert_eq!(versions(client, account, &ascending).await, [7, 8, 9, 10, 11, 12]);
    assert_eq!(versions(client, account, &between(4, 2)).await, [0; 0]);
    assert_eq!(versions(client, account, &format!("from={}", at(16))).await, [50, 49]);
    assert_eq!(versions(client, account, &format!("to={}", at(1))).await, [3, 2, 1]);
    assert_eq!(versions(client, account, "to=1970-01-01T00:00:00Z").await, [0; 0]);
    for (instant, balance) in [
        ("1970-01-01T00:00:00Z".to_owned(), "0.00"),
        ("2026-10-31T23:59:59.999999Z".to_owned(), "0.00"),
        (at(0), "0.03"),
        (at(5), "0.18"),
        ("2026-11-01T00:00:05.999999Z".to_owned(), "0.18"),
        (at(59), "0.50"),
    ] {
        let path = format!("/v1/me/accounts/{account}/balance?at={instant}");
        let found = client.get(&path).await.expect(200).json();
        let instant: Timestamp = instant.parse().unwrap();
        let expected = json!({"account": account.to_string(), "currency": "EUR", "balance": balance, "at": instant.to_string()});
        assert_eq!(found, expected);
    }

    let other = rows_of(&bank, user(&anna), 5).await;
    let page = client.get(&format!("/v1/me/accounts/{account}/entries?limit=2")).await.expect(200).json();
    let cursor = page["next"].as_str().unwrap();
    let accounts = client.get("/v1/me/accounts?limit=1").await.expect(200).json();
    let of_accounts = accounts["next"].as_str().unwrap();
    for (path, code) in [
        (format!("{other}/entries?cursor={cursor}"), "invalid_cursor"),
        (format!("{account}/entries?order=asc&cursor={cursor}"), "invalid_cursor"),
        (format!("{account}/entries?from={}&cursor={cursor}", at(1)), "invalid_cursor"),
        (format!("{account}/entries?cursor={of_accounts}"), "invalid_cursor"),
        (format!("{account}/entries?cursor=%27OR%201"), "invalid_cursor"),
        (format!("{account}/entries?order=up"), "malformed_request"),
        (format!("{account}/entries?limit=0"), "malformed_request"),
        (format!("{account}/entries?from=yesterday"), "malformed_request"),
        (format!("{account}/entries?from=1969-12-31T23:59:59Z"), "malformed_request"),
        (format!("{account}/entries?to=9999-12-31T23:59:59Z"), "malformed_request"),
        (format!("{account}/entries?to=10000-01-01T00:00:00Z"), "malformed_request"),
        (format!("{account}/entries?since=1"), "malformed_request"),
        (format!("{account}/balance?at=2999-01-01T00:00:00Z"), "malformed_request"),
        (format!("{account}/balance?at=1969-01-01T00:00:00Z"), "malformed_request"),
        (format!("{account}/statement.csv?limit=1"), "malformed_request"),
        (format!("{account}/statement.csv?from=x"), "malformed_request"),
    ] {
        let answer = client.get(&format!("/v1/me/accounts/{path}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{path}");
    }
    for query in [format!("cursor={cursor}"), "limit=201".to_owned(), "owner=me".to_owned()] {
        let answer = client.get(&format!("/v1/me/accounts?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    // A newcomer shifts no page.
    let rest = client.get(&format!("/v1/me/accounts?limit=1&cursor={of_accounts}")).await.expect(200).json();
    assert_eq!(rest["data"].as_array().unwrap().len(), 1);
    assert_ne!(rest["data"][0]["id"], accounts["data"][0]["id"]);
    let staff = bank.staff("ada@example.com", 4).await;
    for query in
        ["owner=me", "owner=acct_00000000000000000000000001", "status=4", "status=active%20OR%201", "email=x"]
    {
        let answer = staff.client.get(&format!("/v1/accounts?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_request"), "{query}");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_is_streamed_in_steps() {
    let bank = Bank::new("admin-csv").await;
    let anna = bank.customer("anna@example.com").await;
    let account = rows_of(&bank, user(&anna), 1_200).await;
    let path = format!("/v1/me/accounts/{account}/statement.csv");
    let answer = anna.client.get(&path).await.expect(200);
    let text = streamed(&answer);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1_201);
    assert!(lines[0].starts_with("version,entered_at,kind,"), "{}", lines[0]);
    for (index, line) in lines[1..].iter().enumerate() {
        assert!(line.starts_with(&format!("{},2026-11-01T", index + 1)), "{line}");
    }
    let part = anna.client.get(&format!("{path}?from=2026-11-01T00:00:02Z&to=2026-11-01T00:00:04Z")).await;
    let text = streamed(&part.expect(200));
    let versions: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(versions, ["7", "8", "9", "10", "11", "12"]);
    let nothing = anna.client.get(&format!("{path}?to=2026-01-01T00:00:00Z")).await.expect(200);
    assert_eq!(streamed(&nothing).lines().count(), 1);
    // Exactly full steps are no endless ones.
    let even = rows_of(&bank, user(&anna), 1_000).await;
    let answer = anna.client.get(&format!("/v1/me/accounts/{even}/statement.csv")).await.expect(200);
    assert_eq!(streamed(&answer).lines().count(), 1_001);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_is_not_there() {
    let bank = Bank::new("admin-foreign").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let account = rows_of(&bank, user(&bob), 3).await;
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let mandate = mandate_row(&bank, merchant, account).await;
    let unknown = AccountId::from_uuid(Uuid::from_u128(7));
    let accounts =
        [account.to_string(), unknown.to_string(), bob.id.clone(), "x".to_owned(), "%27".to_owned()];
    for id in accounts {
        for tail in ["", "/entries", "/balance", "/balance?at=2026-11-01T00:00:00Z", "/statement.csv"] {
            let path = format!("/v1/me/accounts/{id}{tail}");
            anna.client.get(&path).await.expect_problem(404, "not_found");
        }
    }
    for id in [mandate.to_string(), account.to_string(), "mdt_00000000000000000000000007".to_owned()] {
        anna.client.get(&format!("/v1/me/mandates/{id}")).await.expect_problem(404, "not_found");
    }
    bob.client.get(&format!("/v1/me/mandates/{mandate}")).await.expect(200);
    let none = json!({"data": [], "next": null});
    assert_eq!(anna.client.get("/v1/me/accounts").await.expect(200).json(), none);
    assert_eq!(anna.client.get("/v1/me/mandates").await.expect(200).json(), none);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mandates_are_paged_and_one_that_came_to_its_time_has_expired() {
    let bank = Bank::new("admin-mandates").await;
    let anna = bank.customer("anna@example.com").await;
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let accounts = [rows_of(&bank, user(&anna), 0).await, rows_of(&bank, user(&anna), 0).await];
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(mandate_row(&bank, merchant, accounts[number % 2]).await.to_string());
    }
    made.sort();
    made.reverse();
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = anna.client.get(&format!("/v1/me/mandates?{query}")).await.expect(200).json();
        let data = page["data"].as_array().unwrap();
        seen.extend(data.iter().map(|it| (it["id"].as_str().unwrap().to_owned(), it["status"].clone())));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), made);
    assert!(seen.iter().all(|(_, status)| status == "active"));
    bank.sql("UPDATE mandates SET expires_at = '2026-11-02'").await;
    let late = anna.client.get(&format!("/v1/me/mandates/{}", made[0])).await.expect(200).json();
    assert_eq!(late["status"], "expired", "before the ledger knows");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_scans_a_table() {
    let bank = Bank::new("admin-explain").await;
    let anna = bank.customer("anna@example.com").await;
    let pool = bank.env.pool();
    let merchant = fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await;
    let account = rows_of(&bank, user(&anna), 2_000).await;
    mandate_row(&bank, merchant, account).await;
    // Ten accounts and mandates of each of many others.
    for text in [
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, overdraft_minor, \
         spent_day, spent_minor, version, head, entered_at) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 \
         FROM n WHERE i < 1000), m AS (SELECT 1 AS j UNION ALL SELECT j + 1 FROM m WHERE j < 10) \
         SELECT UNHEX(LPAD(HEX(1000 * j + i), 32, '0')), 1, UNHEX(LPAD(HEX(i), 32, '0')), 'EUR', 1 + (i % 100 = 0), 0, 0, \
         0, 0, 0, 0, REPEAT('x', 32), '2026-11-01' FROM n, m",
        "INSERT INTO mandates (id, partner_id, account_id, kind, status, version, currency, spent_day, spent_minor, \
         granted_at) SELECT UNHEX(LEFT(SHA2(id, 256), 32)), (SELECT id FROM partners), id, 2, 1, 1, 'EUR', 0, 0, '2026-11-01' FROM accounts",
        "ANALYZE TABLE accounts, mandates, entries",
    ] {
        pool.execute(text).await.unwrap();
    }
    let owner = Some(Owner::Customer(user(&anna)));
    let frozen = Some(AccountStatus::Frozen);
    for (index, filters) in [
        ("accounts_of_owner", Filters { owner, status: None }),
        ("accounts_of_owner", Filters { owner, status: frozen }),
        ("accounts_of_status", Filters { owner: None, status: frozen }),
        ("PRIMARY", Filters::default()),
    ] {
        let rows = store::explain(pool, filters).await.unwrap();
        let [[key, kind, extra]] = rows.as_slice() else { panic!("one table: {rows:?}") };
        assert_eq!(key, index, "{filters:?}");
        assert!(["ref", "range"].contains(&kind.as_str()), "{filters:?}: {kind}");
        assert!(!extra.contains("filesort") && !extra.contains("temporary"), "{filters:?}: {extra}");
    }
    let range = entries::Range { account, first: 1, last: u64::MAX, ascending: false };
    let search = Search { account, version: 2_000, at: Timestamp::from_micros(1) };
    let [page, round] = entries::explain(pool, range, search).await.unwrap();
    assert_eq!((page[0][0].as_str(), page[0][1].as_str()), ("PRIMARY", "range"), "{page:?}");
    assert!(page[1..].iter().all(|row| ["eq_ref", "const"].contains(&row[1].as_str())), "{page:?}");
    assert!(page.iter().all(|row| !row[2].contains("filesort")), "{page:?}");
    assert_eq!((round[0][0].as_str(), round[0][1].as_str()), ("PRIMARY", "range"), "{round:?}");
    for of in [mandates::Of::Account(account), mandates::Of::Customer(user(&anna))] {
        let rows = mandates::explain(pool, of).await.unwrap();
        let keys: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        let expected = match of {
            mandates::Of::Account(_) => ["PRIMARY", "mandates_of_account", "PRIMARY"],
            mandates::Of::Customer(_) => ["accounts_of_owner", "mandates_of_account", "PRIMARY"],
        };
        assert_eq!(keys, expected, "{rows:?}");
        assert!(rows.iter().all(|row| row[1] != "ALL" && row[1] != "index"), "{rows:?}");
    }
    bank.close().await;
}
