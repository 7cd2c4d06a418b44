//! The OpenAPI documents against the running services: schemathesis (PyPI) makes requests out of a served document,
//! good and bad ones, and compares every answer with what the document promises. No 5xx, no status and no content type
//! that the document does not know, no body other than its schema.
//!
//! It is fetched by `deploy/local/wired-local interop`; how it signs and logs in stands in `tests/interop/fuzz_hooks.py`.
//! `WIRED_FUZZ_EXAMPLES` draws more, `WIRED_FUZZ_SEED` others.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use client::{Options as ClientOptions, PaymentRequest};
use domain::money::{Amount, Currency};
use loadtest::system::{Options, Servers, Service, System, binaries};
use serde_json::{Value, json};

use crate::number;

/// Requests that are drawn for each operation, beside those that follow from the document alone.
const EXAMPLES: u64 = 8;
/// For each drawn request on a busy machine; a run of the default number takes about a minute on a quiet one.
const TIMEOUT_PER_EXAMPLE: Duration = Duration::from_secs(60);
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_answers_as_its_document_says() {
    let Some(tool) = tool() else { return };
    let _turn = crate::turn().await;
    let options = Options::new("documented")
        .with_env(Service::Ingest, "WIRED_ECHO_PER_SECOND", "1000000")
        .with_env(Service::Ingest, "WIRED_APPLICATIONS_PER_HOUR", "1000000")
        .with_env(Service::Ingest, "WIRED_APPLICATIONS_PER_DAY", "1000000");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let bank = partner.client(&system.url(0), ClientOptions::default()).unwrap();
    let request = PaymentRequest::new(partner.mandates[0], Amount::new(100, Currency::EUR).unwrap());
    let wait = Some(Duration::from_secs(10));
    let payment = bank.pay(&request, "documented", wait).await.unwrap().payment;
    let mandates = partner.mandates.iter().map(ToString::to_string);
    let known: Vec<_> = mandates.chain([payment.id.to_string()]).collect();
    let setup = json!({
        "url": system.url(0), "key_id": partner.key_id, "key_secret": partner.key_secret, "known": known
    });
    run(&tool, &system, &setup).await;
    system.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_banks_api_answers_as_its_document_says() {
    let Some(tool) = tool() else { return };
    let _turn = crate::turn().await;
    let options = Options { admin_apis: 1, ..Options::new("bank_documented") };
    let options = options.with_env(Service::AdminApi, "WIRED_REQUESTS_PER_SECOND", "1000000");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let email = "ada@example.com";
    let arguments = ["create-admin".to_owned(), format!("--email={email}"), "--name=Ada Byron".to_owned()];
    let printed = system.admin_command(&arguments).await.unwrap();
    let link = printed.split_whitespace().find(|word| word.contains("token=")).expect("a link");
    let setup = json!({
        "url": system.public_url(Service::AdminApi, 0),
        "admin_email": email,
        "admin_link": link,
        "mails": system.folder().join("mails"),
        "known": [system.partners()[0].id.to_string()],
    });
    run(&tool, &system, &setup).await;
    system.finish().await.unwrap();
}

/// Where the tool is; `None` when it is not there and this is no CI.
fn tool() -> Option<PathBuf> {
    let path = binaries::checkout().unwrap().join(".local/schemathesis/bin/schemathesis");
    if path.exists() {
        return Some(path);
    }
    let why = format!("{} is missing: run `deploy/local/wired-local interop`", path.display());
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
    None
}

async fn run(tool: &Path, system: &System, setup: &Value) {
    let hooks = binaries::checkout().unwrap().join("loadtest/tests/interop");
    let url = setup["url"].as_str().unwrap();
    let examples = number("WIRED_FUZZ_EXAMPLES").unwrap_or(EXAMPLES);
    let seed = number("WIRED_FUZZ_SEED").unwrap_or(1);
    let mut command = tokio::process::Command::new(tool);
    command
        .args(["--no-color", "run", &format!("{url}/v1/openapi.json"), "--url", url])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()])
        .args(["--workers", "2", "--generation-database", "none", "--request-timeout", "30"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", "fuzz_hooks")
        .env("PYTHONPATH", hooks)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("WIRED_FUZZ", setup.to_string())
        // It leaves files where it is started.
        .current_dir(system.folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let timeout = TIMEOUT_PER_EXAMPLE * u32::try_from(examples).unwrap();
    let output = tokio::time::timeout(timeout, command.output()).await.expect("schemathesis ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
