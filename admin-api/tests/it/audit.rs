//! Everything that was done: found by every filter, page by page, exported whole, verified.

use std::time::Instant;

use domain::ids::{AccountId, KeyId, PartnerId, PaymentId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::harness::{Bank, Client, LONG, Somebody};

fn hex(id: Uuid) -> String {
    format!("0x{}", id.simple())
}

/// A UUIDv7 of this time.
fn id_at(millis: u64, number: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis) << 80 | 7 << 76 | 2 << 62 | u128::from(number))
}

/// 2033: nothing that the tests themselves do is so late.
const LATER_MS: u64 = 2_000_000_000_000;

/// A payment of a partner in partition 3, with this reference.
async fn payment(
    bank: &Bank,
    offset: u64,
    id: Uuid,
    partner: Uuid,
    key: Uuid,
    request: Uuid,
    reference: &str,
) {
    let (id, partner, key, request) = (hex(id), hex(partner), hex(key), hex(request));
    let at = LATER_MS * 1_000 + offset * 1_000;
    let sql = format!(
        "INSERT INTO payments VALUES (1, 3, {offset}, {id}, {id}, 1, 3, 1, 1, {partner}, NULL, 'EUR', 1250, 0, 0, NULL, \
         NULL, NULL, NULL, NULL, REPEAT('x', 33), 1, ?, NULL, NULL, {key}, NULL, {request}, 0xc0000201, 'k', \
         '1970-01-01' + INTERVAL {at} MICROSECOND, '1970-01-01' + INTERVAL {at} MICROSECOND, NULL, NULL, NULL)"
    );
    sqlx::query(&sql).bind(reference).execute(bank.env.pool()).await.unwrap();
}

async fn change(bank: &Bank, offset: u64, target: Uuid, user: Uuid) {
    let (id, target, user) = (hex(Uuid::now_v7()), hex(target), hex(user));
    let at = LATER_MS * 1_000 + offset * 1_000 + 500;
    bank.sql(&format!(
        "INSERT INTO changes VALUES (2, 1, {offset}, {id}, 'freeze_account', NULL, {target}, NULL, NULL, \
         REPEAT('x', 33), '{{\"freeze_account\":{{}}}}', {user}, 'card lost', {id}, NULL, \
         '1970-01-01' + INTERVAL {at} MICROSECOND, '1970-01-01' + INTERVAL {at} MICROSECOND)"
    ))
    .await;
}

async fn call(bank: &Bank, offset: u64, request: Uuid, partner: Uuid, key: Uuid, method: &str, status: u16) {
    let at = LATER_MS * 1_000 + offset * 1_000;
    let (request, partner, key) = (hex(request), hex(partner), hex(key));
    bank.sql(&format!(
        "INSERT INTO api_calls VALUES (0, {offset} + 1000000, '1970-01-01' + INTERVAL {at} MICROSECOND, 1, '{method}', \
         '/v1/payments', {status}, 777, {request}, {partner}, {key}, NULL, 0xc0000202)"
    ))
    .await;
}

