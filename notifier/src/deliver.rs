//! Runs deliveries: admits them to their lanes, makes the attempts and hands the results to the recorder.
//!
//! A first try that is not finished after [`PARK_AFTER`] is recorded as leased by this process, so that the
//! watermark moves on; its result follows as an update. Each running delivery is one task, which takes the next of
//! its lane when it is done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::endpoint_url::Refusal;
use domain::ids::EventId;
use domain::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::attempt::{ATTEMPT_TIMEOUT, Attempt, ErrorClass, Sender};
use crate::endpoints::{Endpoint, Endpoints};
use crate::lanes::{Admission, End, Lanes, Limits, Next, Queued};
use crate::recorder::{AttemptResult, Record, Standing};
use crate::store::DeliveryKey;
use crate::{clock, metrics, schedule};

/// A first try unfinished, or not even started, after this is stored, so that the watermark moves on.
pub const PARK_AFTER: Duration = Duration::from_secs(1);
/// How long a lease lasts: an attempt and a wide margin for writing its result.
pub const LEASE: Duration = Duration::from_secs(45);
/// A claimed retry is only started while its lease covers an attempt and this.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How soon a retry that found no room is due again.
const RELEASE_WAIT: Duration = Duration::from_secs(1);
/// How often waiting first tries are looked through for old ones.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// An event on its way to one endpoint.
#[derive(Debug)]
pub struct Job {
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// Which event or notice.
    pub event: EventId,
    /// Whose.
    pub partner: Uuid,
    /// The bytes to sign and send.
    pub body: Bytes,
    /// The root payment, for the order of its events.
    pub order: Option<Uuid>,
    /// When the event was decided.
    pub decided_at: Timestamp,
    /// First try or retry.
    pub origin: Origin,
    /// Since when it is here.
    pub since: Instant,
    /// The memory it holds.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Where a job came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the topic; nothing is recorded yet.
    First,
    /// From MySQL, under a lease.
    Retry {
        /// Attempts since it was last asked for.
        made: u8,
        /// Until when it is ours.
        lease_end: Timestamp,
    },
}

impl Job {
    fn key(&self) -> DeliveryKey {
        DeliveryKey { endpoint: self.endpoint.id, event: self.event.uuid() }
    }

    fn record(&self, standing: Standing, attempt: Option<AttemptResult>, first: bool) -> Record {
        Record {
            key: self.key(),
            partner: self.partner,
            at: clock::now(),
            standing,
            attempt,
            first,
            permit: None,
        }
    }
}

impl Queued for Job {
    fn order(&self) -> Option<Uuid> {
        self.order.filter(|_| matches!(self.origin, Origin::First | Origin::Retry { made: 0, .. }))
    }

    fn is_first(&self) -> bool {
        self.origin == Origin::First
    }

    fn since(&self) -> Instant {
        self.since
    }
}

/// Runs deliveries.
pub struct Deliverer {
    sender: Sender,
    endpoints: Arc<Endpoints>,
    lanes: Mutex<Lanes<Job>>,
    records: mpsc::UnboundedSender<Record>,
    tasks: TaskTracker,
}

impl Deliverer {
    /// Nothing under way yet.
    pub fn new(
        sender: Sender,
        endpoints: Arc<Endpoints>,
        limits: Limits,
        records: mpsc::UnboundedSender<Record>,
    ) -> Self {
        Self { sender, endpoints, lanes: Mutex::new(Lanes::new(limits)), records, tasks: TaskTracker::new() }
    }

    /// The lanes, for a moment.
    pub fn lanes(&self) -> MutexGuard<'_, Lanes<Job>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A first try: starts, waits or goes to MySQL.
    pub fn deliver(self: &Arc<Self>, job: Job) {
        if !job.endpoint.is_open() {
            return self.spill(job, RELEASE_WAIT);
        }
        let admission = self.lanes().admit(job.endpoint.terms(), job, Instant::now());
        match admission {
            Admission::Start(job) => self.start(job),
            Admission::Waits => {}
            Admission::Spill(job, wait) => self.spill(job, wait),
        }
    }

    /// Claimed retries of one endpoint.
    pub fn retry(self: &Arc<Self>, endpoint: &Endpoint, jobs: Vec<Job>) {
        let next = self.lanes().admit_retries(endpoint.terms(), jobs, Instant::now());
        self.go_on(next);
    }

    /// A claimed retry that cannot be held now is due again soon.
    pub fn release(&self, job: Job) {
        self.spill(job, RELEASE_WAIT);
    }

    /// A delivery that can never be made.
    pub fn give_up(&self, job: &Job, class: ErrorClass) {
        let attempt = Attempt::unmade(class);
        metrics::attempted(&attempt);
        self.send(job.record(Standing::Dead, Some(result_of(attempt)), false));
    }

