//! The reconciler: verifies the ledger all the time, in two kinds of rounds, and says so by metrics and the table
//! `reconciliations`.
//!
//! - **New** (every interval, so within a minute): all rows that came since the last round, with everything that they
//!   refer to; and, each time, all accounts against their last entries and their holds, all holds, all mandates, all
//!   partners' sequences against their last events, settlement accounts, dead letters, positions, the sums and the counts.
//! - **Full** (one after the other, paced): the whole ledger from its beginning. This is how an altered old row is found:
//!   after at most rows ÷ pace, since a round that begins then reads it anew.
//!
//! The verdict of a kind stands until its next round has finished. How far new rounds have come is kept in the temporary
//! folder of the process and every few minutes in MySQL; a process that takes over reads what came since that again.
//! A lease lets one process at a time do the work; every process publishes the metrics, from the table. Two that work at
//! once only read twice.

mod store;

use std::{
    io,
    num::NonZeroU32,
    path::Path,
    time::{Duration, Instant},
};

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use verifier::Report;

use super::{lease::Lease, metrics};
pub(super) use store::{Kind, Standing};

/// How long a dead process keeps the others waiting.
const LEASE: Duration = Duration::from_secs(15);
/// Rounds that found the ledger whole leave at most one row in such a time.
const ROW_INTERVAL: Duration = Duration::from_secs(60);
/// The state goes to MySQL as a whole, some 80 bytes for each account: not with every round.
const STATE_INTERVAL: Duration = Duration::from_secs(300);
/// Between two full rounds: a small ledger need not be read without a pause.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Reads the ledger and says what it found.
pub(super) struct Reconciler {
    pool: MySqlPool,
    interval: Duration,
    rows_per_second: Option<NonZeroU32>,
    /// Holds the state file; gone with the process.
    folder: tempfile::TempDir,
}

impl Reconciler {
    pub(super) fn new(
        pool: MySqlPool,
        interval: Duration,
        rows_per_second: Option<NonZeroU32>,
    ) -> io::Result<Self> {
        Ok(Self { pool, interval, rows_per_second, folder: tempfile::tempdir()? })
    }

    /// Goes on until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let lease = Lease::new(self.pool.clone(), "reconciler", LEASE);
        while !stop.is_cancelled() {
            match lease.take().await {
                Ok(true) => {
                    let working = stop.child_token();
                    lease.keep_during(&working, self.work(&working)).await;
                }
                Ok(false) => {
                    self.observe().await;
                    pause(&stop, self.interval.min(LEASE)).await;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the reconciler waits for MySQL");
                    pause(&stop, self.interval.min(LEASE)).await;
                }
            }
        }
        lease.release().await;
    }

    /// Rounds of both kinds, side by side.
    async fn work(&self, stop: &CancellationToken) {
        tokio::join!(self.new_rounds(stop), self.full_rounds(stop));
    }

    async fn new_rounds(&self, stop: &CancellationToken) {
        let state = self.folder.path().join("state");
        self.fetch_state(&state).await;
        let mut noted: Option<(Instant, bool)> = None;
        let mut saved = Instant::now();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let round = store::begin(&self.pool).await;
            let report = verifier::verify(&self.pool, Some(&state)).await;
            if let Err(verifier::Error::State { .. }) = &report {
                // An unusable state must not stop the rounds: the next one begins from the beginning.
                let _ = tokio::fs::remove_file(&state).await;
            }
            if let Some(report) = judge(report) {
                let whole = report.is_whole();
                let due = noted.is_none_or(|(at, was)| was != whole || at.elapsed() >= ROW_INTERVAL);
                if due && self.note(Kind::New, round, &report).await {
                    noted = Some((Instant::now(), whole));
                }
                if whole && saved.elapsed() >= STATE_INTERVAL {
                    self.save_state(&state).await;
                    saved = Instant::now();
                }
            }
            self.observe().await;
            pause(stop, self.interval.saturating_sub(began.elapsed())).await;
        }
        self.save_state(&state).await;
    }

    async fn full_rounds(&self, stop: &CancellationToken) {
        let Some(rows_per_second) = self.rows_per_second else { return };
        while !stop.is_cancelled() {
            let round = store::begin(&self.pool).await;
            let verified = tokio::select! {
                verified = verifier::verify_slowly(&self.pool, rows_per_second) => verified,
                () = stop.cancelled() => return,
            };
            if let Some(report) = judge(verified) {
                self.note(Kind::Full, round, &report).await;
            }
            pause(stop, FULL_PAUSE.min(self.interval)).await;
        }
    }

    /// Leaves a row; whether that succeeded.
    async fn note(&self, kind: Kind, began: Result<i64, sqlx::Error>, report: &Report) -> bool {
        let noted = match began {
            Ok(began) => store::note(&self.pool, kind, began, report).await,
            Err(error) => Err(error),
        };
        match noted {
            Ok(()) => true,
            Err(error) => {
                metrics::reconciliation_failed();
                tracing::warn!(error = %error, "what the reconciler found cannot be stored");
                false
            }
        }
    }

    async fn observe(&self) {
        match store::standing(&self.pool).await {
            Ok(standing) => metrics::reconciliation(&standing),
            Err(error) => tracing::debug!(error = %error, "what the reconciler found is unknown"),
        }
    }

    async fn fetch_state(&self, path: &Path) {
        match store::state(&self.pool).await {
            Ok(Some(bytes)) => {
                if let Err(error) = tokio::fs::write(path, bytes).await {
                    tracing::warn!(error = %error, "the reconciler begins from the beginning");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "the reconciler begins from the beginning"),
        }
    }

    async fn save_state(&self, path: &Path) {
        let Ok(bytes) = tokio::fs::read(path).await else { return };
        if let Err(error) = store::save_state(&self.pool, &bytes).await {
            tracing::warn!(error = %error, "how far the ledger is verified cannot be stored");
        }
    }
}

/// Says what a round found, or that it did not come to its end.
fn judge(verified: Result<Report, verifier::Error>) -> Option<Report> {
    let report = match verified {
        Ok(report) => report,
        Err(error) => {
            metrics::reconciliation_failed();
            tracing::warn!(error = %error, "the ledger could not be read to its end");
            return None;
        }
    };
    if let Some(first) = report.findings.first() {
        tracing::error!(finding.first = %first, findings.count = report.findings.len(), "the ledger is broken");
    }
    Some(report)
}

async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}
