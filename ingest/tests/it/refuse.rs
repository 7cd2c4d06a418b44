//! Requests that are wrong: each has its own code, none is an error of the server, and none reaches Kafka.

use domain::ids::KeyId;
use domain::secret::HmacKey;
use http::{HeaderValue, Method};
use insta::assert_json_snapshot;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use testkit::fixtures::{self, PartnerRow};
use testkit::wait_until;

use crate::harness::{AUTHORITY, Bench, Key, MANDATE, Options, Request, SOON, exchange};

fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut Request) {
    move |request| drop(request.headers.insert(name, HeaderValue::from_static(value)))
}

fn replace(request: &mut Request, name: &str, from: &str, to: &str) {
    let before = request.headers[name].to_str().unwrap().to_owned();
    let after = before.replace(from, to);
    assert_ne!(before, after, "the test changes something");
    *request.headers.get_mut(name).unwrap() = HeaderValue::from_str(&after).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tampered_part_is_refused_with_its_code() {
    let bench = Bench::new("tampered").await;
    let payment = || bench.payment("k");
    let cases: Vec<(&str, Request, u16, &str)> = vec![
        ("method", payment().tamper(|request| request.method = Method::PUT), 405, "method_not_allowed"),
        (
            "method",
            payment().tamper(|request| request.target = "/v1/balances".into()),
            405,
            "method_not_allowed",
        ),
        (
            "path",
            bench
                .request(Method::GET, "/v1/balances")
                .tamper(|request| request.target = "/v1/payments/x".into()),
            401,
            "signature_invalid",
        ),
        ("query", payment().tamper(|request| request.target.push_str("?a=b")), 401, "signature_invalid"),
        ("authority", payment().tamper(set("host", "other.bank.test")), 401, "signature_invalid"),
        ("authority", payment().tamper(set("host", "evil.test")), 421, "authority_unknown"),
        ("digest", payment().tamper(|request| request.body[11] = b'9'), 400, "digest_mismatch"),
        (
            "digest",
            payment().tamper(|request| replace(request, "content-digest", "sha-256=:", "sha-256=:A")),
            401,
            "signature_invalid",
        ),
        (
            "content-type",
            payment().tamper(set("content-type", "application/json; charset=utf-8")),
            401,
            "signature_invalid",
        ),
        ("key", payment().tamper(set("idempotency-key", "other")), 401, "signature_invalid"),
        (
            "no key",
            payment().tamper(|request| drop(request.headers.remove("idempotency-key"))),
            400,
            "idempotency_key_missing",
        ),
        (
            "no digest",
            payment().tamper(|request| drop(request.headers.remove("content-digest"))),
            401,
            "component_missing",
        ),
        (
            "no signature",
            payment().tamper(|request| drop(request.headers.remove("signature"))),
            401,
            "signature_missing",
        ),
        (
            "no input",
            payment().tamper(|request| drop(request.headers.remove("signature-input"))),
            401,
            "signature_missing",
        ),
        ("unsigned", payment().unsigned(), 401, "signature_missing"),
        ("stale", payment().created(-301), 401, "signature_expired"),
        ("early", payment().created(330), 401, "signature_expired"),
        (
            "created",
            payment().tamper(|request| {
                let created = request.created;
                replace(request, "signature-input", &created.to_string(), &(created + 1).to_string());
            }),
            401,
            "signature_invalid",
        ),
        (
            "doubled component",
            payment().tamper(|request| {
                replace(request, "signature-input", "\"@method\"", "\"@method\" \"@method\"");
            }),
            401,
            "signature_invalid",
        ),
        (
            "uncovered query",
            payment().tamper(|request| replace(request, "signature-input", " \"@query\"", "")),
            401,
            "component_missing",
        ),
        (
            "uncovered idempotency key",
            payment().tamper(|request| replace(request, "signature-input", " \"idempotency-key\"", "")),
            401,
            "component_missing",
        ),
        (
            "algorithm",
            payment().tamper(|request| {
                replace(request, "signature-input", ";keyid", ";alg=\"rsa-pss-sha512\";keyid");
            }),
            401,
            "signature_invalid",
        ),
        (
            "two signatures of one key",
            payment().tamper(|request| {
                for name in ["signature", "signature-input"] {
                    let value = request.headers[name].to_str().unwrap();
                    let both = format!("{value}, {}", value.replacen("sig=", "sog=", 1));
                    *request.headers.get_mut(name).unwrap() = HeaderValue::from_str(&both).unwrap();
                }
            }),
            401,
            "signature_invalid",
        ),
        (
            "no structured field",
            payment().tamper(set("signature-input", "sig=(((")),
            401,
            "signature_invalid",
        ),
        ("short MAC", payment().tamper(set("signature", "sig=:AAAA:")), 401, "signature_invalid"),
    ];
    for (name, request, status, code) in cases {
        let answer = request.send(bench.address).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{name}: {:?}",
            answer.json()["detail"]
        );
        if status == 401 {
            assert!(answer.header("accept-signature").unwrap().contains("\"@authority\""));
        }
    }
    // What a proxy forwards does not count, and a second Host is refused.
    let forwarded = payment().header("x-forwarded-host", AUTHORITY).tamper(set("host", "evil.test"));
    assert_eq!(forwarded.send(bench.address).await.code(), "authority_unknown");
    let doubled = payment().tamper(|request| {
        request.headers.append("host", HeaderValue::from_static("evil.test"));
    });
    let answer = doubled.send(bench.address).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(bench.records().is_empty());

    // Covered by upper case and with the scheme's own port, it is the same authority.
    let upper = payment().tamper(set("host", "API.bank.test:80"));
    assert_eq!(upper.send(bench.address).await.status, 202);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked() {
    let bench = Bench::new("keys").await;
    let pool = bench.env.pool();
    let payment = |key: &Key| bench.payment("k").with_key(key);
    let unknown = Key { id: KeyId::from_uuid(uuid::Uuid::from_u128(1)).to_string(), ..bench.key.clone() };
    let wrong = Key { hmac: HmacKey::new(&[1; 32]).unwrap(), ..bench.key.clone() };
    let mut answers = Vec::new();
    for key in [&unknown, &wrong] {
        let mut problem = payment(key).send(bench.address).await.json();
        for name in ["request_id", "instance"] {
            problem[name] = json!("…");
        }
        answers.push(problem);
    }
    assert_eq!(answers[0], answers[1], "an unknown key and a wrong secret have the same answer");
    assert_json_snapshot!("signature_invalid", answers[0]);

    let (id, secret) = fixtures::insert_api_key(pool, &bench.kek.keys, bench.partner, 32).await;
    let narrow = Key::new(id, &secret);
    wait_until("the new key is loaded", SOON, async || {
        let answer = bench.request(Method::GET, "/v1/balances").with_key(&narrow).send(bench.address).await;
        answer.status == 200
    })
    .await;
    let answer = payment(&narrow).send(bench.address).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "scope_missing"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("`payments`"));
    assert!(bench.records().is_empty());

    assert_eq!(payment(&bench.key).send(bench.address).await.status, 202);
    sqlx::query("UPDATE api_keys SET revoked_at = UTC_TIMESTAMP(6)").execute(pool).await.unwrap();
    let revoked = wait_until("the revocation takes effect", SOON, async || {
        let answer = payment(&bench.key).send(bench.address).await;
        (answer.status == 401).then_some(answer)
    })
    .await;
    assert_eq!(revoked.code(), "key_revoked");
    let wrong = Key { hmac: HmacKey::new(&[1; 32]).unwrap(), ..bench.key.clone() };
    assert_eq!(
        payment(&wrong).send(bench.address).await.code(),
        "signature_invalid",
        "only who has it is told"
    );
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_is_limited_and_harms_no_other() {
    let bench = Bench::with("rate", |_| Options { requests_per_second: Some(5), ..Options::default() }).await;
    let other = fixtures::insert_partner(bench.env.pool(), PartnerRow::default()).await;
    let (id, secret) =
        fixtures::insert_api_key(bench.env.pool(), &bench.kek.keys, other, fixtures::ALL_SCOPES).await;
    let other = Key::new(id, &secret);
    wait_until("the new key is loaded", SOON, async || {
        bench.payment("k").with_key(&other).send(bench.address).await.status == 202
    })
    .await;
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..200 {
        requests.spawn(bench.payment(&format!("k{index}")).send(bench.address));
    }
    let answers = requests.join_all().await;
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(limited.len() > 100, "200 at once are more than 5 a second: {}", limited.len());
    assert!(answers.iter().all(|answer| [202, 429].contains(&answer.status)));
    for answer in &limited {
        assert_eq!(answer.code(), "rate_limited");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(bench.payment("k").with_key(&other).send(bench.address).await.status, 202);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_name_the_field_and_reach_nothing() {
    let bench = Bench::new("bodies").await;
    let good = json!({"amount": "12.50", "currency": "EUR", "mandate": MANDATE});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        serde_json::to_vec(&body).unwrap()
    };
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        serde_json::to_vec(&body).unwrap()
    };
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (with("amount", json!(12.5)), "invalid_amount", Some("/amount")),
        (with("amount", json!("12.5")), "invalid_amount", Some("/amount")),
        (with("amount", json!("1e3")), "invalid_amount", Some("/amount")),
        (with("amount", json!("-12.50")), "invalid_amount", Some("/amount")),
        (with("amount", json!("0.00")), "invalid_amount", Some("/amount")),
        (with("amount", json!("NaN")), "invalid_amount", Some("/amount")),
        (with("amount", json!("9".repeat(60_000))), "invalid_amount", Some("/amount")),
        (with("amount", json!("92233720368547758.08")), "invalid_amount", Some("/amount")),
        (with("currency", json!("eur")), "unknown_currency", Some("/currency")),
        (with("currency", json!("XXX")), "unknown_currency", Some("/currency")),
        (with("mandate", json!("mdt_")), "invalid_field", Some("/mandate")),
        (with("mandate", json!("pay_00000000000000000000000001")), "invalid_field", Some("/mandate")),
        (with("mandate", json!(format!("{MANDATE}0"))), "invalid_field", Some("/mandate")),
        (with("capture", json!("later")), "invalid_field", Some("/capture")),
        (with("reference", json!("x".repeat(101))), "invalid_field", Some("/reference")),
        (with("description", json!("a\u{0}")), "invalid_field", Some("/description")),
        (with("metadata", json!({"a": 1})), "invalid_field", Some("/metadata/a")),
        (with("livemode", json!(false)), "unknown_field", Some("/livemode")),
        (without("amount"), "invalid_field", Some("/amount")),
        (without("currency"), "invalid_field", Some("/currency")),
        (without("mandate"), "invalid_field", Some("/mandate")),
        (br#"{"amount":"1.00","amount":"9.00"}"#.to_vec(), "malformed_json", Some("/amount")),
        (deep.into_bytes(), "malformed_json", None),
        (b"{\"amount\":\"\xff\"}".to_vec(), "malformed_json", None),
        (b"[1]".to_vec(), "malformed_json", None),
        (b"{".to_vec(), "malformed_json", None),
    ];
    for (body, code, pointer) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let answer = bench.post("k", body).send(bench.address).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{shown}");
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["pointer"].as_str(), pointer, "{shown}");
        assert!(answer.body.len() < 8_192, "an answer does not repeat what was sent");
    }
    let mut problem = bench
        .post("k", r#"{"amount":1,"currency":"eur","mandat":"x","reference":5,"metadata":{"a":[]}}"#)
        .send(bench.address)
        .await
        .json();
    for name in ["request_id", "instance"] {
        problem[name] = json!("…");
    }
    assert_json_snapshot!("all_faults_at_once", problem);
    assert!(bench.records().is_empty());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_heads_are_refused() {
    let bench = Bench::new("heads").await;
    let payment = || bench.payment("k");
    let get = |target: &str| bench.request(Method::GET, target);
    let cases: Vec<(&str, Request, u16, &str)> = vec![
        ("long key", bench.payment(&"k".repeat(256)), 400, "idempotency_key_invalid"),
        ("key with a space", bench.payment("a b"), 400, "idempotency_key_invalid"),
        ("accept", payment().header("accept", "text/html"), 406, "not_acceptable"),
        (
            "content type",
            bench.post("k", "{}").header("content-type", "text/plain"),
            415,
            "unsupported_media_type",
        ),
        ("encoding", payment().header("content-encoding", "gzip"), 415, "unsupported_media_type"),
        (
            "query",
            bench
                .request(Method::POST, "/v1/payments?x=1")
                .header("idempotency-key", "k")
                .body("application/json", "{}"),
            400,
            "unknown_field",
        ),
        (
            "no body",
            bench.request(Method::POST, "/v1/payments").header("idempotency-key", "k"),
            400,
            "malformed_json",
        ),
        ("cursor", get("/v1/payments/pay_00000000000000000000000001?position=AAAA"), 400, "invalid_cursor"),
        ("parameter", get("/v1/payments/pay_00000000000000000000000001?positoin=AAAA"), 400, "unknown_field"),
        ("id", get("/v1/payments/acct_00000000000000000000000001"), 404, "not_found"),
        ("id", get("/v1/payments/%ff%00"), 404, "not_found"),
        ("path", get("/v1/payment"), 404, "not_found"),
        ("path", get("/"), 404, "not_found"),
        ("path", get("/v1/payments/a/b"), 404, "not_found"),
    ];
    for (name, request, status, code) in cases {
        let answer = request.send(bench.address).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}");
    }
    let refused = get("/v1/transfers").send(bench.address).await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    let options = bench.request(Method::OPTIONS, "/v1/balances").send(bench.address).await;
    assert_eq!((options.status, options.header("allow")), (204, Some("GET,HEAD")));
    let head = bench.request(Method::HEAD, "/v1/balances");
    let head = {
        // A HEAD answer has a length and no body, which the harness would take for cut off.
        let mut stream = tokio::net::TcpStream::connect(bench.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &head.bytes()).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        text
    };
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(bench.records().is_empty());
    bench.close().await;
}

