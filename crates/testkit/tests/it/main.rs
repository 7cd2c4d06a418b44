//! The environment itself, on real servers.

use std::time::{Duration, Instant};

use domain::account::Owner;
use domain::money::Currency;
use domain::topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use testkit::{Env, fixtures, wait_until};

/// Databases, users and topics whose name holds `stamp`.
async fn left_over(env_name: &str) -> Vec<String> {
    let url = std::env::var("WIRED_MYSQL_URL").unwrap();
    let brokers = std::env::var("WIRED_KAFKA_BROKERS").unwrap();
    let mut mysql = runtime::config::MysqlConfig { mysql_url: url }.connect().await.unwrap();
    let mut names: Vec<String> = sqlx::query_scalar(
        "SELECT CONVERT(SCHEMA_NAME USING utf8mb4) COLLATE utf8mb4_unicode_ci FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE ?",
    )
    .bind(format!("t\\_{env_name}\\_%"))
    .fetch_all(&mut mysql)
    .await
    .unwrap();
    let client: BaseConsumer = runtime::config::KafkaConfig::new(brokers, "").client().create().unwrap();
    let metadata = client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let prefix = format!("t-{env_name}-");
    names.extend(
        metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .filter(|name| name.starts_with(&prefix)),
    );
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_has_everything_quickly_and_leaves_nothing() {
    let begun = Instant::now();
    let env = Env::new("kit").await;
    let made = begun.elapsed();
    let (account, partner) =
        (fixtures::account_id(), fixtures::insert_partner(env.pool(), fixtures::PartnerRow::default()).await);
    let kek = fixtures::kek();
    fixtures::insert_api_key(env.pool(), &kek.keys, partner, fixtures::ALL_SCOPES).await;
    fixtures::insert_endpoint(env.pool(), &kek.keys, partner, "https://example.org/", Some("payment.posted"))
        .await;
    let open = fixtures::open_account(account, Owner::Partner(partner), Currency::EUR);
    let begun = Instant::now();
    let (_, offset) = env.produce_bank(&fixtures::bank(fixtures::user_id(), open)).await;
    let produced = begun.elapsed();
    assert_eq!(offset, 0);
    let records: Vec<_> = (0..100_u8).map(|number| (vec![1], vec![number])).collect();
    env.produce_all(topic::EVENTS, Some(3), &records).await;
    let (partition, offset) = env.produce(topic::EVENTS, b"k", b"v").await;
    assert!(partition != 3 && offset == 0 || offset == 100);
    assert!(env.service_url("processor").contains("_processor:"));
    let begun = Instant::now();
    env.close().await;
    let removed = begun.elapsed();
    println!("made {made:?}, first record {produced:?}, removed {removed:?}");
    // The broker forgets a deleted topic a moment after it says so.
    wait_until("nothing to be left", Duration::from_secs(10), async || left_over("kit").await.is_empty())
        .await;
    assert!(made < Duration::from_secs(15), "{made:?} is no time for a test to wait");
    assert!(produced < Duration::from_secs(5), "{produced:?} for the first record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_nothing_either() {
    let panicked = tokio::spawn(async {
        let env = Env::new("kit-panic").await;
        assert!(env.service_url("ingest").is_empty(), "on purpose");
    });
    assert!(panicked.await.is_err());
    wait_until("nothing to be left", Duration::from_secs(10), async || {
        left_over("kit-panic").await.is_empty() && left_over("kit\\_panic").await.is_empty()
    })
    .await;
}
