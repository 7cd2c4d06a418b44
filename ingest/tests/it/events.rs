//! The event log: no gap, the same bytes, and who waits is told.

use std::time::{Duration, Instant};

use domain::event::{API_VERSION, EventRecord, EventType};
use domain::ids::{PartnerId, event_id};
use domain::time::Timestamp;
use http::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::MySqlPool;
use testkit::fixtures::ALL_SCOPES;

use crate::harness::{Bench, SOON};

/// Writes events as the processor does, with sequences `from..=to`.
pub(crate) async fn insert_events(
    pool: &MySqlPool,
    partner: PartnerId,
    from: u64,
    to: u64,
    types: &[EventType],
) {
    let mut transaction = pool.begin().await.unwrap();
    let sequences: Vec<u64> = (from..=to).collect();
    for chunk in sequences.chunks(500) {
        let mut query = sqlx::QueryBuilder::new(
            "INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) ",
        );
        query.push_values(chunk, |mut row, sequence| {
            row.push_bind(partner.uuid().as_bytes().to_vec());
            row.push_bind(*sequence).push_bind(1_u16);
            row.push_bind(types[*sequence as usize % types.len()].code());
            row.push_bind("2026-11-01 12:00:00.000001").push_bind(data(*sequence));
        });
        query.build().execute(&mut *transaction).await.unwrap();
    }
    sqlx::query(
        "INSERT INTO partner_sequences (partner_id, last_sequence, epoch) VALUES (?, ?, 1)
        ON DUPLICATE KEY UPDATE last_sequence = VALUES(last_sequence)",
    )
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(to)
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
}

