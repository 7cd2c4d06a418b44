//! Balances and statements, now and of the past.

use domain::ids::{AccountId, PaymentId};
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Bench, neutral};
use crate::ledger::{Row, account, at};

async fn versions(bench: &Bench, account: AccountId, query: &str) -> Vec<u64> {
    let (mut versions, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = bench.get(&format!("/v1/accounts/{account}/entries?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        versions
            .extend(page["data"].as_array().unwrap().iter().map(|entry| entry["version"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return versions,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_read_in_pages_either_way_and_between_times() {
    let bench = Bench::new("statement").await;
    let pool = bench.env.pool();
    // Three entries in each second: versions 1 to 3 at second 0, and so on.
    let account = account(pool, bench.partner, 50).await;
    let down: Vec<u64> = (1..=50).rev().collect();
    assert_eq!(versions(&bench, account, "limit=7").await, down);
    assert_eq!(versions(&bench, account, "order=asc&limit=7").await, (1..=50).collect::<Vec<_>>());
    let between = |from: u64, to: u64| format!("from={}&to={}", at(from), at(to));
    assert_eq!(versions(&bench, account, &between(2, 4)).await, [12, 11, 10, 9, 8, 7]);
    assert_eq!(
        versions(&bench, account, &format!("{}&order=asc&limit=4", between(2, 4))).await,
        [7, 8, 9, 10, 11, 12]
    );
    assert_eq!(versions(&bench, account, &between(4, 2)).await, [0; 0]);
    assert_eq!(versions(&bench, account, &format!("from={}", at(16))).await, [50, 49]);
    assert_eq!(versions(&bench, account, &format!("to={}", at(0))).await, [0; 0]);
    assert_eq!(versions(&bench, account, &format!("to={}", at(1))).await, [3, 2, 1]);

    // An entry shows its payment; the reference of somebody else's is his own.
    let payment = |version: u128| PaymentId::from_uuid(Uuid::from_u128(version));
    let (other, other_key) = bench.other_partner(0xff).await;
    for (partner, version) in [(bench.partner, 50), (other, 49)] {
        let reference = Some("order 7".to_owned());
        let row = Row {
            id: payment(version),
            root: payment(version),
            reference,
            ..Row::posted(partner, version as u64)
        };
        row.insert(pool).await;
    }
    let page = bench.get(&format!("/v1/accounts/{account}/entries?limit=3")).await.json();
    assert!(page["next"].is_string());
    assert_json_snapshot!("entries", neutral(&page["data"]));

    // Foreign is unknown.
    let unknown = AccountId::from_uuid(Uuid::from_u128(5));
    for (target, key) in [
        (format!("/v1/accounts/{account}/entries"), &other_key),
        (format!("/v1/accounts/{unknown}/entries"), &bench.key),
        (format!("/v1/accounts/{account}/balance"), &other_key),
        ("/v1/accounts/x/balance".to_owned(), &bench.key),
    ] {
        let answer = bench.request(Method::GET, &target).with_key(key).send(bench.address).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{target}");
    }
    let cursor = page["next"].as_str().unwrap();
    for query in [format!("order=asc&cursor={cursor}"), "order=up".into(), "limit=0".into(), "from=x".into()]
    {
        assert_eq!(
            bench.get(&format!("/v1/accounts/{account}/entries?{query}")).await.status,
            400,
            "{query}"
        );
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_a_statement_is_not_disturbed_by_new_entries() {
    let bench = Bench::new("growing").await;
    let pool = bench.env.pool();
    let account = account(pool, bench.partner, 20).await;
    let (mut seen, mut cursor, mut version) = (Vec::new(), String::new(), 20_u64);
    loop {
        let page = bench.get(&format!("/v1/accounts/{account}/entries?limit=6{cursor}")).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|entry| entry["version"].as_u64().unwrap()));
        version += 1;
        sqlx::query(
            "INSERT INTO entries SELECT account_id, ?, payment_id, direction, amount_minor, balance_minor, entered_at,
            hash FROM entries WHERE account_id = ? AND version = 20",
        )
        .bind(version)
        .bind(account.uuid().as_bytes().as_slice())
        .execute(pool)
        .await
        .unwrap();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=20).rev().collect::<Vec<_>>());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_are_told_as_of_any_past_instant() {
    let bench = Bench::new("past").await;
    let pool = bench.env.pool();
    let (long, short) = (account(pool, bench.partner, 5_000).await, account(pool, bench.partner, 1).await);
    let empty = account(pool, bench.partner, 0).await;
    let (other, _) = bench.other_partner(0xff).await;
    account(pool, other, 9).await;

    let now = bench.get(&format!("/v1/accounts/{long}/balance")).await;
    assert_eq!(now.status, 200);
    assert_json_snapshot!("balance_now", neutral(&now.json()));
    for (instant, minor) in [
        (at(0).plus_micros(-1), 0),
        (at(0), 300),
        (at(1).plus_micros(-1), 300),
        (at(1_000), 300_300),
        (at(1_666), 500_000),
        (at(9_000), 500_000),
    ] {
        let past = bench.get(&format!("/v1/accounts/{long}/balance?at={instant}")).await;
        let amount = domain::money::decimal_text(minor, domain::money::Currency::EUR);
        assert_eq!(past.json()["balance"], amount, "{instant}");
    }
    let all = bench.get(&format!("/v1/balances?at={}", at(0))).await.json();
    let balance = |id: AccountId| {
        let found = all["data"].as_array().unwrap().iter().find(|row| row["account"] == id.to_string());
        found.unwrap()["balance"].clone()
    };
    assert_eq!(all["data"].as_array().unwrap().len(), 3, "the partner's own accounts alone");
    assert_eq!([balance(long), balance(short), balance(empty)], ["3.00", "1.00", "0.00"].map(Value::from));
    assert_eq!(all["data"][0].get("held"), None, "what was held then is not known");
    let offset = bench.get("/v1/balances?at=2027-01-01T00:00:00%2B01:00").await;
    for query in ["at=2999-01-01T00:00:00Z", "at=now", "at="] {
        let answer = bench.get(&format!("/v1/balances?{query}")).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (400, &json!("?at")), "{query}");
    }
    assert_eq!(offset.status, 400, "in the future, in whatever zone it is written");
    bench.close().await;
}
