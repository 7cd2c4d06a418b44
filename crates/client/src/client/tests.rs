//! The client against a small server that verifies with the domain's own verifier.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use domain::http_signature::Signature;

use super::*;
use domain::money::{Amount, Currency};

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn key_id() -> String {
    KeyId::from_uuid("0191d5b0-0000-7000-8000-000000000001".parse().unwrap()).to_string()
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn client(url: &str) -> Client {
    let options = Options {
        timeout: Duration::from_secs(2),
        retries: Retries { max: 3, pause: Duration::from_millis(1), pause_max: Duration::from_secs(1) },
        ..Options::default()
    };
    Client::with_options(url, &key_id(), SECRET, options).unwrap()
}

/// Verifies as the bank does and answers what arrived.
async fn verify(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let checked = RequestParts {
        method: &parts.method,
        authority: parts.headers["host"].to_str().unwrap(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        has_body: !body.is_empty(),
    };
    let key = HmacKey::from_base64(SECRET).unwrap();
    let verified = Signature::parse(&checked, |id| id == key_id())
        .and_then(|signature| signature.check_clock(now_seconds()).map(|()| signature))
        .and_then(|signature| signature.verify(Some(&key)));
    if let Err(error) = verified {
        return (StatusCode::UNAUTHORIZED, error.to_string()).into_response();
    }
    if !body.is_empty() && content_digest::verify(&parts.headers, &body).is_err() {
        return (StatusCode::BAD_REQUEST, "digest").into_response();
    }
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let answer = serde_json::json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "prefer": header("prefer"),
        "idempotency_key": header("idempotency-key"),
        "body": String::from_utf8(body.to_vec()).unwrap(),
    });
    axum::Json(answer).into_response()
}

#[tokio::test]
async fn every_kind_of_request_verifies() {
    let bank = client(&serve(Router::new().fallback(any(verify))).await);
    let send = async |method: Method, target: &str, body: Option<&'static str>, options: SendOptions| {
        let answer = bank.request(method, target, body.map(Bytes::from), options).await.unwrap();
        answer.json::<serde_json::Value>().unwrap()
    };
    let got = send(Method::GET, "/v1/events?after=4&types=a%20b", None, SendOptions::default()).await;
    assert_eq!(got["target"], "/v1/events?after=4&types=a%20b");
    assert_eq!(got["idempotency_key"], serde_json::Value::Null);

    let options = SendOptions {
        idempotency_key: Some("order-1".into()),
        wait: Some(Duration::from_secs(7)),
        headers: HeaderMap::new(),
    };
    let posted = send(Method::POST, "/v1/payments", Some(r#"{"a":1}"#), options).await;
    assert_eq!(posted["idempotency_key"], "order-1");
    assert_eq!(posted["prefer"], "wait=7");
    assert_eq!(posted["body"], r#"{"a":1}"#);

    let drawn = send(Method::POST, "/v1/sandbox/echo", Some("{}"), SendOptions::default()).await;
    assert!(drawn["idempotency_key"].as_str().unwrap().len() >= 20);

    let mut headers = HeaderMap::new();
    headers.insert("if-match", HeaderValue::from_static("\"3\""));
    let options = SendOptions { headers, ..SendOptions::default() };
    assert_eq!(send(Method::DELETE, "/v1/endpoints/ep_1", None, options).await["method"], "DELETE");
}

#[tokio::test]
async fn a_body_is_what_the_api_describes() {
    let mandate = "mdt_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    let mut request = PaymentRequest::new(mandate, Amount::parse("12.50", Currency::EUR).unwrap());
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(text, r#"{"mandate":"mdt_01h455vb4pex5vsknk084sn02q","amount":"12.50","currency":"EUR"}"#);
    request.reference = Some("order-1".into());
    assert!(serde_json::to_string(&request).unwrap().ends_with(r#""reference":"order-1"}"#));
}

#[tokio::test]
async fn a_passing_failure_is_repeated_under_the_same_key() {
    let calls = Arc::new(AtomicUsize::new(0));
    let keys = Arc::new(Mutex::new(Vec::new()));
    let (seen, noted) = (calls.clone(), keys.clone());
    let handler = move |request: Request| {
        let (calls, keys) = (seen.clone(), noted.clone());
        async move {
            keys.lock().unwrap().push(request.headers()["idempotency-key"].clone());
            let problem = |status: StatusCode, code: &str| {
                let body =
                    format!(r#"{{"status":{},"code":"{code}","title":"t","detail":"d"}}"#, status.as_u16());
                (status, [("retry-after", "0"), ("content-type", "application/problem+json")], body)
                    .into_response()
            };
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => problem(StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"),
                1 => problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
                2 => axum::Json(serde_json::json!({"ok": true})).into_response(),
                _ => problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_conflict"),
            }
        }
    };
    let bank = client(&serve(Router::new().fallback(any(handler))).await);
    assert_eq!(bank.echo(&serde_json::json!({})).await.unwrap()["ok"], true);
    {
        let keys = keys.lock().unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(|key| *key == keys[0]));
    }
    let refused = bank.echo(&serde_json::json!({})).await.unwrap_err();
    assert!(refused.is("idempotency_conflict"), "{refused}");
    assert_eq!(calls.load(Ordering::SeqCst), 4, "a 422 is not repeated");
}

#[tokio::test]
async fn nobody_there_is_told_as_such_and_repeated_only_so_often() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = client(&format!("http://{free}")).balances().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn no_signature_leaves_for_another_host() {
    let bank = client("http://127.0.0.1:1");
    for target in ["http://127.0.0.1:2/v1/payments", "https://127.0.0.1:1/x", "//other.example/x"] {
        let error = bank.payment(target).await.unwrap_err();
        assert!(matches!(error, Error::Request(_)), "{target}: {error}");
    }
}

#[test]
fn a_bad_configuration_is_refused_without_showing_the_secret() {
    for url in ["", "bank", "ftp://bank", "http://bank/path", "http://user:pass@bank", "http://bank?x"] {
        assert!(matches!(Client::new(url, &key_id(), SECRET), Err(ConfigError::BaseUrl { .. })), "{url}");
    }
    assert!(matches!(Client::new("http://bank", "pay_1", SECRET), Err(ConfigError::KeyId(_))));
    let error = Client::new("http://bank", &key_id(), "not*base64").unwrap_err().to_string();
    assert!(!error.contains("not*base64"));
}
