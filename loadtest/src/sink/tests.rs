//! The receiver against hand-made deliveries over real connections.

use domain::ids::{PartnerId, event_id};
use domain::webhook::{ID_HEADER, SIGNATURE_HEADER, SigningKeys, TIMESTAMP_HEADER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use super::*;

const PATH: &str = "/webhooks";

fn secret() -> String {
    Secret::text_of(&[7; 32]).to_string()
}

fn event(sequence: u64) -> EventId {
    event_id(PartnerId::from_uuid(Uuid::from_u128(1)), 1, sequence)
}

fn body(sequence: u64) -> String {
    let schema = domain::schema::of(domain::event::EventType::PaymentPosted);
    let mut schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let mut body = schema["examples"][0].take();
    body["sequence"] = sequence.into();
    let payment = &mut body["data"]["payment"];
    payment["id"] = PaymentId::from_uuid(Uuid::from_u128(sequence.into())).to_string().into();
    payment["decided_at"] = "2026-01-31T12:00:00.000000Z".into();
    body.to_string()
}

/// Sends one delivery and gives the status, or `None` when none comes within a second.
async fn deliver(sink: &Sink, sequence: u64, secret: &str, sent: &str) -> Option<u16> {
    deliver_signed(sink, sequence, secret, &body(sequence), sent).await.ok()?
}

/// As [`deliver`], with the signature of another body; an error is a connection that broke.
async fn deliver_signed(
    sink: &Sink,
    sequence: u64,
    secret: &str,
    signed: &str,
    sent: &str,
) -> std::io::Result<Option<u16>> {
    let now = now_us() / 1_000_000;
    let id = event(sequence).to_string();
    let keys = SigningKeys::new(Secret::parse(secret).unwrap());
    let signature = keys.sign(&id, now, signed.as_bytes());
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{ID_HEADER}: {id}\r\n{TIMESTAMP_HEADER}: {now}\r\n{SIGNATURE_HEADER}: {signature}\r\n\r\n{sent}",
        sent.len()
    );
    let mut stream = TcpStream::connect(sink.address()).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer));
    let Ok(read) = read.await else { return Ok(None) };
    read?;
    Ok(std::str::from_utf8(&answer[9..]).unwrap().parse().ok())
}

#[tokio::test]
async fn good_deliveries_are_recorded_once_and_bad_ones_refused() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    sink.endpoint(PATH, &secret()).unwrap();
    for sequence in [1, 2, 5, 2] {
        assert_eq!(deliver(&sink, sequence, &secret(), &body(sequence)).await, Some(204));
    }
    assert_eq!(deliver(&sink, 6, &Secret::text_of(&[8; 32]), &body(6)).await, Some(400));
    assert_eq!(deliver(&sink, 7, &secret(), &body(8)).await, Some(400));
    let counts = sink.counts(PATH);
    assert_eq!(counts, Counts { requests: 6, events: 3, repeats: 1, invalid: 2, turned_away: 0 });
    assert_eq!(sink.gaps(PATH), [(1, 3), (1, 4)]);
    assert!(sink.first_problem().unwrap().contains("no signature"));
    let first = sink.received(PATH)[0];
    assert_eq!((first.event, first.sequence, first.repeated), (event(1), 1, false));
    assert_eq!(first.status, Some(PaymentStatus::Posted));
    assert_eq!(first.decided_us, Some(1_769_860_800_000_000));
    assert_eq!(sink.payments(PATH).len(), 3);
    sink.stop().await;
}

#[tokio::test]
async fn a_path_misbehaves_as_it_is_told() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    sink.endpoint(PATH, &secret()).unwrap();
    sink.behave(PATH, Behaviour::Status(503));
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, Some(503));
    sink.behave(PATH, Behaviour::Hang);
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, None);
    sink.behave(PATH, Behaviour::Slow(Duration::from_millis(50)));
    let started = Instant::now();
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, Some(204));
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert!(sink.wait_until(Duration::from_secs(1), |sink| sink.total().events == 1).await);
    assert!(!sink.wait_until(Duration::from_millis(10), |sink| sink.total().events == 2).await);
    assert_eq!(sink.counts(PATH).turned_away, 2);
}

#[tokio::test]
async fn a_path_resets_drips_and_talks_too_much() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    sink.endpoint(PATH, &secret()).unwrap();
    sink.behave(PATH, Behaviour::Reset);
    let broken = deliver_signed(&sink, 1, &secret(), &body(1), &body(1)).await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    sink.behave(PATH, Behaviour::Drip);
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, Some(200));
    assert_eq!(sink.counts(PATH), Counts { requests: 2, turned_away: 2, ..Counts::default() });
    sink.behave(PATH, Behaviour::Long(10 << 20));
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, Some(200));
    assert_eq!(sink.counts(PATH).events, 1);
}

#[tokio::test]
async fn a_replaced_secret_and_a_wrong_body_are_noticed() {
    let sink = Sink::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    sink.endpoint(PATH, &secret()).unwrap();
    let new = Secret::text_of(&[9; 32]).to_string();
    sink.replace_secret(PATH, &new).unwrap();
    assert_eq!(deliver(&sink, 1, &secret(), &body(1)).await, Some(400));
    assert_eq!(deliver(&sink, 1, &new, &body(1)).await, Some(204));
    let wrong = body(2).replace("posted", "rejected");
    let answer = deliver_signed(&sink, 2, &new, &wrong, &wrong).await.unwrap();
    assert_eq!(answer, Some(400), "a rejected payment has a reason");
    sink.trust_bodies();
    assert_eq!(deliver_signed(&sink, 2, &new, &wrong, &wrong).await.unwrap(), Some(204));
}

#[tokio::test]
async fn only_this_machine_is_listened_on() {
    assert!(Sink::start("0.0.0.0:0".parse().unwrap()).await.is_err());
}
