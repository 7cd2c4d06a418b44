//! Work that one of several processes does at a time.

use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;

/// A name in the table `leases`, and who asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pool: MySqlPool,
    name: &'static str,
    holder: Uuid,
    lasts: Duration,
}

impl Lease {
    /// Asks for nothing yet. `lasts` bounds how long a dead holder keeps everyone waiting.
    pub(crate) fn new(pool: MySqlPool, name: &'static str, lasts: Duration) -> Self {
        Self { pool, name, holder: Uuid::new_v4(), lasts }
    }

    /// Takes or keeps it; `false` when another one has it.
    pub(crate) async fn take(&self) -> Result<bool, sqlx::Error> {
        store::take_lease(&self.pool, self.name, self.holder, self.lasts).await
    }

    /// Keeps it while `work` runs, and cancels `lost` when another one has it. What the work does must bear that the lease
    /// was lost: it is there to save work, never to make it right.
    pub(crate) async fn keep_during<T>(&self, lost: &CancellationToken, work: impl Future<Output = T>) -> T {
        let done = CancellationToken::new();
        let (lease, stop, lost) = (self.clone(), done.clone(), lost.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(lease.lasts / 3) => {}
                    () = stop.cancelled() => return,
                }
                match lease.take().await {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::warn!(lease.name = lease.name, "a lease was lost");
                        lost.cancel();
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(lease.name = lease.name, error = %error, "a lease cannot be renewed");
                    }
                }
            }
        });
        let result = work.await;
        done.cancel();
        // It ends at once; one that panicked has said so.
        let _ = renewal.await;
        result
    }

    /// Gives it back, so that another one need not wait.
    pub(crate) async fn release(&self) {
        if let Err(error) = store::release_lease(&self.pool, self.name, self.holder).await {
            tracing::debug!(lease.name = self.name, error = %error, "a lease was not given back");
        }
    }
}