async fn all(client: &Client, filter: &str, limit: u32) -> Vec<Value> {
    let mut cursor = String::new();
    let mut items = Vec::new();
    loop {
        let page = client.get(&format!("/v1/audit?limit={limit}{filter}{cursor}")).await.expect(200).json();
        items.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn actions(items: &[Value]) -> Vec<&str> {
    items.iter().map(|it| it["action"].as_str().unwrap()).collect()
}

struct Scene {
    bank: Bank,
    auditor: Somebody,
    partner: Uuid,
    key: Uuid,
    account: Uuid,
    payment: Uuid,
    request: Uuid,
}

/// A bank with one of everything, all in the year 2033.
async fn scene(name: &str) -> Scene {
    let bank = Bank::new(name).await;
    let auditor = bank.staff("aud@example.com", 3).await;
    let [partner, key, account, payment_id] = [1, 2, 3, 4].map(Uuid::from_u128);
    let request = id_at(LATER_MS, 9);
    let user = Uuid::from_slice(&crate::harness::uuid_of(&auditor.id)).unwrap();
    payment(&bank, 1, payment_id, partner, key, request, "=1+1").await;
    change(&bank, 1, account, user).await;
    call(&bank, 2, request, partner, key, "POST", 202).await;
    call(&bank, 3, id_at(LATER_MS + 3, 8), partner, key, "GET", 503).await;
    let logged = hex(id_at(LATER_MS + 4, 1));
    bank.sql(&format!(
        "INSERT INTO audit_log VALUES ({logged}, '2033-05-18 03:33:20.004', {}, 'user.log_in', 'usr_x', 2, '{{}}', {logged}, NULL)",
        hex(user)
    ))
    .await;
    Scene { bank, auditor, partner, key, account, payment: payment_id, request }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_view_of_every_source_is_filtered_and_paged() {
    let Scene { bank, auditor, partner, key, account, payment: paid, request } = scene("admin-audit").await;
    let client = &auditor.client;
    let later = "&from=2033-01-01T00:00:00Z";
    let everything = all(client, later, 200).await;
    assert_eq!(
        actions(&everything),
        ["user.log_in", "GET /v1/payments", "POST /v1/payments", "freeze_account", "payment"]
    );
    for limit in [1, 2, 3] {
        assert_eq!(all(client, later, limit).await, everything, "pages of {limit}");
    }
    let shown: Vec<Value> = everything
        .iter()
        .map(|it| {
            let mut it = it.clone();
            if it["actor"] == json!(auditor.id) {
                it["actor"] = json!("[auditor]");
            }
            if it["action"] == "freeze_account" {
                (it["id"], it["request_id"]) = (json!("[id]"), json!("[id]"));
            }
            it
        })
        .collect();
    insta::assert_json_snapshot!("audit_items", shown);

    let partner = PartnerId::from_uuid(partner);
    let key = KeyId::from_uuid(key);
    let account = AccountId::from_uuid(account);
    let payment_id = PaymentId::from_uuid(paid);
    let cases: Vec<(String, &[&str])> = vec![
        ("&source=people".into(), &["user.log_in"]),
        ("&source=api_call".into(), &["GET /v1/payments", "POST /v1/payments"]),
        ("&source=bank_command".into(), &["freeze_account"]),
        ("&source=partner_command".into(), &["payment"]),
        (format!("&actor={}", auditor.id), &["user.log_in", "freeze_account"]),
        (format!("&actor={key}&source=api_call"), &["GET /v1/payments", "POST /v1/payments"]),
        (format!("&actor={partner}"), &["GET /v1/payments", "POST /v1/payments", "payment"]),
        (format!("&actor={partner}&outcome=failed"), &["GET /v1/payments"]),
        ("&action=POST%20/v1/payments".into(), &["POST /v1/payments"]),
        ("&action=freeze_account".into(), &["freeze_account"]),
        (format!("&target={account}"), &["freeze_account"]),
        (format!("&target={payment_id}"), &["payment"]),
        ("&target=usr_x".into(), &["user.log_in"]),
        (format!("&request_id={request}"), &["POST /v1/payments", "payment"]),
        ("&address=192.0.2.1".into(), &["payment"]),
        ("&address=192.0.2.2".into(), &["GET /v1/payments", "POST /v1/payments"]),
        ("&outcome=refused".into(), &["user.log_in", "payment"]),
        ("&to=2033-05-18T03:33:20.002Z".into(), &["freeze_account", "payment"]),
        ("&to=2033-05-18T03:33:20.001Z".into(), &[]),
    ];
    for (filter, expected) in cases {
        for limit in [1, 50] {
            let found = all(client, &format!("{later}{filter}"), limit).await;
            assert_eq!(actions(&found), expected, "{filter}");
        }
    }

    // What comes between two pages belongs to neither.
    let first = client.get(&format!("/v1/audit?limit=1{later}")).await.expect(200).json();
    call(&bank, 9, id_at(LATER_MS + 9, 7), Uuid::nil(), Uuid::nil(), "PUT", 200).await;
    payment(&bank, 9, Uuid::from_u128(99), Uuid::nil(), Uuid::nil(), Uuid::nil(), "x").await;
    let next = first["next"].as_str().unwrap();
    let rest = client.get(&format!("/v1/audit?limit=50{later}&cursor={next}")).await.expect(200).json();
    assert_eq!(rest["data"].as_array().unwrap(), &everything[1..]);
    // A cursor goes with its filters alone.
    for other in ["", "&from=2033-01-02T00:00:00Z"] {
        let path = format!("/v1/audit?limit=50{other}&cursor={next}");
        client.get(&path).await.expect_problem(400, "invalid_cursor");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_a_bounded_number_of_rows_and_goes_on() {
    let Scene { bank, auditor, .. } = scene("admin-audit-rows").await;
    // 25,000 calls of somebody else, and one that is looked for behind them.
    bank.sql(
        "INSERT INTO api_calls SELECT 0, 2000000 + n, '2034-01-01', 1, 'GET', '/v1/events', 200, 1, \
         UNHEX(LPAD(HEX(n), 32, '0')), NULL, NULL, NULL, NULL FROM (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 \
         FROM t WHERE n < 900) SELECT a.n * 1000 + b.n AS n FROM t a JOIN t b ON a.n < 29) numbers LIMIT 25000",
    )
    .await;
    let path = "/v1/audit?limit=5&from=2033-01-01T00:00:00Z&action=POST%20/v1/payments";
    let page = auditor.client.get(path).await.expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 0, "too many in between");
    let found = all(&auditor.client, "&from=2033-01-01T00:00:00Z&action=POST%20/v1/payments", 5).await;
    assert_eq!(found.len(), 1);
    // A range of time goes there at once.
    let path = format!("{path}&to=2033-12-01T00:00:00Z");
    let page = auditor.client.get(&path).await.expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_for_wrongly_is_told_so() {
    let bank = Bank::new("admin-audit-wrong").await;
    let auditor = bank.staff("aud@example.com", 3).await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=1&limit=2",
        "source=pigs",
        "actor=x",
        "actor=pay_00000000000000000000000001",
        "actor=",
        "action=",
        "target=%27%20OR%201%3D1",
        "target=%00",
        "request_id=x",
        "request_id=00000000-0000-4000-8000-000000000000",
        "address=x",
        "address=999.1.1.1",
        "outcome=maybe",
        "from=1969-12-31T00:00:00Z",
        "from=10000-01-01T00:00:00Z",
        "from=yesterday",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "pigs=1",
        &format!("action={}", "x".repeat(101)),
    ] {
        for path in ["/v1/audit", "/v1/audit/export.csv"] {
            let client = bank.client().with_token(auditor.client.token.as_deref().unwrap());
            client.get(&format!("{path}?{query}")).await.expect_problem(400, "malformed_request");
        }
    }
    for cursor in ["x", "", "AAAA", "%00", &"A".repeat(9_000), "eyJmIjoiIiwicyI6W119"] {
        let client = bank.client().with_token(auditor.client.token.as_deref().unwrap());
        let answer = client.get(&format!("/v1/audit?cursor={cursor}")).await;
        assert!(
            [(400, "invalid_cursor"), (431, "")].contains(&(answer.status, &answer.code())),
            "{answer:?}"
        );
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_whole_neutralised_and_audited() {
    let Scene { bank, auditor, .. } = scene("admin-audit-export").await;
    // The method of a request is whatever somebody sends.
    bank.client().send("+SUM", "/v1/me", None).await.expect(405);
    bank.client().send("-2", "/v1/me", None).await.expect(405);
    wait_until("the calls are loaded", LONG, async || {
        bank.count("api_calls WHERE method = '-2' AND service = 2").await == 1
    })
    .await;
    let csv = auditor.client.get("/v1/audit/export.csv?from=2020-01-01T00:00:00Z").await.expect(200);
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"audit.csv\""));
    let body = dechunked(&csv.body);
    let lines: Vec<&str> = body.split_terminator("\r\n").collect();
    assert!(lines[0].starts_with("at,source,action,outcome,"), "{}", lines[0]);
    assert!(body.contains(",'-2 ") && body.contains(",'+SUM "), "{body}");
    assert!(!body.contains(",-") && !body.contains(",+") && !body.contains(",="), "{body}");
    let (last, items) = lines.split_last().unwrap();
    let before = body.len() - last.len() - 2;
    let sha256 = format!("{:x}", Sha256::digest(&body.as_bytes()[..before]));
    assert_eq!(*last, format!("end,{},\"rows, SHA-256 of all lines before\",{sha256}", items.len() - 1));

    let ndjson = auditor.client.get("/v1/audit/export.ndjson?from=2033-01-01T00:00:00Z").await.expect(200);
    let body = dechunked(&ndjson.body);
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, items) = lines.split_last().unwrap();
    assert_eq!(items, all(&auditor.client, "&from=2033-01-01T00:00:00Z", 200).await);
    let before = body.trim_end().rfind('\n').unwrap() + 1;
    let sha256 = format!("{:x}", Sha256::digest(&body.as_bytes()[..before]));
    assert_eq!(*last, json!({"end": {"rows": items.len(), "sha256": sha256}}));
    // Of nothing.
    let nothing = auditor.client.get("/v1/audit/export.ndjson?from=2040-01-01T00:00:00Z").await.expect(200);
    assert!(dechunked(&nothing.body).starts_with("{\"end\":{\"rows\":0,"), "{}", nothing.body);

    let told = all(&auditor.client, "&action=audit.export&from=2020-01-01T00:00:00Z", 50).await;
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(
        told[1]["detail"],
        json!({"format": "ndjson", "filters": {"from": "2033-01-01T00:00:00.000000Z"}})
    );
    assert_eq!(told[1]["actor"], json!(auditor.id));
    bank.close().await;
}

/// The bytes of a chunked body; fails when it was cut off.
fn dechunked(body: &str) -> String {
    let (mut text, mut rest) = (String::new(), body);
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk");
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            return text;
        }
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes so many rows from `LATER_MS` on.
async fn fill(bank: &Bank, rows: u64) {
    let chunk = 10_000.min(rows);
    for begin in (0..rows).step_by(chunk as usize) {
        let values: Vec<String> = (begin..begin + chunk)
            .map(|number| {
                let id = hex(id_at(LATER_MS + number / 10, number));
                format!("({id}, '2033-05-18 03:33:20' + INTERVAL {} MICROSECOND, {id}, 'user.log_in', 'usr_x', 1, '{{}}', {id}, NULL)", number * 100)
            })
            .collect();
        bank.sql(&format!("INSERT INTO audit_log VALUES {}", values.join(","))).await;
    }
}

/// Asks for an export of them; whoever called takes what comes.
async fn begin_export(bank: &Bank, auditor: &Somebody) -> TcpStream {
    let token = auditor.client.token.as_deref().unwrap();
    let request = format!(
        "GET /v1/audit/export.ndjson?from=2033-01-01T00:00:00Z&source=people HTTP/1.1\r\nhost: bank\r\n\
         connection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(bank.service.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_few_at_once_cut_off_visibly_and_make_room_again() {
    let bank = Bank::new("admin-audit-few").await;
    let auditor = bank.staff("aud@example.com", 3).await;
    // More than the buffers between the service and whoever does not read.
    fill(&bank, 60_000).await;
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut stream = begin_export(&bank, &auditor).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        taken.push(stream);
    }
    let export = "/v1/audit/export.csv?from=2040-01-01T00:00:00Z";
    let refused = auditor.client.get(export).await.expect_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("10"));
    // What can no longer be read is not taken for the whole: it has neither its last line nor its last chunk.
    bank.sql("RENAME TABLE audit_log TO audit_away").await;
    let mut rest = Vec::new();
    // The connection may be reset.
    let _ = taken[0].read_to_end(&mut rest).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("{\"end\":") && !rest.ends_with("\r\n0\r\n\r\n"));
    bank.sql("RENAME TABLE audit_away TO audit_log").await;
    drop(taken);
    wait_until("there is room again", LONG, async || auditor.client.get(export).await.status == 200).await;
    bank.close().await;
}

/// `WIRED_AUDIT_EXPORT_ROWS=1000000` for the large one.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_export_is_whole_and_needs_little_memory() {
    let rows: u64 = std::env::var("WIRED_AUDIT_EXPORT_ROWS").map_or(30_000, |it| it.parse().unwrap());
    let bank = Bank::new("admin-audit-large").await;
    let auditor = bank.staff("aud@example.com", 3).await;
    fill(&bank, rows).await;
    let (before, begun) = (resident_kib(), Instant::now());
    let mut stream = begin_export(&bank, &auditor).await;
    let (mut buffer, mut lines, mut bytes, mut most) = (vec![0; 64 * 1024], 0_u64, 0_u64, before);
    let mut tail = Vec::new();
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        bytes += read as u64;
        lines += buffer[..read].windows(7).filter(|it| it == b"{\"id\":\"").count() as u64;
        tail.extend_from_slice(&buffer[..read]);
        let keep = tail.len().saturating_sub(400);
        tail.drain(..keep);
        most = most.max(resident_kib());
    }
    let tail = String::from_utf8_lossy(&tail).into_owned();
    assert!(tail.contains(&format!("{{\"end\":{{\"rows\":{rows},")), "{tail}");
    // An item whose beginning lies across two reads is not counted.
    assert!(lines > rows * 99 / 100, "{lines}");
    let took = begun.elapsed();
    println!("{rows} rows, {bytes} bytes in {took:?}; memory grew by {} KiB at most", most - before);
    // Other tests of this process grow meanwhile, so this is wide; the rows themselves would be {bytes} and more.
    if rows >= 500_000 {
        assert!(most - before < 64 * 1024, "{} KiB", most - before);
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_verified_on_request() {
    let bank = Bank::new("admin-audit-verify").await;
    let auditor = bank.staff("aud@example.com", 3).await;
    let last = async || auditor.client.get("/v1/audit/verify").await.expect(200).json()["last"].clone();
    assert_eq!(last().await, Value::Null);
    wait_until("all is sealed", LONG, async || bank.count("audit_unsealed").await == 0).await;
    let verify = async || {
        let begun = auditor.client.post("/v1/audit/verify", json!({})).await.expect(202).json();
        wait_until("it ends", LONG, async || {
            let last = last().await;
            assert_eq!(last["id"], begun["id"]);
            (last["status"] != "running").then_some(last)
        })
        .await
    };
    let whole = verify().await;
    assert_eq!((&whole["status"], &whole["findings"]), (&json!("whole"), &json!([])), "{whole:#}");
    assert_eq!(whole["asked_by"], json!(auditor.id));
    assert!(whole["verified"].as_u64().unwrap() >= 3);
    assert!(whole["statement"].as_str().unwrap().contains("No checkpoint vouches"));
    bank.sql("UPDATE audit_log SET detail = '{\"x\":1}' WHERE action = 'user.register'").await;
    let broken = verify().await;
    assert_eq!(broken["status"], "broken", "{broken:#}");
    assert_eq!(
        (&broken["findings"][0]["invariant"], &broken["findings"][0]["table"]),
        (&json!("I12"), &json!("audit_log"))
    );
    // One whose process was killed.
    bank.sql(
        "INSERT INTO audit_verifications VALUES (REPEAT('z', 16), REPEAT('x', 16), UTC_TIMESTAMP(6) - INTERVAL 1 HOUR, \
         UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE, 5, 1, NULL)",
    )
    .await;
    assert_eq!(last().await["status"], "interrupted");
    let told = all(&auditor.client, "&action=audit.verify", 50).await;
    assert_eq!(told.len(), 2);
    bank.close().await;
}
