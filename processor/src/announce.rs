//! Announces committed events on the event topic, batch after batch, while the next ones are applied.
//!
//! At most [`UNANNOUNCED_MAX`] batches wait; then applying waits too. An event is announced at least once: what
//! this process cannot announce before it ends is announced by the partition's next owner, from MySQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::command::SCHEMA;
use domain::event::EventRecord;
use domain::ids::event_id;
use domain::topic::EVENTS;
use futures_util::future::try_join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use runtime::config::{ConfigError, KafkaConfig};
use runtime::health::Component;
use runtime::kafka::LogContext;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::decide::EventRow;
use crate::metrics;
use crate::store::positions::{PartitionKey, StoredPosition};
use crate::store::session::Session;
use crate::store::unannounced;

/// Batches that may be committed and not announced. More only makes a longer repetition after a crash.
pub const UNANNOUNCED_MAX: usize = 4;
/// How long the producer may take to hand over what it holds when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before events that were not acknowledged are sent again.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Events of a committed batch, and where its partitions stand after it.
pub struct Batch {
    /// In the order of the fold.
    pub events: Vec<EventRow>,
    /// The first offset of each partition that is not applied.
    pub partitions: BTreeMap<PartitionKey, i64>,
}

enum Job {
    Batch(Batch),
    /// Announce `from..to` of a partition from MySQL.
    CatchUp {
        key: PartitionKey,
        from: i64,
        to: i64,
    },
}

/// The applier's side.
pub struct Announcer {
    jobs: mpsc::Sender<Job>,
    /// Catch-ups that precede the next batch. They are not sent at once, since sending may wait and their finder
    /// holds locks.
    catch_ups: Vec<Job>,
    announced: Arc<Mutex<HashMap<PartitionKey, Announced>>>,
    waiting: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// Events of a partition below `offset` are on the topic.
#[derive(Debug, Clone, Copy)]
struct Announced {
    offset: i64,
    /// Whether MySQL was told so, or will be with the next batch.
    stored: bool,
}

impl Announcer {
    /// Starts the announcing task, with a connection of its own for what must be read from MySQL.
    pub fn start(
        kafka: &KafkaConfig,
        session: Session,
        health: Component,
        shutdown: CancellationToken,
    ) -> Result<Self, ConfigError> {
        let (jobs, receiver) = mpsc::channel(UNANNOUNCED_MAX);
        let announced = Arc::new(Mutex::new(HashMap::new()));
        let waiting = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            producer: producer(kafka)?,
            kafka: kafka.clone(),
            topic: kafka.topic(EVENTS.name),
            session,
            health,
            announced: Arc::clone(&announced),
            waiting: Arc::clone(&waiting),
            shutdown,
        };
        let task = tokio::spawn(worker.run(receiver));
        Ok(Self { jobs, catch_ups: Vec::new(), announced, waiting, task })
    }

    /// The offset below which a partition is known to be announced.
    pub fn announced(&self, key: PartitionKey) -> i64 {
        lock(&self.announced).get_mut(&key).map_or(0, |announced| {
            announced.stored = true;
            announced.offset
        })
    }

    /// Offsets that MySQL was not told yet.
    pub fn take_announced(&self) -> Vec<(PartitionKey, i64)> {
        let mut all = lock(&self.announced);
        let unstored = all.iter_mut().filter(|(_, announced)| !announced.stored);
        unstored
            .map(|(key, announced)| {
                announced.stored = true;
                (*key, announced.offset)
            })
            .collect()
    }

    /// MySQL could not be told.
    pub fn untake_announced(&self, taken: &[(PartitionKey, i64)]) {
        let mut all = lock(&self.announced);
        for (key, _) in taken {
            if let Some(announced) = all.get_mut(key) {
                announced.stored = false;
            }
        }
    }

    /// The partition stands where this process did not leave it: what it has unannounced goes out first.
    pub fn catch_up(&mut self, position: &StoredPosition) {
        let known = lock(&self.announced).get(&position.key).map_or(0, |announced| announced.offset);
        let (from, to) = (position.announced_offset.max(known), position.next_offset);
        if from < to {
            self.catch_ups.push(Job::CatchUp { key: position.key, from, to });
        }
    }

    /// Queues a batch behind its catch-ups; waits while too many are unannounced.
    pub async fn announce(&mut self, batch: Batch) {
        let batch = (!batch.partitions.is_empty()).then_some(Job::Batch(batch));
        for job in self.catch_ups.drain(..).chain(batch) {
            metrics::unannounced(self.waiting.fetch_add(1, Ordering::Relaxed) + 1);
            // It ends before this side only when it gave up at a shutdown: then the next owner announces.
            if self.jobs.send(job).await.is_err() {
                return;
            }
        }
    }

    /// Whether the announcing task still takes jobs. It ends before this side only at a shutdown, or by a panic.
    pub fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits until everything queued is announced, or cannot be before the process ends; `false` when the task has
    /// panicked.
    pub async fn drain(&mut self) -> bool {
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        match (&mut self.task).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = %error, "announcing panicked");
                false
            }
        }
    }
}