/// Bodies between right and nonsense: valid requests with fields replaced, then bytes changed.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<String>().prop_map(|value| json!(value)),
        "-?[0-9]{0,22}\\.?[0-9]{0,4}e?[0-9]?".prop_map(|value| json!(value)),
        Just(json!({"a": {"b": []}})),
    ];
    let names = prop_oneof![
        Just("amount"),
        Just("currency"),
        Just("mandate"),
        Just("capture"),
        Just("reference"),
        Just("description"),
        Just("metadata"),
        Just("Amount"),
        Just("аmount"),
        Just("__proto__"),
        Just(""),
    ];
    let fields = proptest::collection::vec((names, leaf), 1..4);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (fields, changes).prop_map(|(fields, changes)| {
        let mut body = json!({"amount": "12.50", "currency": "EUR", "mandate": MANDATE});
        for (name, value) in fields {
            body[name] = value;
        }
        let mut bytes = serde_json::to_vec(&body).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes
    })
}

/// Heads that are signed and then spoiled in one header field.
fn spoiled(bench: &Bench, name: &str, value: &[u8]) -> Vec<u8> {
    let bytes = bench.payment("k").sign().bytes();
    let text = bytes.split(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.to_ascii_lowercase().starts_with(format!("{name}: ").as_bytes()) {
            [name.as_bytes(), b": ", value].concat()
        } else {
            line.to_vec()
        }
    });
    text.collect::<Vec<_>>().join(&b"\r\n"[..])
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_nonsense_is_never_an_error_of_the_server() {
    let bench = Bench::new("nonsense").await;
    let mut runner = TestRunner::default();
    let mut accepted = 0;
    for index in 0..400 {
        let body = bodies().new_tree(&mut runner).unwrap().current();
        let answer = bench.post(&format!("k{index}"), body.clone()).send(bench.address).await;
        // A changed reference or description is still a right request.
        if answer.status == 202 {
            assert!(ingest::requests::payment::parse(&body, 60).is_ok());
            accepted += 1;
        } else {
            assert_eq!(answer.status, 400, "{:?}", String::from_utf8_lossy(&body));
            answer.code();
        }
    }
    assert_eq!(bench.records().len(), accepted, "only what was answered 202 is on Kafka");

    let value = proptest::collection::vec(prop_oneof![1 => any::<u8>(), 3 => 0x20..0x7f_u8], 0..80);
    let names = [
        "signature-input",
        "signature",
        "content-digest",
        "content-type",
        "host",
        "content-length",
        "idempotency-key",
    ];
    for name in names {
        for _ in 0..40 {
            let value = value.new_tree(&mut runner).unwrap().current();
            if value.iter().any(|byte| b"\r\n".contains(byte))
                || (name == "content-length" && value.is_empty())
            {
                continue;
            }
            // Bytes that no header field may hold are refused by the HTTP parser, without a document.
            if let Ok(answer) = exchange(bench.address, &spoiled(&bench, name, &value)).await {
                assert!((400..500).contains(&answer.status), "{name}: {value:?}: {answer:?}");
            }
        }
    }
    assert_eq!(bench.records().len(), accepted);
    bench.close().await;
}
