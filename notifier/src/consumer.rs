//! Consumes the event topic on a thread of its own.
//!
//! Bounded: batches of at most `BATCH_EVENTS_MAX` events go through a short queue; a full queue stops the thread,
//! and librdkafka stops fetching. Offsets are committed here alone, as contiguous watermarks.
//!
//! Where a partition begins is decided here and never left to `auto.offset.reset`: a group without an offset begins
//! at the first record; when the topic no longer holds the next one, that is a gap, which is filled from MySQL
//! ([`crate::catch_up`]) before the partition is consumed.
//!
//! On revocation: nothing new of the partition begins, what is under way is waited for, briefly, and the watermark is
//! committed. What is not recorded by then is delivered again by the next owner, under the same id.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::event::EventRecord;
use domain::ids::PaymentId;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use runtime::health::Component;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dispatch::Consumed;
use crate::metrics;
use crate::progress::Progress;

/// Events of one batch: one look-up in MySQL.
const BATCH_EVENTS_MAX: usize = 500;
/// Bytes of one batch.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches that wait for the dispatcher.
pub const BATCHES_MAX: usize = 4;
/// How long a poll waits; a record ends it at once.
const POLL: Duration = Duration::from_millis(100);
/// How often watermarks are committed: longer repeats more look-ups after a crash.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// How long a full queue is waited for before the partitions are paused, so that the group does not lose us.
const BLOCKED_MAX: Duration = Duration::from_secs(60);
/// How long requests to the brokers may take while partitions are assigned.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a revocation waits for what is under way: a little longer than first tries stay unrecorded.
const REVOKE_WAIT: Duration = Duration::from_millis(1_500);
/// The pause before a consumer that failed is made anew.
const RESTART_WAIT: Duration = Duration::from_secs(1);
/// How often librdkafka tells its statistics, which hold the lag, in milliseconds.
const STATISTICS_INTERVAL_MS: &str = "5000";

/// A partition whose next records are gone from the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: i32,
    /// Its first record.
    pub low: i64,
}

/// What the consumer works with.
pub struct Settings {
    /// The preset of the runtime, with the group.
    pub config: ClientConfig,
    /// The event topic.
    pub topic: String,
    /// Offsets.
    pub progress: Arc<Progress>,
    /// To the dispatcher.
    pub batches: mpsc::Sender<Vec<Consumed>>,
    /// Asks for a gap to be filled from MySQL.
    pub gaps: mpsc::UnboundedSender<u64>,
    /// Tells which request of `gaps` is done.
    pub filled: std::sync::mpsc::Receiver<u64>,
    /// Kafka as seen from here.
    pub health: Component,
    /// When to stop consuming.
    pub stop: CancellationToken,
    /// When to commit for the last time and end; follows `stop`.
    pub end: CancellationToken,
}

impl Settings {
    /// Whether the dispatcher is gone although nobody asked it to stop: then nothing may be committed any more.
    fn is_orphaned(&self) -> bool {
        self.batches.is_closed() && !self.stop.is_cancelled()
    }
}

/// Consumes until `end`. Blocks; runs on a thread of its own.
pub fn run(settings: &Settings) {
    // Requests of an earlier session must not be taken for those of a later one.
    let mut asked = 0;
    while !settings.end.is_cancelled() && !settings.is_orphaned() {
        if let Err(error) = session(settings, &mut asked) {
            settings.health.down(format!("the event topic cannot be consumed: {error}"));
            tracing::error!(error = %error, "event consumer failed, beginning anew");
            std::thread::sleep(RESTART_WAIT);
        }
    }
}

