//! Fans events out: which endpoints get them, which deliveries are done or under way already, and the rest to the
//! lanes. One task, so that only here first tries begin.
//!
//! Per batch one round trip to MySQL: what is recorded, and whether there are new or changed endpoints. While MySQL is away
//! nothing new is sent, since nothing could be known or recorded of it; it is asked again with growing pauses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::event::EventRecord;
use domain::time::Timestamp;
use runtime::health::Component;
use sqlx::MySqlPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::deliver::{Deliverer, Job, Origin};
use crate::endpoints::{Endpoint, Endpoints, Snapshot};
use crate::in_progress::InProgress;
use crate::metrics;
use crate::progress::{Progress, Ticket};
use crate::store::{DeliveryKey, deliveries};

/// Waits between tries while MySQL is away.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// An endpoint gets no events from before its creation; the clocks that stamped the two may differ by so much.
const CLOCK_SKEW_MICROS: i64 = 5 * 60 * 1_000_000;

/// An event and the offset that waits for it.
#[derive(Debug)]
pub struct Consumed {
    /// Holds its offset.
    pub ticket: Ticket,
    /// The event.
    pub event: EventRecord,
    /// The root payment it is about.
    pub order: Option<Uuid>,
}

/// Fans out.
pub struct Dispatcher {
    /// For the look-up of deliveries.
    pub pool: MySqlPool,
    /// Who gets what.
    pub endpoints: Arc<Endpoints>,
    /// Offsets.
    pub progress: Arc<Progress>,
    /// First tries under way.
    pub in_progress: Arc<InProgress>,
    /// Who sends.
    pub deliverer: Arc<Deliverer>,
    /// Memory for unrecorded first tries, in KiB.
    pub memory: Arc<Semaphore>,
    /// MySQL as seen from here.
    pub health: Component,
}

/// One event to one endpoint, before it is known whether it is to be sent.
struct Candidate {
    /// Index of the event in the batch.
    event: usize,
    endpoint: Arc<Endpoint>,
}

