//! Mandates, requests for them, and the sandbox's.

use domain::command::PartnerCommand;
use domain::ids::{MandateId, PartnerId, mandate_end_id};
use domain::mandate::{MandateStatus, request_code_hash};
use domain::payment::Reason;
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use sqlx::MySqlPool;
use testkit::wait_until;
use uuid::Uuid;

use crate::harness::{Answer, Bench, Options, Record, SOON, neutral};
use crate::ledger::at;

async fn register(pool: &MySqlPool, partner: PartnerId, url: &str) {
    sqlx::query("INSERT INTO return_urls (partner_id, url) VALUES (?, ?)")
        .bind(partner.uuid().as_bytes().as_slice())
        .bind(url)
        .execute(pool)
        .await
        .unwrap();
}

/// A mandate in the ledger, as the processor writes it; second `granted` since the tests' beginning.
async fn grant(pool: &MySqlPool, partner: PartnerId, id: MandateId, status: MandateStatus, granted: u64) {
    sqlx::query(
        "INSERT INTO mandates (id, partner_id, account_id, kind, status, version, currency, payment_max_minor,
        spent_day, spent_minor, granted_at)
        VALUES (?, ?, NULL, 2, ?, 1, 'EUR', 700, 0, 0, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND)
        ON DUPLICATE KEY UPDATE status = VALUES(status)",
    )
    .bind(id.uuid().as_bytes().as_slice())
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(status.code())
    .bind(at(granted).micros())
    .execute(pool)
    .await
    .unwrap();
}

