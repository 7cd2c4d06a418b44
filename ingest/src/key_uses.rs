//! Tells MySQL when each API key was last used.
//!
//! A request only notes the time in its key, in memory. Here, away from requests, what is new is written in bulk: at
//! most one row for each key and interval, however often it is used. While MySQL is away nothing is lost but by a
//! process that ends meanwhile; nobody waits for it and no payment fails by it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::keys::KeyRing;
use crate::metrics;
use crate::store::keys as store;

/// Keys in one statement: some 80 KiB.
const KEYS_MAX: usize = 1_000;
/// A statement that takes longer has met a server that hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Writes until `stop`, and what is left then.
pub async fn run(keys: Arc<KeyRing>, pool: MySqlPool, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => {}
        }
        write(&keys, &pool).await;
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn write(keys: &KeyRing, pool: &MySqlPool) {
    let mut uses = keys.unwritten_uses();
    // In one order on every replica, so that they wait for each other and never in a circle.
    uses.sort_unstable_by_key(|(key, _)| key.uuid());
    for uses in uses.chunks(KEYS_MAX) {
        let why = match tokio::time::timeout(TIMEOUT, store::write_uses(pool, uses)).await {
            Ok(Ok(())) => {
                keys.uses_written(uses);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer from MySQL in time".to_owned(),
        };
        tracing::debug!(error = why, "uses of api keys not written");
        metrics::key_uses_not_written();
        return;
    }
}
