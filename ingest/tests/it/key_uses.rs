//! When a key was last used is told; what staff change about a partner and its keys counts within five seconds.

use std::time::{Duration, Instant};

use domain::ids::{KeyId, PartnerId};
use domain::secret::HmacKey;
use http::Method;
use serde_json::json;
use sqlx::MySqlPool;
use testkit::fixtures::{self, PartnerRow};
use testkit::wait_until;

use crate::harness::{Bench, Key, Options, SOON};

/// The promise to whoever suspends a partner or revokes a key.
const TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(5);

async fn uses(pool: &MySqlPool) -> Vec<(Vec<u8>, i64)> {
    sqlx::query_as(
        "SELECT key_id, CAST(TIMESTAMPDIFF(SECOND, last_used_at, UTC_TIMESTAMP(6)) AS SIGNED) FROM api_key_uses",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn bytes(key: &Key) -> Vec<u8> {
    key.id.parse::<KeyId>().unwrap().uuid().as_bytes().to_vec()
}

fn every(millis: u32) -> Options {
    Options { more: vec![("key-uses-interval-ms", millis.to_string())], ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_told_in_bulk_and_no_payment_waits_for_it() {
    let bench = Bench::with("key-uses", |_| every(100)).await;
    let pool = bench.env.pool();
    // The bench itself has used its key. This one is known to it and was not used: the echo counts for nothing.
    let (_, other) = bench.other_partner(0xff).await;
    wait_until("the first use is written", SOON, async || !uses(pool).await.is_empty()).await;
    // With nowhere to write, payments go on, and what was used is told later.
    sqlx::query("RENAME TABLE api_key_uses TO away").execute(pool).await.unwrap();
    for number in 0..20 {
        assert_eq!(bench.payment(&format!("k{number}")).send(bench.address).await.status, 202);
    }
    // A wrong signature is no use of the key that it names.
    let wrong = Key { hmac: HmacKey::new(&[1; 32]).unwrap(), ..other.clone() };
    let balances =
        async |key: &Key| bench.request(Method::GET, "/v1/balances").with_key(key).send(bench.address).await;
    assert_eq!(balances(&wrong).await.status, 401);
    sqlx::query("RENAME TABLE away TO api_key_uses").execute(pool).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(uses(pool).await.len(), 1, "nobody used the other key");
    assert_eq!(balances(&other).await.status, 200);
    wait_until("the other use is written", SOON, async || uses(pool).await.len() == 2).await;
    let uses = uses(pool).await;
    assert!(uses.iter().all(|(_, age)| (0..30).contains(age)), "{uses:?}");
    let mut keys: Vec<_> = uses.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    let mut used = [bytes(&bench.key), bytes(&other)];
    used.sort();
    assert_eq!(keys, used);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uses_are_one_row_written_once_an_interval_and_at_the_end() {
    let bench = Bench::with("key-uses-once", |_| every(3_600_000)).await;
    for number in 0..20 {
        assert_eq!(bench.payment(&format!("k{number}")).send(bench.address).await.status, 202);
    }
    assert_eq!(uses(bench.env.pool()).await, [], "the interval has not passed");
    // Another replica saw a later use, which stays.
    let key = bytes(&bench.key);
    sqlx::query(
        "INSERT INTO api_key_uses (key_id, last_used_at) VALUES (?, UTC_TIMESTAMP(6) + INTERVAL 1 HOUR)",
    )
    .bind(&key)
    .execute(bench.env.pool())
    .await
    .unwrap();
    let other = fixtures::insert_partner(bench.env.pool(), PartnerRow::default()).await;
    let second = fixtures::insert_api_key(bench.env.pool(), &bench.kek.keys, other, 0xff).await;
    let second = Key::new(second.0, &second.1);
    let used =
        async || bench.request(Method::GET, "/v1/balances").with_key(&second).send(bench.address).await;
    wait_until("the key is known", SOON, async || used().await.status == 200).await;
    let env = bench.stop().await;
    let uses = uses(env.pool()).await;
    let age = |key: &[u8]| uses.iter().find(|(id, _)| id == key).map(|(_, age)| *age);
    assert!(age(&key).unwrap() < -3_000, "{uses:?}");
    assert!(
        (0..60).contains(&age(&bytes(&second)).unwrap()),
        "what was left is written at the end: {uses:?}"
    );
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_and_a_revocation_count_within_five_seconds() {
    // As it is served, not as tests hurry it.
    let refresh = || Options { more: vec![("keys-refresh-ms", "2000".to_owned())], ..Options::default() };
    let bench = Bench::with("suspended", |_| refresh()).await;
    let pool = bench.env.pool();
    let ask = async || {
        let body = json!({"kind": "single", "currency": "EUR"});
        bench.post_json("/v1/mandates", &body).await
    };
    assert_eq!(ask().await.status, 201);
    set_status(pool, bench.partner, 2).await;
    within(async || ask().await.status == 403).await;
    let refused = ask().await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "partner_suspended"));
    // What it may do with money the processor decides, and it goes on reading.
    assert_eq!(bench.payment("while-suspended").send(bench.address).await.status, 202);
    assert_eq!(bench.get("/v1/balances").await.status, 200);
    set_status(pool, bench.partner, 1).await;
    within(async || ask().await.status == 201).await;
    // A key that was given an end counts until then, on the second.
    sqlx::query("UPDATE api_keys SET revoked_at = UTC_TIMESTAMP(6) + INTERVAL 6 SECOND")
        .execute(pool)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.get("/v1/balances").await.status, 200, "the end has not come");
    wait_until("the key has ended", SOON, async || bench.get("/v1/balances").await.status == 401).await;
    assert_eq!(bench.get("/v1/balances").await.code(), "key_revoked");
    bench.close().await;
}

async fn set_status(pool: &MySqlPool, partner: PartnerId, status: u8) {
    sqlx::query("UPDATE partners SET status = ? WHERE id = ?")
        .bind(status)
        .bind(partner.uuid().as_bytes().as_slice())
        .execute(pool)
        .await
        .unwrap();
}

async fn within(condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < TAKES_EFFECT_WITHIN, "it took longer than promised");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
