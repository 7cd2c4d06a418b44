//! Retries: finds what is due in MySQL, takes leases on as much as there is room for, and hands it to the lanes.
//!
//! Endpoint by endpoint and bounded by each one's room, so that one with a huge backlog delays nobody. When each is
//! due next is known from our own results; what others left (their results, expired leases, a resend) is found by a
//! look at all endpoints, which takes at most a small share of the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::event::EventRecord;
use domain::ids::EventId;
use domain::time::Timestamp;
use sqlx::MySqlPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::ErrorClass;
use crate::deliver::{Deliverer, Job, LEASE, Origin};
use crate::dispatch::kibibytes;
use crate::due::DueBoard;
use crate::endpoints::{Endpoints, Snapshot};
use crate::store::claims::{self, Claim};
use crate::{clock, metrics};

/// How often all endpoints are looked at, at most.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);
/// A look takes at most one part in so many of the time.
const DISCOVERY_SHARE: u32 = 20;
/// How soon an endpoint without room, and everything after an error, is looked at again.
const BLOCKED_WAIT: Duration = Duration::from_millis(25);
const ERROR_WAIT: Duration = Duration::from_secs(1);
/// The longest pause, whatever is due.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Endpoints and deliveries of one claim.
const ENDPOINTS_MAX: usize = 64;
const CLAIMS_MAX: usize = 512;

/// Claims due deliveries.
pub struct Claimer {
    /// For claims and events.
    pub pool: MySqlPool,
    /// This process.
    pub owner: Uuid,
    /// What is due.
    pub due: Arc<DueBoard>,
    /// Whom it goes to.
    pub endpoints: Arc<Endpoints>,
    /// Who sends.
    pub deliverer: Arc<Deliverer>,
    /// Memory for claimed deliveries, in KiB.
    pub memory: Arc<Semaphore>,
}

/// How a round went.
enum Round {
    /// There may be more at once.
    More,
    /// Nothing more until something is due or said.
    Done,
    /// Something is due that has no room.
    Blocked,
}

