//! Rotation of secrets, and pings that tell whether a receiver is right.

use domain::notice::Verdict;
use http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use testkit::wait_until;

use crate::endpoints::{create, path};
use crate::harness::{Bench, SOON, neutral};

async fn secrets(bench: &Bench, path: &str) -> Vec<Value> {
    bench.get(&format!("{path}/secrets")).await.json()["data"].as_array().unwrap().clone()
}

fn needed(secrets: &[Value]) -> Vec<&str> {
    secrets.iter().map(|secret| secret["needed"].as_str().unwrap()).collect()
}

/// Answers a ping as the notifier does.
async fn answer(bench: &Bench, ping: &Value, verdict: Verdict) {
    let id: domain::ids::EventId = ping["id"].as_str().unwrap().parse().unwrap();
    let id = id.uuid().as_bytes().to_vec();
    let mut transaction = bench.env.pool().begin().await.unwrap();
    sqlx::query("UPDATE notices SET verdict = ?, clock_skew_s = 2, next_attempt_at = NULL WHERE id = ?")
        .bind(verdict.code())
        .bind(&id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query(
        "UPDATE deliveries SET status = 2, attempts = 1, finished_at = UTC_TIMESTAMP(6) WHERE event_id = ?",
    )
    .bind(&id)
    .execute(&mut *transaction)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO attempts (endpoint_id, event_id, attempt, started_at, duration_us, status_code, excerpt)
        SELECT endpoint_id, id, 1, created_at, 1500, 204, 0xff6f6b FROM notices WHERE id = ?",
    )
    .bind(&id)
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_overlaps_and_says_when_the_old_secret_may_go() {
    let bench = Bench::new("rotate").await;
    let endpoint = create(&bench).await;
    let path = path(&endpoint);
    let rotate = || bench.write(Method::POST, &format!("{path}/secrets"), "r1", &json!({"overlap_s": 3600}));
    let rotated = rotate().send(bench.address).await;
    assert_eq!(rotated.status, 201);
    let new = rotated.json();
    assert!(domain::webhook::Secret::parse(new["secret"].as_str().unwrap()).is_ok());
    assert_ne!(new["secret"], endpoint["secret"]);
    let replayed = rotate().send(bench.address).await.json();
    assert!(replayed.get("secret").is_none() && replayed["id"] == new["id"], "{replayed}");

    let live = secrets(&bench, &path).await;
    assert_eq!((&live[0]["id"], &live[0]["role"]), (&new["id"], &json!("current")));
    assert_eq!((&live[1]["id"], &live[1]["role"]), (&endpoint["secret_id"], &json!("previous")));
    assert_eq!(live[1]["expires_at"], new["previous_expires_at"]);
    assert_eq!(needed(&live), ["yes", "unknown"]);
    assert_eq!(bench.get(&path).await.json()["version"], 2, "notifiers see it by the version");

    // Signed by the current one alone, refused: the receiver has not changed yet.
    let check = json!({"secret": new["id"]});
    let ping = bench.post_json(&format!("{path}/ping"), &check).await.json();
    answer(&bench, &ping, Verdict::Failed).await;
    assert_eq!(needed(&secrets(&bench, &path).await), ["yes", "yes"]);
    let ping = bench.post_json(&format!("{path}/ping"), &check).await.json();
    answer(&bench, &ping, Verdict::Passed).await;
    let live = secrets(&bench, &path).await;
    assert_eq!(needed(&live), ["yes", "no"]);
    assert_eq!(live[0]["last_check"]["verdict"], "passed");

    let old = format!("{path}/secrets/{}", endpoint["secret_id"].as_str().unwrap());
    let current = format!("{path}/secrets/{}", new["id"].as_str().unwrap());
    let delete = async |target: &str, key: &str, etag: &str| {
        let request = bench.write(Method::DELETE, target, key, &Value::Null).header("if-match", etag);
        request.send(bench.address).await
    };
    assert_eq!(delete(&current, "d0", "*").await.code(), "state_conflict");
    assert_eq!(delete(&old, "d1", "\"1\"").await.code(), "precondition_failed");
    assert_eq!(delete(&old, "d2", "\"2\"").await.status, 204);
    assert_eq!(delete(&old, "d3", "*").await.code(), "not_found");
    assert_eq!(secrets(&bench, &path).await.len(), 1);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_secrets_are_live_at_once() {
    let bench = Bench::new("rotate-many").await;
    let path = path(&create(&bench).await);
    let target = format!("{path}/secrets");
    for overlap in [json!({}), Value::Null] {
        assert_eq!(bench.post_json(&target, &overlap).await.status, 201);
    }
    let refused = bench.post_json(&target, &json!({"overlap_s": 60})).await;
    assert_eq!(refused.code(), "limit_reached");
    for body in [json!({"overlap_s": -1}), json!({"overlap_s": 604_801}), json!({"overlap": 5})] {
        assert_eq!(bench.post_json(&target, &body).await.status, 400, "{body}");
    }
    // One that got into wrong hands must go at once, however many are live.
    assert_eq!(bench.post_json(&target, &json!({"overlap_s": 0})).await.status, 201);
    let live = secrets(&bench, &path).await;
    assert_eq!(live.len(), 3);
    assert_eq!(live.iter().filter(|secret| secret["role"] == "current").count(), 1);
    let stored = sqlx::query("SELECT COUNT(*) FROM endpoint_secrets WHERE expires_at IS NULL");
    assert_eq!(stored.fetch_one(bench.env.pool()).await.unwrap().get::<i64, _>(0), 1);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_its_verdict() {
    let bench = Bench::new("ping").await;
    let path = path(&create(&bench).await);
    let sent = bench.post_json(&format!("{path}/ping"), &Value::Null).await;
    assert_eq!(sent.status, 202);
    let ping = sent.json();
    assert_eq!(sent.header("location"), ping["status_url"].as_str());
    assert_eq!((&ping["verdict"], &ping["flaw"]), (&Value::Null, &Value::Null));

    // The notifier takes it through its notice; the delivery is due nowhere.
    let row = sqlx::query(
        "SELECT n.type, n.flaw, n.data, n.next_attempt_at IS NOT NULL, d.status, d.next_attempt_at IS NULL
        FROM notices n JOIN deliveries d ON d.endpoint_id = n.endpoint_id AND d.event_id = n.id",
    )
    .fetch_one(bench.env.pool())
    .await
    .unwrap();
    assert_eq!((row.get::<u8, _>(0), row.get::<Option<u8>, _>(1)), (1, None));
    assert_eq!((row.get::<i64, _>(3), row.get::<u8, _>(4), row.get::<i64, _>(5)), (1, 1, 1));

    let body = json!({"flaw": "wrong_signature"});
    let rehearse = bench.write(Method::POST, &format!("{path}/rehearsals"), "r", &body);
    let waiting = rehearse.clone().header("prefer", "wait=10").send(bench.address);
    let answered = async {
        let find = "SELECT id FROM notices WHERE flaw = 1";
        wait_until("the rehearsal is asked for", SOON, async || {
            sqlx::query(find).fetch_optional(bench.env.pool()).await.unwrap().is_some()
        })
        .await;
        let row = sqlx::query(find).fetch_one(bench.env.pool()).await.unwrap();
        let id = uuid::Uuid::from_slice(row.get::<Vec<u8>, _>(0).as_slice()).unwrap();
        let id = domain::ids::EventId::from_uuid(id);
        answer(&bench, &json!({"id": id.to_string()}), Verdict::Passed).await;
    };
    let (told, ()) = tokio::join!(waiting, answered);
    assert_eq!((told.status, told.header("preference-applied")), (200, Some("wait")));
    insta::assert_json_snapshot!("a_rehearsal_passed", neutral(&told.json()));
    let read = bench.get(told.json()["status_url"].as_str().unwrap()).await;
    assert_eq!(read.json(), told.json());

    // A repeated request is the same rehearsal; without the wish to wait it is answered as at first.
    let again = rehearse.send(bench.address).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!(again.json()["id"], told.json()["id"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pings_are_refused_and_open_ones_are_few() {
    let bench = Bench::new("ping-bad").await;
    let path = path(&create(&bench).await);
    let cases = [
        ("rehearsals", json!({}), 400),
        ("rehearsals", json!({"flaw": "none"}), 400),
        ("rehearsals", json!({"flaw": "doubled", "secret": "x"}), 400),
        ("ping", json!({"secret": "x"}), 400),
        ("ping", json!({"secret": "eps_00000000000000000000000001"}), 404),
        ("ping", json!([]), 400),
    ];
    for (action, body, status) in cases {
        let answer = bench.post_json(&format!("{path}/{action}"), &body).await;
        assert_eq!(answer.status, status, "{action} {body}");
    }
    let target = format!("{path}/ping");
    let none = Value::Null;
    let sent = futures_util::future::join_all((0..8).map(|_| bench.post_json(&target, &none))).await;
    assert_eq!(sent.iter().filter(|answer| answer.status == 202).count(), 5);
    let refused = sent.iter().find(|answer| answer.status != 202).unwrap();
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("rate_limited", Some("5")));
    let foreign = format!("{path}/pings/evt_00000000000000000000000001");
    assert_eq!(bench.get(&foreign).await.code(), "not_found");
    bench.close().await;
}
