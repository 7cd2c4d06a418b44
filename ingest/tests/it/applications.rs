//! Who applies has a sandbox at once; floods meet bounds. Schemas are public, too.

use domain::ids::KeyId;
use http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use testkit::wait_until;

use crate::harness::{Answer, Bench, Key, Options, Request, SOON};

async fn apply(bench: &Bench, body: &Value) -> Answer {
    let request = Request::new(Method::POST, "/v1/partner-applications", &bench.key);
    request.body("application/json", body.to_string()).unsigned().send(bench.address).await
}

fn contact() -> Value {
    json!({"name": "Café Mozart", "contact_email": "it@cafe-mozart.example"})
}

fn options(per_hour: u32, per_day: u32) -> Options {
    let more =
        vec![("applications-per-hour", per_hour.to_string()), ("applications-per-day", per_day.to_string())];
    Options { more, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applicant_is_a_test_partner_at_once() {
    let bench = Bench::new("apply").await;
    let answer = apply(&bench, &contact()).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")));
    let made = answer.json();
    assert_eq!((&made["status"], &made["livemode"]), (&json!("pending"), &json!(false)));
    let id: KeyId = made["key_id"].as_str().unwrap().parse().unwrap();
    let key = Key::new(id, made["key_secret"].as_str().unwrap());
    wait_until("the new key is accepted", SOON, async || {
        bench.request(Method::GET, "/v1/balances").with_key(&key).send(bench.address).await.status == 200
    })
    .await;
    let row = sqlx::query(
        "SELECT p.name, p.livemode, p.status, a.id, a.contact_sealed FROM partner_applications a
        JOIN partners p ON p.id = a.partner_id",
    )
    .fetch_one(bench.env.pool())
    .await
    .unwrap();
    let name: String = row.try_get_unchecked(0).unwrap();
    assert_eq!((name.as_str(), row.get::<u8, _>(1), row.get::<u8, _>(2)), ("Café Mozart", 0, 1));
    let (id, sealed): (Vec<u8>, Vec<u8>) = (row.get(3), row.get(4));
    let place = domain::seal::Place { table: "partner_applications", column: "contact_sealed", row: &id };
    let opened = bench.kek.keys.open(&sealed, &place).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&opened).unwrap(), contact());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_applications_meet_bounds() {
    let bench = Bench::with("apply-flood", |_| options(4, 1_000)).await;
    for body in [json!({}), json!({"name": "x"}), json!([])] {
        assert_eq!(apply(&bench, &body).await.status, 400, "what cannot be read costs no place");
    }
    for _ in 0..4 {
        assert_eq!(apply(&bench, &contact()).await.status, 201);
    }
    let refused = apply(&bench, &contact()).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 60);
    let large = json!({"name": "x".repeat(70_000), "contact_email": "a@b.example"});
    assert_eq!(apply(&bench, &large).await.code(), "body_too_large");
    bench.close().await;

    let bench = Bench::with("apply-day", |_| options(1_000, 3)).await;
    let contact = contact();
    let answers = futures_util::future::join_all((0..6).map(|_| apply(&bench, &contact))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 3);
    let refused = answers.iter().find(|answer| answer.status != 201).unwrap();
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("rate_limited", Some("3600")));
    let rows =
        sqlx::query("SELECT COUNT(*) FROM partners WHERE livemode = 0").fetch_one(bench.env.pool()).await;
    assert_eq!(rows.unwrap().get::<i64, _>(0), 3);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_has_its_schema() {
    let bench = Bench::new("schemas").await;
    let get = async |target: &str| {
        Request::new(Method::GET, target, &bench.key).unsigned().send(bench.address).await
    };
    let list = get("/v1/schemas").await.json();
    assert_eq!(list["api_version"], domain::event::API_VERSION);
    let listed: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(listed, domain::schema::types().collect::<Vec<_>>());
    for link in list["data"].as_array().unwrap() {
        let answer = get(link["url"].as_str().unwrap()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/schema+json")));
        assert!(answer.json()["$schema"].is_string());
    }
    for target in ["/v1/schemas/payment.lost", "/v1/schemas/ping?api_version=2020-01-01"] {
        assert_eq!(get(target).await.code(), "not_found", "{target}");
    }
    bench.close().await;
}
