//! What became of payments: one task asks MySQL for all requests of a moment in one statement.
//!
//! It serves idempotent replays, status reads and waiting requests (`Prefer: wait`). The next statement goes out
//! when the previous one is back, so batches form by themselves under load and a request alone waits for nobody.
//! Waiters are asked for again after 2 ms at first and 20 ms later; while there are few and they are young, as soon as
//! the answer is back, since a payment alone is decided in a few milliseconds and a timer would add two to them.
//!
//! MySQL may be away: the first failure answers everybody "unavailable", and until a probe succeeds again nobody
//! asks at all. Nothing that moves money depends on these answers; the processor decides.
//!
//! One connection of its own, no transaction, no lock. The once-a-second reading of positions keeps it alive,
//! notices a lost one and feeds [`Lag`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::ids::PaymentId;
use runtime::config::MysqlConfig;
use runtime::health::Component;
use sqlx::MySqlConnection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::lag::Lag;
use crate::metrics;
use crate::store::payments::{self as store, Query, Snapshot, Stored};

/// Requests that may stand in line; more are answered "unavailable", which costs them nothing but the answer.
const QUEUE_MAX: usize = 4_096;
/// From so many ids on a statement takes no further request along: a few milliseconds of MySQL.
const BATCH_MAX: usize = 500;
/// A statement that takes longer has met a server that hangs.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Also bounds how long a lost MySQL is asked for in vain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts to reach a lost MySQL.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Between two readings of the positions.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_LAST: Duration = Duration::from_millis(20);
/// So few waiters may keep the statement going round without a pause; more would take MySQL from the processor.
const EAGER_WAITERS_MAX: usize = 4;
/// And no longer than this: what is not decided by then stands behind others.
const EAGER_MAX: Duration = Duration::from_millis(20);
/// Waiters due this soon go along, so that their statements fall together.
const POLL_SLACK: Duration = Duration::from_millis(1);

/// What is known of a payment.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Decided.
    Decided(Arc<Stored>),
    /// Under review; the request, when its record could be read.
    UnderReview(Option<Arc<Stored>>),
    /// Not there, and whether its record is applied, if that was asked for.
    Absent {
        /// Whether the position given by the token lies below the applied one.
        applied: Option<bool>,
    },
}

/// MySQL did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("MySQL is away or too slow")]
pub struct Unavailable;

struct Ask {
    id: PaymentId,
    /// Further ids of the same request: those of a batch.
    more: Vec<PaymentId>,
    /// The record's partition and offset.
    record: Option<(u16, u64)>,
    /// Until when to ask again.
    until: Option<Instant>,
    /// Whether a payment under review must be found even if it went there a moment ago.
    sure: bool,
    asked_at: Instant,
    due: Instant,
    reply: Reply,
}

/// Whom to answer.
enum Reply {
    /// With what is known of the one id.
    One(oneshot::Sender<Result<Seen, Unavailable>>),
    /// With what is known of each id.
    All(oneshot::Sender<Result<Vec<Seen>, Unavailable>>),
}

impl Reply {
    fn is_closed(&self) -> bool {
        match self {
            Self::One(reply) => reply.is_closed(),
            Self::All(reply) => reply.is_closed(),
        }
    }

    /// Whether the client is gone does not matter.
    fn unavailable(self) {
        match self {
            Self::One(reply) => drop(reply.send(Err(Unavailable))),
            Self::All(reply) => drop(reply.send(Err(Unavailable))),
        }
    }
}

/// The way to ask.
#[derive(Clone)]
pub struct Lookup {
    asks: mpsc::Sender<Ask>,
    is_up: Arc<AtomicBool>,
}

impl Lookup {
    /// Makes the handle and the task, which is to be spawned.
    pub fn new(mysql: MysqlConfig, lag: Arc<Lag>, health: Component) -> (Self, Task) {
        let (asks, receiver) = mpsc::channel(QUEUE_MAX);
        let is_up = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let task = Task {
            mysql,
            lag,
            health,
            asks: receiver,
            is_up: is_up.clone(),
            waiting: Vec::new(),
            connection: None,
            probe_at: now,
            sample_at: now,
            any_dead_letter: true,
        };
        (Self { asks, is_up }, task)
    }

    /// Whether MySQL answered last time.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Whether the id was used, as far as MySQL tells within `budget`. A payment that went under review in the last
    /// second may be missed; producing it again harms nothing.
    pub async fn used(&self, id: PaymentId, budget: Duration) -> Result<Seen, Unavailable> {
        Self::within(self.ask(id, None, None, false)?, budget).await
    }

