//! Independent libraries sign payments that the bank accepts, and verify the webhooks that it sends.
//!
//! The scripts stand in `tests/interop`; the libraries are fetched by `deploy/local/wired-local interop`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Options as ClientOptions, PaymentRequest};
use domain::money::{Amount, Currency};
use loadtest::system::{Options, Servers, System, binaries};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// A whole script, interpreter's start included.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// What each case must be answered: the HTTP status, the code and a word that the detail must hold.
const ANSWERS: &[(&str, u16, &str, &str)] = &[
    ("another method", 401, "signature_invalid", ""),
    ("another authority", 401, "signature_invalid", ""),
    ("another path", 401, "signature_invalid", ""),
    ("another query", 401, "signature_invalid", ""),
    ("another body with its digest", 401, "signature_invalid", ""),
    ("another body", 400, "digest_mismatch", ""),
    ("another content type", 401, "signature_invalid", ""),
    ("another idempotency key", 401, "signature_invalid", ""),
    ("a flipped bit", 401, "signature_invalid", ""),
    ("a wrong digest, signed", 400, "digest_mismatch", ""),
    ("stale", 401, "signature_expired", "created"),
    ("from the future", 401, "signature_expired", "created"),
    ("doubled component", 401, "signature_invalid", "@path"),
    ("unknown key", 401, "signature_invalid", ""),
    ("another secret", 401, "signature_invalid", ""),
    ("unsigned", 401, "signature_missing", ""),
    ("without @method", 401, "component_missing", "@method"),
    ("without @authority", 401, "component_missing", "@authority"),
    ("without @path", 401, "component_missing", "@path"),
    ("without @query", 401, "component_missing", "@query"),
    ("without content-digest", 401, "component_missing", "content-digest"),
    ("without content-type", 401, "component_missing", "content-type"),
    ("without idempotency-key", 401, "component_missing", "idempotency-key"),
];

#[derive(Debug, Deserialize)]
struct Answer {
    case: String,
    status: u16,
    code: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Verified {
    library: String,
    verified: usize,
    refused: usize,
    error: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_signed_by_independent_libraries_are_accepted_and_tampered_ones_refused() {
    let _turn = crate::turn().await;
    let options = Options { notifiers: 0, ..Options::new("signed") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let input = json!({
        "url": system.url(0), "key_id": partner.key_id, "key_secret": partner.key_secret,
        "mandate": partner.mandates[0].to_string(),
    });
    let mut unsigned_answers = Vec::new();
    for script in ["sign.py", "sign.mjs"] {
        let Some(answers) = run::<Vec<Answer>>(script, &input).await else { continue };
        let answers: BTreeMap<_, _> = answers.into_iter().map(|it| (it.case.clone(), it)).collect();
        let accepted = answers.values().filter(|it| it.case.starts_with("accepted"));
        let accepted: Vec<_> = accepted.map(|it| (it.case.as_str(), it.status)).collect();
        assert_eq!(accepted.len(), 6, "{script}: {accepted:?}");
        for (case, status) in accepted {
            let expected = if case == "accepted without a body" { 200 } else { 202 };
            assert_eq!(status, expected, "{script}: {:?}", answers[case]);
        }
        assert_eq!(answers.len(), 6 + ANSWERS.len(), "{script} has a case that this test does not know");
        for (case, status, code, word) in ANSWERS {
            let answer = answers.get(*case).unwrap_or_else(|| panic!("{script} has no case `{case}`"));
            assert_eq!(
                (answer.status, answer.code.as_deref()),
                (*status, Some(*code)),
                "{script}: {answer:?}"
            );
            let detail = answer.detail.as_deref().unwrap_or_default();
            assert!(detail.contains(word), "{script}: {answer:?} does not name {word}");
        }
        // What is unknown and what is wrong look the same.
        assert_eq!(answers["unknown key"].detail, answers["another secret"].detail, "{script}");
        unsigned_answers.push(script);
    }
    println!("checked: {unsigned_answers:?}");
    system.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_verified_by_independent_libraries() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), Options::new("verified")).await.unwrap();
    let partner = &system.partners()[0];
    let received = Arc::new(Mutex::new(Vec::new()));
    let receiving = tokio::spawn(receive(partner.webhook_listen, Arc::clone(&received)));
    let bank = partner.client(&system.url(0), ClientOptions::default()).unwrap();
    for number in 0..5 {
        let mut request = PaymentRequest::new(partner.mandates[0], Amount::new(100, Currency::EUR).unwrap());
        // What is signed are bytes, whatever characters they make.
        request.description = Some("Café · 東京 · 🏙".to_owned());
        bank.pay(&request, &format!("webhook-{number}"), None).await.unwrap();
    }
    wait_until("five webhooks", Duration::from_secs(30), async || received.lock().unwrap().len() >= 5).await;
    let webhooks = received.lock().unwrap().clone();
    let input = json!({ "secret": partner.webhook_secret, "webhooks": webhooks });
    for script in ["webhook.py", "webhook.mjs"] {
        let Some(libraries) = run::<Vec<Verified>>(script, &input).await else { continue };
        assert!(!libraries.is_empty(), "{script} checked nothing");
        for library in libraries {
            let all = webhooks.len();
            assert_eq!((library.verified, library.refused), (all, all), "{script}: {library:?}");
            println!("{script}: {} verified {all} webhooks", library.library);
            assert!(library.error.is_none(), "{library:?}");
        }
    }
    receiving.abort();
    system.finish().await.unwrap();
}

/// Keeps headers and body of every request as they came.
async fn receive(listen: std::net::SocketAddr, received: Arc<Mutex<Vec<Value>>>) {
    let keep = move |headers: axum::http::HeaderMap, body: String| {
        let headers: BTreeMap<_, _> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        received.lock().unwrap().push(json!({ "headers": headers, "body": body }));
        async { axum::http::StatusCode::NO_CONTENT }
    };
    let app = axum::Router::new().route("/webhooks", axum::routing::post(keep));
    axum::serve(TcpListener::bind(listen).await.unwrap(), app).await.unwrap();
}

/// Runs a script with JSON in and JSON out; `None` when its libraries are not there and this is no CI.
async fn run<T: serde::de::DeserializeOwned>(script: &str, input: &Value) -> Option<T> {
    let checkout = binaries::checkout().unwrap();
    let (interpreter, libraries): (PathBuf, PathBuf) = if Path::new(script).extension() == Some("py".as_ref())
    {
        (checkout.join(".local/venv/bin/python3"), checkout.join(".local/venv/requirements.txt"))
    } else {
        ("node".into(), checkout.join(".local/interop/node_modules"))
    };
    if !libraries.exists() {
        let why = format!("{} is missing: run `deploy/local/wired-local interop`", libraries.display());
        assert!(std::env::var_os("CI").is_none(), "{script}: {why}");
        println!("skipped {script}: {why}");
        return None;
    }
    let path = checkout.join("loadtest/tests/interop").join(script);
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(&path).env("INTEROP_DIR", checkout.join(".local/interop"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = serde_json::to_vec(input).unwrap();
    let run = async {
        stdin.write_all(&input).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let output = tokio::time::timeout(SCRIPT_TIMEOUT, run).await.unwrap_or_else(|_| panic!("{script} hangs"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    Some(
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|problem| panic!("{script}: {problem}; {error}")),
    )
}
