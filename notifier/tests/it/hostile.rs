//! Receivers that do everything but answer: each harms itself alone, in bounded time and bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::ids::{EndpointId, PartnerId};
use testkit::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{BOUND, Sink, World};

/// What a receiver does with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Hangs,
    Answers500,
    Resets,
    DripsAByteASecond,
    Answers10MiB,
    Refuses10MiB,
    AnswersNoUtf8,
    AnswersNoHttp,
    AnswersHeadersWithoutEnd,
    BreaksOff,
    AnswersALyingLength,
}

/// A receiver; how many bytes it could send in all.
async fn receiver(manner: Manner) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move { serve(stream, manner, &counted).await });
        }
    });
    (url, sent)
}

async fn serve(mut stream: TcpStream, manner: Manner, sent: &AtomicU64) -> Option<()> {
    loop {
        read_request(&mut stream).await?;
        match manner {
            Manner::Hangs => std::future::pending::<()>().await,
            Manner::Answers500 => {
                stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno").await.ok()?;
            }
            Manner::Resets => {
                stream.set_zero_linger().ok()?;
                return None;
            }
            Manner::DripsAByteASecond => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.ok()?;
                loop {
                    stream.write_all(b"x").await.ok()?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Manner::Answers10MiB | Manner::Refuses10MiB => {
                let status = if manner == Manner::Answers10MiB { "200 OK" } else { "400 No" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 10485760\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok()?;
                for _ in 0..160 {
                    stream.write_all(&vec![b'x'; 65_536]).await.ok()?;
                    sent.fetch_add(65_536, Ordering::Relaxed);
                }
            }
            Manner::AnswersNoUtf8 => {
                stream
                    .write_all(b"HTTP/1.1 400 \xff\xfe\r\ncontent-length: 6\r\n\r\n\xff\xfe\0\xc3\x28'")
                    .await
                    .ok()?;
            }
            Manner::AnswersNoHttp => {
                stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\0\0\0").await.ok()?;
                return None;
            }
            Manner::AnswersHeadersWithoutEnd => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok()?;
                loop {
                    stream
                        .write_all(
                            format!("x-{}: {}\r\n", sent.load(Ordering::Relaxed), "y".repeat(1_000))
                                .as_bytes(),
                        )
                        .await
                        .ok()?;
                    sent.fetch_add(1_000, Ordering::Relaxed);
                }
            }
            Manner::BreaksOff => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.ok()?;
                return None;
            }
            Manner::AnswersALyingLength => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!")
                    .await
                    .ok()?;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 8_192];
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&buffer[..count]);
        if request[0] == 0x16 {
            // The greeting of TLS.
            return Some(());
        }
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        if request.len() >= end + 4 + length {
            return Some(());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_has_its_class_and_no_answer_is_read_beyond_its_bound() {
    let world = World::new("classes").await;
    let partner = world.partner().await;
    let cases = [
        (Manner::Hangs, "timeout", None),
        (Manner::DripsAByteASecond, "timeout", None),
        (Manner::Answers500, "status", Some(500)),
        (Manner::Resets, "interrupted", None),
        (Manner::Answers10MiB, "body_too_long", Some(200)),
        (Manner::Refuses10MiB, "status", Some(400)),
        (Manner::AnswersNoUtf8, "status", Some(400)),
        (Manner::AnswersNoHttp, "interrupted", None),
        (Manner::AnswersHeadersWithoutEnd, "interrupted", None),
        (Manner::BreaksOff, "body", Some(200)),
        (Manner::AnswersALyingLength, "interrupted", None),
    ];
    let mut endpoints = Vec::new();
    for (manner, class, status) in cases {
        let (url, sent) = receiver(manner).await;
        endpoints.push((manner, class, status, sent, world.endpoint(partner, &url).await.0));
    }
    // TLS is spoken to one that does not speak it, and nobody listens at another; a name has no address.
    let (plain, _) = receiver(Manner::AnswersNoHttp).await;
    let closed = format!("http://127.0.0.1:{}/", world.env.free_port());
    let mut others = Vec::new();
    for (url, class) in [
        (plain.replace("http:", "https:"), "tls"),
        (closed, "connect"),
        ("https://no-such-name.invalid.example/".to_owned(), "dns"),
    ] {
        others.push((class, world.endpoint(partner, &url).await.0));
    }
    let notifier = world.notifier();
    world.events(partner, 1).await;
    for (class, endpoint) in others {
        wait_until("an attempt", BOUND, async || !world.attempts(endpoint).await.is_empty()).await;
        assert_eq!(world.attempts(endpoint).await[0], class);
    }
    for (manner, class, status, sent, endpoint) in endpoints {
        wait_until("an attempt", BOUND, async || !world.attempts(endpoint).await.is_empty()).await;
        assert_eq!(world.attempts(endpoint).await[0], class, "{manner:?}");
        let (code, took_us, excerpt): (Option<u16>, u32, Option<Vec<u8>>) = sqlx::query_as(
            "SELECT status_code, duration_us, excerpt FROM attempts WHERE endpoint_id = ? ORDER BY attempt LIMIT 1",
        )
        .bind(endpoint.uuid().as_bytes().as_slice())
        .fetch_one(world.env.pool())
        .await
        .unwrap();
        assert_eq!(code, status, "{manner:?}");
        assert!(took_us < 16_000_000, "{manner:?}: {took_us} us");
        assert!(excerpt.as_ref().is_none_or(|excerpt| excerpt.len() <= 1_024), "{manner:?}");
        if manner == Manner::AnswersNoUtf8 {
            assert_eq!(excerpt.unwrap(), b"\xff\xfe\0\xc3\x28'", "as it came");
        }
        // What the kernel's buffers hold was sent besides; the rest was never taken.
        assert!(sent.load(Ordering::Relaxed) < 9_000_000, "{manner:?}: {sent:?} bytes");
    }
    notifier.stop().await;
    world.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_five_bad_endpoints_harm_none_of_fifteen_good_ones_and_nothing_is_lost() {
    let world = World::new("isolation").await;
    let notifier = world.notifier();
    let mut healthy = Vec::new();
    for _ in 0..15 {
        let partner = world.partner().await;
        let sink = Sink::ok().await;
        world.endpoint(partner, &sink.url).await;
        healthy.push((partner, sink));
    }
    let (quiet, _) = p99(&world, &healthy).await;
    let manners = [
        (Manner::Hangs, 10),
        (Manner::Answers500, 10),
        (Manner::Resets, 5),
        (Manner::DripsAByteASecond, 5),
        (Manner::Answers10MiB, 5),
    ];
    // Bad ones stand beside good ones of the same partner, too.
    let mut bad: Vec<(PartnerId, EndpointId)> = Vec::new();
    for (manner, count) in manners {
        for _ in 0..count {
            let partner = healthy[bad.len() % healthy.len()].0;
            let (url, _) = receiver(manner).await;
            bad.push((partner, world.endpoint(partner, &url).await.0));
        }
    }
    let (loud, events) = p99(&world, &healthy).await;
    println!("p99 of healthy endpoints: {quiet:?} alone, {loud:?} beside bad ones");
    assert!(loud < quiet * 2 + Duration::from_millis(100), "{quiet:?} became {loud:?}");
    // Each event stands in MySQL for each bad endpoint: delivered, waiting or dead.
    for (partner, endpoint) in &bad {
        let expected = events[partner];
        wait_until("every delivery to be recorded", BOUND, async || {
            world.count("SELECT COUNT(*) FROM deliveries WHERE endpoint_id = ?", *endpoint).await == expected
        })
        .await;
    }
    notifier.stop().await;
    world.env.close().await;
}

/// A steady rate to all of them for a while; the 99th percentile of the time from before the announcement, and the
/// events of each partner.
async fn p99(world: &World, sinks: &[(PartnerId, Sink)]) -> (Duration, HashMap<PartnerId, i64>) {
    let (mut announced, mut events_of) = (HashMap::new(), HashMap::new());
    for _ in 0..40 {
        for (partner, _) in sinks {
            let events = world.decide(*partner, 1).await;
            let at = Instant::now();
            world.announce(&events).await;
            *events_of.entry(*partner).or_default() += 1;
            announced.extend(events.iter().map(|event| (event.id.to_string(), at)));
        }
    }
    let mut latencies = wait_until("all to arrive", BOUND, async || {
        let received = sinks.iter().flat_map(|(_, sink)| sink.received());
        let mut first = HashMap::new();
        for webhook in received {
            if let Some(at) = announced.get(&webhook.id) {
                first.entry(webhook.id).or_insert(webhook.at - *at);
            }
        }
        (first.len() == announced.len()).then(|| first.into_values().collect::<Vec<_>>())
    })
    .await;
    latencies.sort_unstable();
    (latencies[latencies.len() * 99 / 100], events_of)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_with_thousands_of_events_delays_nobody_else() {
    let world = World::new("greedy").await;
    let (greedy, modest) = (world.partner().await, world.partner().await);
    let slow = || {
        Sink::new(|_, _| crate::harness::Reply::After(Duration::from_millis(20), axum::http::StatusCode::OK))
    };
    let mut sinks = Vec::new();
    for _ in 0..12 {
        let sink = slow().await;
        world.endpoint(greedy, &sink.url).await;
        sinks.push(sink);
    }
    let sink = Sink::ok().await;
    world.endpoint(modest, &sink.url).await;
    let notifier = world.notifier();
    sink.wait_for(&world.events(modest, 1).await).await;
    let warm = world.events(greedy, 1).await;
    for sink in &sinks {
        sink.wait_for(&warm).await;
    }
    let many = world.decide(greedy, 2_000).await;
    let ones = world.decide(modest, 20).await;
    world.announce(&many).await;
    let mut waits = Vec::new();
    for one in ones {
        let begun = Instant::now();
        world.announce(std::slice::from_ref(&one)).await;
        sink.wait_for(&[one]).await;
        waits.push(begun.elapsed());
    }
    let left = sinks.iter().map(Sink::count).sum::<u64>();
    waits.sort_unstable();
    println!(
        "beside a backlog of 24,000, of which {left} are out: median {:?}, slowest {:?}",
        waits[10], waits[19]
    );
    assert!(left < 24_000, "the backlog was still there");
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
    notifier.kill();
    world.env.close().await;
}
