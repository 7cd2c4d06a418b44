//! Putting commands on Kafka: a payment is accepted when the broker has acknowledged it, and not before.
//!
//! While no broker can be reached, payments are refused at once (`queue_unavailable`), so that none is half
//! accepted; a probe every second notices when one is back. What was sent and not acknowledged in time may or may
//! not be stored (`outcome_unknown`). A fatal error of the idempotent producer makes a new producer; what the old
//! one held is flushed or reported unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::time::Timestamp;
use domain::topic::PARTNER_COMMANDS;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::{ClientContext, Message};
use runtime::config::KafkaConfig;
use runtime::health::Component;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::ProducerConfig;
use crate::lag::Lag;
use crate::metrics;

/// Between two looks at the brokers.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// For one answer of a broker to a look.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// For what the producer still holds at the end, longer than any delivery takes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(8);

/// Where an accepted command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
    /// The broker's time.
    pub accepted_at: Timestamp,
}

/// Why a command was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// It is certainly not on Kafka.
    #[error("Kafka takes nothing at the moment")]
    Unavailable,
    /// It may be on Kafka.
    #[error("Kafka did not acknowledge in time")]
    Unknown,
}

/// A command on its way.
#[derive(Debug)]
pub struct Sent(oneshot::Receiver<Result<Placed, QueueError>>);

impl Sent {
    /// Where it stands, once the broker has acknowledged it; bounded by the delivery's own time.
    pub async fn placed(self) -> Result<Placed, QueueError> {
        // Without an answer the producer was dropped while it held the record.
        self.0.await.unwrap_or(Err(QueueError::Unknown))
    }
}

type Producing = ThreadedProducer<Context>;

/// The partners' commands topic.
pub struct Queue {
    producer: ArcSwap<Producing>,
    config: ClientConfig,
    topic: String,
    state: Arc<State>,
}

/// What the callbacks of librdkafka and the probe know.
struct State {
    is_up: AtomicBool,
    health: Component,
    lag: Arc<Lag>,
}

/// Who waits for the acknowledgement of a record.
struct Waiting {
    since: Instant,
    reply: oneshot::Sender<Result<Placed, QueueError>>,
}

impl State {
    fn up(&self) {
        if !self.is_up.swap(true, Ordering::Relaxed) {
            self.health.up();
        }
    }

    fn down(&self, why: &str) {
        self.is_up.store(false, Ordering::Relaxed);
        self.health.down(why);
    }

    fn placed(&self, partition: i32, offset: i64, millis: Option<i64>) -> Result<Placed, QueueError> {
        // Without a position there is no truthful answer but "unknown".
        let partition = u16::try_from(partition).map_err(|_| QueueError::Unknown)?;
        let offset = u64::try_from(offset).map_err(|_| QueueError::Unknown)?;
        self.lag.produced(partition, offset);
        Ok(Placed { partition, offset, accepted_at: Timestamp::from_millis(millis.unwrap_or(0)) })
    }

    fn not_delivered(&self, error: &KafkaError) -> QueueError {
        use RDKafkaErrorCode as Kafka;
        // Refused before or by the broker: certainly not stored.
        let refused = matches!(
            error.rdkafka_error_code(),
            Some(
                Kafka::PurgeQueue
                    | Kafka::UnknownTopic
                    | Kafka::UnknownPartition
                    | Kafka::UnknownTopicOrPartition
                    | Kafka::TopicAuthorizationFailed
                    | Kafka::MessageSizeTooLarge
                    | Kafka::InvalidMessageSize
            )
        );
        if refused {
            tracing::error!(error = %error, "a payment was refused by Kafka");
            return QueueError::Unavailable;
        }
        tracing::warn!(error = %error, "a payment was not acknowledged by Kafka");
        self.down("records are not acknowledged");
        QueueError::Unknown
    }
}

struct Context(Arc<State>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        runtime::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.down("no broker can be reached");
        }
        runtime::kafka::error(&error, reason);
    }
}

/// Acknowledgements come on the thread of the producer: what became of a command is counted and answered there, also
/// when its client went away.
impl ProducerContext for Context {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let placed = match delivered {
            Ok(message) => {
                self.0.placed(message.partition(), message.offset(), message.timestamp().to_millis())
            }
            Err((error, _)) => Err(self.0.not_delivered(error)),
        };
        match placed {
            Ok(_) => metrics::acknowledged(),
            Err(QueueError::Unavailable) => metrics::not_acknowledged("refused"),
            Err(QueueError::Unknown) => metrics::not_acknowledged("unknown"),
        }
        metrics::produce_took(waiting.since.elapsed());
        // The client may be gone.
        let _ = waiting.reply.send(placed);
    }
}

