//! Deliveries, their attempts, and what is asked to be sent again.

use domain::event::EventType;
use domain::ids::{EndpointId, EventId, PartnerId, event_id};
use http::Method;
use serde_json::{Value, json};
use sqlx::{MySqlPool, Row};
use testkit::fixtures::{self, ALL_SCOPES};

use crate::endpoints::{URL, create, path};
use crate::events::insert_events;
use crate::harness::{Bench, neutral};

/// Writes a delivery and its attempts as the notifier does; `minute` orders them.
async fn deliver(
    pool: &MySqlPool,
    partner: PartnerId,
    endpoint: EndpointId,
    event: EventId,
    status: u8,
    attempts: u8,
    minute: u32,
) {
    let at = format!("2026-11-01 12:{minute:02}:00.000000");
    sqlx::query(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, created_at,
        finished_at) VALUES (?, ?, ?, ?, ?, IF(? = 1, '2026-11-02 00:00:00', NULL), ?, IF(? = 1, NULL, ?))",
    )
    .bind(endpoint.uuid().as_bytes().as_slice())
    .bind(event.uuid().as_bytes().as_slice())
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(status)
    .bind(attempts)
    .bind(status)
    .bind(&at)
    .bind(status)
    .bind(&at)
    .execute(pool)
    .await
    .unwrap();
    for attempt in 1..=attempts {
        let failed = status != 2 || attempt < attempts;
        sqlx::query(
            "INSERT INTO attempts (endpoint_id, event_id, attempt, started_at, duration_us, status_code, error_class,
            excerpt, refused_by) VALUES (?, ?, ?, ?, 1200, ?, ?, ?, ?)",
        )
        .bind(endpoint.uuid().as_bytes().as_slice())
        .bind(event.uuid().as_bytes().as_slice())
        .bind(attempt)
        .bind(&at)
        .bind(if failed { Some(500_u16) } else { Some(204) })
        .bind(failed.then_some("status"))
        .bind(failed.then_some(b"\xfftry later\0".as_slice()))
        .bind(None::<String>)
        .execute(pool)
        .await
        .unwrap();
    }
}

async fn endpoint(bench: &Bench) -> EndpointId {
    let keys = &bench.webhook_kek.keys;
    fixtures::insert_endpoint(bench.env.pool(), keys, bench.partner, URL, None).await.0
}

/// Pages through a list; gives (endpoint, event) of each.
async fn all(bench: &Bench, query: &str, limit: usize) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = bench.get(&format!("/v1/deliveries?limit={limit}{query}{cursor}")).await.json();
        let text = |item: &Value, member: &str| item[member].as_str().unwrap().to_owned();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit);
        seen.extend(data.iter().map(|item| (text(item, "endpoint"), text(item, "event"))));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return seen,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_delivery_once_newest_first() {
    let bench = Bench::new("dl-pages").await;
    let pool = bench.env.pool();
    insert_events(pool, bench.partner, 1, 30, &[EventType::PaymentPosted]).await;
    let endpoints = [endpoint(&bench).await, endpoint(&bench).await, endpoint(&bench).await];
    let mut expected = Vec::new();
    for sequence in 1..=30_u64 {
        for (index, to) in endpoints.iter().enumerate() {
            let event = event_id(bench.partner, 1, sequence);
            // Several at one time, so that the cursor has to tell them apart.
            let minute = (sequence / 4) as u32;
            deliver(pool, bench.partner, *to, event, (index + sequence as usize) as u8 % 3 + 1, 1, minute)
                .await;
            expected.push((minute, event, *to));
        }
    }
    expected.sort_unstable_by(|one, other| other.cmp(one));
    let expected: Vec<_> =
        expected.iter().map(|(_, event, to)| (to.to_string(), event.to_string())).collect();
    for limit in [1, 7, 200] {
        assert_eq!(all(&bench, "", limit).await, expected, "{limit}");
    }
    let one = |to: &EndpointId| {
        expected.iter().filter(|(of, _)| *of == to.to_string()).cloned().collect::<Vec<_>>()
    };
    assert_eq!(all(&bench, &format!("&endpoint={}", endpoints[1]), 4).await, one(&endpoints[1]));
    let event = event_id(bench.partner, 1, 7).to_string();
    let of_event: Vec<_> = expected.iter().filter(|(_, of)| *of == event).cloned().collect();
    assert_eq!(all(&bench, &format!("&event={event}"), 2).await, of_event);
    let (dead, rest) =
        (all(&bench, "&status=dead", 5).await, all(&bench, "&status=pending,delivered", 5).await);
    assert_eq!((dead.len(), rest.len()), (30, 60));
    let late = all(&bench, "&since=2026-11-01T12:05:00Z&until=2026-11-01T12:06:00Z", 5).await;
    assert_eq!(late.len(), 12);

    // What arrives meanwhile shifts nothing.
    let first = bench.get("/v1/deliveries?limit=5").await.json();
    let newer = event_id(bench.partner, 1, 31);
    deliver(pool, bench.partner, endpoints[0], newer, 1, 0, 59).await;
    let next = first["next"].as_str().unwrap();
    let second = bench.get(&format!("/v1/deliveries?limit=5&cursor={next}")).await.json();
    assert_eq!(second["data"][0]["event"].as_str(), Some(expected[5].1.as_str()));
    let other_filter = bench.get(&format!("/v1/deliveries?limit=5&status=dead&cursor={next}")).await;
    assert_eq!(other_filter.code(), "invalid_cursor");
    bench.close().await;
}

