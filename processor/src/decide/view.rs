//! The state a batch is decided on: everything it refers to, locked and read, and then changed in memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::account::{AccountStatus, Owner};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::{Amount, Currency};
use domain::payment::{Amounts, Metadata, PaymentKind, PaymentStatus, PaymentView, Reason, status_path};
use domain::time::{Day, Timestamp};
use domain::topic::Position;
use uuid::Uuid;

use crate::item::Item;

/// Everything that the commands of a batch refer to. What is not in here does not exist.
///
/// Maps that are written back are ordered, so that rows are written sorted by id.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What was asked under ids that are used already.
    pub used: HashMap<Uuid, Fingerprint>,
    /// Roots with an open dead letter: later commands on them wait behind it.
    pub blocked_roots: HashSet<Uuid>,
    /// Partners.
    pub partners: HashMap<PartnerId, Partner>,
    /// Open dead letters that a command of this batch deals with, in the order of their records.
    pub dead_letters: BTreeMap<Position, Slot<DeadLetter>>,
    /// Roots with more open dead letters than one command can deal with.
    pub crowded_roots: HashSet<Uuid>,
    /// Where a partner's payments are credited.
    pub settlement_accounts: BTreeMap<(PartnerId, Currency), Slot<AccountId>>,
    /// Payments that later commands belong to, and those that this batch makes.
    pub payments: BTreeMap<PaymentId, Slot<Payment>>,
    /// Mandates.
    pub mandates: BTreeMap<MandateId, Slot<Mandate>>,
    /// Accounts.
    pub accounts: BTreeMap<AccountId, Slot<Account>>,
    /// Where each partner's log ends.
    pub sequences: BTreeMap<PartnerId, Slot<Sequence>>,
}

impl View {
    /// Keeps of the open dead letters those that were `known` before anything was locked: what others refer to is not
    /// locked. Their roots stay blocked.
    pub fn keep_letters(&mut self, known: &BTreeMap<Position, Slot<DeadLetter>>) {
        let crowded = &mut self.crowded_roots;
        self.dead_letters.retain(|position, slot| {
            let is_known = known.contains_key(position);
            if !is_known {
                crowded.extend(slot.row.root);
            }
            is_known
        });
    }
}

/// A row and whether it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot<T> {
    /// The row.
    pub row: T,
    /// What became of it.
    pub touch: Touch,
    /// The row as it was read, once it is changed.
    pub before: Option<T>,
}

/// What a batch did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    Read,
    /// Changed it.
    Changed,
    /// Made it.
    New,
}

impl<T: Clone> Slot<T> {
    /// A row as it was read.
    pub fn read(row: T) -> Self {
        Self { row, touch: Touch::Read, before: None }
    }

    /// A row that this batch makes.
    pub fn new(row: T) -> Self {
        Self { row, touch: Touch::New, before: None }
    }

    /// The row, to be changed and written.
    pub fn change(&mut self) -> &mut T {
        if self.touch == Touch::Read {
            self.touch = Touch::Changed;
            self.before = Some(self.row.clone());
        }
        &mut self.row
    }
}

impl<T: Clone + PartialEq> Slot<T> {
    /// What is again as it was read, such as an account that was frozen and unfrozen, is not written: the database would
    /// count one row less than were changed.
    pub fn settle(&mut self) {
        if self.before.as_ref() == Some(&self.row) {
            self.touch = Touch::Read;
        }
    }
}

/// A dead letter and what became of it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The record, read anew.
    pub item: Item,
    /// What it was keyed by.
    pub root: Option<Uuid>,
    /// How it ended, and by which command of the bank; `None` while it is open.
    pub end: Option<(DeadLetterEnd, Uuid)>,
}

/// How a dead letter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterEnd {
    /// It was applied.
    Redriven,
    /// It was given up.
    Rejected,
}

/// A payment: what the ledger keeps of it, besides who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Where its command stands.
    pub position: Position,
    /// The payment.
    pub id: PaymentId,
    /// The payment it belongs to.
    pub root: PaymentId,
    /// What it does.
    pub kind: PaymentKind,
    /// What became of it.
    pub status: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// Counts its changes.
    pub version: u32,
    /// The partner that sees it.
    pub partner: Option<PartnerId>,
    /// The mandate.
    pub mandate: Option<MandateId>,
    /// What it is about; `None` when it asked for everything of nothing.
    pub amount: Option<Amount>,
    /// Minor units that it moved, or had moved by a capture.
    pub captured_minor: i64,
    /// Minor units of that which refunds and reversals gave back.
    pub refunded_minor: i64,
    /// The debited and the credited account, or those that a capture will debit and credit.
    pub accounts: Option<[AccountId; 2]>,
    /// The versions of its two entries, when it has some itself.
    pub versions: Option<[u64; 2]>,
    /// `false` for a test partner.
    pub livemode: bool,
    /// The partner's own reference.
    pub reference: Option<String>,
    /// What the customer reads.
    pub description: Option<String>,
    /// The partner's own keys and values.
    pub metadata: Metadata,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Until when it may be captured.
    pub expires_at: Option<Timestamp>,
}

