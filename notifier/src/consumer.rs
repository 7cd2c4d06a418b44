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

mod context;
mod read;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use runtime::health::Component;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use context::Context;
pub(crate) use read::order_of;

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
/// The pause before a consumer that failed is made anew.
const RESTART_WAIT: Duration = Duration::from_secs(1);
/// How often librdkafka tells its statistics, which hold the lag, in milliseconds.
const STATISTICS_INTERVAL_MS: &str = "5000";

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
                batch.extend(read::read(&message, &settings.progress));
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
