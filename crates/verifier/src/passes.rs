//! One run over the ledger, table by table.

mod accounts;
mod changes;
mod deliveries;
mod events;
mod holds;
mod mandates;
mod payments;

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{
    account::OwnerKind,
    ids::{AccountId, MandateId, PartnerId, PaymentId},
};
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::{
    Error, Invariant, Report, audit,
    report::Row,
    sections::SortedSet,
    state::{After, Before, Progress, SINGLE_BYTES},
    store::{self, Position, Snapshot, unaccounted},
};

/// Used single-use mandates held in memory before they go to disk: 3 MiB.
const SINGLES_BUFFER_MAX: usize = 100_000;

/// Why a command can be a dead letter.
const DEAD_LETTER_REASONS: [&str; 3] = ["undecodable", "data_error", "behind_dead_letter"];

pub(crate) struct Run<'a> {
    pool: &'a MySqlPool,
    state_file: Option<&'a Path>,
    pub(crate) rows_per_second: Option<NonZeroU32>,
    snapshot: Snapshot,
    before: Before,
    after: After,
    singles: SortedSet<SINGLE_BYTES>,
    report: Report,
}

impl<'a> Run<'a> {
    pub(crate) async fn begin(pool: &'a MySqlPool, state_file: Option<&'a Path>) -> Result<Self, Error> {
        let mut before = Before::open(state_file)?;
        let stored_singles = std::mem::replace(&mut before.singles, crate::sections::Reader::empty());
        let report = Report { resumed: before.resumed, ..Report::default() };
        Ok(Self {
            pool,
            state_file,
            rows_per_second: None,
            snapshot: store::snapshot(pool).await?,
            after: After::new().map_err(scratch)?,
            singles: SortedSet::new(stored_singles, SINGLES_BUFFER_MAX),
            before,
            report,
        })
    }

    /// Waits as long as reading so many rows may take.
    pub(crate) async fn pace(&self, rows: usize) {
        audit::paced(self.rows_per_second, rows).await;
    }

    /// The snapshot itself: zero sums, and that no row stands beyond its partition's position.
    pub(crate) fn positions(&mut self) {
        for sum in &self.snapshot.sums {
            let row = Row { table: "accounts", key: &|| format!("all in {}", sum.currency) };
            self.report.expect(Invariant::I3, &row, "sum of balances", &0, &sum.balance);
        }
        for (table, source, partition) in &self.snapshot.strays {
            let row = Row { table, key: &|| format!("source {source} partition {partition}") };
            let say = || ("a row in positions".to_owned(), "none".to_owned());
            self.report.hold(Invariant::I4, &row, false, say);
        }
        let before: HashMap<_, _> =
            self.before.partitions.iter().map(|it| ((it.source, it.partition), *it)).collect();
        for position in &self.snapshot.positions {
            let Position { source, partition, next_offset, .. } = *position;
            let row = Row { table: "positions", key: &|| format!("source {source} partition {partition}") };
            let says = |expected: String, found: u64| move || (expected, found.to_string());
            for (table, last) in ["payments", "changes", "dead_letters"].iter().zip(position.last_offsets) {
                let Some(last) = last else { continue };
                let expected = format!("next_offset above {last}, the last row of {table}");
                self.report.hold(Invariant::I4, &row, last < next_offset, says(expected, next_offset));
            }
            let announced = position.announced_offset;
            let expected = format!("announced_offset at most {next_offset}");
            self.report.hold(Invariant::I4, &row, announced <= next_offset, says(expected, announced));
            let hashed = position.has_record_hash || next_offset == 0;
            let say = || ("the hash of the last record".to_owned(), "none".to_owned());
            self.report.hold(Invariant::I4, &row, hashed, say);
            let known = before.get(&(source, partition)).copied().unwrap_or_default();
            let expected = format!("next_offset at least {}, which was verified", known.next_offset);
            self.report.hold(
                Invariant::I4,
                &row,
                next_offset >= known.next_offset,
                says(expected, next_offset),
            );
            self.after.partitions.push(Progress { source, partition, ..known });
        }
        self.report.read("positions", self.snapshot.positions.len());
    }

    /// The audit log and its chain.
    pub(crate) async fn audit(&mut self) -> Result<(), Error> {
        let (before, pace) = (self.before.audit, self.rows_per_second);
        self.after.audit = audit::verify(self.pool, before, pace, &mut self.report, &|_| {}).await?;
        Ok(())
    }

