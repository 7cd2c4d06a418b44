//! What a partner sees of webhooks, signed with the domain's own signer.

use std::time::{Duration, Instant};

use domain::webhook::{SIGNATURE_HEADER, Secret, SigningKeys, TIMESTAMP_HEADER, VerifyingKeys};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::settings::now_seconds;

const BODY: &str = r#"{"type":"payment.posted","api_version":"2026-11-01","timestamp":"2026-01-01T00:00:00.000000Z","sequence":7,"epoch":1,"data":{"payment":{"id":"pay_01h455vb4pex5vsknk084sn02q","amount":"12.50","currency":"EUR","status":"posted"}}}"#;

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

fn received(body: &str, verified: Result<(), domain::webhook::VerifyError>) -> Received {
    Received {
        at: Instant::now(),
        at_clock: UNIX_EPOCH + Duration::from_micros(1_600_000_000_000_001),
        id: "evt_1".into(),
        verified,
        body: body.to_owned().into(),
    }
}

#[test]
fn a_line_says_what_happened() {
    let line = text(&received(BODY, Ok(())), false);
    assert_eq!(
        line,
        "2020-09-13T12:26:40.000001Z verified payment.posted evt_1 sequence 7 epoch 1 \
         pay_01h455vb4pex5vsknk084sn02q 12.50 EUR posted\n"
    );
    let line = text(&received("{}", Err(domain::webhook::VerifyError::Signature)), false);
    assert!(line.starts_with("2020-09-13T12:26:40.000001Z REFUSED evt_1: no signature"), "{line}");
    let hostile = text(&received(r#"{"type":"\u001b[2Jx"}"#, Ok(())), true);
    assert!(!hostile.contains('\u{1b}'), "{hostile:?}");
    assert!(text(&received(BODY, Ok(())), true).contains("\"sequence\": 7"));
}

async fn deliver(address: SocketAddr, secret: &Secret, id: &str, timestamp: i64, body: &str) -> String {
    let signature = SigningKeys::new(secret.clone()).sign(id, timestamp, body.as_bytes());
    let request = format!(
        "POST /hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\nwebhook-id: {id}\r\n\
         {TIMESTAMP_HEADER}: {timestamp}\r\n{SIGNATURE_HEADER}: {signature}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn only_what_the_bank_signed_now_is_taken() {
    let shutdown = CancellationToken::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let keys = VerifyingKeys::new(secret(1));
    let (mut webhooks, server) = receiver::start(address, keys, shutdown.clone()).await.unwrap();
    let now = now_seconds();

    let good = deliver(address, &secret(1), "evt_1", now, BODY).await;
    assert!(good.starts_with("HTTP/1.1 204"), "{good}");
    let got = webhooks.recv().await.unwrap();
    assert_eq!((got.id.as_str(), got.verified, &got.body[..]), ("evt_1", Ok(()), BODY.as_bytes()));

    let foreign = deliver(address, &secret(2), "evt_2", now, BODY).await;
    assert!(foreign.starts_with("HTTP/1.1 401") && foreign.contains("no signature"), "{foreign}");
    let old = deliver(address, &secret(1), "evt_3", now - 1_000, BODY).await;
    assert!(old.starts_with("HTTP/1.1 401") && old.contains("from this clock"), "{old}");
    for _ in 0..2 {
        assert!(webhooks.recv().await.unwrap().verified.is_err());
    }
    shutdown.cancel();
    server.await.unwrap();
}