impl Payment {
    /// Minor units that were captured and not given back.
    pub fn left_minor(&self) -> i64 {
        self.captured_minor - self.refunded_minor
    }

    /// The payment as its partner sees it.
    pub fn view(&self) -> PaymentView {
        let [from, to] = match (self.kind, self.accounts) {
            (PaymentKind::Transfer, Some(accounts)) => accounts.map(Some),
            _ => [None, None],
        };
        PaymentView {
            id: self.id,
            kind: self.kind,
            root: self.root,
            status: self.status,
            under_review: false,
            version: self.version,
            amounts: self.amount.map(|amount| {
                Amounts::of(amount.currency(), amount.minor(), self.captured_minor, self.refunded_minor)
            }),
            from,
            to,
            mandate: self.mandate,
            reference: self.reference.clone(),
            description: self.description.clone(),
            metadata: self.metadata.clone(),
            reason: self.reason,
            livemode: self.livemode,
            created_at: self.accepted_at,
            decided_at: Some(self.decided_at),
            expires_at: self.expires_at,
            status_url: status_path(self.id),
        }
    }
}

/// What of a partner decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partner {
    /// It may move money.
    pub active: bool,
    /// `false` for a test partner.
    pub livemode: bool,
}

/// What was spent on a day of the bank; the day never goes back, so a late record counts for the later day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// The day.
    pub day: Day,
    /// Minor units.
    pub minor: i64,
}

impl Spent {
    /// What is spent once `amount_minor` is added on `day`; `None` when that does not fit.
    pub fn plus(self, amount_minor: i64, day: Day) -> Option<Self> {
        if day > self.day {
            return Some(Self { day, minor: amount_minor });
        }
        Some(Self { day: self.day, minor: self.minor.checked_add(amount_minor)? })
    }
}

/// An account and its balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub id: AccountId,
    /// Its owner.
    pub owner: Owner,
    /// Its currency.
    pub currency: Currency,
    /// `false` for test money.
    pub livemode: bool,
    /// What it lets happen.
    pub status: AccountStatus,
    /// Minor units.
    pub balance_minor: i64,
    /// Minor units reserved by holds.
    pub held_minor: i64,
    /// How far it may go below zero.
    pub overdraft_minor: i64,
    /// The most that one payment may debit.
    pub payment_max_minor: Option<i64>,
    /// The most that payments may debit in a day.
    pub daily_max_minor: Option<i64>,
    /// What payments and transfers debited today.
    pub spent: Spent,
    /// How many entries it has.
    pub version: u64,
    /// The hash of its last entry.
    pub head: [u8; 32],
    /// The time of its last entry, or of its opening.
    pub entered_at: Timestamp,
}

impl Account {
    /// What may be debited now. The bank's own accounts mirror money outside and have no floor.
    pub fn available_minor(&self) -> i128 {
        match self.owner {
            Owner::Bank => i128::MAX,
            Owner::Customer(_) | Owner::Partner(_) => {
                i128::from(self.balance_minor) + i128::from(self.overdraft_minor)
                    - i128::from(self.held_minor)
            }
        }
    }
}

/// A customer's authority for a partner to debit an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
    /// The mandate.
    pub id: MandateId,
    /// Who may debit.
    pub partner: PartnerId,
    /// Which account; `None` when it ended before anyone granted it.
    pub account: Option<AccountId>,
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// Whether it authorises.
    pub status: MandateStatus,
    /// Counts its changes of status.
    pub version: u32,
    /// The currency.
    pub currency: Currency,
    /// The most that one payment may debit.
    pub payment_max_minor: Option<i64>,
    /// The most that may be debited in a day.
    pub daily_max_minor: Option<i64>,
    /// What was debited today; kept only when there is a daily cap.
    pub spent: Spent,
    /// From when on it authorises nothing.
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    pub reference: Option<String>,
    /// When it was granted, or ended without that.
    pub granted_at: Timestamp,
}

/// Where a partner's log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// The last sequence given out.
    pub last: u64,
    /// The partner's epoch.
    pub epoch: u16,
}
