//! Where partitions begin when they are assigned, and how they are given up.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use runtime::health::Component;
use tokio::sync::mpsc;

use crate::metrics;
use crate::progress::Progress;

/// How long requests to the brokers may take while partitions are assigned.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a revocation waits for what is under way: a little longer than first tries stay unrecorded.
const REVOKE_WAIT: Duration = Duration::from_millis(1_500);

/// A partition whose next records are gone from the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// The partition.
    pub(super) partition: i32,
    /// Its first record.
    pub(super) low: i64,
}

/// Handles assignment and revocation, on the consumer's thread within its polls.
pub(super) struct Context {
    pub(super) progress: Arc<Progress>,
    pub(super) health: Component,
    pub(super) gaps: mpsc::UnboundedSender<u64>,
    /// The last request sent to it.
    pub(super) asked: AtomicU64,
    /// Partitions that wait for their gap to be filled.
    pub(super) paused: Mutex<HashMap<i32, Gap>>,
}

impl Context {
    fn paused<T>(&self, change: impl FnOnce(&mut HashMap<i32, Gap>) -> T) -> T {
        change(&mut self.paused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_gaps(&self) -> Vec<Gap> {
        self.paused(|gaps| gaps.drain().map(|(_, gap)| gap).collect())
    }

    /// Pauses partitions with a gap (again).
    pub(super) fn pause_gaps(&self, consumer: &BaseConsumer<Self>) {
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

    pub(super) fn assigned(consumer: &BaseConsumer<Self>) -> Vec<i32> {
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