/// As many endpoints as there may be: a look for each and status in one statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_looks_at_every_endpoint() {
    let bench = Bench::new("dl-many").await;
    let pool = bench.env.pool();
    insert_events(pool, bench.partner, 1, 2, &[EventType::PaymentPosted]).await;
    let mut endpoints = Vec::new();
    for _ in 0..200 {
        endpoints.push(endpoint(&bench).await);
    }
    for sequence in 1..=2 {
        for to in [endpoints[0], endpoints[99], endpoints[199]] {
            deliver(pool, bench.partner, to, event_id(bench.partner, 1, sequence), 2, 1, 1).await;
        }
    }
    assert_eq!(all(&bench, "", 4).await.len(), 6);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_shows_its_attempts() {
    let bench = Bench::new("dl-one").await;
    let pool = bench.env.pool();
    insert_events(pool, bench.partner, 1, 1, &[EventType::PaymentRejected]).await;
    let to = endpoint(&bench).await;
    let event = event_id(bench.partner, 1, 1);
    deliver(pool, bench.partner, to, event, 2, 12, 1).await;
    let listed = bench.get("/v1/deliveries").await.json()["data"][0].clone();
    let attempts = listed["attempts"].as_array().unwrap();
    assert_eq!(
        (attempts.len(), &attempts[0]["attempt"], &listed["attempt_count"]),
        (10, &json!(3), &json!(12))
    );
    let one = bench.get(&format!("/v1/endpoints/{to}/deliveries/{event}")).await.json();
    assert_eq!(one["attempts"].as_array().unwrap().len(), 12);
    let mut shown = one.clone();
    shown["attempts"] = json!([one["attempts"][0], one["attempts"][11]]);
    insta::assert_json_snapshot!("a_delivery", neutral(&shown));
    let (_, other) = bench.other_partner(ALL_SCOPES).await;
    let foreign =
        bench.request(Method::GET, &format!("/v1/endpoints/{to}/deliveries/{event}")).with_key(&other);
    assert_eq!(foreign.send(bench.address).await.code(), "not_found");
    let foreign = bench.request(Method::GET, &format!("/v1/deliveries?endpoint={to}")).with_key(&other);
    assert_eq!(foreign.send(bench.address).await.json()["data"], json!([]));
    for query in
        ["endpoint=ep_x", "event=x", "status=lost", "since=yesterday", "until=1", "cursor=x", "type=a"]
    {
        assert_eq!(bench.get(&format!("/v1/deliveries?{query}")).await.status, 400, "{query}");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_asked_for_once() {
    let bench = Bench::new("replay").await;
    insert_events(bench.env.pool(), bench.partner, 1, 20, &[EventType::PaymentPosted]).await;
    let path = path(&create(&bench).await);
    let replays = format!("{path}/replays");
    let event = event_id(bench.partner, 1, 7).to_string();
    let request = || bench.write(Method::POST, &replays, "one", &json!({"kind": "event", "event": event}));
    let asked = request().send(bench.address).await;
    assert_eq!(asked.status, 202);
    let replay = asked.json();
    assert_eq!(asked.header("location"), replay["status_url"].as_str());
    let again = request().send(bench.address).await;
    assert_eq!((again.header("idempotent-replayed"), &again.json()["id"]), (Some("true"), &replay["id"]));
    // The same event under another key is a loop.
    let looped = bench.post_json(&replays, &json!({"kind": "event", "event": event})).await;
    assert_eq!(looped.code(), "state_conflict");
    assert!(looped.json()["detail"].as_str().unwrap().contains(replay["id"].as_str().unwrap()));

    let range =
        bench.post_json(&replays, &json!({"kind": "range", "from_sequence": 5, "to_sequence": 900})).await;
    assert_eq!((range.status, &range.json()["to_sequence"]), (202, &json!(20)), "as far as there are events");
    for body in [
        json!({"kind": "range", "from_sequence": 1}),
        json!({"kind": "missing", "from_sequence": 1}),
        json!({"kind": "failed", "since": "2026-11-01T00:00:00Z"}),
    ] {
        assert_eq!(bench.post_json(&replays, &body).await.code(), "state_conflict", "{body}");
    }
    for sequence in 8..=10 {
        let event = event_id(bench.partner, 1, sequence).to_string();
        assert_eq!(bench.post_json(&replays, &json!({"kind": "event", "event": event})).await.status, 202);
    }
    let event = event_id(bench.partner, 1, 11).to_string();
    let many = bench.post_json(&replays, &json!({"kind": "event", "event": event})).await;
    assert_eq!(many.code(), "limit_reached");

    let status_url = range.json()["status_url"].as_str().unwrap().to_owned();
    let cancelled = bench.post_json(&format!("{status_url}/cancel"), &Value::Null).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(bench.get(&status_url).await.json(), cancelled);
    sqlx::query("UPDATE replays SET status = 2").execute(bench.env.pool()).await.unwrap();
    let done = replay["status_url"].as_str().unwrap();
    assert_eq!(bench.post_json(&format!("{done}/cancel"), &Value::Null).await.code(), "state_conflict");
    let first = bench.get(&format!("{replays}?limit=3")).await.json();
    let next = first["next"].as_str().unwrap();
    let second = bench.get(&format!("{replays}?limit=3&cursor={next}")).await.json();
    let ids = |page: &Value| {
        page["data"].as_array().unwrap().iter().map(|replay| replay["id"].to_string()).collect::<Vec<_>>()
    };
    let mut seen = ids(&first);
    seen.extend(ids(&second));
    assert_eq!(seen.len(), 5);
    assert_eq!(seen.last(), Some(&replay["id"].to_string()), "newest first");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_replay_takes_the_offer_up() {
    let bench = Bench::new("replay-miss").await;
    insert_events(bench.env.pool(), bench.partner, 1, 20, &[EventType::PaymentPosted]).await;
    let path = path(&create(&bench).await);
    // The first five came before there was an endpoint.
    let later = "UPDATE events SET occurred_at = UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE WHERE sequence > 5";
    sqlx::query(later).execute(bench.env.pool()).await.unwrap();
    bench.post_json(&format!("{path}/disable"), &Value::Null).await;
    let offer = bench.post_json(&format!("{path}/enable"), &Value::Null).await.json()["replay_offer"].clone();
    assert_eq!(bench.post_json(&format!("{path}/replays"), &offer).await.status, 202);
    assert_eq!(bench.get(&path).await.json()["missed_after"], Value::Null);
    let row = sqlx::query("SELECT kind, status, from_sequence, to_sequence FROM replays")
        .fetch_one(bench.env.pool());
    let row = row.await.unwrap();
    let stored: (u8, u8, u64, u64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(stored, (4, 1, 6, 20));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_replays_are_refused() {
    let bench = Bench::new("replay-bad").await;
    insert_events(bench.env.pool(), bench.partner, 1, 3, &[EventType::PaymentPosted]).await;
    let (other, _) = bench.other_partner(ALL_SCOPES).await;
    insert_events(bench.env.pool(), other, 1, 3, &[EventType::PaymentPosted]).await;
    let replays = format!("{}/replays", path(&create(&bench).await));
    let foreign = event_id(other, 1, 1).to_string();
    let future = event_id(bench.partner, 1, 4).to_string();
    let cases = [
        (json!({}), 400),
        (json!({"kind": "all"}), 400),
        (json!({"kind": "event"}), 400),
        (json!({"kind": "event", "event": "evt_x"}), 400),
        (json!({"kind": "event", "event": foreign}), 404),
        (json!({"kind": "event", "event": future}), 404),
        (json!({"kind": "event", "event": "evt_00000000000000000000000001"}), 404),
        (json!({"kind": "failed"}), 400),
        (json!({"kind": "failed", "since": "9000-01-01T00:00:00Z"}), 400),
        (json!({"kind": "range"}), 400),
        (json!({"kind": "range", "from_sequence": 0}), 400),
        (json!({"kind": "range", "from_sequence": "1"}), 400),
        (json!({"kind": "range", "from_sequence": 3, "to_sequence": 2}), 400),
        (json!({"kind": "range", "from_sequence": 4}), 400),
        (json!({"kind": "range", "from_sequence": 1, "since": "2026-01-01T00:00:00Z"}), 400),
    ];
    for (body, status) in cases {
        assert_eq!(bench.post_json(&replays, &body).await.status, status, "{body}");
    }
    assert_eq!(bench.get(&replays).await.json()["data"], json!([]));
    bench.close().await;
}
