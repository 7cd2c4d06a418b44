//! Puts the topic `api.calls.v1` into the table `api_calls`, in bulk.
//!
//! The position is stored in the transaction of the rows and locked by it, so each record is loaded once, whoever
//! loads; the lease only saves the work. While MySQL is away the topic keeps what comes, for a week. A record that is
//! no call is counted and passed over.
//!
//! It also forgets calls that are old enough, a small step at a time.

use std::time::{Duration, Instant};

use domain::api_call::ApiCall;
use domain::topic::API_CALLS;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use runtime::config::KafkaConfig;
use runtime::kafka::LogContext;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use super::{metrics, store};
use crate::evidence::lease::Lease;

/// How long a dead process keeps the others waiting.
const LEASE: Duration = Duration::from_secs(10);
/// Calls of one transaction.
const BATCH: usize = 2_000;
/// How long to gather a batch: each costs MySQL a write to disk.
const GATHERED_WITHIN: Duration = Duration::from_millis(400);
/// How long Kafka may take to answer a question.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at the end of the topic.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks for calls to forget.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Why loading stopped, to begin again.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the task that asks Kafka ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error(
        "api.calls.v1 ends at {end}, and {position} are loaded of it: it was made anew, and its calls would stand in \
         the place of others. Nothing is loaded"
    )]
    MadeAnew { position: i64, end: i64 },
}

/// Loads calls.
pub struct Loader {
    /// Two connections: one loads, one keeps the lease.
    pub pool: MySqlPool,
    /// Where the topic is.
    pub kafka: KafkaConfig,
}

/// What was read of the topic.
#[derive(Default)]
struct Batch {
    calls: Vec<(i64, ApiCall<'static>)>,
    /// Behind the last record that was read.
    next: Option<i64>,
}

impl Loader {
    /// Goes on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let lease = Lease::new(self.pool.clone(), "api_calls", LEASE);
        while !stop.is_cancelled() {
            match lease.take().await {
                Ok(true) => {
                    let working = stop.child_token();
                    if let Err(error) = lease.keep_during(&working, self.load(&working)).await {
                        metrics::failed();
                        tracing::warn!(error = %error, "calls cannot be loaded");
                        pause(&stop, PAUSE).await;
                    }
                }
                Ok(false) => pause(&stop, LEASE / 4).await,
                Err(error) => {
                    tracing::warn!(error = %error, "the loader of calls waits for MySQL");
                    pause(&stop, PAUSE).await;
                }
            }
        }
        lease.release().await;
    }

    /// Loads from the stored position on, until `stop` or somebody else loads.
    async fn load(&self, stop: &CancellationToken) -> Result<(), LoadError> {
        let stored = store::position(&self.pool).await?;
        let topic = self.kafka.topic(API_CALLS.name);
        let (kafka, name) = (self.kafka.clone(), topic.clone());
        let opened = tokio::task::spawn_blocking(move || open(&kafka, &name, stored)).await?;
        let (mut consumer, start) = opened?;
        if start > stored {
            // The week is over: nothing brings them back.
            metrics::expired((start - stored).unsigned_abs());
            tracing::error!(
                calls.count = start - stored,
                "calls were deleted from the topic before they were loaded"
            );
        }
        // What is expired is passed over with the first batch.
        let (mut position, mut forgotten, mut looked) = (stored, Instant::now(), None::<Instant>);
        while !stop.is_cancelled() {
            let topic = looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL).then(|| topic.clone());
            if topic.is_some() {
                looked = Some(Instant::now());
            }
            let (returned, batch, end) = tokio::task::spawn_blocking(move || {
                let batch = gather(&consumer);
                let end = topic.and_then(|topic| consumer.fetch_watermarks(&topic, 0, KAFKA_TIMEOUT).ok());
                (consumer, batch, end)
            })
            .await?;
            consumer = returned;
            let batch = batch?;
            if let Some(next) = batch.next {
                if !self.write(stop, position, next, &batch.calls).await {
                    return Ok(());
                }
                metrics::loaded(batch.calls.len());
                position = next;
            }
            if let Some((_, end)) = end {
                metrics::behind(end - position);
            }
            if forgotten.elapsed() >= FORGET_INTERVAL {
                match store::forget(&self.pool).await {
                    // One step with each batch, until there is nothing more to forget.
                    Ok(true) => {}
                    Ok(false) => forgotten = Instant::now(),
                    Err(error) => {
                        tracing::warn!(error = %error, "calls that are old enough cannot be forgotten");
                        forgotten = Instant::now();
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes a batch, again and again while MySQL is away; `false` when it is another one's or is to stop.
    async fn write(
        &self,
        stop: &CancellationToken,
        from: i64,
        next: i64,
        calls: &[(i64, ApiCall<'static>)],
    ) -> bool {
        loop {
            match store::load(&self.pool, from, next, calls).await {
                Ok(loaded) => return loaded,
                Err(error) => {
                    // When the answer to COMMIT was lost, the position tells.
                    metrics::failed();
                    tracing::warn!(error = %error, "calls wait for MySQL");
                }
            }
            pause(stop, PAUSE).await;
            if stop.is_cancelled() {
                return false;
            }
        }
    }
}

/// A consumer at the stored position, or at the first record that is still there. Blocks.
fn open(kafka: &KafkaConfig, topic: &str, stored: i64) -> Result<(BaseConsumer<LogContext>, i64), LoadError> {
    let consumer: BaseConsumer<LogContext> = kafka.consumer("api-calls").create_with_context(LogContext)?;
    let (low, end) = consumer.fetch_watermarks(topic, 0, KAFKA_TIMEOUT)?;
    if stored > end {
        return Err(LoadError::MadeAnew { position: stored, end });
    }
    let start = stored.max(low);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(start))?;
    consumer.assign(&list)?;
    Ok((consumer, start))
}

/// Reads what comes within a moment. Blocks.
fn gather(consumer: &BaseConsumer<LogContext>) -> Result<Batch, KafkaError> {
    let begun = Instant::now();
    let mut batch = Batch::default();
    while batch.calls.len() < BATCH {
        let left = GATHERED_WITHIN.saturating_sub(begun.elapsed());
        let Some(record) = consumer.poll(left) else { break };
        let record = record?;
        batch.next = Some(record.offset() + 1);
        match ApiCall::decode(record.payload().unwrap_or_default()) {
            Ok(call) => batch.calls.push((record.offset(), call.into_owned())),
            Err(error) => {
                metrics::unreadable();
                tracing::warn!(kafka.offset = record.offset(), error = %error, "a record is no call");
            }
        }
        if left.is_zero() {
            break;
        }
    }
    Ok(batch)
}

async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
