//! Brings commands that were written down to the ledger: in every process, until the ledger has the outcome.
//!
//! Rows are claimed by a conditional update for the time that a delivery takes, so that two dispatchers seldom publish
//! the same; if they do, the ledger applies it once. Whose outcome is there is done. What is not decided is published
//! again after pauses that double from 10 s to 10 minutes: nobody has to know whether the first record was lost or
//! the processor is only away.

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::producer::Producer as _;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Bank, as_asked};
use crate::app::App;
use crate::commands;
use crate::metrics;
use crate::store::commands::{self as store, CommandRow};

/// Commands of one round.
const BATCH: u32 = 100;
/// How long a claim lasts: longer than a round takes, whatever fails in it.
const CLAIM_S: u32 = 20;
/// Between two rounds that find nothing; while Kafka or MySQL is away, pauses double from here.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// For the broker's first answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
}

/// Goes round until `shutdown`.
pub async fn run(app: std::sync::Arc<App>, pool: MySqlPool, shutdown: CancellationToken) {
    let bank = &app.bank;
    bank.meet_the_broker().await;
    let mut pause = PAUSE;
    while !shutdown.is_cancelled() {
        match bank.round(&pool).await {
            // There may be more.
            Ok(claimed) if claimed == BATCH as usize => continue,
            Ok(_) => pause = PAUSE,
            Err(error) => {
                tracing::warn!(error = %error, "commands wait to be published");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        match store::oldest_undecided_s(&pool).await {
            Ok(seconds) => metrics::oldest_command(seconds),
            Err(error) => tracing::debug!(error = %error, "undecided commands cannot be counted"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = bank.wake.notified(), if pause == PAUSE => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Bank {
    /// A producer that has not heard of a topic holds its first record back for up to a second.
    async fn meet_the_broker(&self) {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            producer.client().fetch_metadata(Some(&topic), METADATA_TIMEOUT).map(drop)
        });
        if let Ok(Err(error)) = asked.await {
            tracing::debug!(error = %error, "the broker does not answer yet");
        }
    }

    /// Looks at what is due; returns how many commands that were.
    async fn round(&self, pool: &MySqlPool) -> Result<usize, DispatchError> {
        let claim = Uuid::new_v4();
        let due = store::due(pool, BATCH).await?;
        let mine = store::claim(pool, &due, claim, CLAIM_S).await?;
        if mine.is_empty() {
            return Ok(0);
        }
        let ids: Vec<Uuid> = mine.iter().map(|row| row.id).collect();
        let outcomes = commands::outcomes(pool, &ids).await?;
        let decided: Vec<Uuid> = outcomes.keys().copied().collect();
        store::decided(pool, &decided).await?;
        let open: Vec<_> =
            mine.iter().filter(|row| !outcomes.contains_key(&row.id)).filter_map(readable).collect();
        let sent = join_all(open.iter().map(|(row, key)| self.publish(*key, &row.envelope))).await;
        let (mut published, mut failed, mut why) = (Vec::new(), Vec::new(), None);
        for ((row, _), result) in open.iter().zip(sent) {
            match result {
                Ok(()) => published.push(row.id),
                Err(error) => {
                    failed.push(row.id);
                    why = Some(error);
                }
            }
        }
        metrics::commands_dispatched(published.len() as u64);
        store::published(pool, &published, claim).await?;
        store::release(pool, &failed, claim).await?;
        match why {
            Some(error) => Err(error.into()),
            None => Ok(mine.len()),
        }
    }
}

/// A row and the key of its record. One that was altered is never published, and told by its age.
fn readable(row: &CommandRow) -> Option<(&CommandRow, Uuid)> {
    as_asked(row).map(|envelope| (row, envelope.command.kafka_key()))
}
