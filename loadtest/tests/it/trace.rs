//! One call tells the whole life of a payment that the real programs have carried: authorised, captured, refunded in
//! part, told to an endpoint that fails. And the figures say the same as the ledger.

use std::collections::HashMap;
use std::time::Duration;

use client::{Options as ClientOptions, PartRequest, PaymentRequest};
use domain::money::{Amount, Currency};
use loadtest::people::{Client, People, Role};
use loadtest::sink::{Behaviour, Sink};
use loadtest::system::{Options, Servers, System};
use serde_json::Value;
use testkit::wait_until;

const WAIT: Option<Duration> = Some(Duration::from_secs(10));
const SOON: Duration = Duration::from_secs(30);

/// Puts words in the place of what differs from run to run; the same id has the same word everywhere.
#[derive(Default)]
struct Words(HashMap<String, String>);

impl Words {
    fn hide(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| self.hide(key, value)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(key, item)),
            Value::Number(_) if key.ends_with("_ms") => *value = "[ms]".into(),
            Value::Number(_) if ["partition", "offset", "batch"].contains(&key) => *value = "[number]".into(),
            Value::String(text) if key.ends_with("_at") && text.ends_with('Z') => "[time]".clone_into(text),
            Value::String(text) if key == "url" => "[url]".clone_into(text),
            Value::String(text) => {
                let is_id = text.split_once('_').is_some_and(|(_, rest)| rest.len() == 26);
                if is_id || key == "request_id" {
                    let prefix = text.split_once('_').map_or("request", |(prefix, _)| prefix).to_owned();
                    let count =
                        self.0.values().filter(|word| word.starts_with(&format!("[{prefix} "))).count();
                    let word = self.0.entry(text.clone()).or_insert(format!("[{prefix} {}]", count + 1));
                    text.clone_from(word);
                }
            }
            _ => {}
        }
    }
}

async fn get(client: &Client, path: &str) -> Value {
    client.get(path).await.unwrap().expect(200).unwrap().json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_payment_is_told_from_its_request_to_the_last_attempt() {
    let _turn = crate::turn().await;
    let options = Options { admin_apis: 1, ..Options::new("trace") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let auditor =
        People::of(&system).staff(Role::Auditor, "aud@example.com", "nine purple wrens sing").await.unwrap();
    let auditor = auditor.client;
    let partner = &system.partners()[0];
    let sink = Sink::start(partner.webhook_listen).await.unwrap();
    sink.endpoint("/webhooks", &partner.webhook_secret).unwrap();
    let bank = partner.client(&system.url(0), ClientOptions::default()).unwrap();
    let part = |minor| PartRequest::of(Amount::new(minor, Currency::EUR).unwrap());
    let mut request = PaymentRequest::new(partner.mandates[0], Amount::new(4_000, Currency::EUR).unwrap());
    request = request.authorize(Some(600));
    request.reference = Some("order-4711".to_owned());
    let payment = bank.pay(&request, "till-7", WAIT).await.unwrap().payment.id;
    bank.capture(payment, &part(3_500), "capture", WAIT).await.unwrap();
    let received = sink.wait_until(SOON, |sink| sink.counts("/webhooks").events >= 2);
    assert!(received.await, "{:?}", sink.total());
    sink.behave("/webhooks", Behaviour::Status(503));
    let refund = bank.refund(payment, &part(1_000), "refund", WAIT).await.unwrap().payment.id;
    let path = format!("/v1/payments/{payment}/trace");
    let failed = "/follow_ups/1/events/0/deliveries/0/attempts/0/status_code";
    let mut trace = wait_until("the failed attempt is recorded", SOON, async || {
        let trace = get(&auditor, &path).await;
        let all_told = trace["payment"]["events"][0]["deliveries"][0]["status"] == "delivered"
            && trace["follow_ups"][0]["events"][0]["deliveries"][0]["status"] == "delivered";
        (trace.pointer(failed) == Some(&503.into()) && all_told).then_some(trace)
    })
    .await;
    let event = trace["follow_ups"][1]["events"][0]["id"].as_str().unwrap().to_owned();
    let request_id = trace["payment"]["request"]["request_id"].as_str().unwrap().to_owned();
    assert!(trace["total_ms"].as_f64().unwrap() > 0.0);
    let lives = [&trace["payment"], &trace["follow_ups"][0], &trace["follow_ups"][1]];
    for life in lives {
        for step in ["/request/after_ms", "/decision/after_ms"] {
            let ms = life.pointer(step).and_then(Value::as_f64).unwrap();
            assert!((-50.0..60_000.0).contains(&ms), "{step}: {ms}");
        }
    }
    Words::default().hide("", &mut trace);
    insta::assert_json_snapshot!("trace_of_a_payment", trace);

    // Found by what each of the people involved has in hand.
    for (text, id) in [
        (event, refund),
        (request_id, payment),
        ("till-7".to_owned(), payment),
        ("order-4711".to_owned(), payment),
        (refund.to_string(), refund),
    ] {
        let found = get(&auditor, &format!("/v1/trace?id={text}")).await;
        // An event about a follow-up tells of it; its trace is that of the whole payment.
        assert_eq!(found["payments"][0]["id"], id.to_string(), "{text}");
        assert_eq!(found["trace"]["payment"]["payment"]["id"], payment.to_string(), "{text}");
    }

    // The figures: what moved by kind is what the entries say.
    let figures = wait_until("everything is counted", SOON, async || {
        let volume = get(&auditor, "/v1/analytics/volume?step=day").await;
        (volume["behind"] == 0 && volume["counted_at"].is_string()).then_some(volume)
    })
    .await;
    let sum = |kind: &str| {
        let rows = figures["data"].as_array().unwrap().iter().filter(|row| row["kind"] == kind);
        rows.map(|row| row["amount"].as_str().unwrap().replace('.', "").parse::<i64>().unwrap()).sum::<i64>()
    };
    for (kind, code) in [("capture", 4), ("refund", 7), ("deposit", 2), ("payment", 1)] {
        let ledger: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(e.amount_minor), 0) AS SIGNED) FROM entries e JOIN payments p ON p.id = e.payment_id \
             WHERE e.direction = 1 AND p.kind = ?",
        )
        .bind(code)
        .fetch_one(system.pool())
        .await
        .unwrap();
        assert_eq!(sum(kind), ledger, "{kind}");
    }
    assert_eq!((sum("capture"), sum("refund")), (3_500, 1_000));
    let deliveries = get(&auditor, "/v1/analytics/deliveries").await;
    let attempts: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM attempts").fetch_one(system.pool()).await.unwrap();
    let rows = deliveries["data"].as_array().unwrap();
    let counted: u64 = rows
        .iter()
        .flat_map(|row| ["delivered", "failed", "given_up"].map(|name| row[name].as_u64().unwrap()))
        .sum();
    assert!(counted >= attempts.unsigned_abs().min(3) && attempts >= 3, "{counted} {attempts}");
    let system_page = get(&auditor, "/v1/system").await;
    assert_eq!(system_page["lag"], 0, "{system_page}");
    sink.stop().await;
    system.finish().await.unwrap();
}
