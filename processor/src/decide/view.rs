//! The state a batch is decided on: everything it refers to, locked and read, and then changed in memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::account::{AccountStatus, Owner};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::time::{Day, Timestamp};
use uuid::Uuid;

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
    /// Where a partner's payments are credited.
    pub settlement_accounts: HashMap<(PartnerId, Currency), AccountId>,
    /// Mandates.
    pub mandates: BTreeMap<MandateId, Slot<Mandate>>,
    /// Accounts.
    pub accounts: BTreeMap<AccountId, Slot<Account>>,
    /// Where each partner's log ends.
    pub sequences: BTreeMap<PartnerId, Slot<Sequence>>,
}

/// A row and whether it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot<T> {
    /// The row.
    pub row: T,
    /// What became of it.
    pub touch: Touch,
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

impl<T> Slot<T> {
    /// A row as it was read.
    pub fn read(row: T) -> Self {
        Self { row, touch: Touch::Read }
    }

    /// A row that this batch makes.
    pub fn new(row: T) -> Self {
        Self { row, touch: Touch::New }
    }

    /// The row, to be changed and written.
    pub fn change(&mut self) -> &mut T {
        if self.touch == Touch::Read {
            self.touch = Touch::Changed;
        }
        &mut self.row
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
    /// What payments debited today.
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
    /// Which account.
    pub account: AccountId,
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
    /// When it was granted.
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
