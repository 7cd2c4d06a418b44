//! Calls of the APIs on their way into the table.

use std::time::Duration;

use domain::api_call::{Api, ApiCall};
use domain::time::Timestamp;
use domain::topic::API_CALLS;
use sqlx::Row as _;
use testkit::wait_until;
use uuid::Uuid;

use crate::harness::{Bank, LONG, start_again, uuid_of};

#[tokio::test(flavor = "multi_thread")]
async fn every_call_stands_in_the_table_with_who_what_and_how_it_ended() {
    let bank = Bank::new("admin-calls").await;
    let anna = bank.customer("anna@example.com").await;
    anna.client.get("/v1/me").await.expect(200);
    let other = bank.client();
    let unknown = other.get("/v1/nothing?secret=geheim").await.expect(404);
    other.get("/v1/health").await.expect(200);
    let row = "SELECT service, method, route, status, duration_us, actor_id, partner_id, address, \
               at > UTC_TIMESTAMP() - INTERVAL 1 MINUTE FROM api_calls WHERE request_id = ?";
    let find = async |id: &str| {
        let id: Uuid = id.parse().unwrap();
        wait_until("the call is loaded", LONG, async || {
            sqlx::query(row).bind(id.as_bytes().as_slice()).fetch_optional(bank.env.pool()).await.unwrap()
        })
        .await
    };
    let found = find(unknown.header("x-request-id").unwrap()).await;
    let text =
        |row: &sqlx::mysql::MySqlRow, column: usize| row.try_get_unchecked::<String, _>(column).unwrap();
    assert_eq!((found.get::<u8, _>(0), text(&found, 1), text(&found, 2)), (2, "GET".into(), "other".into()));
    assert_eq!((found.get::<u16, _>(3), found.get::<Option<Vec<u8>>, _>(5)), (404, None));
    assert!(found.get::<u32, _>(4) > 0 && found.get::<Option<Vec<u8>>, _>(6).is_none());
    let from: std::net::Ipv4Addr = other.from.parse().unwrap();
    assert_eq!(found.get::<Vec<u8>, _>(7), from.octets());
    assert_eq!(found.get::<i64, _>(8), 1);
    let mine = anna.client.get("/v1/me/sessions").await.expect(200);
    let found = find(mine.header("x-request-id").unwrap()).await;
    assert_eq!((text(&found, 2), found.get::<u16, _>(3)), ("/v1/me/sessions".into(), 200));
    assert_eq!(found.get::<Vec<u8>, _>(5), uuid_of(&anna.id));
    assert_eq!(
        bank.count("api_calls WHERE route = '/v1/health'").await,
        0,
        "nobody asks what load balancers ask"
    );
    bank.close().await;
}

fn call(number: u128, at: Timestamp) -> Vec<u8> {
    let call = ApiCall {
        at,
        api: Api::Partner,
        method: "POST".into(),
        route: "/v1/payments".into(),
        status: 202,
        duration_us: 1,
        request_id: Uuid::from_u128(number),
        partner: Some(Uuid::from_u128(1)),
        actor: None,
        target: None,
        address: None,
    };
    call.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_loaded_once_whoever_loads_and_rubbish_is_passed_over() {
    let bank = Bank::new("admin-loader").await;
    let now = Timestamp::from_micros(1_900_000_000_000_000);
    let produce = async |numbers: std::ops::Range<u128>| {
        let records: Vec<_> = numbers.map(|number| (Vec::new(), call(number, now))).collect();
        bank.env.produce_all(API_CALLS, None, &records).await;
    };
    let count = async || bank.count("api_calls WHERE service = 1").await;
    let other = bank.another(&[]).await;
    produce(0..3_000).await;
    for rubbish in [&b""[..], b"{}", b"\xff", b"null", b"{\"t\":\"x\"}"] {
        bank.env.produce(API_CALLS, b"", rubbish).await;
    }
    // A report that was sent again.
    produce(2_990..3_000).await;
    produce(3_000..3_010).await;
    wait_until("all are loaded", LONG, async || count().await == 3_010).await;
    // Whoever loads ends, the other goes on from there; then nobody, and what came meanwhile is loaded by the next.
    other.stop().await;
    produce(4_000..4_500).await;
    wait_until("the other one loads", LONG, async || count().await == 3_510).await;
    let Bank { env, keys, mails, service, .. } = bank;
    service.stop().await;
    let records: Vec<_> = (5_000..5_500_u128).map(|number| (Vec::new(), call(number, now))).collect();
    env.produce_all(API_CALLS, None, &records).await;
    let service = start_again(&env, &keys, mails.path()).await;
    let count = async || -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM api_calls WHERE service = 1")
            .fetch_one(env.pool())
            .await
            .unwrap()
    };
    wait_until("the next one loads", LONG, async || count().await == 4_010).await;
    // The position is behind every record of the topic, rubbish included.
    let distinct: i64 =
        sqlx::query_scalar("SELECT COUNT(DISTINCT kafka_offset) FROM api_calls WHERE service = 1")
            .fetch_one(env.pool())
            .await
            .unwrap();
    assert_eq!(distinct, 4_010);
    service.stop().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_noticed_and_harms_nothing_else() {
    let bank = Bank::new("admin-calls-anew").await;
    bank.service.stop().await;
    let (env, keys, mails) = (bank.env, bank.keys, bank.mails);
    sqlx::query("UPDATE api_call_positions SET next_offset = 1000000").execute(env.pool()).await.unwrap();
    let service = start_again(&env, &keys, mails.path()).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let private =
                crate::harness::Client { server: service.private, from: String::new(), token: None };
            let metrics = private.get("/metrics").await.body;
            if metrics.contains("wired_admin_api_api_calls_load_failures_total") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("the metric tells");
    service.stop().await;
    env.close().await;
}
