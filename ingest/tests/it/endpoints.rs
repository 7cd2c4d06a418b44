//! Endpoints and their secrets, as their owner manages them.

use http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use testkit::fixtures::ALL_SCOPES;

use crate::harness::{Answer, Bench};

const URL: &str = "https://shop.example/webhooks";

async fn create(bench: &Bench) -> Value {
    let answer = bench.post_json("/v1/endpoints", &json!({ "url": URL })).await;
    assert_eq!(answer.status, 201, "{:?}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn path(endpoint: &Value) -> String {
    format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap())
}

async fn patch(bench: &Bench, path: &str, etag: &str, key: &str, body: &Value) -> Answer {
    bench.write(Method::PATCH, path, key, body).header("if-match", etag).send(bench.address).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_sealed() {
    let bench = Bench::new("ep-create").await;
    let body =
        json!({ "url": URL, "event_types": ["payment.posted"], "headers": {"X-Shop": "7"}, "ed25519": true });
    let request = || bench.write(Method::POST, "/v1/endpoints", "first", &body);
    let created = request().send(bench.address).await;
    assert_eq!((created.status, created.header("etag")), (201, Some("\"1\"")));
    let endpoint = created.json();
    assert_eq!(created.header("location"), Some(path(&endpoint).as_str()));
    let secret = endpoint["secret"].as_str().unwrap();
    assert!(domain::webhook::Secret::parse(secret).is_ok());
    assert!(domain::webhook::PublicKey::parse(endpoint["public_key"].as_str().unwrap()).is_ok());
    assert_eq!(endpoint["header_names"], json!(["x-shop"]));

    let replayed = request().send(bench.address).await;
    assert_eq!((replayed.status, replayed.header("idempotent-replayed")), (201, Some("true")));
    let mut expected = endpoint.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(replayed.json(), expected, "all but the secret");
    let other = bench.write(Method::POST, "/v1/endpoints", "first", &json!({ "url": "https://b.example/" }));
    assert_eq!(other.send(bench.address).await.code(), "idempotency_conflict");
    let read = bench.get(&path(&endpoint)).await;
    assert_eq!(read.header("etag"), Some("\"1\""));
    assert!(!String::from_utf8_lossy(&read.body).contains("whsec_"));

    // The notifier opens it with the same key.
    let rows =
        sqlx::query("SELECT id, secret_sealed FROM endpoint_secrets").fetch_all(bench.env.pool()).await;
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 1);
    let (id, sealed): (Vec<u8>, Vec<u8>) = (rows[0].get(0), rows[0].get(1));
    let place = domain::seal::Place { table: "endpoint_secrets", column: "secret_sealed", row: &id };
    assert_eq!(bench.webhook_kek.keys.open(&sealed, &place).unwrap().as_slice(), secret.as_bytes());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_endpoint_is_as_good_as_none() {
    let bench = Bench::new("ep-foreign").await;
    let endpoint = create(&bench).await;
    let (_, other) = bench.other_partner(ALL_SCOPES).await;
    let mine = path(&endpoint);
    let unknown = "/v1/endpoints/ep_00000000000000000000000001";
    let targets = [
        (Method::GET, "", Value::Null),
        (Method::PATCH, "", json!({})),
        (Method::DELETE, "", Value::Null),
        (Method::POST, "/enable", Value::Null),
        (Method::POST, "/disable", Value::Null),
        (Method::GET, "/secrets", Value::Null),
        (Method::POST, "/secrets", json!({})),
        (Method::DELETE, "/secrets/eps_00000000000000000000000001", Value::Null),
        (Method::POST, "/ping", json!({})),
        (Method::POST, "/rehearsals", json!({"flaw": "doubled"})),
        (Method::POST, "/replays", json!({"kind": "range", "from_sequence": 1})),
        (Method::GET, "/replays", Value::Null),
    ];
    for (index, (method, rest, body)) in targets.iter().enumerate() {
        let mut answers = Vec::new();
        for path in [mine.as_str(), unknown] {
            let key = format!("{index}-{path}");
            let request = bench.write(method.clone(), &format!("{path}{rest}"), &key, body);
            let mut answer =
                request.header("if-match", "*").with_key(&other).send(bench.address).await.json();
            for member in ["instance", "request_id"] {
                answer.as_object_mut().unwrap().remove(member);
            }
            answers.push(answer);
        }
        assert_eq!(answers[0]["code"], "not_found", "{method} {rest}");
        assert_eq!(answers[0], answers[1], "{method} {rest}");
    }
    assert_eq!(bench.get(&mine).await.json()["version"], 1, "nothing was changed");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_one_is_told() {
    let bench = Bench::new("ep-race").await;
    let endpoint = create(&bench).await;
    let path = path(&endpoint);
    for round in 1..=5 {
        let etag = format!("\"{round}\"");
        let (a, b) = (json!({"description": "a"}), json!({"description": "b"}));
        let (key_a, key_b) = (format!("a{round}"), format!("b{round}"));
        let (one, two) =
            tokio::join!(patch(&bench, &path, &etag, &key_a, &a), patch(&bench, &path, &etag, &key_b, &b));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412]);
        let winner = if one.status == 200 { one } else { two };
        let now = bench.get(&path).await.json();
        assert_eq!(winner.json()["description"], now["description"]);
        assert_eq!(now["version"], round + 1);
    }
    let request = bench.write(Method::PATCH, &path, "none", &json!({})).header("if-match", "*");
    let without = request.tamper(|request| drop(request.headers.remove("if-match")));
    assert_eq!(without.send(bench.address).await.code(), "precondition_required");
    assert_eq!(patch(&bench, &path, "6", "bare", &json!({})).await.code(), "precondition_failed");
    bench.close().await;
}
