//! The partner API on every address of the machine: with TLS, and not without.

use client::{Client, Error, Options, Retries};
use testkit::certificates::Authority;
use tokio_util::sync::CancellationToken;

use crate::harness::{Bench, SOON, metrics_of};

#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_over_tls_on_every_address_and_none_without() {
    let bench = Bench::new("tls").await;
    let port = testkit::free_port();
    let listen = ("listen", format!("0.0.0.0:{port}"));
    for insecure in ["true", "false"] {
        let config = bench.config(&[listen.clone(), ("insecure-http", insecure.to_owned())]);
        let error = ingest::run(config, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.contains("WIRED_TLS_CERT_FILE"), "{error}");
    }

    let authority = Authority::new();
    let files = authority.files(&["localhost", "127.0.0.1"]);
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let replica = bench.another(&[
        listen,
        ("insecure-http", "false".to_owned()),
        ("tls-cert-file", path(files.chain())),
        ("tls-key-file", path(files.key())),
        ("authorities", format!("localhost:{port}")),
    ]);
    let client = |host: &str, authorities: Option<&str>| {
        let authorities_pem = authorities.map(|pem| pem.as_bytes().to_vec());
        let options = Options { authorities_pem, retries: Retries::NONE, ..Options::default() };
        Client::with_options(&format!("https://{host}:{port}"), &bench.key.id, &bench.key.secret, options)
            .unwrap()
    };
    let partner = client("localhost", Some(authority.pem()));
    partner.ready(SOON).await.unwrap();
    partner.balances().await.unwrap();
    let elsewhere = client("127.0.0.1", Some(authority.pem())).balances().await.unwrap_err();
    assert!(elsewhere.is("authority_unknown"), "{elsewhere}");

    // Neither the machine nor another authority vouches for it.
    for authorities in [None, Some(Authority::new().pem().to_owned())] {
        let error = client("localhost", authorities.as_deref()).balances().await.unwrap_err();
        assert!(
            matches!(&error, Error::Unreachable { reason, .. } if reason.contains("certificate")),
            "{error}"
        );
    }
    let metrics = metrics_of(replica.private).await;
    let expires =
        metrics.lines().find(|it| it.starts_with("wired_tls_certificate_expires_timestamp_seconds "));
    assert!(expires.is_some(), "{metrics}");
    replica.close().await;
    bench.close().await;
}
