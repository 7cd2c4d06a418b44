//! Sends bank commands and waits until the processor has decided each of them.

mod store;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::{command::BankEnvelope, payment::Reason, topic::BANK_COMMANDS};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use runtime::config::KafkaConfig;
use sqlx::MySqlPool;
use uuid::Uuid;

use store::LOOKUP_MAX;

/// Commands in flight to Kafka at once, far below the producer's own queue.
const SEND_MAX: usize = 5_000;
/// How long to wait for the next outcome: a processor that has just taken over needs up to 20 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Why commands have no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MySQL refused.
    #[error("MySQL: {0}; is it running, and have the migrations been applied?")]
    Mysql(#[from] sqlx::Error),
    /// Kafka refused.
    #[error("Kafka: {0}; is it running, and have the topics been created?")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The processor did not decide in time.
    #[error(
        "{missing} of {all} commands have no outcome and none came for {waited_s} s: is the processor running and ready? \
         They are on Kafka and will be decided once"
    )]
    Undecided {
        /// Commands without an outcome.
        missing: usize,
        /// All commands.
        all: usize,
        /// For how long nothing happened.
        waited_s: u64,
    },
}

/// What the ledger made of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Applied,
    /// It was refused for good; `None` for a reason that this version does not know.
    Rejected(Option<Reason>),
    /// It could not be applied, and waits for an operator.
    DeadLetter(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::Rejected(Some(reason)) => write!(f, "rejected: {reason}"),
            Self::Rejected(None) => f.write_str("rejected for a reason that this version does not know"),
            Self::DeadLetter(detail) => write!(f, "a dead letter: {detail}"),
        }
    }
}

/// What became of a command; nothing yet, or nobody knows it.
pub async fn outcome(pool: &MySqlPool, id: Uuid) -> Result<Option<Outcome>, sqlx::Error> {
    Ok(outcomes(pool, &[id]).await?.remove(&id))
}

/// What became of at most 1,000 commands; those without an outcome are not in the answer.
pub async fn outcomes(pool: &MySqlPool, ids: &[Uuid]) -> Result<HashMap<Uuid, Outcome>, sqlx::Error> {
    store::outcomes(pool, ids).await
}

/// Carries out what has not been carried out yet; gives how many commands were sent. `judge` is told each outcome, and
/// may end the waiting.
pub async fn carry_out<E: From<Error>>(
    pool: &MySqlPool,
    kafka: &KafkaConfig,
    commands: Vec<BankEnvelope>,
    mut judge: impl FnMut(&BankEnvelope, Outcome) -> Result<(), E>,
) -> Result<usize, E> {
    let mut open: HashMap<Uuid, BankEnvelope> = commands.into_iter().map(|it| (it.id, it)).collect();
    settle(pool, &mut open, &mut judge).await?;
    let all = open.len();
    if all == 0 {
        return Ok(0);
    }
    send(kafka, open.values()).await?;
    let mut last_news = Instant::now();
    loop {
        let before = open.len();
        settle(pool, &mut open, &mut judge).await?;
        if open.is_empty() {
            return Ok(all);
        }
        if open.len() < before {
            last_news = Instant::now();
        }
        if last_news.elapsed() >= PATIENCE {
            return Err(Error::Undecided { missing: open.len(), all, waited_s: PATIENCE.as_secs() }.into());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Takes the commands with an outcome out of `open`.
async fn settle<E: From<Error>>(
    pool: &MySqlPool,
    open: &mut HashMap<Uuid, BankEnvelope>,
    judge: &mut impl FnMut(&BankEnvelope, Outcome) -> Result<(), E>,
) -> Result<(), E> {
    let ids: Vec<Uuid> = open.keys().copied().collect();
    for ids in ids.chunks(LOOKUP_MAX) {
        for (id, outcome) in store::outcomes(pool, ids).await.map_err(Error::from)? {
            if let Some(envelope) = open.remove(&id) {
                judge(&envelope, outcome)?;
            }
        }
    }
    Ok(())
}

/// Returns when the broker has acknowledged all of them.
async fn send(kafka: &KafkaConfig, commands: impl Iterator<Item = &BankEnvelope>) -> Result<(), Error> {
    let config: ClientConfig = kafka.producer();
    let producer: FutureProducer = config.create()?;
    let topic = kafka.topic(BANK_COMMANDS.name);
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let sent = commands.by_ref().take(SEND_MAX).map(|envelope| {
            let (key, value) = (envelope.command.kafka_key(), envelope.encode());
            let (producer, topic) = (&producer, &topic);
            async move {
                let record = FutureRecord::to(topic).key(key.as_bytes()).payload(&value);
                // The producer gives up by itself after its delivery time-out; the queue never waits.
                producer.send(record, Duration::ZERO).await.map_err(|(error, _)| Error::Kafka(error))
            }
        });
        try_join_all(sent).await?;
    }
    Ok(())
}
