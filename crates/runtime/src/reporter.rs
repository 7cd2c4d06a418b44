//! Records on Kafka that nobody waits for.
//!
//! A record is handed to librdkafka's queue and sent within a moment, together with others. The caller is never held
//! up: what the full queue does not take, and what no broker takes for five minutes, is lost and counted. So is what
//! the queue holds when the process is killed. A record may arrive twice; whoever reads them tells them apart.

use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use crate::config::KafkaConfig;

/// Records travel together that come within this time: their reader is in no hurry, and each request costs.
const LINGER_MS: &str = "100";
/// For how long Kafka may be away without a loss, as long as the queue holds what comes.
const DELIVERED_WITHIN_MS: &str = "300000";
/// Records and KiB that wait at most.
const QUEUE_RECORDS: &str = "200000";
const QUEUE_KIB: &str = "65536";
/// For what is still queued at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where records go.
#[derive(Clone)]
pub struct Reporter(Arc<Inner>);

struct Inner {
    producer: ThreadedProducer<Context>,
    topic: String,
    lost: Counter,
}

struct Context {
    lost: Counter,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        crate::kafka::error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    /// Told of failures alone.
    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivered {
            self.lost.increment(1);
            tracing::debug!(error = %error, "a report was not delivered");
        }
    }
}

impl Reporter {
    /// Reports to partition 0 of the topic of this full name; `lost` counts what never arrives.
    pub fn new(kafka: &KafkaConfig, topic: String, lost: Counter) -> Result<Self, KafkaError> {
        let producer = kafka
            .producer()
            // An idempotent producer may fail for good; a record that comes twice is told apart by its reader.
            .set("enable.idempotence", "false")
            .set("linger.ms", LINGER_MS)
            .set("delivery.timeout.ms", DELIVERED_WITHIN_MS)
            .set("queue.buffering.max.messages", QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("delivery.report.only.error", "true")
            .create_with_context(Context { lost: lost.clone() })?;
        Ok(Self(Arc::new(Inner { producer, topic, lost })))
    }

    /// Hands a record over; returns at once.
    pub fn report(&self, record: &[u8]) {
        let Inner { producer, topic, lost } = &*self.0;
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(record);
        if producer.send(record).is_err() {
            lost.increment(1);
        }
    }

    /// Waits a few seconds for what is queued; what is left then is lost and counted.
    pub async fn flush(self) {
        let flushed = tokio::task::spawn_blocking(move || {
            let Inner { producer, lost, .. } = &*self.0;
            if producer.flush(FLUSH_TIMEOUT).is_err() {
                let left = producer.in_flight_count().max(0).unsigned_abs();
                lost.increment(u64::from(left));
                tracing::warn!(records.count = left, "reports were not delivered before the end");
            }
        });
        if let Err(error) = flushed.await {
            tracing::error!(error = %error, "reports were not flushed");
        }
    }
}
