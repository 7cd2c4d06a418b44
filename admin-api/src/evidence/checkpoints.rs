//! Checkpoints: every interval, the last entries of the accounts that changed are written down, signed and published
//! where whoever can write the database cannot write.
//!
//! 1. In one consistent snapshot: how far the partitions are applied, which accounts the payments since the last
//!    checkpoint touched, and the heads of those accounts.
//! 2. In one transaction: the signed statement and its leaves. Its number is the next one, so of two that are taken at
//!    once one fails: there is one chain, with a lease or without. The lease only saves the work.
//! 3. Only then it is published, in the order of numbers: a file that is never written again, and a record on a topic
//!    that never expires. A checkpoint without a row in `checkpoint_publications` is published (again), so a crash
//!    anywhere loses none; the topic may repeat one.
//!
//! **Cost.** Finding the accounts reads each row of `payments` once more, in the order of its primary key, a minute after
//! it was written; no index of the hot path serves this. After a long pause, and for the first checkpoint, all accounts
//! are read instead, so the snapshot stays short.
//!
//! The head of the audit chain is signed along: its last hash, which covers the number of the link; zeros while nothing
//! is sealed.

mod publish;
mod store;
mod take;

use std::{path::PathBuf, time::Duration};

use ed25519_dalek::SigningKey;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use super::{lease::Lease, metrics};
pub(super) use publish::Publisher;
pub(super) use store::State;
pub(crate) use store::published_checkpoint;

/// Why no checkpoint was taken or published.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// MySQL refused.
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
    /// The folder cannot be written.
    #[error("{path}: {source}")]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of this number holds something else: somebody has altered the folder or the database.
    #[error("{0} holds another checkpoint than the database: keep both and find out who wrote them")]
    Differs(PathBuf),
    /// Kafka did not take it.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// What is stored cannot be read.
    #[error("checkpoint {0} in the database cannot be read")]
    Stored(u64),
}

/// Takes and publishes checkpoints.
pub(super) struct Checkpoints {
    pub(super) pool: MySqlPool,
    pub(super) key: SigningKey,
    pub(super) publisher: Publisher,
    pub(super) interval: Duration,
}

impl Checkpoints {
    /// Goes on until `stop`. Tries more often than it takes one, so that another process can step in.
    pub(super) async fn run(self, stop: CancellationToken) {
        let tick = self.interval / 4;
        let lease = Lease::new(self.pool.clone(), "checkpoints", self.interval / 2);
        while !stop.is_cancelled() {
            match lease.take().await {
                Ok(true) => {
                    // Numbers keep two that work at once apart, so a lost lease stops nothing.
                    let lost = CancellationToken::new();
                    if let Err(error) = lease.keep_during(&lost, self.step()).await {
                        metrics::checkpoint_failed();
                        tracing::error!(error = %error, "no checkpoint can be taken or published");
                    }
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "checkpoints wait for MySQL"),
            }
            self.observe().await;
            tokio::select! {
                () = tokio::time::sleep(tick) => {}
                () = stop.cancelled() => {}
            }
        }
        lease.release().await;
    }

    /// Takes one if it is time, and publishes whatever is not published.
    pub(super) async fn step(&self) -> Result<(), CheckpointError> {
        // A tick earlier than the interval: at the next one it would be too late.
        take::due(&self.pool, &self.key, self.interval * 3 / 4).await?;
        self.publisher.publish(&self.pool).await
    }

    async fn observe(&self) {
        match store::state(&self.pool).await {
            Ok(state) => metrics::checkpoints(&state),
            Err(error) => tracing::debug!(error = %error, "the state of checkpoints is unknown"),
        }
    }
}