impl Claimer {
    /// Claims until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut discover_at = Instant::now();
        while !shutdown.is_cancelled() {
            let mut wait = Duration::ZERO;
            if discover_at <= Instant::now() {
                let started = Instant::now();
                if let Err(error) = self.discover().await {
                    tracing::warn!(error = %error, "due deliveries cannot be looked up");
                    wait = ERROR_WAIT;
                }
                discover_at = Instant::now() + DISCOVERY_INTERVAL.max(started.elapsed() * DISCOVERY_SHARE);
            }
            match self.round().await {
                Ok(Round::More) => continue,
                Ok(Round::Done) => wait = wait.max(self.until_due(discover_at)),
                Ok(Round::Blocked) => wait = wait.max(BLOCKED_WAIT),
                Err(error) => {
                    tracing::warn!(error = %error, "due deliveries cannot be claimed");
                    discover_at = Instant::now();
                    wait = ERROR_WAIT;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.due.added(), if wait > BLOCKED_WAIT && wait < ERROR_WAIT => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Learns from MySQL when each endpoint is due next.
    async fn discover(&self) -> Result<(), sqlx::Error> {
        let snapshot = self.endpoints.snapshot();
        let open: Vec<Uuid> =
            snapshot.all().filter(|endpoint| endpoint.is_open()).map(|endpoint| endpoint.id).collect();
        let now = clock::now();
        let (mut overdue_us, mut due) = (0, 0_u32);
        for (endpoint, at) in claims::next_due(&self.pool, &open).await? {
            overdue_us = overdue_us.max(now.micros().saturating_sub(at.micros()));
            due += u32::from(at <= now);
            self.due.add(endpoint, at);
        }
        metrics::set("wired_notifier_overdue_seconds", overdue_us as f64 / 1e6);
        metrics::set("wired_notifier_due_endpoints", f64::from(due));
        let lanes = self.deliverer.lanes();
        metrics::census(lanes.census());
        drop(lanes);
        self.deliverer.lanes().retain(|endpoint| snapshot.get(endpoint).is_some());
        Ok(())
    }

    fn until_due(&self, discover_at: Instant) -> Duration {
        let discovery = discover_at.saturating_duration_since(Instant::now());
        let due = self.due.next().map_or(IDLE_WAIT, |at| {
            Duration::from_micros(at.micros().saturating_sub(clock::now().micros()).max(0).unsigned_abs())
        });
        // A millisecond at least: what is due was just looked at.
        due.min(discovery).clamp(Duration::from_millis(1), IDLE_WAIT)
    }

    /// One claim for the endpoints that are due and have room.
    async fn round(&self) -> Result<Round, sqlx::Error> {
        let now = clock::now();
        let snapshot = self.endpoints.snapshot();
        let mut wanted = Vec::new();
        let (mut blocked, mut left) = (false, CLAIMS_MAX);
        for (endpoint, at) in self.due.take_due(now) {
            // Of a closed or removed endpoint nothing is claimed; the discovery finds it again when it is open.
            if !snapshot.get(endpoint).is_some_and(|endpoint| endpoint.is_open()) {
                continue;
            }
            let room = self.deliverer.lanes().room(endpoint, Instant::now()).min(left);
            if room == 0 || wanted.len() == ENDPOINTS_MAX {
                blocked = true;
                self.due.add(endpoint, at);
            } else {
                left -= room;
                wanted.push((endpoint, room));
            }
        }
        if wanted.is_empty() {
            return Ok(if blocked { Round::Blocked } else { Round::Done });
        }
        let lease_end = clock::after(now, LEASE);
        let claims = claims::claim(&self.pool, &wanted, now, self.owner, lease_end).await?;
        let mut claimed: HashMap<Uuid, usize> = HashMap::new();
        for claim in &claims {
            *claimed.entry(claim.key.endpoint).or_default() += 1;
        }
        for (endpoint, limit) in wanted {
            if claimed.get(&endpoint) == Some(&limit) {
                // There may be more.
                self.due.add(endpoint, now);
            }
        }
        if claims.is_empty() {
            return Ok(Round::Done);
        }
        let events = claims::events(&self.pool, &claims).await?;
        self.hand_over(&claims, &events, &snapshot, lease_end);
        Ok(Round::More)
    }

    fn hand_over(
        &self,
        claims: &[Claim],
        events: &HashMap<Uuid, EventRecord>,
        snapshot: &Snapshot,
        lease_end: Timestamp,
    ) {
        let mut jobs: HashMap<Uuid, Vec<Job>> = HashMap::new();
        for claim in claims {
            let Some(endpoint) = snapshot.get(claim.key.endpoint) else { continue };
            let event = events.get(&claim.key.event);
            let body =
                event.map(|event| Bytes::from(event.webhook_body(&endpoint.api_version))).unwrap_or_default();
            let mut job = Job {
                endpoint: Arc::clone(endpoint),
                event: EventId::from_uuid(claim.key.event),
                partner: claim.partner,
                order: None,
                decided_at: event.map_or_else(clock::now, |event| event.timestamp),
                origin: Origin::Retry { attempts: claim.attempts, lease_end },
                since: Instant::now(),
                permit: None,
                body,
            };
            if event.is_none() {
                tracing::error!(endpoint.id = %claim.key.endpoint, event.id = %claim.key.event, "event of a delivery is not stored");
                self.deliverer.give_up(&job, ErrorClass::EventMissing);
                continue;
            }
            job.permit = Arc::clone(&self.memory).try_acquire_many_owned(kibibytes(job.body.len())).ok();
            if job.permit.is_none() {
                self.deliverer.release(job);
                continue;
            }
            jobs.entry(claim.key.endpoint).or_default().push(job);
        }
        for (endpoint, jobs) in jobs {
            self.deliverer.retry(endpoint, jobs);
        }
    }
}
