//! Endpoints and their secrets, as their owner manages them.

use http::Method;
use ingest::store::idempotency;
use serde_json::{Value, json};
use sqlx::Row;
use testkit::fixtures::{self, ALL_SCOPES};
use testkit::wait_until;

use crate::faults::mysql_through;
use crate::harness::{Answer, Bench, Options, SOON, neutral};

pub(crate) const URL: &str = "https://shop.example/webhooks";

pub(crate) async fn create(bench: &Bench) -> Value {
    let answer = bench.post_json("/v1/endpoints", &json!({ "url": URL })).await;
    assert_eq!(answer.status, 201, "{:?}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

pub(crate) fn path(endpoint: &Value) -> String {
    format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap())
}

pub(crate) async fn patch(bench: &Bench, path: &str, etag: &str, key: &str, body: &Value) -> Answer {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_it_names() {
    let bench = Bench::new("ep-change").await;
    let body = json!({
        "url": URL, "event_types": ["payment.posted"], "headers": {"x-a": "1"}, "description": "old",
        "deliveries_per_second": 5, "ed25519": true
    });
    let created = bench.post_json("/v1/endpoints", &body).await.json();
    let path = path(&created);
    let changed = patch(&bench, &path, "\"1\"", "one", &json!({"description": "new"})).await;
    assert_eq!((changed.status, changed.header("etag")), (200, Some("\"2\"")));
    let mut expected = created.clone();
    for (member, value) in [("description", json!("new")), ("version", json!(2))] {
        expected[member] = value;
    }
    for member in ["secret", "secret_id"] {
        expected.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(changed.json(), expected, "the rest stays, the public key included");

    let nothing = json!({
        "event_types": null, "headers": null, "description": null, "deliveries_per_second": null, "ed25519": false,
        "url": "https://other.example/"
    });
    let changed = patch(&bench, &path, "*", "two", &nothing).await.json();
    insta::assert_json_snapshot!("an_endpoint_with_the_least", neutral(&changed));
    let row =
        sqlx::query("SELECT headers_sealed, signing_key_sealed FROM endpoints").fetch_one(bench.env.pool());
    let row = row.await.unwrap();
    let sealed: (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(0), row.get(1));
    assert_eq!(sealed, (None, None));

    // The same change again is answered as before and changes nothing; it may not be another one.
    let again = patch(&bench, &path, "*", "two", &nothing).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(bench.get(&path).await.json()["version"], 3);
    let other = patch(&bench, &path, "\"3\"", "two", &nothing).await;
    assert_eq!(other.code(), "idempotency_conflict", "If-Match is a part of the request");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_of_a_url_is_named_and_nothing_is_kept() {
    let bench = Bench::new("ep-bad").await;
    let cases = [
        (json!({"url": "http://shop.example/"}), "/url", "url_scheme"),
        (json!({"url": "https://127.0.0.1/"}), "/url", "url_address"),
        (json!({"url": "https://0x7f000001/"}), "/url", "url_address"),
        (json!({"url": "https://[::ffff:169.254.169.254]/"}), "/url", "url_address"),
        (json!({"url": "https://u:p@shop.example/"}), "/url", "url_credentials"),
        (json!({"url": "https://shop.example:25/"}), "/url", "url_port"),
        (json!({"url": "https://localhost./"}), "/url", "url_name"),
        (json!({"url": "//shop.example"}), "/url", "url_malformed"),
        (json!({"url": URL, "event_types": ["payment.postet"]}), "/event_types/0", "unknown_value"),
        (json!({"url": URL, "headers": {"webhook-id": "x"}}), "/headers/webhook-id", "header_reserved"),
        (json!({"url": URL, "headers": {"x-a": "b\r\nc: d"}}), "/headers/x-a", "header_value"),
    ];
    for (body, pointer, code) in cases {
        let problem = bench.post_json("/v1/endpoints", &body).await;
        assert_eq!(problem.code(), "invalid_field", "{body}");
        let errors = problem.json()["errors"].clone();
        assert_eq!((errors[0]["pointer"].as_str(), errors[0]["code"].as_str()), (Some(pointer), Some(code)));
    }
    let unknown = bench.post_json("/v1/endpoints", &json!({"url": URL, "event_types": ["x"]})).await.json();
    let known = unknown["errors"][0]["detail"].as_str().unwrap();
    assert!(known.contains("payment.posted") && known.contains("endpoint.disabled"), "{known}");
    assert_eq!(bench.get("/v1/endpoints").await.json(), json!({"data": [], "next": null}));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_has_only_so_many_endpoints_however_they_come() {
    let more = vec![("endpoints-per-partner", "3".to_owned())];
    let bench = Bench::with("ep-limit", |_| Options { more, ..Options::default() }).await;
    let body = json!({ "url": URL });
    let answers =
        futures_util::future::join_all((0..8).map(|_| bench.post_json("/v1/endpoints", &body))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 3);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.code(), "limit_reached");
    }
    // Another partner has its own.
    let (_, other) = bench.other_partner(ALL_SCOPES).await;
    let request = bench.write(Method::POST, "/v1/endpoints", "k", &body).with_key(&other);
    assert_eq!(request.send(bench.address).await.status, 201);

    // Pages are stable while one is deleted.
    let first = bench.get("/v1/endpoints?limit=2").await.json();
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    let gone = path(&first["data"][0]);
    let deleted = bench.write(Method::DELETE, &gone, "d", &Value::Null).header("if-match", "\"1\"");
    assert_eq!(deleted.send(bench.address).await.status, 204);
    assert_eq!(bench.get(&gone).await.code(), "not_found");
    let next = first["next"].as_str().unwrap();
    let second = bench.get(&format!("/v1/endpoints?limit=2&cursor={next}")).await.json();
    assert_eq!((second["data"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
    for query in ["cursor=AAAA", "limit=0", "limit=201", "limit=x", "page=2", "limit=1&limit=2"] {
        assert_eq!(bench.get(&format!("/v1/endpoints?{query}")).await.status, 400, "{query}");
    }
    let secrets =
        sqlx::query("SELECT COUNT(*) FROM endpoint_secrets").fetch_one(bench.env.pool()).await.unwrap();
    assert_eq!(secrets.get::<i64, _>(0), 3, "secrets go with their endpoint");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_disabled_and_enabled_with_an_offer() {
    let bench = Bench::new("ep-enable").await;
    let path = path(&create(&bench).await);
    let post = async |action: &str| bench.post_json(&format!("{path}/{action}"), &Value::Null).await;
    let disabled = post("disable").await.json();
    assert_eq!((&disabled["status"], &disabled["disabled_reason"]), (&json!("disabled"), &json!("owner")));
    assert_eq!((&disabled["version"], &disabled["missed_after"]), (&json!(2), &json!(0)));
    assert_eq!(post("disable").await.json()["version"], 2, "to disable what is disabled changes nothing");
    let replay =
        bench.post_json(&format!("{path}/replays"), &json!({"kind": "range", "from_sequence": 1})).await;
    assert_eq!(replay.code(), "state_conflict");
    let enabled = post("enable").await.json();
    assert_eq!((&enabled["status"], &enabled["version"]), (&json!("enabled"), &json!(3)));
    assert_eq!(enabled["replay_offer"], Value::Null, "there are no events that it could miss");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scope_nothing_is_seen() {
    let bench = Bench::new("ep-scope").await;
    let (_, payments_only) = bench.other_partner(1).await;
    for target in ["/v1/endpoints", "/v1/deliveries", "/v1/events"] {
        let answer = bench.request(Method::GET, target).with_key(&payments_only).send(bench.address).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "scope_missing"), "{target}");
    }
    bench.close().await;
}

/// A write that is cut off within its transaction leaves nothing, not even its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_cut_off_half_way_leaves_nothing() {
    let mut proxy = None;
    let bench = Bench::with("ep-cut", |env| {
        let (made, mysql_url) = mysql_through(env);
        proxy = Some(made);
        Options { mysql_url: Some(mysql_url), ..Options::default() }
    })
    .await;
    let proxy = proxy.unwrap();
    let (endpoint, _) =
        fixtures::insert_endpoint(bench.env.pool(), &bench.webhook_kek.keys, bench.partner, URL, None).await;
    let path = format!("/v1/endpoints/{endpoint}");
    let body = json!({"description": "new"});
    let mut held = bench.env.pool().begin().await.unwrap();
    sqlx::query("SELECT 1 FROM endpoints FOR UPDATE").fetch_all(&mut *held).await.unwrap();
    let cut = async {
        wait_until("the change waits for the row", SOON, async || waiting_locks(&bench).await > 0).await;
        proxy.shut();
    };
    let (answer, ()) = tokio::join!(patch(&bench, &path, "*", "cut", &body), cut);
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    held.rollback().await.unwrap();
    let away = bench.get(&path).await;
    assert_eq!((away.status, away.code().as_str()), (503, "unavailable"));
    let away = bench.post_json("/v1/endpoints", &json!({ "url": URL })).await;
    assert_eq!((away.status, away.code().as_str()), (503, "unavailable"));
    proxy.reopen();
    wait_until("MySQL is read again", SOON, async || bench.get(&path).await.status == 200).await;
    assert_eq!(bench.get(&path).await.json()["version"], 1);
    let repeated = patch(&bench, &path, "*", "cut", &body).await;
    assert_eq!((repeated.status, repeated.header("idempotent-replayed")), (200, None));
    assert_eq!(repeated.json()["version"], 2);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_after_a_day() {
    let bench = Bench::new("ep-forget").await;
    let request = || bench.write(Method::POST, "/v1/endpoints", "k", &json!({ "url": URL }));
    assert_eq!(request().send(bench.address).await.status, 201);
    let age = "UPDATE idempotency_keys SET created_at = created_at - INTERVAL 1441 MINUTE WHERE idempotency_key = 'k'";
    sqlx::query(age).execute(bench.env.pool()).await.unwrap();
    let anew = request().send(bench.address).await;
    assert_eq!((anew.status, anew.header("idempotent-replayed")), (201, None));
    assert!(anew.json()["secret"].is_string());
    sqlx::query(age).execute(bench.env.pool()).await.unwrap();
    idempotency::forget(bench.env.pool(), 24).await.unwrap();
    let left = sqlx::query("SELECT COUNT(*) FROM idempotency_keys WHERE idempotency_key = 'k'");
    assert_eq!(left.fetch_one(bench.env.pool()).await.unwrap().get::<i64, _>(0), 0);
    bench.close().await;
}

/// What the replica's own turns cannot do: replicas know each other by the row alone.
#[tokio::test(flavor = "multi_thread")]
async fn writes_of_a_partner_follow_one_another_on_all_replicas() {
    let bench = Bench::new("ep-turns").await;
    let (other, _) = bench.other_partner(ALL_SCOPES).await;
    let pool = bench.env.pool();
    let mut first = pool.begin().await.unwrap();
    idempotency::lock(&mut first, bench.partner).await.unwrap();
    let mut of_another = pool.begin().await.unwrap();
    idempotency::lock(&mut of_another, other).await.unwrap();
    of_another.commit().await.unwrap();
    let second = async {
        let mut second = pool.begin().await.unwrap();
        idempotency::lock(&mut second, bench.partner).await.unwrap();
        second.commit().await.unwrap();
        std::time::Instant::now()
    };
    let end = async {
        wait_until("the second waits", SOON, async || waiting_locks(&bench).await > 0).await;
        let ended = std::time::Instant::now();
        first.commit().await.unwrap();
        ended
    };
    let (second, first) = tokio::join!(second, end);
    assert!(second > first);
    bench.close().await;
}

async fn waiting_locks(bench: &Bench) -> i64 {
    let text = "SELECT COUNT(*) FROM performance_schema.data_locks WHERE lock_status = 'WAITING' \
                AND object_schema = DATABASE()";
    sqlx::query(text).fetch_one(bench.env.pool()).await.unwrap().get(0)
}
