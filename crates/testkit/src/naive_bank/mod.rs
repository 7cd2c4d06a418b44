//! A naive bank: what every command means, written for obviousness. One command at a time, plain maps, no batches, no
//! locks, no I/O; it shares the words of `domain` with the real one and not a line of how it decides.
//!
//! The real decider and the whole running system are given the same commands and must come to the same balances,
//! statuses, reasons, versions and events. What is left out is what the real bank does *around* deciding: dead letters
//! (there are none here, so what deals with them finds none), hash chains, times of decision.

mod changes;
mod city;
mod event;
mod follow_ups;
mod money;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::account::{AccountStatus, Owner};
use domain::command::{BankCommand, BankEnvelope, PartnerCommand, PartnerEnvelope};
use domain::event::EventType;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId, conflict_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::{Day, Timestamp};
use uuid::Uuid;

pub use city::{City, Command};
pub use event::{About, Event};

/// The whole bank; a test may put in what it begins with.
#[derive(Debug, Clone, Default)]
pub struct NaiveBank {
    /// Partners.
    pub partners: BTreeMap<PartnerId, Partner>,
    /// Accounts.
    pub accounts: BTreeMap<AccountId, Account>,
    /// Where a partner's payments are credited.
    pub settlement: BTreeMap<(PartnerId, Currency), AccountId>,
    /// Mandates.
    pub mandates: BTreeMap<MandateId, Mandate>,
    /// Payments of every kind.
    pub payments: BTreeMap<PaymentId, Payment>,
    /// What became of each command that is no payment: `None` when it was carried out.
    pub changes: BTreeMap<Uuid, Option<Reason>>,
    /// What belongs to a payment: its id, and that of what belongs to it.
    pub follow_ups: BTreeSet<(PaymentId, PaymentId)>,
    /// What each partner was told, in order.
    pub events: BTreeMap<PartnerId, Vec<Event>>,
    /// What was said under each id: first what counts, then what conflicted with it.
    said: HashMap<Uuid, Vec<Fingerprint>>,
}

/// A partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partner {
    /// It may move money.
    pub active: bool,
    /// `false` for a test partner.
    pub livemode: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its owner.
    pub owner: Owner,
    /// Its currency.
    pub currency: Currency,
    /// `false` for test money.
    pub livemode: bool,
    /// What it lets happen.
    pub status: AccountStatus,
    /// Minor units.
    pub balance: i128,
    /// What each authorised payment holds.
    pub holds: BTreeMap<PaymentId, i64>,
    /// How far it may go below zero.
    pub overdraft: i64,
    /// The most of one payment.
    pub payment_max: Option<i64>,
    /// The most of a day.
    pub daily_max: Option<i64>,
    /// The last day on which something was spent, and how much.
    pub spent: (Day, i64),
    /// How many entries it has.
    pub version: u64,
}

/// A mandate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
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
    /// Its currency.
    pub currency: Currency,
    /// The most of one payment.
    pub payment_max: Option<i64>,
    /// The most of a day.
    pub daily_max: Option<i64>,
    /// The last day on which something was spent, and how much; counted when there is a most of a day.
    pub spent: (Day, i64),
    /// From when on it authorises nothing.
    pub expires_at: Option<Timestamp>,
}

/// A payment of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// What it does.
    pub kind: PaymentKind,
    /// What it belongs to.
    pub root: PaymentId,
    /// What became of it.
    pub status: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// Counts its changes.
    pub version: u32,
    /// The partner that sees it.
    pub partner: Option<PartnerId>,
    /// `false` for a test partner's.
    pub livemode: bool,
    /// The mandate.
    pub mandate: Option<MandateId>,
    /// What it is about.
    pub amount: Option<Amount>,
    /// Minor units that it moved, or had moved by a capture.
    pub captured: i64,
    /// Minor units of that which were given back.
    pub refunded: i64,
    /// The debited and the credited account.
    pub accounts: Option<[AccountId; 2]>,
    /// The versions of its two entries.
    pub versions: Option<[u64; 2]>,
    /// Until when it may be captured.
    pub expires_at: Option<Timestamp>,
}

/// When a command was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The broker's time.
    pub at: Timestamp,
    /// The bank's day of that.
    pub day: Day,
}

/// What a command left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was applied before, or asks to end what has not come to its time.
    Nothing,
    /// This payment.
    Payment(PaymentId),
    /// This change.
    Change(Uuid),
}

/// How an id stands before its command is applied.
enum Used {
    Never,
    ByTheSame,
    /// By something else; the id of the conflict.
    ByAnother(PaymentId),
}

impl NaiveBank {
    /// Applies a command.
    pub fn apply(&mut self, command: &Command, when: When) -> Outcome {
        match command {
            Command::Partner(envelope) => self.partner_command(envelope, when),
            Command::Bank(envelope) => self.bank_command(envelope, when),
        }
    }

