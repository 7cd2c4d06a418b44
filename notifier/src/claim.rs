//! Retries: finds what is due in MySQL, takes leases on as much as there is room for, and hands it to the lanes.
//!
//! Endpoint by endpoint and bounded by each one's room, so that one with a huge backlog delays nobody; of a round's
//! claims each endpoint has an even share, and partners take turns with their endpoints. When each is due next is
//! known from our own results; what others left (their results, expired leases, a notice, a replay) is found by a look
//! at all endpoints, which takes at most a small share of the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::ids::EventId;
use domain::time::Timestamp;
use sqlx::MySqlPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::ErrorClass;
use crate::consumer::order_of;
use crate::deliver::{Deliverer, Job, LEASE, Origin};
use crate::dispatch::kibibytes;
use crate::due::DueBoard;
use crate::endpoints::{Endpoints, Snapshot};
use crate::store::DeliveryKey;
use crate::store::claims::{self, Claim, NoticeRow};
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
}

/// What is sent for a claim.
struct Content {
    body: Bytes,
    order: Option<Uuid>,
    at: Timestamp,
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
                Err(error) => {
                    tracing::warn!(error = %error, "due deliveries cannot be claimed");
                    discover_at = Instant::now();
                    wait = ERROR_WAIT;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.due.added(), if wait < ERROR_WAIT => {}
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
        let wanted = self.select(now, &self.endpoints.snapshot());
        if wanted.is_empty() {
            return Ok(Round::Done);
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
                self.due.put_back(endpoint, now);
            }
        }
        if claims.is_empty() {
            return Ok(Round::Done);
        }
        let snapshot = self.endpoints.renewed().await?;
        let contents = self.contents(&claims, &snapshot).await?;
        self.hand_over(&claims, contents, &snapshot, lease_end);
        Ok(Round::More)
    }

    /// Which endpoints to claim for, and how many of each: first one of each partner, the one that has been due for
    /// longest, then the second of each, and so on.
    fn select(&self, now: Timestamp, snapshot: &Snapshot) -> Vec<(Uuid, usize)> {
        let mut due = self.due.take_due(now);
        due.sort_unstable_by_key(|(_, at)| *at);
        let mut ranks: HashMap<Uuid, usize> = HashMap::new();
        // Of a closed or removed endpoint nothing is claimed; the discovery finds it again when it is open.
        let open = due.into_iter().filter_map(|(endpoint, at)| {
            let endpoint = snapshot.get(endpoint).filter(|endpoint| endpoint.is_open())?;
            let rank = ranks.entry(endpoint.partner).or_default();
            *rank += 1;
            Some((*rank, at, endpoint))
        });
        let mut open: Vec<_> = open.collect();
        open.sort_unstable_by_key(|(rank, at, _)| (*rank, *at));
        let quota = (CLAIMS_MAX / open.len().clamp(1, ENDPOINTS_MAX)).max(1);
        let mut wanted = Vec::new();
        for (_, at, endpoint) in open {
            if wanted.len() == ENDPOINTS_MAX {
                self.due.put_back(endpoint.id, at);
                continue;
            }
            let room = self.deliverer.lanes().room(endpoint.terms(), Instant::now());
            match room {
                Ok(room) => wanted.push((endpoint.id, room.get().min(quota))),
                Err(wait) => self.due.put_back(endpoint.id, clock::after(now, wait.max(BLOCKED_WAIT))),
            }
        }
        wanted
    }

    /// What the claims are about; what is not stored any more is not in it.
    async fn contents(
        &self,
        claims: &[Claim],
        snapshot: &Snapshot,
    ) -> Result<HashMap<DeliveryKey, Content>, sqlx::Error> {
        let events = claims::events(&self.pool, claims).await?;
        let others: Vec<_> =
            claims.iter().map(|claim| claim.key).filter(|key| !events.contains_key(&key.event)).collect();
        let notices = claims::notices(&self.pool, &others).await?;
        let mut contents = HashMap::with_capacity(claims.len());
        for key in claims.iter().map(|claim| claim.key) {
            let Some(endpoint) = snapshot.get(key.endpoint) else { continue };
            let version = &endpoint.api_version;
            let content = if let Some(event) = events.get(&key.event) {
                let body = event.webhook_body(version);
                Content { body: body.into(), order: order_of(event), at: event.timestamp }
            } else if let Some(NoticeRow { notice_type, created_at, data }) = notices.get(&key) {
                let body = domain::notice::webhook_body(*notice_type, version, *created_at, data);
                Content { body: body.into(), order: None, at: *created_at }
            } else {
                continue;
            };
            contents.insert(key, content);
        }
        Ok(contents)
    }

    fn hand_over(
        &self,
        claims: &[Claim],
        mut contents: HashMap<DeliveryKey, Content>,
        snapshot: &Snapshot,
        lease_end: Timestamp,
    ) {
        let mut jobs: HashMap<Uuid, Vec<Job>> = HashMap::new();
        for claim in claims {
            let Some(endpoint) = snapshot.get(claim.key.endpoint) else { continue };
            let content = contents.remove(&claim.key);
            let is_stored = content.is_some();
            let Content { body, order, at } =
                content.unwrap_or_else(|| Content { body: Bytes::new(), order: None, at: clock::now() });
            let mut job = Job {
                endpoint: Arc::clone(endpoint),
                event: EventId::from_uuid(claim.key.event),
                partner: claim.partner,
                order,
                decided_at: at,
                origin: Origin::Retry { made: claim.made, lease_end },
                since: Instant::now(),
                permit: None,
                body,
            };
            if !is_stored {
                tracing::error!(endpoint.id = %claim.key.endpoint, event.id = %claim.key.event, "what a delivery is about is not stored");
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
            if let Some(endpoint) = snapshot.get(endpoint) {
                self.deliverer.retry(endpoint, jobs);
            }
        }
    }
}
