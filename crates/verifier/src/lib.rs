//! Proves that the ledger is whole, by reading it and nothing else.
//!
//! | what | how |
//! |---|---|
//! | I1 debits = credits | every payment that moved money has exactly its two entries; entries = 2 × such payments |
//! | I2 balance, version, held | every account's entries are walked from the last verified one; its holds are summed, and each is of an authorised payment |
//! | I3 zero sum per currency | one snapshot over the accounts |
//! | I4 nothing applied twice | ids are unique, derived ids are derived right, positions are below the applied offset |
//! | I6 legal statuses | every row of payments, changes, accounts, mandates, dead letters; a payment's status and version are what its follow-ups leave |
//! | I7 available ≥ 0 | after every debit and now, except for the bank's own accounts |
//! | I8 caps | captured ≤ authorised, refunded and reversed ≤ captured, both as the sums of the follow-ups; the caps of mandates, a single-use mandate at most once |
//! | I9 events without gap or repeat | each partner's log is walked, and each event is referred to exactly once |
//! | I10 deliveries | whole runs: an event without a delivery, behind which later ones have theirs |
//! | I11 chains | the hash of every entry is computed anew |
//! | I12 audit log | the hash of every link is computed anew; a row without a link waits for it |
//!
//! I5 (every accepted payment has an outcome) needs to know what was accepted: [`outcomes`].
//!
//! **A bank at work gives no false alarm.** What never changes once written (entries, payments, events) is read
//! without any lock or snapshot, up to bounds that were read first; what changes is read together with what it must
//! agree with in one statement, which MySQL answers from one state. Only the sums stand in one short snapshot.
//!
//! **Memory is bounded:** tables are read in pages of their primary key. With a state file a run reads only what
//! came after the last one; it then trusts what it verified before, so run without it from time to time. A broken
//! ledger is not written into the state, so it is found again.
//!
//! **Not found by the chains alone:** a ledger or an audit log rewritten as a whole with all its hashes. Signed checkpoints outside the
//! database tell: [`verify_checkpoints`]. A run with a state file does not read again what was verified before.

mod audit;
mod checkpoints;
mod export;
mod outcomes;
mod passes;
mod report;
mod sections;
mod state;
mod store;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Instant,
};

use ed25519_dalek::VerifyingKey;
use sqlx::MySqlPool;

pub use checkpoints::Vouched;
pub use export::{export, import};
pub use outcomes::{Outcomes, outcomes};
pub use report::{Finding, Invariant, Report};

/// Why the ledger could not be read to its end. Says nothing of whether it is whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MySQL refused.
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
    /// The public key is no point of the curve.
    #[error("the public key is none of ed25519")]
    Key,
    /// A folder of checkpoints or an export is not as it was written.
    #[error("{path}: {reason}")]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The state file is unusable.
    #[error("{path}: {reason}; remove it to verify everything anew")]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Verifies the ledger. With `state_file`, goes on where the last run with it ended.
pub async fn verify(pool: &MySqlPool, state_file: Option<&Path>) -> Result<Report, Error> {
    run(pool, state_file, None).await
}

/// Verifies the ledger against the signed checkpoints in `folder`. What is wrong is added to `report`, which should be
/// that of a whole run: a checkpoint fixes the last entry of an account, and the chain fixes those before.
pub async fn verify_checkpoints(
    pool: &MySqlPool,
    folder: &Path,
    public_key: &[u8; 32],
    report: &mut Report,
) -> Result<Vouched, Error> {
    let key = VerifyingKey::from_bytes(public_key).map_err(|_| Error::Key)?;
    // With findings of its own: an account that is gone leaves so many that they would hide what was signed.
    let mut own = Report::default();
    let vouched = checkpoints::verify(pool, folder, &key, checkpoints::Compared::Everything, &mut own).await;
    report.absorb(own);
    vouched
}

/// Verifies the whole ledger, reading so many rows in a second at most: for a bank at work, whose customers come first.
pub async fn verify_slowly(pool: &MySqlPool, rows_per_second: NonZeroU32) -> Result<Report, Error> {
    run(pool, None, Some(rows_per_second)).await
}

/// Verifies the audit log alone, and that its chain comes to the heads that the signed checkpoints in a folder name, with
/// the key that they are signed with. Reads so many rows in a second at most; `told` hears how many links are verified.
pub async fn verify_audit(
    pool: &MySqlPool,
    checkpoints: Option<(&Path, &[u8; 32])>,
    rows_per_second: Option<NonZeroU32>,
    told: &(dyn Fn(u64) + Sync),
) -> Result<(Report, Vouched), Error> {
    let started = Instant::now();
    let mut report = Report::default();
    let nothing = audit::AuditProgress::default();
    audit::verify(pool, nothing, rows_per_second, &mut report, told).await?;
    let mut vouched = Vouched::default();
    if let Some((folder, public_key)) = checkpoints {
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| Error::Key)?;
        let mut own = Report::default();
        vouched =
            checkpoints::verify(pool, folder, &key, checkpoints::Compared::AuditAlone, &mut own).await?;
        report.absorb(own);
    }
    report.elapsed = started.elapsed();
    Ok((report, vouched))
}

async fn run(
    pool: &MySqlPool,
    state_file: Option<&Path>,
    rows_per_second: Option<NonZeroU32>,
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut run = passes::Run::begin(pool, state_file).await?;
    run.rows_per_second = rows_per_second;
    run.positions();
    run.accounts().await?;
    run.payments().await?;
    run.changes().await?;
    run.holds().await?;
    run.mandates().await?;
    run.events().await?;
    run.settlement_accounts().await?;
    run.dead_letters().await?;
    run.deliveries().await?;
    run.audit().await?;
    run.counts().await?;
    run.finish(started.elapsed())
}