/// One consumer's life, up to an error that it does not survive.
fn session(settings: &Settings, asked: &mut u64) -> KafkaResult<()> {
    let context = Context {
        progress: Arc::clone(&settings.progress),
        health: settings.health.clone(),
        gaps: settings.gaps.clone(),
        paused: Mutex::default(),
        asked: AtomicU64::new(*asked),
    };
    let mut config = settings.config.clone();
    // Where to begin is this module's decision; a hole in the topic must never be jumped over silently.
    config.set("auto.offset.reset", "error");
    config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
    consumer.subscribe(&[&settings.topic])?;
    let result = consume(&consumer, settings);
    if !settings.is_orphaned() {
        commit(&consumer, settings, CommitMode::Sync);
    }
    for partition in Context::assigned(&consumer) {
        settings.progress.revoke(partition);
    }
    *asked = consumer.context().asked.load(Ordering::Relaxed);
    result
}

fn consume(consumer: &BaseConsumer<Context>, settings: &Settings) -> KafkaResult<()> {
    let mut committed_at = Instant::now();
    loop {
        if settings.end.is_cancelled() || settings.is_orphaned() {
            return Ok(());
        }
        if settings.stop.is_cancelled() {
            // Stay in the group until what is under way is recorded, without taking anything new.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        let batch = gather(consumer, settings)?;
        if settings.progress.take_lost() {
            return Err(KafkaError::Rebalance(RDKafkaErrorCode::AssignmentLost));
        }
        if !batch.is_empty() {
            hand_over(consumer, settings, batch)?;
        }
        let asked = consumer.context().asked.load(Ordering::Relaxed);
        if settings.filled.try_iter().any(|filled| filled == asked) {
            resume_filled(consumer, settings);
        }
        if committed_at.elapsed() >= COMMIT_INTERVAL {
            committed_at = Instant::now();
            commit(consumer, settings, CommitMode::Async);
            metrics::set("wired_notifier_unfinished_events", settings.progress.pending() as f64);
        }
    }
}

/// Whatever is there, after waiting for the first.
fn gather(consumer: &BaseConsumer<Context>, settings: &Settings) -> KafkaResult<Vec<Consumed>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut wait = POLL;
    while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                settings.health.up();
                bytes += message.payload_len();
                batch.extend(read(&message, &settings.progress));
            }
            Some(Err(error)) => match survive(settings, error) {
                Ok(()) => {}
                // What was gathered has begun: it must reach the dispatcher or the whole generation must end.
                Err(error) => return Err(error),
            },
        }
        wait = Duration::ZERO;
    }
    Ok(batch)
}

/// Errors that pass by themselves are only told; the others end the session.
fn survive(settings: &Settings, error: KafkaError) -> KafkaResult<()> {
    let Some(code) = error.rdkafka_error_code() else { return Err(error) };
    match code {
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::LeaderNotAvailable
        | RDKafkaErrorCode::NotLeaderForPartition
        | RDKafkaErrorCode::CoordinatorLoadInProgress
        | RDKafkaErrorCode::CoordinatorNotAvailable
        | RDKafkaErrorCode::NotCoordinator
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed => {
            settings.health.down(format!("the event topic cannot be consumed: {error}"));
            Ok(())
        }
        // Most of all AutoOffsetReset: the topic's end was cut off behind us. A new session sees the gap and fills it.
        _ => Err(error),
    }
}

/// Passes a batch on; while the dispatcher has no room, the thread waits.
fn hand_over(
    consumer: &BaseConsumer<Context>,
    settings: &Settings,
    mut batch: Vec<Consumed>,
) -> KafkaResult<()> {
    let blocked_at = Instant::now();
    let mut paused: Option<TopicPartitionList> = None;
    loop {
        match settings.batches.try_send(batch) {
            Ok(()) => break,
            Err(mpsc::error::TrySendError::Closed(_)) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(back)) => batch = back,
        }
        if settings.stop.is_cancelled() {
            // Not begun: the next owner consumes it again.
            return Ok(());
        }
        if blocked_at.elapsed() < BLOCKED_MAX {
            std::thread::sleep(Duration::from_millis(1));
        } else {
            // The group expects polls; a paused partition gives nothing to them.
            if paused.is_none() {
                tracing::warn!("events cannot be dispatched, pausing the topic");
                let all = consumer.assignment()?;
                consumer.pause(&all)?;
                paused = Some(all);
            }
            match consumer.poll(POLL) {
                // Fetched before the pause took effect: it comes again after the seek of a new session.
                Some(Ok(message)) => {
                    let offset = message.offset();
                    return Err(stray(offset));
                }
                Some(Err(error)) => survive(settings, error)?,
                None => {}
            }
        }
    }
    if let Some(all) = paused {
        consumer.resume(&all)?;
        consumer.context().pause_gaps(consumer);
    }
    Ok(())
}