    fn partner_command(&mut self, envelope: &PartnerEnvelope, when: When) -> Outcome {
        let id = envelope.id.uuid();
        match self.used(id, envelope.fingerprint) {
            Used::ByTheSame => return Outcome::Nothing,
            Used::ByAnother(conflict) => return self.partner_conflict(envelope, conflict),
            Used::Never => {}
        }
        let outcome = match &envelope.command {
            PartnerCommand::Payment(command) => self.pay(envelope, command, when),
            PartnerCommand::Capture(command) => self.capture(envelope, command, when),
            PartnerCommand::Void(_) => self.void(envelope),
            PartnerCommand::Refund(command) => self.refund(envelope, command),
            PartnerCommand::Transfer(command) => self.transfer(envelope, command, when),
            PartnerCommand::Expire => self.expire(envelope, when),
            PartnerCommand::CancelMandate(terms) => {
                let reason = self.cancel_mandate(envelope.partner, terms).err();
                self.change(id, reason)
            }
            PartnerCommand::ExpireMandate(terms) => {
                match self.expire_mandate(envelope.partner, terms, when) {
                    Some(outcome) => self.change(id, outcome.err()),
                    None => Outcome::Nothing,
                }
            }
            PartnerCommand::SandboxMandate(sandbox) => {
                let reason = self.sandbox_mandate(envelope, sandbox).err();
                self.change(id, reason)
            }
        };
        self.remember(id, envelope.fingerprint, outcome)
    }

    fn bank_command(&mut self, envelope: &BankEnvelope, when: When) -> Outcome {
        let fingerprint = envelope.fingerprint();
        match self.used(envelope.id, fingerprint) {
            Used::ByTheSame => return Outcome::Nothing,
            Used::ByAnother(conflict) => return self.bank_conflict(envelope, conflict),
            Used::Never => {}
        }
        let id = PaymentId::from_uuid(envelope.id);
        let outcome = match &envelope.command {
            BankCommand::Deposit(command) => self.deposit(id, command),
            BankCommand::Withdrawal(command) => self.withdraw(id, command),
            BankCommand::Transfer(command) => self.bank_transfer(id, command, when),
            BankCommand::Reversal(command) => self.reverse(id, command),
            other => {
                let reason = self.bank_change(other, when).err();
                self.change(envelope.id, reason)
            }
        };
        self.remember(envelope.id, fingerprint, outcome)
    }

    fn used(&mut self, id: Uuid, fingerprint: Fingerprint) -> Used {
        match self.said.get_mut(&id) {
            None => Used::Never,
            Some(said) if said.contains(&fingerprint) => Used::ByTheSame,
            Some(said) => {
                said.push(fingerprint);
                Used::ByAnother(conflict_id(PaymentId::from_uuid(id), &fingerprint))
            }
        }
    }

    /// What left nothing may come again.
    fn remember(&mut self, id: Uuid, fingerprint: Fingerprint, outcome: Outcome) -> Outcome {
        if outcome != Outcome::Nothing {
            self.said.insert(id, vec![fingerprint]);
        }
        outcome
    }

    fn partner_conflict(&mut self, envelope: &PartnerEnvelope, id: PaymentId) -> Outcome {
        if !envelope.command.moves_money() {
            return self.change(id.uuid(), Some(Reason::IdempotencyConflict));
        }
        let asked = self.asked_by(envelope);
        let conflict = Payment { kind: PaymentKind::Conflict, status: PaymentStatus::Conflicted, ..asked };
        self.tell_payment(id, &conflict, EventType::PaymentConflicted);
        self.keep(id, conflict)
    }

    fn bank_conflict(&mut self, envelope: &BankEnvelope, id: PaymentId) -> Outcome {
        if !envelope.command.moves_money() {
            return self.change(id.uuid(), Some(Reason::IdempotencyConflict));
        }
        let root = PaymentId::from_uuid(envelope.id);
        let asked = match &envelope.command {
            BankCommand::Deposit(command) | BankCommand::Withdrawal(command) => Payment {
                amount: Amount::new(command.amount_minor, command.currency).ok(),
                ..Payment::of_bank(PaymentKind::Conflict, root)
            },
            BankCommand::Transfer(command) => Payment {
                amount: Amount::new(command.amount_minor, command.currency).ok(),
                accounts: Some([command.from, command.to]),
                ..Payment::of_bank(PaymentKind::Conflict, root)
            },
            BankCommand::Reversal(command) => Payment {
                amount: command.part.and_then(|part| Amount::new(part.amount_minor, part.currency).ok()),
                ..Payment::of_bank(PaymentKind::Conflict, command.payment)
            },
            other => unreachable!("{} moves no money", other.word()),
        };
        self.keep(id, Payment { status: PaymentStatus::Conflicted, ..asked })
    }

    fn change(&mut self, id: Uuid, reason: Option<Reason>) -> Outcome {
        self.changes.insert(id, reason);
        Outcome::Change(id)
    }

    fn keep(&mut self, id: PaymentId, payment: Payment) -> Outcome {
        self.payments.insert(id, payment);
        Outcome::Payment(id)
    }

    fn account(&self, id: AccountId) -> Result<&Account, Reason> {
        self.accounts.get(&id).ok_or(Reason::AccountUnknown)
    }
}

impl Account {
    /// An empty account with real money.
    pub fn new(owner: Owner, currency: Currency) -> Self {
        Self {
            owner,
            currency,
            livemode: true,
            status: AccountStatus::Active,
            balance: 0,
            holds: BTreeMap::new(),
            overdraft: 0,
            payment_max: None,
            daily_max: None,
            spent: (Day::default(), 0),
            version: 0,
        }
    }

    /// What is held.
    pub fn held(&self) -> i64 {
        self.holds.values().sum()
    }

    fn available(&self) -> i128 {
        self.balance + i128::from(self.overdraft) - i128::from(self.held())
    }
}
