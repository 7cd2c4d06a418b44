//! The sealer: links the rows of the audit log into a chain, within a second after they were committed.
//!
//! Every row is written together with its place in a queue (`audit_unsealed`), and taken out of it in the transaction
//! that links it. So none is missed, however long after its id was drawn it is committed: the order of the chain is the
//! order in which the sealer meets rows, not that of their ids. Numbers are the primary key of the chain, so of two
//! sealers at once one fails and finds the other's links: there is one chain, with the lease or without it.
//!
//! **Not here:** what somebody does to a row before it is linked. The link says nothing of that second.

mod store;

use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use super::{lease::Lease, metrics};

/// How long a dead process keeps the others waiting.
const LEASE: Duration = Duration::from_secs(3);
/// Between two looks at the queue.
const INTERVAL: Duration = Duration::from_millis(200);
/// After a failure, and while somebody else seals.
const PAUSE: Duration = Duration::from_millis(500);

/// Links rows of the audit log.
pub(super) struct Sealer {
    /// Two connections: one seals, one keeps the lease.
    pub(super) pool: MySqlPool,
}

impl Sealer {
    /// Goes on until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let lease = Lease::new(self.pool.clone(), "audit_sealer", LEASE);
        while !stop.is_cancelled() {
            match lease.take().await {
                Ok(true) => {
                    let working = stop.child_token();
                    lease.keep_during(&working, self.seal(&working)).await;
                }
                Ok(false) => pause(&stop, PAUSE).await,
                Err(error) => {
                    tracing::warn!(error = %error, "the sealer waits for MySQL");
                    pause(&stop, PAUSE).await;
                }
            }
        }
        lease.release().await;
    }

    async fn seal(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match store::seal(&self.pool).await {
                Ok(step) => {
                    metrics::sealed(step.linked);
                    // A full step is followed by the next one at once.
                    if !step.full {
                        pause(stop, INTERVAL).await;
                    }
                }
                Err(error) => {
                    metrics::not_sealed();
                    tracing::warn!(error = %error, "rows of the audit log cannot be sealed");
                    pause(stop, PAUSE).await;
                }
            }
        }
    }
}

async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
