//! Requests that are right, and what becomes of them.

use std::time::{Duration, Instant};

use domain::ids::payment_id;
use domain::payment::Reason;
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use testkit::fixtures::{self, PartnerRow};
use testkit::wait_until;

use crate::harness::{Bench, Key, MANDATE, SOON, apply_position, bury, decide};

/// What differs from run to run.
fn redacted(mut value: Value) -> Value {
    let names = ["id", "root", "request_id", "created_at", "expected_wait_ms", "status_url"];
    for name in names {
        if let Some(found) = value.get_mut(name) {
            *found = json!(format!("[{name}]"));
        }
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_payment_is_put_on_kafka_and_found_by_its_status_url() {
    let bench = Bench::new("accept").await;
    let body = format!(
        r#"{{"amount":"12.50","currency":"EUR","mandate":"{MANDATE}","capture":"automatic","reference":"order 1",
        "description":"Kaffee ☕","metadata":{{"b":"2","a":"1"}}}}"#
    );
    let answer = bench.post("order-1", body).send(bench.address).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_json_snapshot!("accepted", redacted(answer.json()));
    assert!(answer.header("date").is_some());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let accepted = answer.json();
    assert_eq!(accepted["id"], payment_id(bench.partner, "order-1").to_string());
    assert_eq!(accepted["request_id"].as_str(), answer.header("x-request-id"));
    assert!(accepted["expected_wait_ms"].is_u64());
    let status_url = accepted["status_url"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(status_url.as_str()));

    let [record] = bench.records().try_into().unwrap();
    let envelope = record.envelope();
    assert_eq!(record.key, envelope.id.uuid().as_bytes());
    assert_eq!(accepted["id"], envelope.id.to_string());
    let mut stored = serde_json::to_value(&envelope).unwrap();
    for (name, expected) in [
        ("id", envelope.id.to_string()),
        ("root", envelope.id.to_string()),
        ("partner", bench.partner.to_string()),
        ("key", bench.key.id.clone()),
        ("request_id", accepted["request_id"].as_str().unwrap().to_owned()),
    ] {
        assert_eq!(stored[name], expected, "{name}");
        stored[name] = json!(format!("[{name}]"));
    }
    assert_json_snapshot!("command", stored);
    let created: domain::time::Timestamp = accepted["created_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(created.micros(), record.millis * 1_000, "created_at is the broker's time");

    // Known by its token before MySQL knows it, and not without.
    let pending = bench.get(&status_url).await;
    assert_eq!((pending.status, pending.json()["status"].as_str()), (200, Some("pending")));
    assert_json_snapshot!("pending", redacted(pending.json()));
    let plain = format!("/v1/payments/{}", envelope.id);
    assert_eq!(bench.get(&plain).await.code(), "not_found");

    decide(bench.env.pool(), &record, None).await;
    // By its position the state alone is told.
    for (target, name) in [(&plain, "details"), (&status_url, "posted")] {
        let posted = bench.get(target).await;
        assert_eq!(posted.status, 200);
        assert_eq!(posted.json()["status_url"], plain);
        assert_json_snapshot!(name, redacted(posted.json()));
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_key_replays_the_outcome_or_conflicts() {
    let bench = Bench::new("replay").await;
    for (key, reason) in [("posted", None), ("rejected", Some(Reason::InsufficientFunds))] {
        assert_eq!(bench.payment(key).send(bench.address).await.status, 202);
        let record =
            bench.records().into_iter().find(|record| record.envelope().idempotency_key == key).unwrap();
        decide(bench.env.pool(), &record, reason).await;
        let produced = bench.records().len();

        let replay = bench.payment(key).send(bench.address).await;
        assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, Some("true")));
        assert_json_snapshot!(format!("replayed_{key}"), redacted(replay.json()));
        let other =
            format!(r#"{{"amount":"12.51","currency":"EUR","mandate":"{MANDATE}","reference":"order"}}"#);
        let conflict = bench.post(key, other).send(bench.address).await;
        assert_eq!((conflict.status, conflict.code().as_str()), (422, "idempotency_conflict"));
        assert_eq!(conflict.header("idempotent-replayed"), None);
        assert_eq!(bench.records().len(), produced, "neither is put on Kafka again");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_before_the_outcome_is_accepted_again_under_the_same_id() {
    let bench = Bench::new("retry").await;
    let first = bench.payment("k").send(bench.address).await.json();
    let second = bench.payment("k").send(bench.address).await;
    assert_eq!(second.status, 202);
    assert_eq!(second.json()["id"], first["id"]);
    let [one, two] = bench.records().try_into().unwrap();
    assert_eq!((one.partition, one.key), (two.partition, two.key), "both stand in one partition, in order");

    // The second record leaves no row of its own; its status is that of the payment.
    decide(bench.env.pool(), &bench.records()[0], None).await;
    let mut connection = bench.env.pool().acquire().await.unwrap();
    apply_position(&mut connection, &bench.records()[1]).await;
    let status = bench.get(second.json()["status_url"].as_str().unwrap()).await;
    assert_eq!((status.status, status.json()["status"].as_str()), (200, Some("posted")));
    drop(connection);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_prefers_to_wait_has_the_outcome_at_once() {
    let bench = Bench::new("wait").await;
    for (key, reason) in [("posted", None), ("rejected", Some(Reason::MandateUnknown))] {
        let request = bench.payment(key).header("prefer", "wait=10").send(bench.address);
        let processor = async {
            let record = wait_until("the record", SOON, async || {
                bench.records().into_iter().find(|record| record.envelope().idempotency_key == key)
            })
            .await;
            decide(bench.env.pool(), &record, reason).await;
        };
        let (answer, ()) = tokio::join!(request, processor);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("preference-applied"), Some("wait"));
        assert_eq!(answer.header("idempotent-replayed"), None);
        assert_eq!(answer.json()["status"], key);
    }

    let started = Instant::now();
    let answer = bench.payment("late").header("prefer", "wait=1").send(bench.address).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("pending")));
    assert!(started.elapsed() >= Duration::from_secs(1), "it waited as long as it was asked to");

    let waiting = bench
        .request(Method::GET, answer.json()["status_url"].as_str().unwrap())
        .header("prefer", "wait=10")
        .send(bench.address);
    let record =
        bench.records().into_iter().find(|record| record.envelope().idempotency_key == "late").unwrap();
    let (status, ()) = tokio::join!(waiting, decide(bench.env.pool(), &record, None));
    assert_eq!(status.json()["status"], "posted");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_waiters_than_a_partner_may_have_are_answered_at_once() {
    let bench = Bench::with("waiters", |_| crate::harness::Options {
        more: vec![("waiters-per-partner", "0".to_owned())],
        ..Default::default()
    })
    .await;
    let started = Instant::now();
    let answer = bench.payment("k").header("prefer", "wait=10").send(bench.address).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None));
    assert!(started.elapsed() < Duration::from_secs(8), "it did not wait");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_a_pending_payment_under_review() {
    let bench = Bench::new("review").await;
    for (key, readable) in [("readable", true), ("unreadable", false)] {
        let accepted = bench.payment(key).send(bench.address).await.json();
        let record =
            bench.records().into_iter().find(|record| record.envelope().idempotency_key == key).unwrap();
        bury(bench.env.pool(), &record, readable).await;
        let status = bench.get(accepted["status_url"].as_str().unwrap()).await;
        assert_eq!(status.status, 200);
        let view = status.json();
        assert_eq!((view["status"].as_str(), view["under_review"].as_bool()), (Some("pending"), Some(true)));
        assert_eq!((view["amount"].as_str(), view["mandate"].as_str()), (Some("12.50"), Some(MANDATE)));
    }
    let replay = bench.payment("readable").send(bench.address).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!(replay.json()["under_review"], true);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_position_without_its_payment_is_an_error_of_ours() {
    let bench = Bench::new("lost").await;
    let accepted = bench.payment("k").send(bench.address).await.json();
    let mut connection = bench.env.pool().acquire().await.unwrap();
    apply_position(&mut connection, &bench.records()[0]).await;
    drop(connection);
    let status = bench.get(accepted["status_url"].as_str().unwrap()).await;
    assert_eq!((status.status, status.code().as_str()), (500, "internal_error"));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_read_and_was_given_up_is_told_to_who_asks_for_it() {
    let bench = Bench::new("given-up").await;
    let accepted = bench.payment("k").send(bench.address).await.json();
    let record = bench.records().remove(0);
    bury(bench.env.pool(), &record, false).await;
    sqlx::query("UPDATE dead_letters SET status = 3").execute(bench.env.pool()).await.unwrap();
    let status = bench.get(accepted["status_url"].as_str().unwrap()).await;
    assert_eq!((status.status, status.code().as_str()), (404, "not_found"));
    let detail = status.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("given up by the bank; nothing moved"), "{detail}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_payment_of_somebody_else() {
    let bench = Bench::new("foreign").await;
    let accepted = bench.payment("k").send(bench.address).await.json();
    let record = bench.records().remove(0);
    let other = fixtures::insert_partner(bench.env.pool(), PartnerRow::default()).await;
    let (id, secret) =
        fixtures::insert_api_key(bench.env.pool(), &bench.kek.keys, other, fixtures::ALL_SCOPES).await;
    let key = Key::new(id, &secret);
    let status_url = accepted["status_url"].as_str().unwrap();
    let plain = format!("/v1/payments/{}", accepted["id"].as_str().unwrap());
    wait_until("the new key is loaded", SOON, async || {
        bench.request(Method::GET, "/v1/balances").with_key(&key).send(bench.address).await.status == 200
    })
    .await;
    for decided in [false, true] {
        if decided {
            decide(bench.env.pool(), &record, None).await;
        }
        let with_token = bench.request(Method::GET, status_url).with_key(&key).send(bench.address).await;
        assert_eq!((with_token.status, with_token.code().as_str()), (400, "invalid_cursor"));
        let without = bench.request(Method::GET, &plain).with_key(&key).send(bench.address).await;
        assert_eq!((without.status, without.code().as_str()), (404, "not_found"));
    }
    // The same key text of another partner is another payment.
    let same_key = bench.payment("k").with_key(&key).send(bench.address).await;
    assert_eq!(same_key.status, 202);
    assert_ne!(same_key.json()["id"], accepted["id"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_are_those_of_the_partner() {
    let bench = Bench::new("balances").await;
    assert_eq!(bench.get("/v1/balances").await.json(), json!({"data": []}));
    let insert =
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor,
        overdraft_minor, spent_day, spent_minor, version, head, entered_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, REPEAT('\\0', 32), '2026-01-01')";
    let owner = bench.partner.uuid();
    for (id, kind, currency, status, balance, held, overdraft) in [
        (1_u128, 2_u8, "EUR", 1_u8, 125_000_i64, 5_000_i64, 0_i64),
        (2, 2, "JPY", 2, -7, 0, 10),
        // A customer who happens to have the same id.
        (3, 1, "EUR", 1, 999, 0, 0),
    ] {
        sqlx::query(insert)
            .bind(uuid::Uuid::from_u128(id).as_bytes().as_slice())
            .bind(kind)
            .bind(owner.as_bytes().as_slice())
            .bind(currency)
            .bind(status)
            .bind(balance)
            .bind(held)
            .bind(overdraft)
            .execute(bench.env.pool())
            .await
            .unwrap();
    }
    let answer = bench.get("/v1/balances").await;
    assert_eq!(answer.status, 200);
    assert_json_snapshot!("balances", answer.json());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_payments_are_each_put_on_kafka_once() {
    let bench = Bench::new("many").await;
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..1_000 {
        requests.spawn(bench.payment(&format!("k{index}")).send(bench.address));
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 202));
    let mut keys: Vec<_> =
        bench.records().iter().map(|record| record.envelope().idempotency_key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 1_000);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_shows_what_arrived_and_never_a_mac() {
    let bench = Bench::new("echo").await;
    let request = |key: &Key| {
        bench
            .request(Method::POST, "/v1/sandbox/echo?x=1")
            .with_key(key)
            .header("idempotency-key", "k")
            .body("application/json", "{}")
    };
    let good = request(&bench.key).send(bench.address).await;
    assert_eq!(good.status, 200);
    let shown = good.json();
    assert_eq!(shown["verified"], true, "{shown}");
    assert_eq!(shown["query"], "?x=1");
    assert_eq!(shown["body_bytes"], 2);
    let base = shown["signature"]["signature_base"].as_str().unwrap();
    assert!(base.starts_with("\"@method\": POST\n") && base.contains("\"idempotency-key\": k\n"), "{base}");

    // An unknown key and a wrong secret look the same.
    let wrong = Key { hmac: domain::secret::HmacKey::new(&[1; 32]).unwrap(), ..bench.key.clone() };
    let unknown = Key { id: "key_00000000000000000000000000".to_owned(), ..bench.key.clone() };
    let verdicts = [request(&wrong).send(bench.address).await, request(&unknown).send(bench.address).await];
    let [one, two] = verdicts.map(|answer| answer.json()["problem"].clone());
    assert_eq!(one, two);
    assert_eq!(one["code"], "signature_invalid");

    let unsigned = request(&bench.key).unsigned().send(bench.address).await.json();
    assert_eq!(unsigned["problem"]["code"], "signature_missing");
    let tampered =
        request(&bench.key).tamper(|request| request.body = b"[]".to_vec()).send(bench.address).await;
    assert_eq!(tampered.json()["problem"]["code"], "digest_mismatch");
    let skewed = request(&bench.key).created(-1_000).send(bench.address).await.json();
    assert_eq!(skewed["problem"]["code"], "signature_expired");
    assert!((-1_010..=-1_000).contains(&skewed["signature"]["clock_skew_s"].as_i64().unwrap()));
    let mac = request(&bench.key).sign().headers["signature"].to_str().unwrap().to_owned();
    assert!(!String::from_utf8_lossy(&good.body).contains(mac.trim_start_matches("sig=")));
    assert!(bench.records().is_empty(), "it moves nothing");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_routes_and_stages_but_no_ids() {
    let bench = Bench::new("metrics").await;
    let accepted = bench.payment("k").send(bench.address).await.json();
    let text = bench.metrics().await;
    for metric in [
        "wired_ingest_requests_total{route=\"/v1/payments\",status=\"2xx\"}",
        "wired_ingest_stage_duration_seconds_bucket{stage=\"verify\"",
        "wired_ingest_produced_total{outcome=\"acknowledged\"}",
        "wired_ingest_keys ",
        "wired_ingest_lookup_batch_payments",
    ] {
        assert!(text.contains(metric), "{metric} is missing:\n{text}");
    }
    assert!(!text.contains(accepted["id"].as_str().unwrap()));
    bench.close().await;
}
