//! The bank's API on every address of the machine: with TLS, and not without.

use testkit::certificates::Authority;

use crate::harness::{Bank, Client};

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_tls_on_every_address_and_nothing_without() {
    let bank = Bank::new("admin-tls").await;
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let port = testkit::free_port();
    let with_tls = bank
        .another(&[
            ("--listen", format!("0.0.0.0:{port}")),
            ("--insecure-http", "false".to_owned()),
            ("--tls-cert-file", path(files.chain())),
            ("--tls-key-file", path(files.key())),
        ])
        .await;
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    let answer = client.get(format!("https://localhost:{port}/v1/health")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));
    let plain = client.get(format!("http://localhost:{port}/v1/health")).send().await.unwrap();
    assert_eq!((plain.status().as_u16(), plain.text().await.unwrap().contains("HTTPS")), (400, true));

    // Staff see when the certificate ends.
    let watched = format!("admin-api=http://{}/health/ready", with_tls.private);
    let other = bank.another(&[("--services", watched)]).await;
    let staff = bank.staff("otto@example.com", 2).await.client;
    let staff = Client { server: other.address, ..staff };
    let system = staff.get("/v1/system").await.expect(200).json();
    let service = system["services"].as_array().unwrap().iter().find(|it| it["name"] == "admin-api").unwrap();
    assert!(service["certificate_expires_at"].is_string(), "{service}");
    other.stop().await;
    with_tls.stop().await;

    let refused = bank.another_refused(&[("--listen", format!("0.0.0.0:{port}"))]).await.to_string();
    assert!(refused.contains("WIRED_TLS_CERT_FILE"), "{refused}");
    bank.close().await;
}
