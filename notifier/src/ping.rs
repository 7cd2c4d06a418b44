//! Sends pings and rehearsals, once each, and says what the answers tell of the receiver.
//!
//! They bypass the lanes: whoever repairs an endpoint wants to see it answer now, even while its circuit is open or it
//! is disabled. So they have slots of their own, of which a partner holds few, and neither their success nor their
//! failure counts for the endpoint. Leases stand in `notices`: a ping of a killed notifier is sent again, and of two
//! notifiers one sends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::endpoint_url::Refusal;
use domain::ids::EventId;
use domain::notice::{self, Flaw, NoticeType, Verdict};
use domain::webhook::{Secret, SigningKey, SigningKeys};
use sqlx::MySqlPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::{Attempt, ErrorClass, Sender};
use crate::deliver::LEASE;
use crate::endpoints::{Endpoint, Endpoints};
use crate::store::DeliveryKey;
use crate::store::deliveries::{AttemptRow, Outcome};
use crate::store::notices::{self, PingResult, PingRow};
use crate::{clock, metrics};

/// How often due pings are looked for.
const INTERVAL: Duration = Duration::from_millis(500);
/// Pings under way, of all and of one partner: they may take as long as an attempt may.
const IN_FLIGHT_MAX: usize = 16;
const PARTNER_IN_FLIGHT_MAX: usize = 2;
/// Due pings read at a time: more than one partner may have open.
const READ_MAX: u32 = 256;
/// How often a result is tried to be written; after that its lease ends, and the ping is sent again.
const WRITES_MAX: u32 = 5;

/// Sends pings.
pub struct Pinger {
    /// For notices and results.
    pub pool: MySqlPool,
    /// Where to.
    pub endpoints: Arc<Endpoints>,
    /// The HTTP client.
    pub sender: Sender,
}

