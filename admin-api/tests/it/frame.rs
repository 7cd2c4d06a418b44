//! What all routes have in common: the document, problems, headers, bounds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Bank, Client};

const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "trace"];

#[tokio::test(flavor = "multi_thread")]
async fn router_and_document_do_not_differ() {
    let bank = Bank::new("admin-openapi").await;
    let client = bank.client();
    let answer = client.get("/v1/openapi.json").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(testkit::openapi::faults(&document), Vec::<String>::new());
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let id = if path.contains("sessions") {
            "ses_00000000000000000000000001"
        } else {
            "usr_00000000000000000000000001"
        };
        let target = path.replace("{id}", id).replace("{code}", "not_found");
        for method in METHODS {
            let is_documented = item.get(method).is_some();
            let client = bank.client();
            let answer = client.send(&method.to_uppercase(), &target, None).await;
            assert_eq!(answer.status != 405, is_documented, "{method} {target}");
            // There is no checkpoint here.
            assert!(answer.status != 404 || path.contains("/checkpoints/"), "{method} {target}");
            if answer.status == 405 {
                let allowed = answer.header("allow").unwrap().to_lowercase();
                let allowed: BTreeSet<_> = allowed.split(',').filter(|it| *it != "head").collect();
                let documented: BTreeSet<_> =
                    METHODS.into_iter().filter(|it| item.get(*it).is_some()).collect();
                assert_eq!(allowed, documented, "{target}");
            }
        }
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["operationId"].is_string());
            let secured = operation["security"].is_array();
            let open = [
                "/v1/auth/registrations",
                "/v1/auth/password-resets",
                "/v1/auth/passwords",
                "/v1/auth/login",
                "/v1/auth/refresh",
                "/v1/checkpoints/{number}",
                "/v1/auth/email-confirmations",
                "/v1/health",
                "/v1/openapi.json",
                "/.well-known/jwks.json",
                "/problems/{code}",
            ];
            assert_eq!(secured, !open.contains(&path.as_str()), "{method} {path}");
        }
    }
    bank.close().await;
}

/// There is no way to register a route without its documentation.
#[test]
fn routes_are_registered_with_their_documentation_alone() {
    let source = include_str!("../../src/routes.rs");
    assert!(!source.contains(".route(") && !source.contains(".nest(") && !source.contains(".merge("));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_headers_pages_and_problems() {
    let bank = Bank::new("admin-frame").await;
    let client = bank.client();
    let health = client.get("/v1/health").await.expect(200);
    assert_eq!(health.body, r#"{"status":"ok"}"#);
    for (name, value) in [
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(health.header(name), Some(value));
    }
    assert!(health.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert!(health.header("access-control-allow-origin").is_none());

    let nothing = client.get("/v1/nothing").await.expect_problem(404, "not_found");
    assert_eq!(nothing.header("x-request-id"), nothing.json()["request_id"].as_str());
    assert_eq!(nothing.header("x-frame-options"), Some("DENY"));
    client.send("PUT", "/v1/health", None).await.expect_problem(405, "method_not_allowed");
    client.send("OPTIONS", "/v1/health", None).await.expect(204);
    for code in admin_api::problem::Code::ALL {
        let page = bank.client().get(code.type_path()).await.expect(200);
        assert!(
            page.body.starts_with(&format!("{} {}\n", code.status().as_u16(), code.as_str())),
            "{}",
            page.body
        );
    }
    let mut unauthorised = client.get("/v1/me").await.expect_problem(401, "token_missing");
    assert_eq!(unauthorised.header("www-authenticate"), Some("Bearer"));
    let id = unauthorised.json()["request_id"].as_str().unwrap().to_owned();
    unauthorised.body = unauthorised.body.replace(&id, "[id]");
    insta::assert_json_snapshot!("token_missing", unauthorised.json());
    let private = Client { server: bank.service.private, from: String::new(), token: None };
    let metrics = private.get("/metrics").await.body;
    assert!(metrics.contains("wired_admin_api_http_responses_total"), "{metrics}");
    assert!(metrics.contains("wired_admin_api_problems_total{code=\"token_missing\"}"), "{metrics}");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_are_told_so() {
    let bank = Bank::new("admin-bodies").await;
    let client = bank.client();
    let path = "/v1/auth/login";
    let good = json!({"email": "a@example.com", "password": "x"}).to_string();
    for content_type in
        ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", ""]
    {
        client
            .raw("POST", path, content_type, good.as_bytes())
            .await
            .expect_problem(415, "unsupported_media_type");
    }
    client
        .raw("POST", path, "Application/JSON; charset=UTF-8", good.as_bytes())
        .await
        .expect_problem(401, "credentials_invalid");
    for body in ["{", "[]", "\"x\"", "{}{}", "nul", "{\"email\":1}"] {
        let answer = client.raw("POST", path, "application/json", body.as_bytes()).await;
        assert!(
            [("malformed_json".to_owned()), ("invalid_field".to_owned())].contains(&answer.code()),
            "{body}"
        );
        assert_eq!(answer.status, 400);
    }
    client.raw("POST", path, "application/json", b"\xff").await.expect_problem(400, "malformed_json");
    let megabyte = json!({"email": "a@example.com", "password": "x".repeat(1 << 20)}).to_string();
    client
        .raw("POST", path, "application/json", megabyte.as_bytes())
        .await
        .expect_problem(413, "body_too_large");
    let secret = client.post(path, json!({"email": "a@example.com", "password": {"geheim": "geheim"}})).await;
    assert!(!secret.expect_problem(400, "invalid_field").body.contains("geheim"));
    let all = client.post("/v1/auth/registrations", json!({"email": "x", "name": "\u{202e}"})).await;
    let errors: Vec<_> = all.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["pointer"].clone())
        .collect::<Vec<Value>>();
    assert_eq!(errors, ["/email", "/name"]);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_asks_too_much_waits_and_others_do_not() {
    let bank = Bank::new("admin-rate").await;
    let (busy, other) = (bank.client(), bank.client());
    let answers = futures_util::future::join_all((0..250).map(|_| busy.get("/v1/health"))).await;
    let refused: Vec<_> = answers.iter().filter(|it| it.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 200, "{}", refused.len());
    assert_eq!(refused[0].code(), "too_many_requests");
    assert_eq!(refused[0].header("retry-after"), Some("1"));
    other.get("/v1/health").await.expect(200);
    bank.close().await;
}