struct Worker {
    producer: FutureProducer<LogContext>,
    kafka: KafkaConfig,
    topic: String,
    session: Session,
    health: Component,
    announced: Arc<Mutex<HashMap<PartitionKey, Announced>>>,
    waiting: Arc<AtomicUsize>,
    shutdown: CancellationToken,
}

/// The process ends and Kafka or MySQL is away: the next owner announces the rest.
struct GaveUp;

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        self.health.up();
        while let Some(job) = jobs.recv().await {
            let done = match job {
                Job::Batch(batch) => self.batch(batch).await,
                Job::CatchUp { key, from, to } => self.catch_up(key, from, to).await,
            };
            metrics::unannounced(self.waiting.fetch_sub(1, Ordering::Relaxed) - 1);
            if done.is_err() {
                tracing::warn!("events are left to the next owner of the partitions");
                break;
            }
        }
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(error = %error, "events were not all handed over");
        }
    }

    async fn batch(&mut self, batch: Batch) -> Result<(), GaveUp> {
        let records: Vec<_> = batch.events.into_iter().filter_map(record).collect();
        self.send(&records).await?;
        for (key, offset) in batch.partitions {
            self.reached(key, offset);
        }
        Ok(())
    }

    async fn catch_up(&mut self, key: PartitionKey, mut from: i64, to: i64) -> Result<(), GaveUp> {
        if from < to {
            tracing::info!(
                topic = key.source.topic().name,
                partition = key.partition,
                from,
                to,
                "announcing from MySQL"
            );
        }
        while from < to {
            let end = to.min(from + unannounced::PAGE);
            match unannounced::read(&mut self.session, key, from, end).await {
                Ok(records) => {
                    self.send(&records).await?;
                    from = end;
                }
                Err(error) => {
                    self.session.reset();
                    self.health.down(format!("unannounced events cannot be read: {error}"));
                    tracing::warn!(error = %error, "unannounced events are read again");
                    self.pause().await?;
                }
            }
        }
        self.reached(key, to);
        Ok(())
    }

    /// Sends until every record is acknowledged. What is sent again repeats on the topic, which readers expect.
    async fn send(&mut self, records: &[EventRecord]) -> Result<(), GaveUp> {
        let started = Instant::now();
        loop {
            match self.try_send(records).await {
                Ok(()) => {
                    self.health.up();
                    metrics::announced(records.len(), started.elapsed());
                    return Ok(());
                }
                Err(error) => {
                    self.health.down(format!("events cannot be announced: {error}"));
                    if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal)) {
                        self.renew_producer();
                    }
                    self.pause().await?;
                }
            }
        }
    }

    async fn try_send(&self, records: &[EventRecord]) -> Result<(), KafkaError> {
        let mut deliveries = Vec::with_capacity(records.len());
        for event in records {
            let Ok(value) = serde_json::to_vec(event) else { continue };
            let key = event.partner.uuid();
            let record = FutureRecord::to(&self.topic).key(key.as_bytes().as_slice()).payload(&value);
            deliveries.push(self.producer.send_result(record).map_err(|(error, _)| error)?);
        }
        let acknowledged = deliveries.into_iter().map(|delivery| async {
            match delivery.await {
                Ok(delivered) => delivered.map(drop).map_err(|(error, _)| error),
                Err(_) => Err(KafkaError::Canceled),
            }
        });
        try_join_all(acknowledged).await.map(drop)
    }

    /// An idempotent producer that met a fatal error never recovers.
    fn renew_producer(&mut self) {
        match producer(&self.kafka) {
            Ok(producer) => self.producer = producer,
            Err(error) => tracing::error!(error = %error, "no new producer"),
        }
    }

    async fn pause(&self) -> Result<(), GaveUp> {
        tokio::select! {
            () = tokio::time::sleep(RETRY_WAIT) => Ok(()),
            () = self.shutdown.cancelled() => Err(GaveUp),
        }
    }

    fn reached(&self, key: PartitionKey, offset: i64) {
        let mut all = lock(&self.announced);
        let announced = all.entry(key).or_insert(Announced { offset, stored: false });
        *announced = Announced { offset: offset.max(announced.offset), stored: false };
    }
}

fn producer(kafka: &KafkaConfig) -> Result<FutureProducer<LogContext>, ConfigError> {
    // A batch comes at once, so waiting for more of it only delays the last one.
    Ok(kafka.producer().set("linger.ms", "0").create_with_context(LogContext)?)
}

/// The record of an event; `None` cannot be, since `data` was just written as JSON.
fn record(row: EventRow) -> Option<EventRecord> {
    Some(EventRecord {
        schema: SCHEMA,
        id: event_id(row.partner, row.epoch, row.sequence),
        partner: row.partner,
        sequence: row.sequence,
        epoch: row.epoch,
        event_type: row.event_type,
        timestamp: row.occurred_at,
        data: RawValue::from_string(row.data).ok()?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