/// Spaces and digits that another serialiser would write otherwise.
fn data(sequence: u64) -> String {
    format!(r#"{{"payment": {{"n":{sequence},  "amount":"1.50", "é":"\u00e9"}} }}"#)
}

fn record(partner: PartnerId, sequence: u64, event_type: EventType) -> EventRecord {
    EventRecord {
        schema: 1,
        id: event_id(partner, 1, sequence),
        partner,
        sequence,
        epoch: 1,
        event_type,
        timestamp: "2026-11-01T12:00:00.000001Z".parse::<Timestamp>().unwrap(),
        data: RawValue::from_string(data(sequence)).unwrap(),
    }
}

fn sequences(page: &Value) -> Vec<u64> {
    let data = page["data"].as_array().unwrap();
    data.iter().map(|event| event["body"]["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_bytes_of_the_webhooks() {
    let bench = Bench::new("ev-bytes").await;
    insert_events(bench.env.pool(), bench.partner, 1, 3, &[EventType::PaymentPosted]).await;
    let page = bench.get("/v1/events").await;
    let text = String::from_utf8(page.body.clone()).unwrap();
    for sequence in 1..=3 {
        let event = record(bench.partner, sequence, EventType::PaymentPosted);
        let body = event.webhook_body(API_VERSION);
        assert!(text.contains(&format!(r#"{{"id":"{}","body":{body}}}"#, event.id)), "{text}");
        let one = bench.get(&format!("/v1/events/{}", event.id)).await;
        assert_eq!((one.status, one.header("content-type")), (200, Some("application/json")));
        assert_eq!(one.header("webhook-id"), Some(event.id.to_string().as_str()));
        assert_eq!(String::from_utf8(one.body).unwrap(), body);
    }
    assert_eq!(
        (page.json()["scanned_through"].as_u64(), page.json()["last_sequence"].as_u64()),
        (Some(3), Some(3))
    );
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_read_once_whatever_the_filter() {
    let bench = Bench::new("ev-pages").await;
    let types = [EventType::PaymentPosted, EventType::PaymentRejected, EventType::AccountCredited];
    insert_events(bench.env.pool(), bench.partner, 1, 450, &types).await;
    let (other, _) = bench.other_partner(ALL_SCOPES).await;
    insert_events(bench.env.pool(), other, 1, 5, &types).await;
    for (query, wanted) in [("", 450), ("&types=payment.rejected", 150), ("&types=mandate.revoked", 0)] {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = bench.get(&format!("/v1/events?after={after}&limit=200{query}")).await.json();
            seen.extend(sequences(&page));
            let through = page["scanned_through"].as_u64().unwrap();
            if through == after {
                break;
            }
            assert!(through > after && through <= 450);
            after = through;
        }
        assert_eq!((seen.len(), after), (wanted, 450), "{query}");
        assert!(seen.is_sorted());
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told_with_where_to_begin() {
    let bench = Bench::new("ev-gone").await;
    insert_events(bench.env.pool(), bench.partner, 1, 20, &[EventType::PaymentPosted]).await;
    let remove = "DELETE FROM events WHERE sequence <= 10";
    sqlx::query(remove).execute(bench.env.pool()).await.unwrap();
    for target in [
        "/v1/events?after=9".to_owned(),
        "/v1/events?after=0".to_owned(),
        format!("/v1/events/{}", event_id(bench.partner, 1, 10)),
    ] {
        let gone = bench.get(&target).await;
        assert_eq!((gone.status, gone.code().as_str()), (410, "history_gone"), "{target}");
        assert_eq!(gone.json()["first_kept_sequence"], 11);
    }
    assert_eq!(sequences(&bench.get("/v1/events?after=10").await.json()).len(), 10);
    assert_eq!(sequences(&bench.get("/v1/events").await.json())[0], 11, "without after from the first kept");
    let endpoint = crate::endpoints::create(&bench).await;
    let replays = format!("{}/replays", crate::endpoints::path(&endpoint));
    for body in [
        json!({"kind": "range", "from_sequence": 10}),
        json!({"kind": "missing", "from_sequence": 1}),
        json!({"kind": "event", "event": event_id(bench.partner, 1, 10).to_string()}),
    ] {
        let gone = bench.post_json(&replays, &body).await;
        assert_eq!((gone.status, &gone.json()["first_kept_sequence"]), (410, &json!(11)), "{body}");
    }
    sqlx::query("DELETE FROM events").execute(bench.env.pool()).await.unwrap();
    assert_eq!(bench.get("/v1/events?after=10").await.json()["first_kept_sequence"], 21);
    assert_eq!(bench.get("/v1/events?after=20").await.json()["data"], json!([]));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused() {
    let bench = Bench::new("ev-bad").await;
    insert_events(bench.env.pool(), bench.partner, 1, 2, &[EventType::PaymentPosted]).await;
    let (other, _) = bench.other_partner(ALL_SCOPES).await;
    for (query, pointer) in [
        ("after=-1", "?after"),
        ("after=x", "?after"),
        ("after=3", "?after"),
        ("after=99999999999999999999", "?after"),
        ("limit=0", "?limit"),
        ("limit=201", "?limit"),
        ("types=payment.lost", "?types"),
        ("types=", "?types"),
        ("types=ping", "?types"),
        ("api_version=2020-01-01", "?api_version"),
        ("since=1", "?since"),
    ] {
        let answer = bench.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{query}");
    }
    for id in [event_id(other, 1, 1), event_id(bench.partner, 1, 3), event_id(bench.partner, 2, 1)] {
        assert_eq!(bench.get(&format!("/v1/events/{id}")).await.code(), "not_found");
    }
    for id in ["evt_x", "pay_00000000000000000000000001", "%00"] {
        assert_eq!(bench.get(&format!("/v1/events/{id}")).await.code(), "not_found");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_of_the_next_event_it_wants() {
    let bench = Bench::new("ev-wait").await;
    let (posted, rejected) = (&[EventType::PaymentPosted], &[EventType::PaymentRejected]);
    insert_events(bench.env.pool(), bench.partner, 1, 1, posted).await;
    let started = Instant::now();
    let at_once =
        bench.request(Method::GET, "/v1/events").header("prefer", "wait=10").send(bench.address).await;
    assert_eq!(sequences(&at_once.json()), [1], "what is there is not waited for");
    assert!(started.elapsed() < Duration::from_secs(8));
    let in_vain = bench.request(Method::GET, "/v1/events?after=1").header("prefer", "wait=1");
    let in_vain = in_vain.send(bench.address).await;
    assert_eq!((in_vain.status, in_vain.header("preference-applied")), (200, Some("wait")));
    assert_eq!(in_vain.json(), json!({"data": [], "scanned_through": 1, "last_sequence": 1}));

    let waiting = |query: &str| {
        let request = bench.request(Method::GET, &format!("/v1/events?after=1{query}"));
        request.header("prefer", "wait=10").send(bench.address)
    };
    let events = async {
        testkit::wait_until("both wait", SOON, async || {
            let metrics = bench.metrics().await;
            let line = metrics.lines().find(|line| line.starts_with("wired_ingest_event_waiters "));
            line.is_some_and(|line| !line.ends_with(" 0"))
        })
        .await;
        insert_events(bench.env.pool(), bench.partner, 2, 2, posted).await;
        // The filtered one goes on waiting; this is long enough for it to have looked.
        tokio::time::sleep(Duration::from_millis(300)).await;
        insert_events(bench.env.pool(), bench.partner, 3, 3, rejected).await;
    };
    let (all, filtered, ()) = tokio::join!(waiting(""), waiting("&types=payment.rejected"), events);
    assert_eq!(sequences(&all.json()), [2]);
    assert_eq!(sequences(&filtered.json()), [3]);
    bench.close().await;
}

/// The Rust client against the real API: what it reads is what is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_manages_webhooks() {
    use client::{EndpointRequest, ReplayRequest};
    use domain::notice::Flaw;
    use domain::replay::{ReplayKind, ReplayStatus};

    let bench = Bench::new("client").await;
    let bank = bench.client();
    insert_events(bench.env.pool(), bench.partner, 1, 3, &[EventType::PaymentPosted]).await;
    let page = bank.events(1, &[EventType::PaymentPosted], Some(Duration::from_secs(1))).await.unwrap();
    assert_eq!((page.data.len(), page.scanned_through, page.last_sequence), (2, 3, 3));
    let body = record(bench.partner, 2, EventType::PaymentPosted).webhook_body(API_VERSION);
    assert_eq!(page.data[0].body.get(), body);
    assert_eq!(bank.event(page.data[0].id).await.unwrap(), body.as_bytes());

    let request = EndpointRequest {
        url: crate::endpoints::URL.to_owned(),
        event_types: Some(vec![EventType::PaymentPosted]),
        ed25519: true,
        ..EndpointRequest::default()
    };
    let made = bank.create_endpoint(&request, "client-1").await.unwrap();
    assert!(made.secret.is_some() && made.public_key.is_some() && made.status == "enabled");
    assert!(bank.create_endpoint(&request, "client-1").await.unwrap().secret.is_none());
    let changed = bank.change_endpoint(made.id, 1, &json!({"description": "till"})).await.unwrap();
    assert_eq!(changed.version, 2);
    let stale = bank.change_endpoint(made.id, 1, &json!({"description": null})).await.unwrap_err();
    assert!(stale.is("precondition_failed"), "{stale}");
    let rotated = bank.rotate_secret(made.id, Duration::from_secs(60), "client-2").await.unwrap();
    assert!(rotated.secret.is_some());
    assert_eq!(bank.ping(made.id, None, None).await.unwrap().verdict, None);
    let flaw = Some(Flaw::Doubled);
    assert_eq!(bank.ping(made.id, flaw, None).await.unwrap().flaw, flaw);
    let replay = bank.replay(made.id, &ReplayRequest::Range { from_sequence: 2 }, "client-3").await.unwrap();
    assert_eq!((replay.kind, replay.status), (ReplayKind::Range, ReplayStatus::Open));
    assert_eq!(bank.replay_status(&replay.status_url).await.unwrap().id, replay.id);
    let enabled = bank.enable_endpoint(made.id).await.unwrap();
    assert_eq!((enabled.missed_after, enabled.replay_offer), (None, None));
    let version = bank.endpoint(made.id).await.unwrap().version;
    bank.delete_endpoint(made.id, version).await.unwrap();
    assert!(bank.endpoint(made.id).await.unwrap_err().is("not_found"));
    bench.close().await;
}