impl Dispatcher {
    /// Fans out batches until the consumer ends or `shutdown`.
    pub async fn run(self, mut batches: mpsc::Receiver<Vec<Consumed>>, shutdown: CancellationToken) {
        // With no event to deliver nothing else would tell that MySQL answers, and the process would never be ready.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = self.refresh() => {}
        }
        loop {
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { return };
            metrics::add("wired_notifier_events_total", batch.len());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.dispatch(batch) => {}
            }
        }
    }

    async fn dispatch(&self, mut batch: Vec<Consumed>) {
        // What was taken away meanwhile is another process's work.
        batch.retain(|consumed| self.progress.is_current(consumed.ticket));
        let mut snapshot = self.endpoints.snapshot();
        let mut candidates = fan_out(&batch, &snapshot);
        self.join_running(&batch, &mut candidates);
        let recorded = loop {
            let keys = keys_of(&batch, &candidates);
            let (recorded, recent) = self.recorded(&keys, &snapshot).await;
            if snapshot.knows(&recent) {
                break recorded;
            }
            self.refresh().await;
            snapshot = self.endpoints.snapshot();
            candidates.retain_mut(|candidate| renew(&batch, candidate, &snapshot));
            // Joining twice would hold the offset twice for one delivery, so only what is new is added.
            let known: HashSet<DeliveryKey> = keys.into_iter().collect();
            for candidate in fan_out(&batch, &snapshot) {
                if !known.contains(&key_of(&batch, &candidate)) && !self.is_joined(&batch, &candidate) {
                    candidates.push(candidate);
                }
            }
        };
        self.start(&batch, candidates, &recorded).await;
        for consumed in &batch {
            self.progress.release(consumed.ticket);
        }
    }

    /// Events that are under way already join their first try.
    fn join_running(&self, batch: &[Consumed], candidates: &mut Vec<Candidate>) {
        let before = candidates.len();
        candidates.retain(|candidate| !self.is_joined(batch, candidate));
        metrics::add("wired_notifier_duplicates_total", before - candidates.len());
    }

    fn is_joined(&self, batch: &[Consumed], candidate: &Candidate) -> bool {
        let ticket = batch.get(candidate.event).map(|consumed| consumed.ticket);
        ticket.is_some_and(|ticket| self.in_progress.join(key_of(batch, candidate), ticket))
    }

    async fn start(&self, batch: &[Consumed], candidates: Vec<Candidate>, recorded: &HashSet<DeliveryKey>) {
        let mut begun = HashSet::with_capacity(candidates.len());
        let mut bodies: HashMap<(usize, String), Bytes> = HashMap::new();
        for candidate in candidates {
            let Some(consumed) = batch.get(candidate.event) else { continue };
            let key = key_of(batch, &candidate);
            if recorded.contains(&key) {
                metrics::add("wired_notifier_duplicates_total", 1);
                continue;
            }
            if !begun.insert(key) {
                // Twice in one batch: whichever of the two states the first has reached, one of these knows it.
                self.in_progress.join(key, consumed.ticket);
                continue;
            }
            let endpoint = candidate.endpoint;
            let body = bodies
                .entry((candidate.event, endpoint.api_version.clone()))
                .or_insert_with(|| Bytes::from(consumed.event.webhook_body(&endpoint.api_version)))
                .clone();
            let permit = self.reserve(body.len()).await;
            self.in_progress.begin(key, consumed.ticket);
            self.deliverer.deliver(Job {
                endpoint,
                event: consumed.event.id,
                partner: consumed.event.partner.uuid(),
                body,
                order: consumed.order,
                decided_at: consumed.event.timestamp,
                origin: Origin::First,
                since: Instant::now(),
                permit,
            });
        }
    }

    /// Waits until there is memory for one more unrecorded delivery: the back-pressure on the topic.
    async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let memory = Arc::clone(&self.memory);
        memory.acquire_many_owned(kibibytes(bytes)).await.ok()
    }

    async fn recorded(
        &self,
        keys: &[DeliveryKey],
        snapshot: &Snapshot,
    ) -> (HashSet<DeliveryKey>, Vec<(Uuid, Timestamp)>) {
        self.insistently(|| deliveries::recorded(&self.pool, keys, snapshot.newest())).await
    }

    async fn refresh(&self) {
        self.insistently(|| self.endpoints.refresh()).await;
    }

    /// Tries until MySQL answers; the caller is dropped at shutdown.
    async fn insistently<T, F: Future<Output = Result<T, sqlx::Error>>>(&self, ask: impl Fn() -> F) -> T {
        let mut backoff = BACKOFF_MIN;
        loop {
            match ask().await {
                Ok(answer) => {
                    self.health.up();
                    return answer;
                }
                Err(error) => self.health.down(format!("deliveries cannot be looked up: {error}")),
            }
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// What a delivery holds in memory: its body and what goes with it.
pub(crate) fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(2)
}

fn fan_out(batch: &[Consumed], snapshot: &Snapshot) -> Vec<Candidate> {
    let mut candidates = Vec::with_capacity(batch.len());
    for (event, consumed) in batch.iter().enumerate() {
        let endpoints = snapshot.of_partner(consumed.event.partner.uuid()).iter();
        let wanting = endpoints.filter(|endpoint| is_wanted(&consumed.event, endpoint));
        candidates.extend(wanting.map(|endpoint| Candidate { event, endpoint: Arc::clone(endpoint) }));
    }
    candidates
}

/// Takes the endpoint as it is now; `false` when it does not want the event any more.
fn renew(batch: &[Consumed], candidate: &mut Candidate, snapshot: &Snapshot) -> bool {
    let Some(consumed) = batch.get(candidate.event) else { return false };
    let Some(endpoint) = snapshot.get(candidate.endpoint.id) else { return false };
    candidate.endpoint = Arc::clone(endpoint);
    is_wanted(&consumed.event, endpoint)
}

fn key_of(batch: &[Consumed], candidate: &Candidate) -> DeliveryKey {
    let event = batch.get(candidate.event).map_or(Uuid::nil(), |consumed| consumed.event.id.uuid());
    DeliveryKey { endpoint: candidate.endpoint.id, event }
}

fn keys_of(batch: &[Consumed], candidates: &[Candidate]) -> Vec<DeliveryKey> {
    candidates.iter().map(|candidate| key_of(batch, candidate)).collect()
}

/// Whether the endpoint is to get the event. It is not told the past: a replay is for that.
pub(crate) fn is_wanted(event: &EventRecord, endpoint: &Endpoint) -> bool {
    let created_at = endpoint.created_at.plus_micros(-CLOCK_SKEW_MICROS);
    endpoint.wants(event.event_type) && event.timestamp >= created_at
}