fn id_of(answer: &Answer) -> MandateId {
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

fn consent() -> Options {
    Options { more: vec![("consent-url", "https://bank.test/consent/".to_owned())], ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_made_once_and_read_by_its_partner() {
    let bench = Bench::with("mandates", |_| consent()).await;
    let pool = bench.env.pool();
    register(pool, bench.partner, "https://shop.test/return").await;
    let body = json!({
        "kind": "standing", "currency": "EUR", "per_payment_max": "10.00", "daily_cap": "50.00",
        "expires_at": "2999-01-01T00:00:00Z", "reference": "customer 7", "return_url": "https://shop.test/return/7?x=1"
    });
    let post = async || bench.write(Method::POST, "/v1/mandates", "m", &body).send(bench.address).await;
    let made = post().await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = id_of(&made);
    assert_eq!(made.header("location"), Some(format!("/v1/mandates/{id}").as_str()));
    assert_eq!(made.json()["consent_url"], format!("https://bank.test/consent/{id}"));
    let code = made.json()["code"].as_str().unwrap().to_owned();
    let mut shown = neutral(&made.json());
    shown["code"] = json!("…");
    assert_json_snapshot!("requested", shown);
    let row: (Vec<u8>, i64, Vec<u8>) = sqlx::query_as(
        "SELECT code_hash, CAST(TIMESTAMPDIFF(SECOND, created_at, answer_by) AS SIGNED), CAST(return_url AS BINARY)
        FROM mandate_requests",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(row, (request_code_hash(&code).to_vec(), 900, b"https://shop.test/return/7?x=1".to_vec()));

    let replay = post().await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!((id_of(&replay), replay.json().get("code")), (id, None), "the code is shown once");
    let mut other = body.clone();
    other["daily_cap"] = json!("51.00");
    let conflict = bench.write(Method::POST, "/v1/mandates", "m", &other).send(bench.address).await;
    assert_eq!((conflict.status, conflict.code().as_str()), (422, "idempotency_conflict"));

    let (_, foreign) = bench.other_partner(0xff).await;
    let target = format!("/v1/mandates/{id}");
    assert_eq!(bench.get(&target).await.json()["status"], "pending");
    for (method, target) in [(Method::GET, target.clone()), (Method::POST, format!("{target}/cancel"))] {
        let request = bench.write(method, &target, "k", &Value::Null).with_key(&foreign);
        assert_eq!(request.send(bench.address).await.code(), "not_found");
    }
    // Nobody answered in time.
    sqlx::query("UPDATE mandate_requests SET answer_by = UTC_TIMESTAMP(6)").execute(pool).await.unwrap();
    let expired = bench.get(&target).await.json();
    assert_eq!((&expired["status"], expired.get("consent_url")), (&json!("expired"), None));
    // Granted after all, under what the customer agreed to.
    grant(pool, bench.partner, id, MandateStatus::Active, 0).await;
    let active = bench.get(&target).await.json();
    assert_json_snapshot!("active", neutral(&active));
    assert!(bench.records().is_empty(), "asking moves nothing");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_for_mandates_leave_nothing() {
    let bench = Bench::new("bad-mandates").await;
    register(bench.env.pool(), bench.partner, "https://shop.test/return").await;
    let good = json!({"kind": "single", "currency": "EUR"});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let cases = [
        (json!({}), "/kind"),
        (with("kind", json!("twice")), "/kind"),
        (with("currency", json!("XXX")), "/currency"),
        (with("per_payment_max", json!(5)), "/per_payment_max"),
        (with("daily_cap", json!("0.00")), "/daily_cap"),
        (with("expires_at", json!("2020-01-01T00:00:00Z")), "/expires_at"),
        (with("return_url", json!("https://shop.test/returned")), "/return_url"),
        (with("return_url", json!("https://evil.test/return")), "/return_url"),
        (with("return_url", json!("https://shop.test.evil.test/return")), "/return_url"),
        (with("return_url", json!("http://shop.test/return")), "/return_url"),
        (with("account", json!("acct_00000000000000000000000001")), "/account"),
    ];
    for (body, pointer) in cases {
        let answer = bench.post_json("/v1/mandates", &body).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}");
        answer.code();
    }
    let made = bench.post_json("/v1/mandates", &good).await;
    assert_eq!((made.status, made.json().get("consent_url")), (201, None), "no page is configured");
    let (count,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM mandate_requests").fetch_one(bench.env.pool()).await.unwrap();
    assert_eq!(count, 1);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mandates_and_requests_are_one_list() {
    let bench = Bench::new("mandate-list").await;
    let pool = bench.env.pool();
    let (other, _) = bench.other_partner(0xff).await;
    let mut expected = Vec::new();
    for number in 0..12_u64 {
        let id = MandateId::from_uuid(Uuid::from_u128(number.into()));
        if number % 3 == 0 {
            // Without a request.
            grant(pool, bench.partner, id, MandateStatus::Active, number).await;
        } else {
            let made =
                id_of(&bench.post_json("/v1/mandates", &json!({"kind": "single", "currency": "EUR"})).await);
            sqlx::query(
                "UPDATE mandate_requests SET id = ?,
                created_at = TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND WHERE id = ?",
            )
            .bind(id.uuid().as_bytes().as_slice())
            .bind(at(number).micros())
            .bind(made.uuid().as_bytes().as_slice())
            .execute(pool)
            .await
            .unwrap();
            if number % 2 == 0 {
                // Granted much later: it stays where its request stands, and stands there once.
                grant(pool, bench.partner, id, MandateStatus::Active, 1_000 + number).await;
            }
        }
        expected.insert(0, id.to_string());
    }
    grant(pool, other, MandateId::from_uuid(Uuid::from_u128(99)), MandateStatus::Active, 3).await;
    for limit in [1, 5, 12, 200] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bench.get(&format!("/v1/mandates?limit={limit}{cursor}")).await;
            assert_eq!(page.status, 200, "{page:?}");
            let page = page.json();
            let items = page["data"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
    assert_eq!(bench.get("/v1/mandates?cursor=x").await.code(), "invalid_cursor");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mandate_is_given_up_by_one_command_however_often_it_is_asked_for() {
    let bench = Bench::new("cancel").await;
    let pool = bench.env.pool();
    let request = json!({"kind": "standing", "currency": "EUR", "daily_cap": "5.00", "reference": "r"});
    let id = id_of(&bench.post_json("/v1/mandates", &request).await);
    let target = format!("/v1/mandates/{id}/cancel");
    let cancel = |key: &str, wait: &str| {
        bench.write(Method::POST, &target, key, &Value::Null).header("prefer", wait).send(bench.address)
    };
    // Nobody applies it yet.
    let slow = cancel("a", "wait=1").await;
    assert_eq!((slow.status, slow.json()["status"].as_str()), (202, Some("pending")));
    let processor = async {
        wait_until("both commands", SOON, async || bench.records().len() == 2).await;
        grant(pool, bench.partner, id, MandateStatus::Revoked, 0).await;
    };
    let (ended, ()) = tokio::join!(cancel("b", "wait=10"), processor);
    assert_eq!((ended.status, ended.json()["status"].as_str()), (200, Some("revoked")));
    let [one, two]: [Record; 2] = bench.records().try_into().unwrap();
    let envelope = one.envelope();
    assert_eq!(envelope.id, mandate_end_id(bench.partner, id, "cancel"));
    assert_eq!((envelope.id, envelope.fingerprint), (two.envelope().id, two.envelope().fingerprint));
    let PartnerCommand::CancelMandate(terms) = envelope.command else { panic!("a cancel") };
    assert_eq!(
        (terms.mandate, terms.daily_max_minor, terms.reference.as_deref()),
        (id, Some(500), Some("r"))
    );
    assert!(terms.answer_by.is_some());

    // What has ended stays as it is.
    for status in [MandateStatus::Used, MandateStatus::Declined, MandateStatus::Expired] {
        grant(pool, bench.partner, id, status, 0).await;
        let answer = cancel("c", "wait=10").await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some(status.as_str())));
    }
    assert_eq!(bench.records().len(), 2);
    let bad = bench.write(Method::POST, &target, "d", &json!({"reason": "x"})).send(bench.address).await;
    assert_eq!(bad.code(), "unknown_field");
    bench.close().await;
}

/// Writes the change that the processor writes for a sandbox mandate.
async fn change(pool: &MySqlPool, record: &Record, reason: Option<Reason>) {
    let envelope = record.envelope();
    sqlx::query(
        "INSERT INTO changes (source, kafka_partition, kafka_offset, id, kind, reason, target_id, fingerprint, command,
        actor_id, actor_reason, request_id, accepted_at, decided_at)
        VALUES (1, ?, ?, ?, 'sandbox_mandate', ?, ?, ?, '{}', ?, 'test', ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .bind(record.partition)
    .bind(record.offset)
    .bind(envelope.id.uuid().as_bytes().as_slice())
    .bind(reason.map(Reason::code))
    .bind(envelope.id.uuid().as_bytes().as_slice())
    .bind(envelope.fingerprint.as_bytes().as_slice())
    .bind(envelope.key.uuid().as_bytes().as_slice())
    .bind(envelope.request_id.as_bytes().as_slice())
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_mandate_is_for_test_partners_and_waits_until_it_is_there() {
    let bench = Bench::new("sandbox").await;
    let pool = bench.env.pool();
    let body = json!({"balance": "100.00", "kind": "standing", "currency": "EUR", "daily_cap": "50.00"});
    let post = |key: &str, body: &Value| bench.write(Method::POST, "/v1/sandbox/mandates", key, body);
    let live = post("s", &body).send(bench.address).await;
    assert_eq!((live.status, live.code().as_str()), (403, "test_partners_only"));

    sqlx::query("UPDATE partners SET livemode = 0").execute(pool).await.unwrap();
    wait_until("the partner is known as a test partner", SOON, async || {
        post("bad", &json!({})).send(bench.address).await.status == 400
    })
    .await;
    let processor = async {
        let record = wait_until("the record", SOON, async || bench.records().pop()).await;
        change(pool, &record, None).await;
        record
    };
    let (answer, record) = tokio::join!(post("s", &body).send(bench.address), processor);
    assert_eq!((answer.status, answer.header("preference-applied")), (200, None));
    assert_json_snapshot!("sandbox", neutral(&answer.json()));
    let PartnerCommand::SandboxMandate(sandbox) = record.envelope().command else {
        panic!("a sandbox mandate")
    };
    assert_eq!(
        (sandbox.terms.mandate.to_string(), sandbox.account.to_string()),
        (
            answer.json()["mandate"].as_str().unwrap().to_owned(),
            answer.json()["account"].as_str().unwrap().to_owned()
        )
    );
    assert_eq!((sandbox.balance_minor, sandbox.terms.daily_max_minor), (10_000, Some(5_000)));
    assert_ne!(record.envelope().id, domain::ids::payment_id(bench.partner, "s"), "a key of another kind");

    let replay = post("s", &body).send(bench.address).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(replay.json(), answer.json());
    let mut other = body.clone();
    other["state"] = json!("revoked");
    assert_eq!(post("s", &other).send(bench.address).await.code(), "idempotency_conflict");
    assert_eq!(bench.records().len(), 1);

    // Nobody applies it: it is pending, and not lost.
    let slow = post("slow", &body).header("prefer", "wait=1").send(bench.address).await;
    assert_eq!((slow.status, slow.json()["status"].as_str()), (202, Some("pending")));
    let refused = bench.records().into_iter().find(|it| it.envelope().idempotency_key == "slow").unwrap();
    change(pool, &refused, Some(Reason::MandateExists)).await;
    let rejected = post("slow", &body).send(bench.address).await;
    assert_eq!(
        (&rejected.json()["status"], &rejected.json()["reason"]),
        (&json!("rejected"), &json!("mandate_exists"))
    );
    let past =
        json!({"balance": "0.00", "kind": "single", "currency": "EUR", "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(post("past", &past).send(bench.address).await.json()["errors"][0]["pointer"], "/expires_at");
    bench.close().await;
}