    /// What is known now, within `budget`.
    pub async fn once(
        &self,
        id: PaymentId,
        record: Option<(u16, u64)>,
        budget: Duration,
    ) -> Result<Seen, Unavailable> {
        Self::within(self.ask(id, record, None, true)?, budget).await
    }

    /// As [`Self::used`], for all ids of a batch in one look-up: what is known of each, in their order.
    pub async fn used_all(&self, ids: Vec<PaymentId>, budget: Duration) -> Result<Vec<Seen>, Unavailable> {
        let mut ids = ids.into_iter();
        let Some(id) = ids.next() else { return Ok(Vec::new()) };
        let (reply, receiver) = oneshot::channel();
        self.enqueue(Ask { more: ids.collect(), ..Ask::now(id, Reply::All(reply)) })?;
        Self::within(receiver, budget).await
    }

    async fn within<T>(
        reply: oneshot::Receiver<Result<T, Unavailable>>,
        budget: Duration,
    ) -> Result<T, Unavailable> {
        match tokio::time::timeout(budget, reply).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// What is known once the payment is decided or under review, or at `until`.
    pub async fn wait(&self, id: PaymentId, record: (u16, u64), until: Instant) -> Result<Seen, Unavailable> {
        self.ask(id, Some(record), Some(until), false)?.await.unwrap_or(Err(Unavailable))
    }

    fn ask(
        &self,
        id: PaymentId,
        record: Option<(u16, u64)>,
        until: Option<Instant>,
        sure: bool,
    ) -> Result<oneshot::Receiver<Result<Seen, Unavailable>>, Unavailable> {
        let (reply, receiver) = oneshot::channel();
        let ask = Ask::now(id, Reply::One(reply));
        // A payment just put on Kafka is not decided yet.
        let due = if until.is_some() { ask.asked_at + POLL_FIRST } else { ask.asked_at };
        self.enqueue(Ask { record, until, sure, due, ..ask })?;
        Ok(receiver)
    }

    fn enqueue(&self, ask: Ask) -> Result<(), Unavailable> {
        if !self.is_up() {
            return Err(Unavailable);
        }
        self.asks.try_send(ask).map_err(|_| Unavailable)
    }
}

impl Ask {
    fn now(id: PaymentId, reply: Reply) -> Self {
        let now = Instant::now();
        Self { id, more: Vec::new(), record: None, until: None, sure: false, asked_at: now, due: now, reply }
    }
}

/// The task that asks MySQL.
pub struct Task {
    mysql: MysqlConfig,
    lag: Arc<Lag>,
    health: Component,
    asks: mpsc::Receiver<Ask>,
    is_up: Arc<AtomicBool>,
    /// Everything unanswered.
    waiting: Vec<Ask>,
    connection: Option<MySqlConnection>,
    /// When to try to connect again.
    probe_at: Instant,
    /// When to read the positions again.
    sample_at: Instant,
    /// Whether anything was under review at the last sample; usually nothing is, and a payment that is asked for before
    /// it is produced then costs no look at the dead letters.
    any_dead_letter: bool,
}

impl Task {
    /// Serves until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.waiting.push(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            while let Ok(ask) = self.asks.try_recv() {
                self.waiting.push(ask);
            }
            self.step().await;
        }
    }

    /// When something is due although nobody asks.
    fn next_wake(&self) -> Instant {
        let housekeeping = if self.connection.is_some() { self.sample_at } else { self.probe_at };
        self.waiting.iter().map(|ask| ask.due).min().map_or(housekeeping, |due| due.min(housekeeping))
    }

    async fn step(&mut self) {
        let now = Instant::now();
        if self.connection.is_none() {
            self.answer_all_unavailable();
            if now < self.probe_at {
                return;
            }
            self.connect().await;
        }
        self.waiting.retain(|ask| !ask.reply.is_closed());
        let (batch, query) = self.take_batch(Instant::now());
        let Some(connection) = self.connection.as_mut() else { return };
        if batch.is_empty() && !query.positions {
            return;
        }
        metrics::lookup_batch(batch.len());
        let started = Instant::now();
        let looked_up = tokio::time::timeout(STATEMENT_TIMEOUT, store::look_up(connection, &query)).await;
        match looked_up {
            Ok(Ok(snapshot)) => {
                metrics::lookup_took(started.elapsed());
                self.take_snapshot(batch, &snapshot);
            }
            failed => {
                self.waiting.extend(batch);
                match failed {
                    Ok(Err(error)) => self.lost(&error.to_string()),
                    _ => self.lost("no answer in time"),
                }
            }
        }
    }

    /// The asks that are due, and the query for them.
    fn take_batch(&mut self, now: Instant) -> (Vec<Ask>, Query) {
        let mut query = Query { positions: now >= self.sample_at, ..Query::default() };
        let soon = now + POLL_SLACK;
        let mut batch = Vec::with_capacity(self.waiting.len().min(BATCH_MAX));
        let mut index = 0;
        while index < self.waiting.len() && query.ids.len() < BATCH_MAX {
            if self.waiting[index].due > soon {
                index += 1;
                continue;
            }
            let ask = self.waiting.swap_remove(index);
            query.ids.insert(ask.id.uuid());
            query.ids.extend(ask.more.iter().map(PaymentId::uuid));
            query.records.extend(ask.record);
            query.dead_letters |= self.any_dead_letter || (ask.until.is_none() && ask.sure);
            query.positions |= ask.record.is_some() && ask.until.is_none();
            batch.push(ask);
        }
        (batch, query)
    }

    fn take_snapshot(&mut self, batch: Vec<Ask>, snapshot: &Snapshot) {
        let now = Instant::now();
        self.any_dead_letter = snapshot.any_dead_letter.unwrap_or(self.any_dead_letter);
        if !snapshot.positions.is_empty() {
            self.lag.applied(snapshot.positions.iter().map(|(partition, next)| (*partition, *next)), now);
            if let Some(records) = self.lag.records(now) {
                metrics::backlog(records);
            }
            self.sample_at = now + SAMPLE_INTERVAL;
        } else if now >= self.sample_at {
            // The table is empty: the schema is not there in full. Do not ask for it at every turn.
            self.sample_at = now + SAMPLE_INTERVAL;
        }
        let few = self.waiting.len() + batch.len() <= EAGER_WAITERS_MAX;
        for ask in batch {
            let reply = match ask.reply {
                Reply::One(reply) => reply,
                Reply::All(reply) => {
                    let ids = std::iter::once(ask.id).chain(ask.more);
                    drop(reply.send(Ok(ids.map(|id| see(id, None, snapshot)).collect())));
                    continue;
                }
            };
            match (see(ask.id, ask.record, snapshot), ask.until) {
                (Seen::Absent { .. }, Some(until)) if now < until => {
                    let pause = match ask.asked_at.elapsed() {
                        age if few && age < EAGER_MAX => Duration::ZERO,
                        age => (age / 4).clamp(POLL_FIRST, POLL_LAST),
                    };
                    let due = (now + pause).min(until);
                    self.waiting.push(Ask { due, more: Vec::new(), reply: Reply::One(reply), ..ask });
                }
                // Nobody listens any more: the client went away, or its budget is spent.
                (seen, _) => drop(reply.send(Ok(seen))),
            }
        }
        metrics::waiters(self.waiting.len());
    }

    async fn connect(&mut self) {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.mysql.connect()).await;
        match connected {
            Ok(Ok(connection)) => {
                self.connection = Some(connection);
                self.sample_at = Instant::now();
                self.is_up.store(true, Ordering::Relaxed);
                self.health.up();
            }
            Ok(Err(error)) => self.lost(&error.to_string()),
            Err(_) => self.lost("cannot connect in time"),
        }
    }

    /// Gives the connection up and lets nobody ask until there is a new one.
    fn lost(&mut self, why: &str) {
        // Dropping closes the socket; what the server still sends on it is of no use.
        self.connection = None;
        self.probe_at = Instant::now() + PROBE_INTERVAL;
        self.is_up.store(false, Ordering::Relaxed);
        self.health.down(why);
        metrics::lookup_failed();
        self.answer_all_unavailable();
    }

    fn answer_all_unavailable(&mut self) {
        for ask in self.waiting.drain(..) {
            ask.reply.unavailable();
        }
    }
}

fn see(id: PaymentId, record: Option<(u16, u64)>, snapshot: &Snapshot) -> Seen {
    let id = id.uuid();
    if let Some(stored) = snapshot.payments.get(&id) {
        return Seen::Decided(stored.clone());
    }
    if let Some(stored) = snapshot.dead_ids.get(&id) {
        return Seen::UnderReview(Some(stored.clone()));
    }
    if record.is_some_and(|record| snapshot.dead_records.contains(&record)) {
        return Seen::UnderReview(None);
    }
    let applied = record.and_then(|(partition, offset)| {
        snapshot.positions.get(&partition).map(|next_offset| offset < *next_offset)
    });
    Seen::Absent { applied }
}