fn stray(offset: i64) -> KafkaError {
    tracing::warn!(kafka.offset = offset, "a paused partition gave a record");
    KafkaError::PauseResume("a paused partition gave a record".to_owned())
}

/// Decodes a record and registers its offset. What cannot be decoded is told and passed over: only the processor
/// writes this topic, and the event itself stands in MySQL.
fn read(message: &BorrowedMessage<'_>, progress: &Progress) -> Option<Consumed> {
    let ticket = progress.begin(message.partition(), message.offset())?;
    let event: Result<EventRecord, String> = match message.payload() {
        Some(payload) => serde_json::from_slice(payload).map_err(|error| error.to_string()),
        None => Err("no payload".to_owned()),
    };
    match event {
        Ok(event) if event.schema == domain::command::SCHEMA => {
            let order = order_of(&event);
            Some(Consumed { ticket, event, order })
        }
        Ok(event) => {
            undecodable(message, &format!("schema {} is not known", event.schema), progress, ticket);
            None
        }
        Err(why) => {
            undecodable(message, &why, progress, ticket);
            None
        }
    }
}

fn undecodable(
    message: &BorrowedMessage<'_>,
    why: &str,
    progress: &Progress,
    ticket: crate::progress::Ticket,
) {
    let (partition, offset) = (message.partition(), message.offset());
    tracing::error!(
        kafka.partition = partition,
        kafka.offset = offset,
        error = why,
        "record of the event topic is no event"
    );
    metrics::add("wired_notifier_undecodable_records_total", 1);
    progress.release(ticket);
}

/// The root payment that an event is about.
pub(crate) fn order_of(event: &EventRecord) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Data {
        payment: Option<Payment>,
    }
    #[derive(Deserialize)]
    struct Payment {
        root: PaymentId,
    }
    let data: Data = serde_json::from_str(event.data.get()).ok()?;
    data.payment.map(|payment| payment.root.uuid())
}

fn commit(consumer: &BaseConsumer<Context>, settings: &Settings, mode: CommitMode) {
    let moved = settings.progress.take_moved();
    if moved.is_empty() {
        return;
    }
    let mut offsets = TopicPartitionList::with_capacity(moved.len());
    for (partition, offset) in moved {
        if let Err(error) = offsets.add_partition_offset(&settings.topic, partition, Offset::Offset(offset)) {
            tracing::warn!(error = %error, "watermark not committed");
        }
    }
    if let Err(error) = consumer.commit(&offsets, mode) {
        tracing::warn!(error = %error, "watermarks not committed");
        settings.progress.commit_failed();
    }
}

fn resume_filled(consumer: &BaseConsumer<Context>, settings: &Settings) {
    let gaps = consumer.context().take_gaps();
    let mut list = TopicPartitionList::new();
    for gap in gaps {
        list.add_partition(&settings.topic, gap.partition);
        tracing::info!(
            kafka.partition = gap.partition,
            kafka.offset = gap.low,
            "gap filled from MySQL, consuming"
        );
    }
    if list.count() > 0
        && let Err(error) = consumer.resume(&list)
    {
        tracing::warn!(error = %error, "partitions not resumed");
    }
}

/// Handles assignment and revocation, on the consumer's thread within its polls.
struct Context {
    progress: Arc<Progress>,
    health: Component,
    gaps: mpsc::UnboundedSender<u64>,
    /// The last request sent to it.
    asked: AtomicU64,
    /// Partitions that wait for their gap to be filled.
    paused: Mutex<HashMap<i32, Gap>>,
}

