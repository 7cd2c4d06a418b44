//! Clients that are slow, endless or too large hold nothing up.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Bench, Options, Request, exchange, read_answer};

/// A payment whose body is sent in chunks, as far as the caller likes.
fn chunked(request: Request) -> Vec<u8> {
    let signed = request.sign();
    let mut head = signed.clone();
    head.headers.remove("content-length");
    head.headers.insert("transfer-encoding", "chunked".parse().unwrap());
    head.body.clear();
    // Signed with its body, sent without: the caller sends chunks.
    head.bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_cut_off_and_others_are_served() {
    let bench = Bench::with("slow", |_| Options {
        more: vec![("http-header-timeout-ms", "700".to_owned()), ("http-body-timeout-ms", "700".to_owned())],
        ..Options::default()
    })
    .await;
    // Heads that never end, on many connections.
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(b"POST /v1/payments HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
        silent.push(stream);
    }
    // A chunked body without an end.
    let mut endless = TcpStream::connect(bench.address).await.unwrap();
    endless.write_all(&chunked(bench.payment("endless"))).await.unwrap();
    endless.write_all(b"5\r\n{\"amo\r\n").await.unwrap();
    // A body shorter than declared.
    let bytes = bench.payment("short").sign().bytes();
    let mut short = TcpStream::connect(bench.address).await.unwrap();
    short.write_all(&bytes[..bytes.len() - 5]).await.unwrap();

    assert_eq!(bench.payment("meanwhile").send(bench.address).await.status, 202);
    for stream in [&mut endless, &mut short] {
        let answer = read_answer(stream).await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    for stream in &mut silent {
        // Closed, with a bare 408 or without a word.
        drop(
            tokio::time::timeout(Duration::from_secs(20), read_answer(stream)).await.expect("it is cut off"),
        );
    }
    assert_eq!(bench.records().len(), 1);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let bench = Bench::new("large").await;
    // Declared too large, and never sent.
    let mut declared = bench.post("k", vec![b' '; 64 * 1024 + 1]).sign();
    declared.body.clear();
    let answer = exchange(bench.address, &declared.bytes()).await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));

    // Not declared: chunks beyond the limit.
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream.write_all(&chunked(bench.payment("k"))).await.unwrap();
    for _ in 0..3 {
        let _ = stream.write_all(&[b"8000\r\n".as_slice(), &vec![b' '; 0x8000], b"\r\n"].concat()).await;
    }
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));

    // A body of exactly the limit is read.
    let padded = format!("{{{}}}", " ".repeat(64 * 1024 - 2));
    assert_eq!(bench.post("k", padded).send(bench.address).await.code(), "invalid_field");

    let large_head = bench.payment("k").header("x-large", &"x".repeat(20_000));
    assert_eq!(exchange(bench.address, &large_head.bytes()).await.unwrap().status, 431);
    let mut many = bench.payment("k");
    for index in 0..100 {
        many = many.header(&format!("x-{index}"), "x");
    }
    assert_eq!(exchange(bench.address, &many.bytes()).await.unwrap().status, 431);
    assert!(bench.records().is_empty());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_harms_nothing() {
    let bench = Bench::new("gone").await;
    for index in 0..200 {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let request = bench.payment(&format!("k{index}")).header("prefer", "wait=10");
        stream.write_all(&request.sign().bytes()).await.unwrap();
        drop(stream);
    }
    assert_eq!(bench.payment("after").send(bench.address).await.status, 202);
    bench.close().await;
}
