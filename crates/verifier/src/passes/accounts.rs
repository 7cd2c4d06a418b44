//! I2, I7 and I11: each account against the chain of its entries.
//!
//! An account's row says how many entries it has; those never change, so they are read afterwards and without a
//! snapshot. Whether there are more than the row says is read together with the row.

use std::collections::HashMap;

use domain::{
    account::{AccountStatus, Direction, OwnerKind},
    command::BankCommand,
    entry::{self, GENESIS},
    ids::{AccountId, PaymentId, bank_owner},
    money::Currency,
    time::Timestamp,
};
use uuid::Uuid;

use super::{Run, scratch, stored};
use crate::{
    Error, Invariant, Report,
    report::Row,
    state::VerifiedAccount,
    store::{self, Account, Entry, RANGE_ROWS_MAX, RANGES_MAX, Range},
};

/// An account on its way along its entries.
struct Walk {
    account: Account,
    /// The version to read next.
    next: u64,
    /// What the entry at `next` follows; when resumed, what the verified entry at `next` must be itself.
    head: [u8; 32],
    balance_minor: i64,
    entered_at: i64,
    verified: Option<VerifiedAccount>,
    /// An entry is missing: nothing after it can be judged.
    broken: bool,
    /// The debit that went deepest below what the account's overdraft allows now: its version and the balance after it.
    overdrawn: Option<(u64, i64)>,
}

