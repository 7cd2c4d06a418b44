//! Many payments in one request.

use std::time::{Duration, Instant};

use domain::ids::payment_id;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{Answer, Bench, MANDATE, Options, neutral};
use crate::ledger::Row;

fn item(key: &str) -> Value {
    json!({"idempotency_key": key, "amount": "12.50", "currency": "EUR", "mandate": MANDATE, "reference": "order"})
}

async fn send(bench: &Bench, items: &[Value]) -> Answer {
    bench.post_json("/v1/payments/batch", &json!({"payments": items})).await
}

fn statuses(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let items = answer["items"].as_array().unwrap();
    for (index, item) in items.iter().enumerate() {
        assert_eq!(item["index"], index);
        assert_ne!(item.get("payment").is_some(), item.get("problem").is_some(), "one of them: {item}");
    }
    items.iter().map(|item| item["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_is_answered_in_its_place_and_harms_no_other() {
    let bench = Bench::new("batch").await;
    assert_eq!(bench.payment("posted").send(bench.address).await.status, 202);
    assert_eq!(bench.payment("rejected").send(bench.address).await.status, 202);
    for record in bench.records() {
        let mut row =
            Row { mandate: Some(MANDATE.parse().unwrap()), ..Row::of(&record, PaymentKind::Payment) };
        if record.envelope().idempotency_key == "rejected" {
            row.status = PaymentStatus::Rejected;
            row.reason = Some(Reason::DailyLimit);
            row.captured = 0;
        }
        row.insert(bench.env.pool()).await;
    }
    let mut other_amount = item("posted");
    other_amount["amount"] = json!("12.51");
    let mut bad = item("bad");
    bad["amount"] = json!("3");
    bad["livemode"] = json!(true);
    let mut keyless = item("x");
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    let items = [
        item("one"),
        item("posted"),
        item("rejected"),
        bad,
        json!("a payment"),
        keyless,
        item("two words"),
        item("one"),
        item("two"),
    ];
    let answer = send(&bench, &items).await;
    assert_eq!(statuses(&answer), [202, 200, 200, 400, 400, 400, 400, 400, 202]);
    let mut shown = neutral(&answer.json());
    for item in shown["items"].as_array_mut().unwrap() {
        if let Some(url) = item.pointer_mut("/payment/status_url")
            && url.as_str().is_some_and(|url| url.contains("?position="))
        {
            *url = json!("/v1/payments/[pay]?position=…");
        }
    }
    assert_json_snapshot!("answer", shown);
    assert_eq!(bench.records().len(), 4, "the two good new ones were added");

    let conflict = send(&bench, &[other_amount]).await;
    assert_eq!(statuses(&conflict), [422]);
    assert_eq!(conflict.json()["items"][0]["problem"]["code"], "idempotency_conflict");

    // An item is the payment that it would be alone.
    let one = bench.records().into_iter().find(|record| record.envelope().idempotency_key == "one").unwrap();
    Row::of(&one, PaymentKind::Payment).insert(bench.env.pool()).await;
    let alone = bench.payment("one").send(bench.address).await;
    assert_eq!((alone.status, alone.header("idempotent-replayed")), (200, Some("true")));
    let status_url = answer.json()["items"][8]["payment"]["status_url"].as_str().unwrap().to_owned();
    assert_eq!(bench.get(&status_url).await.json()["status"], "pending");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_bounded_and_may_be_all_bad() {
    let bench = Bench::new("batch-bounds").await;
    let items: Vec<_> = (0..501).map(|index| item(&format!("k{index}"))).collect();
    for (items, code) in [(&items[..], "too_many"), (&[], "empty")] {
        let refused = send(&bench, items).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_field"));
        assert_eq!(refused.json()["errors"][0]["code"], code);
    }
    for body in [json!({}), json!({"payments": {}}), json!({"payments": [], "more": 1}), json!([])] {
        assert_eq!(bench.post_json("/v1/payments/batch", &body).await.status, 400);
    }
    assert!(bench.records().is_empty(), "nothing of a refused batch is accepted");

    let bad: Vec<_> = (0..500).map(|index| json!({"idempotency_key": format!("k{index}")})).collect();
    let answer = send(&bench, &bad).await;
    assert_eq!(statuses(&answer), [400; 500]);
    assert!(bench.records().is_empty());

    // The largest batch: five hundred items, close to a mebibyte.
    let wide: Vec<_> = (0..500)
        .map(|index| {
            let mut item = item(&format!("k{index}"));
            item["metadata"] = json!({"a": "x".repeat(500), "b": "x".repeat(500), "c": "x".repeat(500),
                "d": "x".repeat(250)});
            item
        })
        .collect();
    let bytes = json!({"payments": wide}).to_string().len();
    assert!((900_000..=1_048_576).contains(&bytes), "{bytes}");
    assert_eq!(statuses(&send(&bench, &wide).await), [202; 500]);
    let records = bench.records();
    assert_eq!(records.len(), 500);
    assert!(records.iter().all(|record| record.key == record.envelope().id.uuid().as_bytes()));
    // Larger than that is refused before it is read; the limit of other routes is lower.
    let filler = "x".repeat(1_048_576);
    let large = bench.post_json("/v1/payments/batch", &json!({"payments": filler})).await;
    assert_eq!((large.status, large.code().as_str()), (413, "body_too_large"));
    let large = bench.post("k", json!({"payments": wide}).to_string()).send(bench.address).await;
    assert_eq!((large.status, large.code().as_str()), (413, "body_too_large"));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_counts_against_the_rate() {
    let bench =
        Bench::with("batch-rate", |_| Options { requests_per_second: Some(100), ..Options::default() }).await;
    let items: Vec<_> = (0..400).map(|index| item(&format!("k{index}"))).collect();
    let answer = send(&bench, &items).await;
    let statuses = statuses(&answer);
    let accepted = statuses.iter().filter(|status| **status == 202).count();
    assert!((1..=250).contains(&accepted), "{accepted} of 400 at 100 a second");
    assert!(statuses.iter().all(|status| [202, 429].contains(status)));
    assert_eq!(bench.records().len(), accepted);
    let answer = answer.json();
    let limited = answer["items"].as_array().unwrap().iter().find(|item| item["status"] == 429).unwrap();
    assert_eq!(limited["problem"]["code"], "rate_limited");
    assert!(limited["problem"]["retry_after_s"].as_u64().unwrap() >= 1);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_answered_with_what_became_of_it() {
    let bench = Bench::new("batch-lookup").await;
    let items: Vec<_> = (0..500).map(|index| item(&format!("k{index}"))).collect();
    assert_eq!(statuses(&send(&bench, &items).await), [202; 500]);
    for record in bench.records() {
        Row::of(&record, PaymentKind::Payment).insert(bench.env.pool()).await;
    }
    let started = Instant::now();
    let replayed = send(&bench, &items).await;
    assert_eq!(statuses(&replayed), [200; 500], "each is known");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.records().len(), 500, "nothing is put on Kafka again");
    let items = replayed.json();
    assert_eq!(items["items"][499]["payment"]["id"], payment_id(bench.partner, "k499").to_string());
    let bodiless = bench.request(Method::POST, "/v1/payments/batch").header("idempotency-key", "k");
    assert_eq!(bodiless.send(bench.address).await.code(), "malformed_json");
    bench.close().await;
}