impl Queue {
    /// A producer that has not met a broker yet.
    pub fn new(
        kafka: &KafkaConfig,
        settings: &ProducerConfig,
        lag: Arc<Lag>,
        health: Component,
    ) -> Result<Self, KafkaError> {
        let mut config = kafka.producer();
        config
            .set("linger.ms", settings.linger_ms.to_string())
            .set("max.in.flight.requests.per.connection", settings.requests_in_flight.to_string())
            .set("delivery.timeout.ms", settings.delivery_timeout_ms.to_string())
            .set("request.timeout.ms", settings.delivery_timeout_ms.min(5_000).to_string());
        let state = Arc::new(State { is_up: AtomicBool::new(false), health, lag });
        let producer = create(&config, &state)?;
        Ok(Self {
            producer: ArcSwap::from_pointee(producer),
            config,
            topic: kafka.topic(PARTNER_COMMANDS.name),
            state,
        })
    }

    /// Produces a command keyed by its root payment, and waits for the acknowledgement.
    pub async fn put(&self, root: Uuid, value: &[u8]) -> Result<Placed, QueueError> {
        self.send(root, value)?.placed().await
    }

    /// Produces a command keyed by its root payment. Nothing waits before it is sent: it is on its way even when the
    /// client goes away.
    pub fn send(&self, root: Uuid, value: &[u8]) -> Result<Sent, QueueError> {
        if !self.state.is_up.load(Ordering::Relaxed) {
            metrics::not_acknowledged("refused");
            return Err(QueueError::Unavailable);
        }
        let (reply, placed) = oneshot::channel();
        let waiting = Box::new(Waiting { since: Instant::now(), reply });
        let record = BaseRecord::with_opaque_to(&self.topic, waiting).key(root.as_bytes()).payload(value);
        if let Err((error, _)) = self.producer.load().send(record) {
            metrics::not_acknowledged("refused");
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                tracing::error!(error = %error, "the producer takes no records");
            }
            return Err(QueueError::Unavailable);
        }
        Ok(Sent(placed))
    }

    /// Looks at the brokers, samples the ends of the partitions and replaces a producer that failed for good.
    pub async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let queue = self.clone();
            // librdkafka's calls block.
            let probed = tokio::task::spawn_blocking(move || queue.probe()).await;
            if probed.is_err() {
                self.state.down("the probe of Kafka failed");
            }
            tokio::select! {
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn probe(&self) {
        let producer = self.producer.load_full();
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::error!(error = %code, kafka.message = reason, "the producer failed for good; making a new one");
            self.state.down("the producer failed for good");
            match create(&self.config, &self.state) {
                Ok(fresh) => {
                    metrics::producer_replaced();
                    self.producer.store(Arc::new(fresh));
                    // Fails what it still holds, so that nobody waits for it.
                    producer.purge(PurgeConfig::default().queue().inflight());
                }
                Err(error) => tracing::error!(error = %error, "no new producer"),
            }
            return;
        }
        // A producer that has not heard of a topic holds its first record back for up to a second.
        if !self.state.is_up.load(Ordering::Relaxed)
            && let Err(error) = producer.client().fetch_metadata(Some(&self.topic), PROBE_TIMEOUT)
        {
            return self.state.down(&format!("{} cannot be reached: {error}", self.topic));
        }
        let mut ends = Vec::with_capacity(PARTNER_COMMANDS.partitions as usize);
        for partition in 0..PARTNER_COMMANDS.partitions {
            match producer.client().fetch_watermarks(&self.topic, partition, PROBE_TIMEOUT) {
                Ok((_, high)) => ends.push((partition as u16, high.max(0) as u64)),
                Err(error) => return self.state.down(&format!("{} cannot be reached: {error}", self.topic)),
            }
        }
        self.state.lag.ends(ends, Instant::now());
        self.state.up();
    }

    /// Waits until everything is acknowledged; `Err` has how many records were not.
    pub async fn flush(self: Arc<Self>) -> Result<(), i32> {
        let flushed = tokio::task::spawn_blocking(move || {
            let producer = self.producer.load_full();
            let flushed = producer.flush(FLUSH_TIMEOUT);
            match (flushed, producer.in_flight_count()) {
                (Ok(()), 0) => Ok(()),
                (_, left) => Err(left),
            }
        });
        flushed.await.unwrap_or(Err(-1))
    }
}

fn create(config: &ClientConfig, state: &Arc<State>) -> Result<Producing, KafkaError> {
    config.create_with_context(Context(state.clone()))
}