impl Run<'_> {
    /// Walks every account.
    pub(crate) async fn accounts(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = store::accounts_after(self.pool, after).await?;
            self.report.read("accounts", page.len());
            let is_last = page.len() < store::PAGE as usize;
            let up_to = page.last().map(|account| account.id);
            let bound = if is_last { None } else { up_to };
            if let Some(orphan) = store::orphaned_entries(self.pool, after, bound).await? {
                let row = Row { table: "entries", key: &|| AccountId::from_uuid(orphan).to_string() };
                let say = || ("a row in accounts".to_owned(), "entries of no account".to_owned());
                self.report.hold(Invariant::I2, &row, false, say);
            }
            let mut walks = Vec::with_capacity(page.len());
            for account in page {
                walks.push(self.begin_walk(account)?);
            }
            self.walk(&mut walks).await?;
            self.overdrawn(&walks).await?;
            for walk in walks.iter().filter(|walk| !walk.broken) {
                let verified = finish_walk(&mut self.report, walk);
                self.after.accounts.push(&verified.to_record()).map_err(scratch)?;
            }
            if is_last || self.report.is_full() {
                break;
            }
            after = up_to;
            self.pace(store::PAGE as usize).await;
        }
        let failed = stored(self.state_file);
        while let Some(record) = self.before.accounts.next().map_err(&failed)? {
            if self.report.is_full() {
                break;
            }
            vanished(&mut self.report, VerifiedAccount::from_record(&record).id);
        }
        Ok(())
    }

    fn begin_walk(&mut self, account: Account) -> Result<Walk, Error> {
        let failed = stored(self.state_file);
        let id = account.id.as_bytes();
        while let Some(record) = self.before.accounts.next_below(id).map_err(&failed)? {
            vanished(&mut self.report, VerifiedAccount::from_record(&record).id);
        }
        let verified = self.before.accounts.take(id).map_err(&failed)?;
        let verified = verified.map(|record| VerifiedAccount::from_record(&record));
        check_account(&mut self.report, &account);
        let mut walk = Walk {
            next: 1,
            head: GENESIS,
            balance_minor: 0,
            entered_at: 0,
            verified: verified.filter(|verified| verified.version > 0),
            broken: false,
            overdrawn: None,
            account,
        };
        if let Some(verified) = walk.verified {
            walk.next = verified.version;
            walk.head = verified.head;
            walk.balance_minor = verified.balance_minor;
            let row = Row { table: "accounts", key: &|| key_of(walk.account.id) };
            let expected = format!("version at least {}, which was verified", verified.version);
            let found = walk.account.version;
            let say = || (expected, found.to_string());
            walk.broken = !self.report.hold(Invariant::I11, &row, found >= verified.version, say);
        }
        Ok(walk)
    }

    /// Reads the entries of many accounts by few statements, each bounded in rows.
    async fn walk(&mut self, walks: &mut [Walk]) -> Result<(), Error> {
        let mut current = 0;
        while !self.report.is_full() {
            let ranges = plan(walks, &mut current);
            if ranges.is_empty() {
                return Ok(());
            }
            let ids: Vec<Range> = ranges.iter().map(|(_, range)| *range).collect();
            let entries = store::entries_in(self.pool, &ids).await?;
            self.report.read("entries", entries.len());
            self.pace(entries.len()).await;
            let mut entries = entries.iter().peekable();
            for (index, range) in ranges {
                let walk = &mut walks[index];
                for version in range.first..=range.last {
                    let expected = (range.owner, version);
                    let entry = entries.next_if(|entry| (entry.account, entry.version) == expected);
                    let Some(entry) = entry else {
                        let row = Row { table: "entries", key: &|| key_at(expected) };
                        let say = || (format!("an entry, as of {}", walk.account.version), "none".to_owned());
                        walk.broken = !self.report.hold(Invariant::I11, &row, false, say);
                        // What is left of this range belongs to no expectation any more.
                        while entries.next_if(|entry| entry.account == range.owner).is_some() {}
                        break;
                    };
                    step(&mut self.report, walk, entry);
                }
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Debits beyond today's overdraft against the largest one that the account ever had.
    async fn overdrawn(&mut self, walks: &[Walk]) -> Result<(), Error> {
        let suspects: Vec<Uuid> =
            walks.iter().filter(|walk| walk.overdrawn.is_some()).map(|walk| walk.account.id).collect();
        let mut largest: HashMap<Uuid, i64> = HashMap::new();
        for (account, command) in store::limits_of(self.pool, &suspects).await? {
            let overdraft = match serde_json::from_str(&command) {
                Ok(BankCommand::OpenAccount(open)) => open.overdraft_minor,
                Ok(BankCommand::SetLimits(set)) => set.overdraft_minor,
                // Named with the change itself.
                Ok(_) | Err(_) => 0,
            };
            let known = largest.entry(account).or_default();
            *known = overdraft.max(*known);
        }
        for walk in walks {
            let Some((version, balance)) = walk.overdrawn else { continue };
            let overdraft = largest.get(&walk.account.id).copied().unwrap_or_default();
            let room = i128::from(balance) + i128::from(overdraft);
            let row = Row { table: "entries", key: &|| key_at((walk.account.id, version)) };
            let say = || ("an available amount from 0 after a debit".to_owned(), room.to_string());
            self.report.hold(Invariant::I7, &row, room >= 0, say);
        }
        Ok(())
    }
}

/// The next ranges to read, and whose they are. Moves `current` past accounts that are done.
fn plan(walks: &[Walk], current: &mut usize) -> Vec<(usize, Range)> {
    let is_done = |walk: &Walk| walk.broken || walk.next > walk.account.version;
    while walks.get(*current).is_some_and(is_done) {
        *current += 1;
    }
    let mut ranges = Vec::new();
    let mut room = RANGE_ROWS_MAX;
    for (index, walk) in walks.iter().enumerate().skip(*current).filter(|(_, walk)| !is_done(walk)) {
        if room == 0 || ranges.len() >= RANGES_MAX {
            break;
        }
        let last = walk.account.version.min(walk.next.saturating_add(room - 1));
        room -= last - walk.next + 1;
        ranges.push((index, Range { owner: walk.account.id, first: walk.next, last }));
    }
    ranges
}

/// What an account's row alone must fulfil.
fn check_account(report: &mut Report, account: &Account) {
    let row = Row { table: "accounts", key: &|| key_of(account.id) };
    let status = AccountStatus::from_code(account.status);
    report.hold(Invariant::I6, &row, status.is_some(), || {
        ("a legal status".to_owned(), account.status.to_string())
    });
    let kind = OwnerKind::from_code(account.owner_kind);
    let say = || ("a legal owner_kind".to_owned(), account.owner_kind.to_string());
    report.hold(Invariant::I6, &row, kind.is_some(), say);
    let currency = account.currency.parse::<Currency>().is_ok();
    report.hold(Invariant::I6, &row, currency, || ("a currency".to_owned(), account.currency.clone()));
    if kind == Some(OwnerKind::Bank) {
        report.expect(Invariant::I6, &row, "owner_id", &bank_owner(), &account.owner_id);
    }
    let held = i128::from(account.held_minor);
    report.expect(Invariant::I2, &row, "held_minor", &account.holds_minor, &held);
    if status == Some(AccountStatus::Closed) {
        let found = (account.balance_minor, account.held_minor);
        report.expect(Invariant::I6, &row, "a closed account's balance and hold", &(0, 0), &found);
    }
    report.expect(
        Invariant::I11,
        &row,
        "the last entry to have version",
        &account.version,
        &account.last_entry.unwrap_or_default(),
    );
    if kind != Some(OwnerKind::Bank) {
        let available = available(account, account.balance_minor);
        let say = || ("an available amount from 0".to_owned(), available.to_string());
        report.hold(Invariant::I7, &row, available >= 0, say);
    }
}

fn available(account: &Account, balance_minor: i64) -> i128 {
    i128::from(balance_minor) + i128::from(account.overdraft_minor) - i128::from(account.held_minor)
}

/// One entry after the one before it. Goes on with what is stored, so that one altered row is one finding.
fn step(report: &mut Report, walk: &mut Walk, entry: &Entry) {
    let row = Row { table: "entries", key: &|| key_at((entry.account, entry.version)) };
    walk.next = entry.version + 1;
    if let Some(verified) = walk.verified.filter(|verified| verified.version == entry.version) {
        let same = entry.hash == verified.head && entry.balance_minor == verified.balance_minor;
        let say = || ("the entry that was verified earlier".to_owned(), "another one".to_owned());
        report.hold(Invariant::I11, &row, same, say);
        (walk.head, walk.balance_minor, walk.entered_at) =
            (entry.hash, entry.balance_minor, entry.entered_at);
        return;
    }
    let direction = Direction::from_code(entry.direction);
    let hash = direction.map(|direction| hash_of(entry, direction, &walk.head));
    let intact = report.hold(Invariant::I11, &row, hash == Some(entry.hash), || {
        ("the hash of this entry after the one before it".to_owned(), "another hash".to_owned())
    });
    // An entry that was altered says nothing about sums; the row is named already.
    if let (true, Some(direction)) = (intact, direction) {
        let amount = i128::from(entry.amount_minor);
        let before = i128::from(walk.balance_minor);
        let balance = match direction {
            Direction::Debit => before - amount,
            Direction::Credit => before + amount,
        };
        report.expect(Invariant::I2, &row, "balance_minor", &balance, &i128::from(entry.balance_minor));
        let say = || ("a positive amount".to_owned(), amount.to_string());
        report.hold(Invariant::I1, &row, amount > 0, say);
        let say = || ("a time from the entry before on".to_owned(), time(entry.entered_at));
        report.hold(Invariant::I11, &row, entry.entered_at >= walk.entered_at, say);
        let owned_by_bank = walk.account.owner_kind == OwnerKind::Bank.code();
        // What was held at that time is not stored. Limits may have been others: `overdrawn` looks them up.
        let room = i128::from(entry.balance_minor) + i128::from(walk.account.overdraft_minor);
        let covered = owned_by_bank || direction == Direction::Credit || room >= 0;
        if !covered && walk.overdrawn.is_none_or(|(_, lowest)| entry.balance_minor < lowest) {
            walk.overdrawn = Some((entry.version, entry.balance_minor));
        }
    }
    (walk.head, walk.balance_minor, walk.entered_at) = (entry.hash, entry.balance_minor, entry.entered_at);
}

fn hash_of(entry: &Entry, direction: Direction, previous: &[u8; 32]) -> [u8; 32] {
    entry::Entry {
        account: AccountId::from_uuid(entry.account),
        version: entry.version,
        payment: PaymentId::from_uuid(entry.payment),
        direction,
        amount_minor: entry.amount_minor,
        balance_minor: entry.balance_minor,
        entered_at: Timestamp::from_micros(entry.entered_at),
    }
    .hash_after(previous)
}

/// The account's row against its last entry.
fn finish_walk(report: &mut Report, walk: &Walk) -> VerifiedAccount {
    let account = &walk.account;
    let row = Row { table: "accounts", key: &|| key_of(account.id) };
    report.expect(Invariant::I2, &row, "balance_minor", &walk.balance_minor, &account.balance_minor);
    let say = || ("the hash of the last entry as head".to_owned(), "another hash".to_owned());
    report.hold(Invariant::I11, &row, walk.head == account.head, say);
    if account.version > 0 {
        let say = || (format!("entered_at {}", time(walk.entered_at)), time(account.entered_at));
        report.hold(Invariant::I2, &row, walk.entered_at == account.entered_at, say);
    }
    VerifiedAccount {
        id: account.id,
        version: account.version,
        head: walk.head,
        balance_minor: walk.balance_minor,
    }
}

fn vanished(report: &mut Report, id: Uuid) {
    let row = Row { table: "accounts", key: &|| key_of(id) };
    report
        .hold(Invariant::I11, &row, false, || ("the account verified earlier".to_owned(), "none".to_owned()));
}

fn key_of(account: Uuid) -> String {
    AccountId::from_uuid(account).to_string()
}

fn key_at((account, version): (Uuid, u64)) -> String {
    format!("{} version {version}", AccountId::from_uuid(account))
}

fn time(micros: i64) -> String {
    Timestamp::from_micros(micros).to_string()
}