    /// Stores waiting first tries that have become old, until `shutdown`.
    pub async fn sweep(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
                () = shutdown.cancelled() => {}
            }
            let Some(before) = Instant::now().checked_sub(PARK_AFTER) else { continue };
            let expired = self.lanes().expire(before);
            for job in expired {
                self.spill(job, Duration::ZERO);
            }
        }
    }

    /// Stores what waits and waits for what is under way, up to `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let waiting = self.lanes().drain();
        for job in waiting {
            self.spill(job, Duration::ZERO);
        }
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::info!(deliveries = self.tasks.len(), "attempts under way are left to their leases");
        }
    }

    fn start(self: &Arc<Self>, job: Job) {
        let deliverer = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut current = Some(job);
            while let Some(job) = current.take() {
                let mut next = deliverer.run(job).await;
                // This task goes on with one; most often there is none or one.
                current = next.start.pop();
                deliverer.go_on(next);
            }
        });
    }

    fn go_on(self: &Arc<Self>, next: Next<Job>) {
        let wait = next.wait;
        for job in next.spill {
            self.spill(job, wait);
        }
        for job in next.start {
            self.start(job);
        }
    }

    /// Stores a delivery without an attempt, due after `wait`.
    fn spill(&self, job: Job, wait: Duration) {
        metrics::add("wired_notifier_spilled_total", 1);
        let wait = if job.is_first() { wait } else { wait.max(RELEASE_WAIT) };
        let due = clock::after(clock::now(), wait);
        let record = Record {
            permit: job.permit,
            ..job_record(&job.endpoint, job.event, job.partner, due, job.origin)
        };
        self.send(record);
    }

    /// One attempt with everything around it.
    async fn run(&self, mut job: Job) -> Next<Job> {
        // It may have waited: what holds now is the endpoint as it is now.
        if let Some(fresh) = self.endpoints.snapshot().get(job.endpoint.id) {
            job.endpoint = Arc::clone(fresh);
        }
        let endpoint = Arc::clone(&job.endpoint);
        let order = job.order();
        if let Origin::Retry { lease_end, .. } = job.origin
            && clock::after(clock::now(), ATTEMPT_TIMEOUT + LEASE_MARGIN) > lease_end
        {
            // It waited too long for its turn; somebody may claim it when the lease ends.
            return self.lanes().cancel(endpoint.id, order, Instant::now());
        }
        if !endpoint.is_open() {
            self.spill(job, RELEASE_WAIT);
            return self.lanes().cancel(endpoint.id, order, Instant::now());
        }
        let id = job.event.to_string();
        let mut attempt = std::pin::pin!(self.sender.attempt(&endpoint, &id, job.body.clone()));
        let quick = tokio::time::timeout(PARK_AFTER, attempt.as_mut()).await;
        let was_slow = quick.is_err();
        let ended = if let Ok(ended) = quick {
            ended
        } else {
            self.park(&mut job);
            attempt.await
        };
        metrics::attempted(&ended);
        self.finish(job, ended, was_slow)
    }

    /// The attempt takes long: its endpoint is slow, and a first try is stored as leased.
    fn park(&self, job: &mut Job) {
        let next = self.lanes().slow(job.endpoint.id);
        let wait = next.wait;
        for job in next.spill {
            self.spill(job, wait);
        }
        if job.is_first() {
            metrics::add("wired_notifier_leased_total", 1);
            let lease_end = clock::after(clock::now(), LEASE);
            let mut record = job.record(Standing::Leased(lease_end), None, true);
            record.permit = job.permit.take();
            self.send(record);
        }
    }

    fn finish(&self, mut job: Job, attempt: Attempt, was_slow: bool) -> Next<Job> {
        let first = job.is_first() && !was_slow;
        let made = match job.origin {
            Origin::First => 1,
            Origin::Retry { made, .. } => made.saturating_add(1),
        };
        let (succeeded, took) = (attempt.failure.is_none(), attempt.duration);
        if succeeded && job.is_first() {
            let latency_us = clock::now().micros().saturating_sub(job.decided_at.micros()).max(0);
            metrics::record("wired_notifier_delivery_latency_seconds", latency_us as f64 / 1e6);
        }
        let standing = standing_after(made, &attempt);
        let order = job.order();
        let permit = job.permit.take();
        let mut record = job.record(standing, Some(result_of(attempt)), first);
        record.permit = permit;
        self.send(record);
        let end = End { succeeded, was_slow, took };
        self.lanes().finish(job.endpoint.id, order, end, Instant::now())
    }

    fn send(&self, record: Record) {
        // The recorder outlives all senders; without it the process is ending, and what is not recorded comes again.
        let _ = self.records.send(record);
    }
}

fn job_record(endpoint: &Endpoint, event: EventId, partner: Uuid, due: Timestamp, origin: Origin) -> Record {
    Record {
        key: DeliveryKey { endpoint: endpoint.id, event: event.uuid() },
        partner,
        at: clock::now(),
        standing: Standing::Due(due),
        attempt: None,
        first: origin == Origin::First,
        permit: None,
    }
}

/// Where a delivery stands after its `made`-th attempt.
fn standing_after(made: u8, attempt: &Attempt) -> Standing {
    let Some(failure) = &attempt.failure else { return Standing::Delivered };
    if failure.class.is_ours() {
        return Standing::Dead;
    }
    match schedule::wait_after(made, rand::random(), failure.retry_after) {
        Some(wait) => Standing::Due(clock::after(clock::now(), wait)),
        None => Standing::Dead,
    }
}

fn result_of(attempt: Attempt) -> AttemptResult {
    let (class, status) = (attempt.class(), attempt.status());
    let succeeded = attempt.failure.is_none();
    let (excerpt, refused_by) =
        attempt.failure.map_or((None, None), |failure| (failure.excerpt, failure.refused_by));
    AttemptResult {
        started_at: attempt.started_at,
        duration_us: u32::try_from(attempt.duration.as_micros()).unwrap_or(u32::MAX),
        status_code: status,
        succeeded,
        error_class: class.map(ErrorClass::as_str),
        excerpt,
        refused_by: refused_by.map(Refusal::as_str),
        gone: status == Some(410),
        ours: class.is_some_and(ErrorClass::is_ours),
    }
}
