//! Deletes what is no longer kept: deliveries, attempts, notices and ended replays after 30 days, and everything of
//! endpoints that were deleted.
//!
//! A pass walks from endpoint to endpoint and deletes a bounded range of an index at a time. It rests between two
//! statements for many times as long as one took, so that live traffic hardly notices it. What is deleted twice is
//! deleted once, so several notifiers need not know of one another.

use std::time::{Duration, Instant};

use domain::time::Timestamp;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::Status;
use crate::store::expiry::{self as store, ROWS_MAX, Which};
use crate::{clock, metrics};

/// How long deliveries, attempts, notices and ended replays are kept.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long a delivery that waits is kept, of an endpoint that is disabled: longer, so that the schedule of one that
/// was asked for again at the last moment ends by itself.
const WAITING_KEPT: Duration = Duration::from_secs(40 * 24 * 3_600);
/// The pause between two passes.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The pause before the first one, at most.
const FIRST: Duration = Duration::from_secs(300);
/// A statement is followed by a rest of so many times its duration, and of this at least.
const REST_TIMES: u32 = 10;
const REST_MIN: Duration = Duration::from_millis(20);

/// Deletes until `shutdown`.
pub async fn run(pool: MySqlPool, shutdown: CancellationToken) {
    let mut wait = FIRST.mul_f64(rand::random());
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            passed = pass(&pool, clock::now()) => if let Err(error) = passed {
                tracing::warn!(error = %error, "what is too old was not deleted");
            },
            () = shutdown.cancelled() => return,
        }
        wait = INTERVAL.mul_f64(rand::random_range(0.9..1.1));
    }
}

/// Deletes everything that was too old at `now`.
pub async fn pass(pool: &MySqlPool, now: Timestamp) -> Result<(), sqlx::Error> {
    let before = |kept: Duration| now.plus_micros(-i64::try_from(kept.as_micros()).unwrap_or(i64::MAX));
    let mut last = Uuid::nil();
    while let Some((endpoint, exists)) = store::next_endpoint(pool, last).await? {
        last = endpoint;
        if !exists {
            deliveries(pool, endpoint, Which::All).await?;
            continue;
        }
        for (status, kept) in
            [(Status::Delivered, KEPT), (Status::Dead, KEPT), (Status::Pending, WAITING_KEPT)]
        {
            deliveries(pool, endpoint, Which::Before(status, before(kept))).await?;
        }
    }
    while rested(async || store::notices(pool, before(KEPT)).await).await? {}
    while rested(async || store::replays(pool, before(KEPT)).await).await? {}
    while rested(async || store::orphans(pool).await).await? {}
    Ok(())
}

async fn deliveries(pool: &MySqlPool, endpoint: Uuid, which: Which) -> Result<(), sqlx::Error> {
    loop {
        let deleted = rested(async || store::deliveries(pool, endpoint, which).await).await?;
        metrics::add("wired_notifier_expired_deliveries_total", deleted as usize);
        if deleted < ROWS_MAX {
            return Ok(());
        }
    }
}

/// Does something and rests.
async fn rested<T>(work: impl AsyncFnOnce() -> Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    let started = Instant::now();
    let done = work().await;
    tokio::time::sleep((started.elapsed() * REST_TIMES).max(REST_MIN)).await;
    done
}
