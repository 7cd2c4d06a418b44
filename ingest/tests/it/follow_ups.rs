//! Two-phase payments, captures, voids, refunds and transfers.

use domain::command::PartnerCommand;
use domain::ids::{PaymentId, payment_id};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use http::Method;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use testkit::wait_until;

use crate::harness::{Answer, Bench, MANDATE, Record, SOON, bury, neutral};
use crate::ledger::{Row, account};

const FROM: &str = "acct_00000000000000000000000001";
const TO: &str = "acct_00000000000000000000000002";

/// An answer for a snapshot, without what differs from run to run.
fn shown(answer: &Answer) -> Value {
    let mut value = neutral(&answer.json());
    for name in ["request_id", "expected_wait_ms"] {
        if value.get(name).is_some() {
            value[name] = json!("…");
        }
    }
    if value["status_url"].as_str().is_some_and(|url| url.contains("?position=")) {
        value["status_url"] = json!("/v1/payments/[pay]?position=…");
    }
    value
}

async fn post(bench: &Bench, target: &str, key: &str, body: &Value) -> Answer {
    bench.write(Method::POST, target, key, body).send(bench.address).await
}

fn record(bench: &Bench, key: &str) -> Record {
    bench.records().into_iter().find(|record| record.envelope().idempotency_key == key).expect("a record")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_in_two_phases_tells_how_long_it_holds() {
    let bench = Bench::new("manual").await;
    let body = json!({
        "amount": "12.50", "currency": "EUR", "mandate": MANDATE, "capture": "manual", "expires_in": 90
    });
    let answer = post(&bench, "/v1/payments", "two-phase", &body).await;
    assert_eq!(answer.status, 202);
    let (view, record) = (answer.json(), record(&bench, "two-phase"));
    let PartnerCommand::Payment(command) = record.envelope().command else { panic!("a payment") };
    assert_eq!(command.expires_in_s, Some(90));
    let time = |name: &str| view[name].as_str().unwrap().parse::<domain::time::Timestamp>().unwrap();
    assert_eq!(time("expires_at"), time("created_at").plus_seconds(90));
    // The shortest time is configured; another way to capture is another request.
    let mut other = body.clone();
    other["expires_in"] = json!(59);
    let refused = post(&bench, "/v1/payments", "short", &other).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (400, &json!("/expires_in")));
    Row { status: PaymentStatus::Authorized, ..Row::of(&record, PaymentKind::Payment) }
        .insert(bench.env.pool())
        .await;
    let automatic = json!({"amount": "12.50", "currency": "EUR", "mandate": MANDATE});
    assert_eq!(post(&bench, "/v1/payments", "two-phase", &automatic).await.code(), "idempotency_conflict");
    let replay = post(&bench, "/v1/payments", "two-phase", &body).await;
    assert_eq!((replay.status, replay.json()["status"].as_str()), (200, Some("authorized")));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_a_payment_stand_behind_it_and_replay_and_conflict_like_it() {
    let bench = Bench::new("follow-ups").await;
    assert_eq!(bench.payment("root").send(bench.address).await.status, 202);
    let root = payment_id(bench.partner, "root");
    let part = json!({"amount": "5.00", "currency": "EUR", "reference": "part", "metadata": {"a": "b"}});
    let cases = [
        ("capture", "capture", PaymentKind::Capture, &part),
        ("void", "void", PaymentKind::Void, &json!({"description": "not wanted"})),
        ("refund", "refunds", PaymentKind::Refund, &Value::Null),
    ];
    for (key, operation, kind, body) in cases {
        let target = format!("/v1/payments/{root}/{operation}");
        let answer = post(&bench, &target, key, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_json_snapshot!(format!("accepted_{key}"), shown(&answer));
        let record = record(&bench, key);
        let envelope = record.envelope();
        assert_eq!((envelope.id, envelope.root), (payment_id(bench.partner, key), root));
        assert_eq!(record.key, root.uuid().as_bytes(), "in the partition of its payment");
        assert_eq!(
            serde_json::to_value(&envelope.command).unwrap().as_object().unwrap().keys().next().unwrap(),
            key
        );
        // Pending by its token: with its kind and root, on any replica.
        let pending = bench.get(answer.json()["status_url"].as_str().unwrap()).await.json();
        assert_eq!(
            (&pending["status"], &pending["kind"], &pending["root"]),
            (&json!("pending"), &json!(kind), &json!(root))
        );

        // The same body on another payment, and another body on the same, are other requests.
        Row { amount: 500, captured: 500, ..Row::of(&record, kind) }.insert(bench.env.pool()).await;
        let replay = post(&bench, &target, key, body).await;
        assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, Some("true")));
        let elsewhere = format!("/v1/payments/{}/{operation}", payment_id(bench.partner, "other"));
        for (target, body) in [(&elsewhere, body), (&target, &json!({"reference": "other"}))] {
            let conflict = post(&bench, target, key, body).await;
            assert_eq!((conflict.status, conflict.code().as_str()), (422, "idempotency_conflict"));
        }
        // The key of the payment itself cannot be used for what follows it.
        assert_eq!(post(&bench, &target, "root", body).await.code(), "idempotency_conflict");
    }
    assert_eq!(bench.records().len(), 4, "conflicts and replays are not put on Kafka");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_of_what_is_not_there_is_accepted_and_decided_like_any() {
    let bench = Bench::new("foreign-root").await;
    let (other, _) = bench.other_partner(testkit::fixtures::ALL_SCOPES).await;
    let foreign = payment_id(other, "k");
    let unknown = payment_id(bench.partner, "never");
    let mut shapes = Vec::new();
    for (key, root) in [("foreign", foreign), ("unknown", unknown)] {
        let answer = post(&bench, &format!("/v1/payments/{root}/capture"), key, &Value::Null).await;
        assert_eq!(answer.status, 202);
        shapes.push(shown(&answer));
        Row {
            status: PaymentStatus::Rejected,
            reason: Some(Reason::PaymentUnknown),
            amount: 0,
            captured: 0,
            ..Row::of(&record(&bench, key), PaymentKind::Capture)
        }
        .insert(bench.env.pool())
        .await;
        let decided = bench.get(&format!("/v1/payments/{}", payment_id(bench.partner, key))).await;
        assert_eq!((decided.status, &decided.json()["reason"]), (200, &json!("payment_unknown")));
    }
    assert_eq!(shapes[0], shapes[1], "a foreign payment cannot be told from one that never was");
    assert_eq!(bench.get(&format!("/v1/payments/{foreign}")).await.code(), "not_found");
    for target in ["/v1/payments/x/capture", "/v1/payments/acct_00000000000000000000000001/void"] {
        assert_eq!(post(&bench, target, "k", &Value::Null).await.code(), "not_found");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_of_follow_ups_and_transfers_reach_nothing() {
    let bench = Bench::new("bad-money").await;
    let root = payment_id(bench.partner, "root");
    let capture = format!("/v1/payments/{root}/capture");
    let void = format!("/v1/payments/{root}/void");
    let transfer =
        |from: &str, to: &str| json!({"from": from, "to": to, "amount": "1.00", "currency": "EUR"});
    let cases = [
        (capture.as_str(), json!({"amount": "5.00"}), "/currency"),
        (&capture, json!({"currency": "EUR"}), "/amount"),
        (&capture, json!({"amount": "-5.00", "currency": "EUR"}), "/amount"),
        (&capture, json!({"amount": "92233720368547758.08", "currency": "EUR"}), "/amount"),
        (&capture, json!({"mandate": MANDATE}), "/mandate"),
        (&void, json!({"amount": "5.00", "currency": "EUR"}), "/amount"),
        ("/v1/transfers", transfer(FROM, FROM), "/to"),
        ("/v1/transfers", transfer(FROM, MANDATE), "/to"),
        ("/v1/transfers", json!({"from": FROM, "to": TO}), "/currency"),
    ];
    for (target, body, pointer) in cases {
        let answer = post(&bench, target, "k", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        answer.code();
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    assert!(bench.records().is_empty());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_needs_its_scope() {
    let bench = Bench::new("money-scopes").await;
    // The bits of the documentation's order: payments, refunds, transfers, transfers_out, mandates, balances.
    let root: PaymentId = payment_id(bench.partner, "root");
    let transfer = json!({"from": FROM, "to": TO, "amount": "1.00", "currency": "EUR"});
    let operations = [
        (Method::POST, "/v1/payments/batch".to_owned(), json!({"payments": []}), 1, "payments"),
        (Method::POST, format!("/v1/payments/{root}/capture"), Value::Null, 1, "payments"),
        (Method::POST, format!("/v1/payments/{root}/void"), Value::Null, 1, "payments"),
        (Method::POST, format!("/v1/payments/{root}/refunds"), Value::Null, 2, "refunds"),
        (Method::POST, "/v1/transfers".to_owned(), transfer.clone(), 4, "transfers"),
        (Method::POST, "/v1/mandates".to_owned(), json!({}), 16, "mandates"),
        (Method::POST, "/v1/sandbox/mandates".to_owned(), json!({}), 16, "mandates"),
        (Method::GET, "/v1/mandates".to_owned(), Value::Null, 16, "mandates"),
        (Method::GET, "/v1/accounts/x/entries".to_owned(), Value::Null, 32, "balances"),
        (Method::GET, "/v1/accounts/x/balance".to_owned(), Value::Null, 32, "balances"),
    ];
    for (method, target, body, bit, scope) in operations {
        let (_, without) = bench.other_partner(0xff & !bit).await;
        let (_, with) = bench.other_partner(bit).await;
        let send = async |key| {
            bench.write(method.clone(), &target, "k", &body).with_key(key).send(bench.address).await
        };
        let refused = send(&without).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "scope_missing"), "{target}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(&format!("`{scope}`")), "{target}");
        let allowed = send(&with).await;
        assert_ne!(allowed.json()["code"], "scope_missing", "{target}");
    }
    // Who makes a refund may ask what became of it.
    for bit in [1, 2, 4] {
        let (_, key) = bench.other_partner(bit).await;
        let read = bench.request(Method::GET, &format!("/v1/payments/{root}")).with_key(&key);
        assert_eq!(read.send(bench.address).await.code(), "not_found");
    }
    // Whether a transfer may leave is the key's, and no part of the request.
    for (bits, outward) in [(4, false), (4 | 8, true)] {
        let (partner, key) = bench.other_partner(bits).await;
        let name = format!("transfer-{outward}");
        let request = bench.write(Method::POST, "/v1/transfers", &name, &transfer).with_key(&key);
        assert_eq!(request.send(bench.address).await.status, 202);
        let envelope = record(&bench, &name).envelope();
        let PartnerCommand::Transfer(command) = &envelope.command else { panic!("a transfer") };
        assert_eq!((command.outward, envelope.root), (outward, payment_id(partner, &name)));
    }
    let fingerprints: Vec<_> =
        ["transfer-false", "transfer-true"].map(|key| record(&bench, key).envelope().fingerprint).into();
    assert_eq!(fingerprints[0], fingerprints[1]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_shown_with_its_accounts_and_waits_like_a_payment() {
    let bench = Bench::new("transfer").await;
    let body = json!({"from": FROM, "to": TO, "amount": "12.50", "currency": "EUR", "reference": "payout"});
    let request = bench.write(Method::POST, "/v1/transfers", "t", &body).header("prefer", "wait=10");
    let processor = async {
        let record = wait_until("the record", SOON, async || bench.records().pop()).await;
        Row {
            debit: Some((FROM.parse().unwrap(), 1)),
            credit: Some((TO.parse().unwrap(), 1)),
            reference: Some("payout".to_owned()),
            ..Row::of(&record, PaymentKind::Transfer)
        }
        .insert(bench.env.pool())
        .await;
    };
    let (answer, ()) = tokio::join!(request.send(bench.address), processor);
    assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait")));
    assert_json_snapshot!("posted_transfer", shown(&answer));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_under_review_says_so() {
    let bench = Bench::new("review-refund").await;
    let root = payment_id(bench.partner, "root");
    let target = format!("/v1/payments/{root}/refunds");
    let accepted = post(&bench, &target, "r", &Value::Null).await.json();
    bury(bench.env.pool(), &record(&bench, "r"), true).await;
    let view = bench.get(accepted["status_url"].as_str().unwrap()).await.json();
    assert_eq!((&view["under_review"], &view["kind"]), (&json!(true), &json!("refund")));
    assert!(view.get("amount").is_none(), "everything that is left is no amount yet: {view}");
    let replay = post(&bench, &target, "r", &Value::Null).await;
    assert_eq!((replay.status, &replay.json()["under_review"]), (202, &json!(true)));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_with_one_key_are_one_command() {
    let bench = Bench::new("twice").await;
    let root = payment_id(bench.partner, "root");
    let target = format!("/v1/payments/{root}/refunds");
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        answers.spawn(bench.write(Method::POST, &target, "same", &Value::Null).send(bench.address));
    }
    let answers = answers.join_all().await;
    assert!(
        answers.iter().all(|answer| answer.status == 202 && answer.json()["id"] == answers[0].json()["id"])
    );
    let records = bench.records();
    assert!(records.iter().all(|record| {
        let envelope = record.envelope();
        (envelope.id, envelope.fingerprint, record.partition)
            == (payment_id(bench.partner, "same"), records[0].envelope().fingerprint, records[0].partition)
    }));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_told_with_its_own_entries_and_what_followed() {
    let bench = Bench::new("details").await;
    let pool = bench.env.pool();
    let (other, _) = bench.other_partner(0xff).await;
    let (own, foreign) = (account(pool, bench.partner, 3).await, account(pool, other, 3).await);
    let payment = Row {
        debit: Some((foreign, 2)),
        credit: Some((own, 3)),
        refunded: 500,
        ..Row::posted(bench.partner, 1)
    };
    payment.insert(pool).await;
    let mut offset = 10;
    for kind in [PaymentKind::Capture, PaymentKind::Refund, PaymentKind::Void, PaymentKind::Reversal] {
        offset += 1;
        Row { root: payment.id, kind, amount: 500, captured: 500, ..Row::posted(bench.partner, offset) }
            .insert(pool)
            .await;
    }
    let rejected = Row {
        root: payment.id,
        kind: PaymentKind::Refund,
        status: PaymentStatus::Rejected,
        reason: Some(Reason::AmountExceedsCaptured),
        captured: 0,
        ..Row::posted(bench.partner, 20)
    };
    rejected.insert(pool).await;
    // Nobody could make this row; it must not be shown all the same.
    Row { root: payment.id, kind: PaymentKind::Refund, ..Row::posted(other, 21) }.insert(pool).await;
    let details = bench.get(&format!("/v1/payments/{}", payment.id)).await;
    assert_eq!(details.status, 200);
    assert_json_snapshot!("payment_details", shown(&details));
    for offset in 100..300 {
        Row { root: payment.id, kind: PaymentKind::Refund, ..Row::posted(bench.partner, offset) }
            .insert(pool)
            .await;
    }
    let details = bench.get(&format!("/v1/payments/{}", payment.id)).await.json();
    let shown = ["captures", "refunds", "reversals"].map(|name| details[name].as_array().unwrap().len());
    assert_eq!((shown.iter().sum::<usize>(), &details["more"]), (200, &json!(true)), "an answer is bounded");
    bench.close().await;
}