impl Context {
    fn paused<T>(&self, change: impl FnOnce(&mut HashMap<i32, Gap>) -> T) -> T {
        change(&mut self.paused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_gaps(&self) -> Vec<Gap> {
        self.paused(|gaps| gaps.drain().map(|(_, gap)| gap).collect())
    }

    /// Pauses partitions with a gap (again).
    fn pause_gaps(&self, consumer: &BaseConsumer<Self>) {
        let partitions: HashSet<i32> = self.paused(|gaps| gaps.keys().copied().collect());
        let Ok(assignment) = consumer.assignment() else { return };
        let mut list = TopicPartitionList::new();
        for element in assignment.elements() {
            if partitions.contains(&element.partition()) {
                list.add_partition(element.topic(), element.partition());
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.pause(&list)
        {
            tracing::warn!(error = %error, "partitions not paused");
        }
    }

    fn assigned(consumer: &BaseConsumer<Self>) -> Vec<i32> {
        let assignment = consumer.assignment();
        assignment
            .map(|list| list.elements().iter().map(TopicPartitionListElem::partition).collect())
            .unwrap_or_default()
    }

    /// Where each partition begins.
    fn begin(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let committed = consumer.committed_offsets(partitions.clone(), BROKER_TIMEOUT)?;
        let mut assignment = TopicPartitionList::with_capacity(committed.count());
        let mut gaps = HashMap::new();
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let (low, high) = consumer.client().fetch_watermarks(topic, partition, BROKER_TIMEOUT)?;
            let held = match element.offset() {
                Offset::Offset(offset) => (low..=high).contains(&offset),
                // Without an offset nothing was ever finished, so everything must still be there.
                _ => low == 0,
            };
            let offset = match element.offset() {
                Offset::Offset(offset) if held => Offset::Offset(offset),
                _ => Offset::Offset(low),
            };
            if !held {
                tracing::error!(
                    kafka.partition = partition,
                    kafka.offset = ?element.offset(),
                    kafka.low = low,
                    kafka.high = high,
                    "the event topic does not hold the next event, filling the gap from MySQL"
                );
                gaps.insert(partition, Gap { partition, low });
            }
            assignment.add_partition_offset(topic, partition, offset)?;
            self.progress.assign(partition);
        }
        let ask = !gaps.is_empty();
        self.paused(|paused| *paused = gaps);
        consumer.assign(&assignment)?;
        self.pause_gaps(consumer);
        if ask {
            // The receiver lives as long as the process.
            let _ = self.gaps.send(self.asked.fetch_add(1, Ordering::Relaxed) + 1);
        }
        Ok(())
    }

    /// Waits, briefly, for what is under way and commits what is done.
    fn give_up(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let deadline = Instant::now() + REVOKE_WAIT;
        self.progress.stop();
        while self.progress.pending() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let topic = partitions.elements().first().map(|element| element.topic().to_owned());
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in self.progress.take_moved() {
            if let Some(topic) = &topic {
                let _ = offsets.add_partition_offset(topic, partition, Offset::Offset(offset));
            }
        }
        if offsets.count() > 0
            && let Err(error) = consumer.commit(&offsets, CommitMode::Sync)
        {
            tracing::warn!(error = %error, "watermarks not committed on revocation");
        }
        for element in partitions.elements() {
            self.progress.revoke(element.partition());
        }
        self.paused(HashMap::clear);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        runtime::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        runtime::kafka::error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let lag: i64 = partitions.map(|partition| partition.consumer_lag.max(0)).sum();
        metrics::set("wired_notifier_consumer_lag_records", lag as f64);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let result = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let Err(error) = self.begin(consumer, partitions) else {
                tracing::info!(partitions = partitions.count(), "partitions assigned");
                self.health.up();
                return;
            };
            // Without an assignment nothing is consumed; a new session tries again.
            self.health.down(format!("partitions cannot be taken over: {error}"));
            self.progress.lose();
            consumer.unassign()
        } else {
            self.give_up(consumer, partitions);
            consumer.unassign()
        };
        if let Err(error) = result {
            tracing::warn!(error = %error, "partitions not given up");
        }
    }
}