    /// Each partner's settlement account is its own.
    pub(crate) async fn settlement_accounts(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = store::settlements_after(self.pool, after.as_ref()).await?;
            self.report.read("settlement_accounts", page.len());
            for (partner, currency, account, found) in &page {
                let key = || format!("{} {currency}", PartnerId::from_uuid(*partner));
                let row = Row { table: "settlement_accounts", key: &key };
                let expected = Some((OwnerKind::Partner.code(), *partner, currency.clone()));
                let say = || {
                    let account = AccountId::from_uuid(*account);
                    (format!("{account} to be this partner's, in this currency"), format!("{found:?}"))
                };
                self.report.hold(Invariant::I6, &row, *found == expected, say);
            }
            match page.last() {
                Some((partner, currency, _, _)) if page.len() >= store::PAGE as usize => {
                    after = Some((*partner, currency.clone()));
                }
                _ => return Ok(()),
            }
        }
    }

    /// An open dead letter has left nothing else behind, and one that ended was ended by a command of the bank.
    pub(crate) async fn dead_letters(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = store::dead_letters_after(self.pool, after).await?;
            self.report.read("dead_letters", page.len());
            for letter in &page {
                let row = Row { table: "dead_letters", key: &|| position_key(letter.position()) };
                let say = || (format!("one of {DEAD_LETTER_REASONS:?}"), letter.reason.clone());
                self.report.hold(Invariant::I6, &row, DEAD_LETTER_REASONS.contains(&&*letter.reason), say);
                let ended_by = letter.ended_by.as_ref().map(|(kind, _, applied)| (kind.as_str(), *applied));
                let fits = match letter.status {
                    1 => letter.change.is_none(),
                    2 => ended_by == Some(("redrive_dead_letters", true)),
                    3 => ended_by == Some(("reject_dead_letter", true)),
                    _ => false,
                };
                let say = || {
                    let expected =
                        "open, or ended by an applied redrive_dead_letters (2) or reject_dead_letter (3)";
                    (expected.to_owned(), format!("status {}, {ended_by:?}", letter.status))
                };
                self.report.hold(Invariant::I6, &row, fits, say);
                if let Some((_, target, _)) = &letter.ended_by {
                    let root = letter.root.unwrap_or_default();
                    self.report.expect(Invariant::I6, &row, "ended by a command on", &root, target);
                }
                let say = || ("no payment or change of an open dead letter".to_owned(), "one".to_owned());
                self.report.hold(Invariant::I4, &row, letter.status != 1 || !letter.applied, say);
            }
            match page.last() {
                Some(last) if page.len() >= store::PAGE as usize && !self.report.is_full() => {
                    after = Some(last.position());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Nothing stands in the ledger that no command accounts for. At the snapshot, exactly the commands below each
    /// partition's position were applied, and exactly those were walked.
    pub(crate) async fn counts(&mut self) -> Result<(), Error> {
        if self.report.is_full() {
            return Ok(());
        }
        let sum = |count: fn(&Progress) -> u64| {
            self.after.partitions.iter().map(|it| u128::from(count(it))).sum::<u128>()
        };
        let snapshot = &self.snapshot;
        let entries = (2 * sum(|it| it.posted), snapshot.entries);
        let events = (sum(|it| it.told), snapshot.events);
        let accounts = (sum(|it| it.opened), u128::from(snapshot.accounts));
        let mandates = (sum(|it| it.granted), u128::from(snapshot.mandates));
        let follow_ups = (sum(|it| it.linked), u128::from(snapshot.follow_ups));
        let held: i64 = self.after.partitions.iter().map(|it| it.held).sum();
        let holds = (u128::from(held.max(0).unsigned_abs()), u128::from(snapshot.holds));

        let of_account =
            |(id, version): (Uuid, u64)| format!("{} version {version}", AccountId::from_uuid(id));
        let of_partner =
            |(id, number): (Uuid, u64)| format!("{} sequence {number}", PartnerId::from_uuid(id));
        let named = if entries.0 == entries.1 { None } else { unaccounted::entry(self.pool).await? };
        self.count(
            Invariant::I1,
            "entries",
            entries,
            "two for each payment that moved money",
            named.map(of_account).as_deref(),
        );
        let named = if events.0 == events.1 { None } else { unaccounted::event(self.pool).await? };
        self.count(
            Invariant::I9,
            "events",
            events,
            "one for each row that tells",
            named.map(of_partner).as_deref(),
        );
        let named = if accounts.0 == accounts.1 { None } else { unaccounted::account(self.pool).await? };
        let named = named.map(|id| AccountId::from_uuid(id).to_string());
        self.count(Invariant::I4, "accounts", accounts, "one for each that was opened", named.as_deref());
        let named = if mandates.0 == mandates.1 { None } else { unaccounted::mandate(self.pool).await? };
        let named = named.map(|id| MandateId::from_uuid(id).to_string());
        self.count(
            Invariant::I4,
            "mandates",
            mandates,
            "one for each that was granted or ended",
            named.as_deref(),
        );
        let named =
            if follow_ups.0 == follow_ups.1 { None } else { unaccounted::follow_up(self.pool).await? };
        let named =
            named.map(|(root, id)| format!("{} of {}", PaymentId::from_uuid(id), PaymentId::from_uuid(root)));
        self.count(Invariant::I4, "follow_ups", follow_ups, "one for each follow-up", named.as_deref());
        self.count(Invariant::I2, "holds", holds, "one for each that began and did not end", None);
        Ok(())
    }

    fn count(
        &mut self,
        invariant: Invariant,
        table: &'static str,
        (expected, found): (u128, u128),
        what: &str,
        named: Option<&str>,
    ) {
        let row = Row { table, key: &|| named.unwrap_or("all").to_owned() };
        let say = || (format!("{expected} rows, {what}"), format!("{found}"));
        self.report.hold(invariant, &row, expected == found, say);
    }

    /// Keeps what was verified if nothing was found.
    pub(crate) fn finish(mut self, elapsed: Duration) -> Result<Report, Error> {
        self.report.elapsed = elapsed;
        if let (true, Some(path)) = (self.report.is_whole(), self.state_file) {
            self.after.save(path)?;
        }
        Ok(self.report)
    }
}

/// A failure of the temporary files.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands errors over by value")]
fn scratch(error: io::Error) -> Error {
    Error::State { path: std::env::temp_dir(), reason: error.to_string() }
}

/// A failure of the state file that is being read.
fn stored(path: Option<&Path>) -> impl Fn(io::Error) -> Error {
    let path: PathBuf = path.map_or_else(std::env::temp_dir, Path::to_owned);
    move |error| Error::State { path: path.clone(), reason: error.to_string() }
}

fn position_key((source, partition, offset): (u8, u16, u64)) -> String {
    format!("source {source} partition {partition} offset {offset}")
}

fn by_key<K: Eq + Hash, T>(rows: Vec<T>, key: impl Fn(&T) -> K) -> HashMap<K, T> {
    rows.into_iter().map(|row| (key(&row), row)).collect()
}

fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