impl Pinger {
    /// Sends until `shutdown`, then ends what is under way.
    pub async fn run(self, shutdown: CancellationToken) {
        let this = Arc::new(self);
        let mut tasks: JoinSet<Uuid> = JoinSet::new();
        let mut held: HashMap<Uuid, usize> = HashMap::new();
        while !shutdown.is_cancelled() {
            if let Err(error) = this.send_due(&mut tasks, &mut held).await {
                tracing::debug!(error = %error, "pings cannot be looked up");
            }
            let pause = tokio::time::sleep(INTERVAL);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = shutdown.cancelled() => break,
                    Some(ended) = tasks.join_next() => release(&mut held, ended.unwrap_or_default()),
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn send_due(
        self: &Arc<Self>,
        tasks: &mut JoinSet<Uuid>,
        held: &mut HashMap<Uuid, usize>,
    ) -> Result<(), sqlx::Error> {
        if tasks.len() >= IN_FLIGHT_MAX {
            return Ok(());
        }
        let now = clock::now();
        let due = notices::due(&self.pool, now, READ_MAX).await?;
        if due.is_empty() {
            return Ok(());
        }
        self.endpoints.renewed().await?;
        for ping in due {
            let holds = held.entry(ping.partner).or_default();
            if tasks.len() >= IN_FLIGHT_MAX || *holds >= PARTNER_IN_FLIGHT_MAX {
                continue;
            }
            let lease_end = clock::after(now, LEASE);
            if notices::claim(&self.pool, ping.key, now, lease_end).await? {
                *holds += 1;
                let this = Arc::clone(self);
                tasks.spawn(async move {
                    let attempts = this.send(&ping).await;
                    this.record(judged(&ping, &attempts, lease_end)).await;
                    ping.partner
                });
            }
        }
        held.retain(|_, holds| *holds > 0);
        Ok(())
    }

    async fn send(&self, ping: &PingRow) -> Vec<Attempt> {
        let snapshot = self.endpoints.snapshot();
        let Some(endpoint) = snapshot.get(ping.key.endpoint) else { return Vec::new() };
        let Some(keys) = keys_of(endpoint, ping) else { return Vec::new() };
        let id = EventId::from_uuid(ping.key.event).to_string();
        let body = notice::webhook_body(NoticeType::Ping, &endpoint.api_version, ping.created_at, &ping.data);
        let body = Bytes::from(body);
        let age_seconds = if ping.flaw == Some(Flaw::OldTimestamp) { Flaw::AGE_SECONDS } else { 0 };
        let times = if ping.flaw == Some(Flaw::Doubled) { 2 } else { 1 };
        let mut attempts = Vec::with_capacity(times);
        for _ in 0..times {
            let attempt = self.sender.attempt_signed(endpoint, &id, body.clone(), &keys, age_seconds).await;
            attempts.push(attempt);
        }
        attempts
    }

    async fn record(&self, result: PingResult) {
        metrics::pinged(result.verdict.as_str());
        for tried in 1..=WRITES_MAX {
            match notices::finish(&self.pool, &result).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(error = %error, "the result of a ping is not recorded yet"),
            }
            tokio::time::sleep(INTERVAL * tried).await;
        }
    }
}

fn release(held: &mut HashMap<Uuid, usize>, partner: Uuid) {
    if let Some(holds) = held.get_mut(&partner) {
        *holds = holds.saturating_sub(1);
    }
}

/// What signs a ping; `None` when the endpoint's secrets, or the one that is asked for, cannot sign.
fn keys_of(endpoint: &Endpoint, ping: &PingRow) -> Option<SigningKeys> {
    let keys = endpoint.keys.as_ref()?;
    if ping.flaw == Some(Flaw::WrongSignature) {
        let ed25519 = keys.ed25519.as_ref().map(|_| SigningKey::from_seed(&rand::random()));
        let current = Secret::from_bytes(&rand::random::<[u8; 32]>()).ok()?;
        return Some(SigningKeys { previous: Vec::new(), current, ed25519 });
    }
    match ping.secret {
        None => Some(keys.clone()),
        Some(wanted) => {
            let (_, secret) = endpoint.secrets.iter().find(|(id, _)| *id == wanted)?;
            Some(SigningKeys::new(secret.clone()))
        }
    }
}

fn judged(ping: &PingRow, attempts: &[Attempt], lease_end: domain::time::Timestamp) -> PingResult {
    let verdicts: Vec<_> = attempts.iter().map(|attempt| Verdict::of(ping.flaw, answered(attempt))).collect();
    let verdict = if verdicts.contains(&Verdict::Failed) {
        Verdict::Failed
    } else if verdicts.is_empty() || verdicts.contains(&Verdict::NoAnswer) {
        Verdict::NoAnswer
    } else {
        Verdict::Passed
    };
    let skew = attempts.iter().find_map(|attempt| attempt.answer?.clock_skew_s);
    PingResult {
        key: ping.key,
        lease_end,
        at: clock::now(),
        verdict,
        clock_skew_s: skew,
        attempts: attempts.iter().zip(1..).map(|(attempt, number)| row(ping.key, number, attempt)).collect(),
    }
}

/// The status, unless the answer broke off: then it says nothing.
fn answered(attempt: &Attempt) -> Option<u16> {
    let broke_off = attempt.class() == Some(ErrorClass::Body);
    attempt.status().filter(|_| !broke_off)
}

fn row(key: DeliveryKey, number: u8, attempt: &Attempt) -> AttemptRow {
    let failure = attempt.failure.as_ref();
    AttemptRow {
        key,
        attempt: number,
        started_at: attempt.started_at,
        duration_us: u32::try_from(attempt.duration.as_micros()).unwrap_or(u32::MAX),
        status_code: attempt.status(),
        error_class: attempt.class().map(ErrorClass::as_str),
        excerpt: failure.and_then(|failure| failure.excerpt.clone()),
        refused_by: failure.and_then(|failure| failure.refused_by).map(Refusal::as_str),
        // Pings are no deliveries of events: nobody counts them.
        outcome: if failure.is_none() { Outcome::Received } else { Outcome::GivenUp },
    }
}
