//! I12: no row of the audit log was altered, removed, added or reordered.
//!
//! The chain is walked from its first link or from where an earlier run ended, and the hash of every link is computed
//! anew from the row and the hash before. A broken link is named once: those behind it are compared with the hash that
//! is stored. Then the log is read in the order of its ids: a row without a link must stand in the queue of the sealer,
//! and whatever stands there must be in the log.
//!
//! What was linked in the same transaction left the queue, so each of these reads is one statement over both.

use std::num::NonZeroU32;
use std::time::Duration;

use domain::audit::GENESIS;
use domain::checkpoint::Hash;
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::store::{self, COMMAND_PAGE, Link};
use crate::{Error, Invariant, Report, report::Row};

/// Ids are drawn before their rows are committed, by clocks that differ: a resumed run reads the log again from so many
/// milliseconds before where the last one ended. Rows that come later than that still have their link verified.
const LATE_MS: u64 = 600_000;

/// How far the audit log is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditProgress {
    /// The last link.
    pub(crate) number: u64,
    /// Its hash.
    pub(crate) head: Hash,
    /// The greatest id of the log.
    pub(crate) id: Uuid,
}

impl Default for AuditProgress {
    fn default() -> Self {
        Self { number: 0, head: Hash(GENESIS), id: Uuid::nil() }
    }
}

/// Verifies what came after `before`; `told` hears how many links are verified.
pub(crate) async fn verify(
    pool: &MySqlPool,
    before: AuditProgress,
    pace: Option<NonZeroU32>,
    report: &mut Report,
    told: &(dyn Fn(u64) + Sync),
) -> Result<AuditProgress, Error> {
    let mut at = before;
    if before.number > 0 {
        let found = store::link(pool, before.number).await?;
        let row = Row { table: "audit_chain", key: &|| format!("number {}", before.number) };
        let say = || {
            let found = if found.is_some() { "another one" } else { "none: the tail was cut off" };
            ("the link that was verified earlier".to_owned(), found.to_owned())
        };
        report.hold(Invariant::I12, &row, found == Some(before.head.0), say);
    }
    loop {
        let page = store::links_after(pool, at.number).await?;
        report.read("audit_chain", page.len());
        for link in &page {
            check(report, &at, link);
            at.number = link.number;
            at.head = Hash(link.hash);
        }
        told(at.number);
        if page.len() < COMMAND_PAGE as usize || report.is_full() {
            break;
        }
        paced(pace, page.len()).await;
    }
    at.id = strays(pool, before.id, pace, report).await?;
    Ok(at)
}

/// One link behind another.
fn check(report: &mut Report, at: &AuditProgress, link: &Link) {
    let key = || format!("number {} ({})", link.number, link.audit_id);
    let row = Row { table: "audit_chain", key: &key };
    let say = || (format!("number {} behind {}", at.number + 1, at.number), link.number.to_string());
    if !report.hold(Invariant::I12, &row, link.number == at.number + 1, say) {
        // What stood before it is gone, so its hash says nothing.
        return;
    }
    let row = Row { table: "audit_log", key: &key };
    let Some(logged) = &link.row else {
        let say = || ("the row that was linked".to_owned(), "none".to_owned());
        report.hold(Invariant::I12, &row, false, say);
        return;
    };
    let hash = logged.hash_after(&at.head.0, link.number);
    let say = || {
        let expected = "a row that makes the hash of its link behind the one before".to_owned();
        (expected, "another one: it was altered or changed places".to_owned())
    };
    report.hold(Invariant::I12, &row, hash == link.hash, say);
}

/// Rows that nobody linked or will link, and places in the queue without a row. Gives the last id that was read.
async fn strays(
    pool: &MySqlPool,
    from: Uuid,
    pace: Option<NonZeroU32>,
    report: &mut Report,
) -> Result<Uuid, Error> {
    let orphan = store::queued_and_gone(pool).await?;
    let row = Row { table: "audit_log", key: &|| orphan.unwrap_or_default().to_string() };
    let say = || ("the row that waits for its link".to_owned(), "none".to_owned());
    report.hold(Invariant::I12, &row, orphan.is_none(), say);
    let mut after = earlier(from);
    let mut last = from;
    loop {
        let page = store::logged_after(pool, after).await?;
        report.read("audit_log", page.len());
        for (id, is_known) in &page {
            let row = Row { table: "audit_log", key: &|| id.to_string() };
            let say = || ("a link, or a place in the queue of the sealer".to_owned(), "neither".to_owned());
            report.hold(Invariant::I12, &row, *is_known, say);
        }
        match page.last() {
            Some((id, _)) => {
                after = *id;
                last = last.max(*id);
            }
            None => return Ok(last),
        }
        if page.len() < COMMAND_PAGE as usize || report.is_full() {
            return Ok(last);
        }
        paced(pace, page.len()).await;
    }
}

/// The least UUIDv7 of [`LATE_MS`] earlier.
fn earlier(id: Uuid) -> Uuid {
    let millis = (id.as_u128() >> 80) as u64;
    Uuid::from_u128(u128::from(millis.saturating_sub(LATE_MS)) << 80)
}

pub(crate) async fn paced(pace: Option<NonZeroU32>, rows: usize) {
    if let Some(rows_per_second) = pace {
        tokio::time::sleep(Duration::from_secs_f64(rows as f64 / f64::from(rows_per_second.get()))).await;
    }
}

/// Finds the heads that checkpoints name, one after the other along the chain.
pub(crate) struct Heads {
    /// The link where the last head was found.
    at: u64,
    /// The head of that link, or of those read behind it in vain.
    head: [u8; 32],
    ahead: std::collections::VecDeque<(u64, [u8; 32])>,
    read: u64,
    /// A head was not found: those behind it cannot be told apart.
    lost: bool,
}

impl Heads {
    pub(crate) fn new() -> Self {
        Self { at: 0, head: GENESIS, ahead: std::collections::VecDeque::new(), read: 0, lost: false }
    }

    /// Looks for the head of a checkpoint behind that of the one before.
    pub(crate) async fn check(
        &mut self,
        pool: &MySqlPool,
        report: &mut Report,
        checkpoint: u64,
        head: [u8; 32],
    ) -> Result<(), Error> {
        if self.lost {
            return Ok(());
        }
        let mut end = self.at;
        while self.head != head {
            if self.ahead.is_empty() {
                let page = store::heads_after(pool, self.read).await?;
                self.read = page.last().map_or(self.read, |(number, _)| *number);
                self.ahead.extend(page);
            }
            let Some((number, hash)) = self.ahead.pop_front() else {
                self.lost = true;
                break;
            };
            (end, self.head) = (number, hash);
        }
        let row = Row { table: "audit_chain", key: &|| format!("number {}", self.at + 1) };
        let say = || {
            let expected = format!(
                "the chain to come to the head that checkpoint {checkpoint} names, so this or a later link was \
                 rewritten or cut off"
            );
            (expected, format!("it ends at number {end} with another head"))
        };
        report.hold(Invariant::I12, &row, !self.lost, say);
        self.at = end;
        Ok(())
    }
}
