//! The OpenAPI document, the pages of problems, and that both say what the server does.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use crate::harness::{Bench, MANDATE, Request};

const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "trace", "head"];

#[tokio::test(flavor = "multi_thread")]
async fn router_and_document_do_not_differ() {
    let bench = Bench::new("openapi").await;
    let answer = bench.request(Method::GET, "/v1/openapi.json").unsigned().send(bench.address).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(testkit::openapi::faults(&document), Vec::<String>::new());
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let target = target_of(path);
        let documented: BTreeSet<&str> =
            METHODS.into_iter().filter(|method| item.get(*method).is_some()).collect();
        for method in METHODS {
            let is_documented =
                documented.contains(method) || (method == "head" && documented.contains("get"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            if method == Method::HEAD {
                continue;
            }
            let answer = bench.request(method.clone(), &target).unsigned().send(bench.address).await;
            assert_eq!(answer.status != 405, is_documented, "{method} {target}");
            if is_documented {
                // Signed ones are refused before anything is looked for.
                assert_ne!(answer.status, 404, "{method} {target}");
            }
            if answer.status == 405 {
                let allowed: BTreeSet<_> = answer
                    .header("allow")
                    .unwrap()
                    .to_lowercase()
                    .split(',')
                    .map(ToOwned::to_owned)
                    .collect();
                let mut expected: BTreeSet<_> = documented.iter().map(ToString::to_string).collect();
                if expected.contains("get") {
                    expected.insert("head".to_owned());
                }
                assert_eq!(allowed, expected, "{target}");
            }
        }
        for operation in item.as_object().unwrap().values() {
            assert!(operation["operationId"].is_string());
        }
    }
    bench.close().await;
}

/// A path with ids in it that could be there.
fn target_of(path: &str) -> String {
    let id = |prefix: &str| format!("{prefix}_00000000000000000000000001");
    let of_path = if path.contains("/endpoints/") {
        "ep"
    } else if path.contains("/events/") {
        "evt"
    } else {
        "pay"
    };
    [
        ("{id}", id(of_path)),
        ("{secret}", id("eps")),
        ("{ping}", id("evt")),
        ("{event}", id("evt")),
        ("{replay}", id("rpl")),
        ("{type}", "ping".to_owned()),
        ("{code}", "not_found".to_owned()),
    ]
    .iter()
    .fold(path.to_owned(), |target, (name, value)| target.replace(name, value))
}

/// Every path that the source registers is in the document: there is no other way to register one.
#[test]
fn routes_are_registered_with_their_documentation_alone() {
    let source = include_str!("../../src/routes.rs");
    assert!(!source.contains(".route(") && !source.contains(".nest("));
    let paths = ingest::routes::document().paths.paths.len();
    assert_eq!(source.matches(".routes(routes!(").count(), paths, "one line for each path");
}

/// The guide says of every rejection that a partner can meet what to do about it.
#[test]
fn the_guide_explains_every_rejection() {
    use domain::payment::Reason;
    let guide = include_str!("../../../docs/partner-guide.md");
    for reason in Reason::ALL {
        // Of commands of the bank alone, and of a cancel, which is answered with the mandate as it stands.
        let told_to_nobody = matches!(
            reason,
            Reason::StatusUnchanged
                | Reason::IdempotencyConflict
                | Reason::MandateNotActive
                | Reason::PaymentNotReversible
                | Reason::AccountNotEmpty
                | Reason::DeadLetterUnknown
                | Reason::BankAccount
        );
        assert!(told_to_nobody || guide.contains(&format!("`{reason}`")), "{reason}");
    }
}

/// The keys of an answer against the properties of its schema.
fn check_keys(document: &Value, schema: &str, answer: &Value) {
    let mut properties = BTreeSet::new();
    let mut required = BTreeSet::new();
    collect(document, &document["components"]["schemas"][schema], &mut properties, &mut required);
    let keys: BTreeSet<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(keys.is_subset(&properties), "{schema}: undocumented {:?}", keys.difference(&properties));
    assert!(required.is_subset(&keys), "{schema}: missing {:?}", required.difference(&keys));
}

fn collect<'d>(
    document: &'d Value,
    schema: &'d Value,
    properties: &mut BTreeSet<&'d str>,
    required: &mut BTreeSet<&'d str>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        collect(document, &document["components"]["schemas"][name], properties, required);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(document, part, properties, required);
    }
    properties.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()));
    required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
}

