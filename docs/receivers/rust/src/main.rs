//! Receives webhooks: verifies, drops duplicates and stale news, fills gaps.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::env::var;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use client::{Client, SendOptions};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use standardwebhooks::Webhook;
use tokio::sync::mpsc;

/// It came as a webhook, or stands in the event log.
#[derive(Deserialize)]
struct Received {
    /// `webhook-id`.
    id: String,
    body: Event,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    event_type: String,
    /// Notices have none.
    sequence: Option<u64>,
    epoch: Option<u16>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    payment: Option<Payment>,
}

#[derive(Deserialize)]
struct Payment {
    id: String,
    status: String,
    version: u32,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Received>,
    scanned_through: u64,
}

/// Keep all of this in your database, changed in one transaction with what you do about an event.
#[derive(Default)]
struct Books {
    seen: HashSet<String>,
    payments: HashMap<String, Payment>,
    epoch: u16,
    /// You have every event up to this one, and those in `ahead`.
    after: u64,
    ahead: BTreeSet<u64>,
    fetch_at: Option<Instant>,
    gap: Duration,
}

impl Books {
    fn handle(&mut self, Received { id, body: event }: Received) {
        if !self.seen.insert(id.clone()) {
            return println!("duplicate {id}");
        }
        if let (Some(sequence), Some(epoch)) = (event.sequence, event.epoch) {
            if epoch > self.epoch {
                // The first event of all, or numbers begin again after a restore.
                (self.epoch, self.after) = (epoch, sequence - 1);
                self.ahead.clear();
            }
            if epoch == self.epoch {
                self.ahead.insert(sequence);
                self.advance(self.after);
            }
        }
        let Some(payment) = event.data.payment else { return println!("{} {id}", event.event_type) };
        if self.payments.get(&payment.id).is_some_and(|known| known.version >= payment.version) {
            return println!("stale {} {}", payment.id, payment.version);
        }
        println!("{} {} {} {}", event.event_type, payment.id, payment.status, payment.version);
        self.payments.insert(payment.id.clone(), payment);
    }

    fn advance(&mut self, to: u64) {
        self.after = self.after.max(to);
        while self.ahead.remove(&(self.after + 1)) {
            self.after += 1;
        }
        self.ahead = self.ahead.split_off(&(self.after + 1));
        let later = Instant::now() + self.gap;
        self.fetch_at = (!self.ahead.is_empty()).then(|| self.fetch_at.map_or(later, |at| at.min(later)));
    }

    async fn fill_gap(&mut self, bank: &Client) -> anyhow::Result<()> {
        let before = self.after;
        // When this fails, again then.
        self.fetch_at = Some(Instant::now() + self.gap);
        let target = format!("/v1/events?after={before}");
        let page: Page = bank.request(Method::GET, &target, None, SendOptions::default()).await?.json()?;
        for event in page.data {
            self.handle(event);
        }
        // Also past events of types that this endpoint does not get.
        self.advance(page.scanned_through);
        if !self.ahead.is_empty() && self.after > before {
            self.fetch_at = Some(Instant::now());
        }
        Ok(())
    }
}

type Inbox = mpsc::Sender<Received>;

async fn receive(
    State((webhook, inbox)): State<(Arc<Webhook>, Inbox)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    // The bytes as they came, not JSON written anew.
    if webhook.verify(&body, &headers).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let Ok(body) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let id = headers["webhook-id"].to_str().unwrap_or_default().to_owned();
    // At once; the work is done later.
    inbox.try_send(Received { id, body }).map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let webhook = Arc::new(Webhook::new(&var("WIRED_WEBHOOK_SECRET")?)?);
    let bank = Client::new(&var("WIRED_URL")?, &var("WIRED_KEY_ID")?, &var("WIRED_KEY_SECRET")?)?;
    let gap_s = var("GAP_SECONDS").map_or(Ok(60.0), |text| text.parse())?;
    let mut books = Books { gap: Duration::from_secs_f64(gap_s), ..Books::default() };
    // Make it a table of your database.
    let (inbox, mut received) = mpsc::channel(10_000);
    let app = Router::new().fallback(post(receive)).with_state((webhook, inbox));
    let listener = tokio::net::TcpListener::bind(var("WIRED_WEBHOOK_LISTEN")?).await?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    loop {
        match tokio::time::timeout(Duration::from_millis(100), received.recv()).await {
            Ok(Some(received)) => books.handle(received),
            Ok(None) => return Ok(()),
            Err(_) => {}
        }
        if books.fetch_at.is_some_and(|at| at <= Instant::now())
            && let Err(problem) = books.fill_gap(&bank).await
        {
            println!("the event log: {problem}");
        }
    }
}
