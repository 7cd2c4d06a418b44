//! What a decided batch leaves behind, besides the rows it changed in the [`View`](super::view::View).

use std::net::IpAddr;

use domain::entry::Entry;
use domain::event::EventType;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, PartnerId, PaymentId};
use domain::money::Amount;
use domain::payment::Reason;
use domain::time::Timestamp;
use domain::topic::Position;
use uuid::Uuid;

/// Rows to insert, each table in the order of the fold.
#[derive(Debug, Default)]
pub struct Effects {
    /// `payments` that are new.
    pub payments: Vec<Asked>,
    /// `follow_ups`: the payment that another one belongs to, and that one.
    pub follow_ups: Vec<(PaymentId, PaymentId)>,
    /// `holds` that begin.
    pub holds: Vec<HoldRow>,
    /// `holds` that end.
    pub released: Vec<(AccountId, PaymentId)>,
    /// `changes`.
    pub changes: Vec<ChangeRow>,
    /// `entries`.
    pub entries: Vec<EntryRow>,
    /// `events`.
    pub events: Vec<EventRow>,
    /// `dead_letters`.
    pub dead_letters: Vec<DeadLetterRow>,
    /// Commands that leave nothing: they were applied before, or ask to end what has not come to its time.
    pub duplicates: usize,
}

/// Who asked, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The API key or the user; the bank itself for what nobody asked for.
    pub actor: Uuid,
    /// Why, in the user's words.
    pub reason: Option<String>,
    /// The request.
    pub request_id: Uuid,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// Who asked for a payment and who was told: what a row of `payments` holds besides the
/// [`Payment`](super::view::Payment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The payment, in the view.
    pub payment: PaymentId,
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// Who asked.
    pub origin: Origin,
    /// The idempotency key as sent.
    pub idempotency_key: Option<String>,
    /// The partner's event that told the outcome.
    pub event_sequence: Option<u64>,
    /// A second partner that was told, and by which event.
    pub told: Option<(PartnerId, u64)>,
}

/// Funds that a payment reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldRow {
    /// The debited account.
    pub account: AccountId,
    /// The payment.
    pub payment: PaymentId,
    /// The partition of the partner commands that it came by.
    pub partition: i32,
    /// What is reserved.
    pub amount: Amount,
    /// Until when it may be captured.
    pub expires_at: Timestamp,
}

/// A row of `changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// Where its command stands.
    pub position: Position,
    /// The change.
    pub id: Uuid,
    /// The word of its command.
    pub kind: &'static str,
    /// Why it was rejected; `None` when it was applied.
    pub reason: Option<Reason>,
    /// The account or mandate.
    pub target: Uuid,
    /// The partner that was told, and by which event.
    pub told: Option<(PartnerId, u64)>,
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// The command, JSON.
    pub command: String,
    /// Who asked.
    pub origin: Origin,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// A row of `entries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRow {
    /// The entry.
    pub entry: Entry,
    /// Its link of the account's chain.
    pub hash: [u8; 32],
}

/// A row of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Who is told.
    pub partner: PartnerId,
    /// The place in the partner's log.
    pub sequence: u64,
    /// The partner's epoch.
    pub epoch: u16,
    /// What it tells.
    pub event_type: EventType,
    /// When it was decided.
    pub occurred_at: Timestamp,
    /// JSON of `data`.
    pub data: String,
}

/// A row of `dead_letters`; the record itself is the item's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// Which item of the batch.
    pub item: usize,
    /// Why.
    pub reason: DeadLetterReason,
    /// What was found.
    pub detail: String,
}

/// Why a command could not be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The record is no command.
    Undecodable,
    /// The database refuses a value of it.
    DataError,
    /// An earlier command on the same root is a dead letter.
    BehindDeadLetter,
}

impl DeadLetterReason {
    /// The word in the table and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::DataError => "data_error",
            Self::BehindDeadLetter => "behind_dead_letter",
        }
    }
}
