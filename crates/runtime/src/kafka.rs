//! Kafka clients as every service uses them: settings that lose nothing, bounded queues, logs into tracing.
//!
//! The settings are presets: a service may override one with `.set(…)` where its design says why.

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::config::KafkaConfig;

impl KafkaConfig {
    /// The settings of [`KafkaConfig`] for these brokers and this prefix.
    pub fn new(brokers: impl Into<String>, topic_prefix: impl Into<String>) -> Self {
        Self { kafka_brokers: brokers.into(), topic_prefix: topic_prefix.into() }
    }

    /// The full name of a topic or consumer group.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// What producers, consumers and administrators share.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.kafka_brokers)
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            // A broker that comes back is found within a second, not within ten.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // Brokers close idle connections; that is no news.
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// A producer that loses, doubles and reorders nothing: idempotent, acknowledged by all in-sync replicas.
    ///
    /// What is not acknowledged within 10 s has failed (and may yet have been stored). The queue is bounded by
    /// 100,000 messages and 64 MiB; a full queue is an error at once, never a wait. `linger.ms` is 1: lower sends
    /// smaller batches under load, higher adds to the latency of a message that comes alone.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", "lz4")
            .set("linger.ms", "1")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("delivery.timeout.ms", "10000")
            .set("request.timeout.ms", "5000")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            // A topic that is not there is an error now, not in half a minute.
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }

    /// A consumer that moves no offset by itself and begins at the first record; its group carries the prefix.
    ///
    /// At most 16 MiB are fetched ahead, so that a service stays small however far behind it is. A broker answers
    /// a fetch as soon as there is a record, so `fetch.wait.max.ms` adds nothing to the latency.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", self.topic(group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            // Cooperative assignment has a history of faults; the database's position is the fence anyway.
            .set("partition.assignment.strategy", "range,roundrobin")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "300000")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "250")
            .set("fetch.error.backoff.ms", "50")
            // The default of a second stalls a drain each time the queue has run full.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "20000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.max.bytes", "8388608");
        config
    }
}

/// A client context that passes librdkafka's logs and errors to tracing and does nothing else. A service with a
/// context of its own calls [`log`] and [`error`] from it.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, kafka_error: KafkaError, reason: &str) {
        error(&kafka_error, reason);
    }
}

impl ConsumerContext for LogContext {}

/// Passes a line of librdkafka's log to tracing. Its own errors are warnings here: it retries them, and whoever
/// is harmed by one says so itself.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", { kafka.facility = facility, kafka.message = message }, "kafka client");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", { kafka.facility = facility, kafka.message = message }, "kafka client");
        }
        RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", { kafka.facility = facility, kafka.message = message }, "kafka client");
        }
    }
}

/// Passes an error of the whole client (brokers away, authentication refused) to tracing.
pub fn error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", { error = %error, kafka.message = reason }, "kafka client error");
}