/// Every example of a request or an answer that stands beside a named schema has the members of that schema.
#[test]
fn examples_have_their_schemas_shape() {
    let document: Value = serde_json::from_str(&ingest::routes::document().to_json().unwrap()).unwrap();
    let mut compared = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().values();
            for content in answers.chain([&operation["requestBody"]]) {
                for body in content["content"].as_object().into_iter().flat_map(|content| content.values()) {
                    let reference = body["schema"]["$ref"].as_str();
                    let (Some(reference), Some(example)) = (reference, body.get("example")) else { continue };
                    let schema = reference.rsplit('/').next().unwrap();
                    let mut known = BTreeSet::new();
                    let mut required = BTreeSet::new();
                    collect(&document, &document["components"]["schemas"][schema], &mut known, &mut required);
                    let keys: BTreeSet<&str> =
                        example.as_object().unwrap().keys().map(String::as_str).collect();
                    assert!(
                        keys.is_subset(&known),
                        "{method} {path} {schema}: {:?}",
                        keys.difference(&known)
                    );
                    assert!(
                        required.is_subset(&keys),
                        "{method} {path} {schema}: {:?}",
                        required.difference(&keys)
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 30, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_documented_shape() {
    let bench = Bench::new("shapes").await;
    let document = bench.request(Method::GET, "/v1/openapi.json").unsigned().send(bench.address).await.json();
    let full = format!(
        r#"{{"amount":"12.50","currency":"EUR","mandate":"{MANDATE}","reference":"r","description":"d","metadata":{{"a":"b"}}}}"#
    );
    let accepted = bench.post("k", full).send(bench.address).await.json();
    check_keys(&document, "AcceptedPayment", &accepted);
    let record = bench.records().remove(0);
    crate::harness::decide(bench.env.pool(), &record, Some(domain::payment::Reason::DailyLimit)).await;
    let decided = bench.get(accepted["status_url"].as_str().unwrap()).await.json();
    check_keys(&document, "Payment", &decided);
    let problem = bench.post("k2", "{}").send(bench.address).await.json();
    check_keys(&document, "Problem", &problem);
    check_keys(&document, "FieldError", &problem["errors"][0]);
    let echo: Request = bench.request(Method::POST, "/v1/sandbox/echo").header("idempotency-key", "k");
    let echo = echo.tamper(|request| request.target.push_str("?x")).send(bench.address).await.json();
    check_keys(&document, "Echo", &echo);
    check_keys(&document, "EchoProblem", &echo["problem"]);
    check_keys(&document, "EchoSignature", &echo["signature"]);
    check_keys(&document, "Balances", &bench.get("/v1/balances").await.json());

    let endpoint = crate::endpoints::create(&bench).await;
    check_keys(&document, "CreatedEndpoint", &endpoint);
    let path = crate::endpoints::path(&endpoint);
    check_keys(&document, "Endpoint", &bench.get(&path).await.json());
    let rotated = bench.post_json(&format!("{path}/secrets"), &serde_json::json!({})).await.json();
    check_keys(&document, "NewSecretView", &rotated);
    let enabled = bench.post_json(&format!("{path}/enable"), &Value::Null).await.json();
    check_keys(&document, "EnabledEndpoint", &enabled);

    // The examples have the shapes, too.
    use ingest::routes::schema;
    check_keys(&document, "Payment", &schema::payment());
    check_keys(&document, "AcceptedPayment", &schema::accepted_payment());
    check_keys(&document, "Problem", &schema::problem());
    check_keys(&document, "Echo", &schema::echo());
    check_keys(&document, "Balance", &schema::balances()["data"][0]);
    check_keys(&document, "PaymentRequest", &schema::payment_request());
    let example = serde_json::to_vec(&schema::payment_request()).unwrap();
    assert_eq!(
        bench.post("example", example).send(bench.address).await.status,
        202,
        "the example is accepted"
    );
    let _: domain::payment::PaymentView = serde_json::from_value(schema::payment()).unwrap();
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_has_its_page() {
    let bench = Bench::new("pages").await;
    for code in ingest::problem::Code::ALL {
        let page = bench.request(Method::GET, code.type_path()).unsigned().send(bench.address).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/plain; charset=utf-8")));
        let text = String::from_utf8(page.body).unwrap();
        assert!(text.starts_with(&format!("{} {}\n", code.status().as_u16(), code.as_str())), "{text}");
    }
    let unknown = bench.request(Method::GET, "/problems/nothing").unsigned().send(bench.address).await;
    assert_eq!(unknown.code(), "not_found");
    bench.close().await;
}
