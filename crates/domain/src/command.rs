//! Commands: the only way to change money, accounts and mandates. Each travels in an envelope that says who
//! asked, and is applied once, whatever is retried or redelivered.
//!
//! Partner commands and bank commands are two types on two topics, so that ingest cannot express a deposit.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Owner;
use crate::codes::codes;
use crate::fingerprint::Fingerprint;
use crate::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, expiry_id, mandate_end_id};
use crate::mandate::MandateKind;
use crate::money::{Amount, Currency};
use crate::payment::Metadata;
use crate::time::Timestamp;
use crate::topic::Source;

/// The schema version written today.
pub const SCHEMA: u8 = 1;

/// A partner's command, keyed on Kafka by its root payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartnerEnvelope {
    /// [`SCHEMA`].
    pub schema: u8,
    /// Derived from the partner and its idempotency key.
    pub id: PaymentId,
    /// The payment that this one belongs to; itself for a payment.
    pub root: PaymentId,
    /// Who asked.
    pub partner: PartnerId,
    /// The API key that signed; [`crate::ids::bank_owner`] for what the processor asks by itself.
    pub key: KeyId,
    /// The idempotency key as sent; what was derived for what the processor asks by itself.
    pub idempotency_key: String,
    /// What was asked, to notice another request under a used key.
    pub fingerprint: Fingerprint,
    /// The request, as in the answer and the logs.
    pub request_id: Uuid,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// What to do.
    pub command: PartnerCommand,
}

/// What a partner may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PartnerCommand {
    /// Debit a customer under a mandate and credit the partner's settlement account, at once or in two phases.
    Payment(PaymentCommand),
    /// Take of an authorised payment what its root holds, in part or whole, once; the rest is released.
    Capture(FollowUp),
    /// Release what an authorised payment holds.
    Void(FollowUp),
    /// Give back of a posted payment, in part or whole.
    Refund(FollowUp),
    /// Move money from an account of the partner to another account.
    Transfer(TransferCommand),
    /// Release what an authorised payment holds after its time; written by the processor.
    Expire,
    /// Give up a mandate or the request for one.
    CancelMandate(MandateTerms),
    /// End a mandate or the request for one after its time; written by the processor.
    ExpireMandate(MandateTerms),
    /// Make a funded test account with a mandate on it; for test partners only.
    SandboxMandate(SandboxMandate),
}

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentCommand {
    /// The customer's authority.
    pub mandate: MandateId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// For a payment in two phases: how long the funds are held for its capture, in seconds after it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
    /// The partner's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the customer reads on the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A command on an earlier payment, which is the envelope's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowUp {
    /// How much of it; everything that is left when absent. A void takes everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The partner's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the customer reads on the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A part of a payment's amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency, which must be the payment's.
    pub currency: Currency,
}

/// A transfer that a partner asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferCommand {
    /// The partner's account to debit.
    pub from: AccountId,
    /// The account to credit.
    pub to: AccountId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// Whether `to` may be someone else's: the key has the scope for that.
    pub outward: bool,
    /// The partner's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What both sides read on the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// What a partner asks a customer for; carried by every command that ends a request, since the ledger knows a
/// mandate only once it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MandateTerms {
    /// The mandate.
    pub mandate: MandateId,
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// The currency.
    pub currency: Currency,
    /// The most that one payment may debit, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_max_minor: Option<i64>,
    /// The most that may be debited in a day of the bank, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_max_minor: Option<i64>,
    /// From when on it authorises nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Until when the request may be answered, for the end of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_by: Option<Timestamp>,
}

/// A test account with money and a mandate on it, in a state that lets a merchant's developer see every rejection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxMandate {
    /// The new test account.
    pub account: AccountId,
    /// The account's balance, in minor units.
    pub balance_minor: i64,
    /// The new mandate.
    pub terms: MandateTerms,
    /// What the account or the mandate is like.
    pub state: SandboxState,
}

codes! {
    /// What a sandbox mandate or its account is like.
    SandboxState {
        /// Payments under it are posted while the limits and the balance last.
        Active = 1 "active",
        /// The mandate was used.
        Used = 2 "used",
        /// The mandate was revoked.
        Revoked = 3 "revoked",
        /// The mandate has expired.
        Expired = 4 "expired",
        /// The account is frozen.
        AccountFrozen = 5 "account_frozen",
        /// The account is closed, which it can only be without a balance.
        AccountClosed = 6 "account_closed",
    }
}

/// A command of the bank, keyed on Kafka by what it changes ([`BankCommand::kafka_key`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankEnvelope {
    /// [`SCHEMA`].
    pub schema: u8,
    /// The payment's id for what moves money, the change's id for anything else.
    pub id: Uuid,
    /// Who asked.
    pub actor: UserId,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request, as in the answer and the logs.
    pub request_id: Uuid,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// What to do.
    pub command: BankCommand,
}

/// What the bank may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BankCommand {
    /// Open an account.
    OpenAccount(OpenAccount),
    /// Credit an account against the bank's own account of the currency.
    Deposit(Deposit),
    /// Debit an account against the bank's own account of the currency.
    Withdrawal(Deposit),
    /// Move money between two accounts.
    Transfer(BankTransfer),
    /// Move back what a posted payment moved, in part or whole.
    Reversal(Reversal),
    /// Let a partner debit an account.
    GrantMandate(GrantMandate),
    /// Take a mandate back.
    RevokeMandate {
        /// The mandate.
        mandate: MandateId,
    },
    /// Say no to a request for a mandate.
    DeclineMandate {
        /// Who asked for it.
        partner: PartnerId,
        /// What was asked for.
        terms: MandateTerms,
    },
    /// Stop debits of an account.
    FreezeAccount {
        /// The account.
        account: AccountId,
    },
    /// Allow debits of a frozen account again.
    UnfreezeAccount {
        /// The account.
        account: AccountId,
    },
    /// End an account without a balance and holds.
    CloseAccount {
        /// The account.
        account: AccountId,
    },
    /// Replace all limits of an account.
    SetLimits(SetLimits),
    /// Have a partner's payments credited to another account of its own.
    SetSettlementAccount {
        /// The partner.
        partner: PartnerId,
        /// Its account, whose currency decides which payments.
        account: AccountId,
    },
    /// Apply the open dead letters of a root again, in their order.
    RedriveDeadLetters {
        /// What the records were keyed by.
        root: Uuid,
    },
    /// Give an open dead letter up: what it asked for is rejected for good.
    RejectDeadLetter(RejectDeadLetter),
}

/// Moves money between two accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankTransfer {
    /// The account to debit.
    pub from: AccountId,
    /// The account to credit.
    pub to: AccountId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// What both sides read on the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Moves back what a posted payment moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reversal {
    /// The payment, transfer, deposit or withdrawal.
    pub payment: PaymentId,
    /// How much of it; everything that is left when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// The limits of an account from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// The account.
    pub account: AccountId,
    /// How far it may go below zero, in minor units.
    pub overdraft_minor: i64,
    /// The most that one payment or transfer may debit, in minor units; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_max_minor: Option<i64>,
    /// The most that payments and transfers may debit in a day of the bank, in minor units; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_max_minor: Option<i64>,
}

/// Names a dead letter by its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectDeadLetter {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// What the record was keyed by, when that is an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Uuid>,
}

/// Opens an account with a balance of zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// The new account.
    pub account: AccountId,
    /// Its owner. A partner's first account in a currency becomes its settlement account.
    pub owner: Owner,
    /// Its currency.
    pub currency: Currency,
    /// How far it may go below zero, in minor units.
    #[serde(default)]
    pub overdraft_minor: i64,
    /// The most that one payment or transfer may debit, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_max_minor: Option<i64>,
    /// The most that payments and transfers may debit in a day of the bank, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_max_minor: Option<i64>,
}

/// Money that came in from outside, or went there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// The account to credit or debit.
    pub account: AccountId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// Where the money came from or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Lets a partner debit an account within caps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantMandate {
    /// The new mandate.
    pub mandate: MandateId,
    /// Who may debit.
    pub partner: PartnerId,
    /// Which account.
    pub account: AccountId,
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// The currency, which must be the account's.
    pub currency: Currency,
    /// The most that one payment may debit, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_max_minor: Option<i64>,
    /// The most that may be debited in a day of the bank, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_max_minor: Option<i64>,
    /// From when on it authorises nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Why a record is no command: it goes to the dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of an envelope.
    #[error("not a command: {0}")]
    Json(#[from] serde_json::Error),
    /// A schema that this version does not know.
    #[error("command schema {0} is unknown")]
    Schema(u8),
    /// A field that no honest producer writes.
    #[error("{0}")]
    Field(&'static str),
}

/// Longest texts that a command may carry, in characters; they fit their columns.
pub mod limits {
    /// `Idempotency-Key`.
    pub const IDEMPOTENCY_KEY_MAX: usize = 255;
    /// `reference`.
    pub const REFERENCE_MAX: usize = 100;
    /// `description`.
    pub const DESCRIPTION_MAX: usize = 200;
    /// Keys of `metadata`.
    pub const METADATA_KEYS_MAX: usize = 20;
    /// One key of `metadata`.
    pub const METADATA_KEY_MAX: usize = 40;
    /// The balance of a test account: so little that all of them never exhaust the sandbox.
    pub const SANDBOX_BALANCE_MINOR_MAX: i64 = 100_000_000;
    /// One value of `metadata`.
    pub const METADATA_VALUE_MAX: usize = 500;
    /// `reason` of a command of the bank.
    pub const REASON_MAX: usize = 500;
}

impl PartnerEnvelope {
    /// Reads a record's value. Texts are not measured here: a field that does not fit its column is a data
    /// error of that record when it is written.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Self = serde_json::from_slice(value)?;
        if envelope.schema != SCHEMA {
            return Err(DecodeError::Schema(envelope.schema));
        }
        envelope.check()?;
        Ok(envelope)
    }

    /// Refuses what no honest producer writes. An id that the processor derives is checked, so that what it asks
    /// by itself can never take the place of a partner's payment.
    fn check(&self) -> Result<(), DecodeError> {
        let is_own_root = self.root == self.id;
        let derived = |id: PaymentId| {
            if self.id == id { Ok(()) } else { Err(DecodeError::Field("the id is not the derived one")) }
        };
        match &self.command {
            PartnerCommand::Payment(payment) => {
                check_amount(payment.amount_minor, payment.currency)?;
                check_root(is_own_root)
            }
            PartnerCommand::Transfer(transfer) => {
                check_amount(transfer.amount_minor, transfer.currency)?;
                check_root(is_own_root)
            }
            PartnerCommand::Void(FollowUp { part: Some(_), .. }) => {
                Err(DecodeError::Field("a void takes everything"))
            }
            PartnerCommand::Capture(follow_up)
            | PartnerCommand::Void(follow_up)
            | PartnerCommand::Refund(follow_up) => {
                check_part(follow_up.part)?;
                check_root(!is_own_root)
            }
            PartnerCommand::Expire => derived(expiry_id(self.root)),
            PartnerCommand::CancelMandate(terms) => {
                terms.check()?;
                derived(mandate_end_id(self.partner, terms.mandate, "cancel"))
            }
            PartnerCommand::ExpireMandate(terms) => {
                terms.check()?;
                derived(mandate_end_id(self.partner, terms.mandate, "expire"))
            }
            PartnerCommand::SandboxMandate(sandbox) => {
                sandbox.terms.check()?;
                if !(0..=limits::SANDBOX_BALANCE_MINOR_MAX).contains(&sandbox.balance_minor) {
                    return Err(DecodeError::Field("the balance is out of bounds"));
                }
                check_root(is_own_root)
            }
        }
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl BankEnvelope {
    /// Reads a record's value. The reason is measured here, for it stands in the row of what deals with dead letters,
    /// which is never a dead letter itself.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Self = serde_json::from_slice(value)?;
        if envelope.schema != SCHEMA {
            return Err(DecodeError::Schema(envelope.schema));
        }
        if envelope.reason.chars().count() > limits::REASON_MAX {
            return Err(DecodeError::Field("the reason is too long"));
        }
        match &envelope.command {
            BankCommand::Deposit(command) | BankCommand::Withdrawal(command) => {
                check_amount(command.amount_minor, command.currency)?;
            }
            BankCommand::Transfer(transfer) => check_amount(transfer.amount_minor, transfer.currency)?,
            BankCommand::Reversal(reversal) => {
                check_part(reversal.part)?;
                check_root(reversal.payment.uuid() != envelope.id)?;
            }
            BankCommand::OpenAccount(open) => {
                check_limits([Some(open.overdraft_minor), open.payment_max_minor, open.daily_max_minor])?;
            }
            BankCommand::SetLimits(set) => {
                check_limits([Some(set.overdraft_minor), set.payment_max_minor, set.daily_max_minor])?;
            }
            BankCommand::GrantMandate(grant) => {
                check_limits([grant.payment_max_minor, grant.daily_max_minor, None])?;
            }
            BankCommand::DeclineMandate { terms, .. } => terms.check()?,
            BankCommand::RevokeMandate { .. }
            | BankCommand::FreezeAccount { .. }
            | BankCommand::UnfreezeAccount { .. }
            | BankCommand::CloseAccount { .. }
            | BankCommand::SetSettlementAccount { .. }
            | BankCommand::RedriveDeadLetters { .. }
            | BankCommand::RejectDeadLetter(_) => {}
        }
        Ok(envelope)
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// What was asked, whoever asked: the same id with another fingerprint is a conflict.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&[&encode(&self.command)])
    }
}

impl BankCommand {
    /// The id of what it changes, so that commands on one thing stay in order.
    pub fn kafka_key(&self) -> Uuid {
        match self {
            Self::OpenAccount(open) => open.account.uuid(),
            Self::Deposit(command) | Self::Withdrawal(command) => command.account.uuid(),
            Self::Transfer(transfer) => transfer.from.uuid(),
            Self::Reversal(reversal) => reversal.payment.uuid(),
            Self::GrantMandate(grant) => grant.mandate.uuid(),
            Self::RevokeMandate { mandate } => mandate.uuid(),
            Self::DeclineMandate { terms, .. } => terms.mandate.uuid(),
            Self::FreezeAccount { account }
            | Self::UnfreezeAccount { account }
            | Self::CloseAccount { account }
            | Self::SetSettlementAccount { account, .. } => account.uuid(),
            Self::SetLimits(set) => set.account.uuid(),
            Self::RedriveDeadLetters { root } => *root,
            Self::RejectDeadLetter(letter) => letter.root.unwrap_or_default(),
        }
    }

    /// The word of the command, as in its JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::OpenAccount(_) => "open_account",
            Self::Deposit(_) => "deposit",
            Self::Withdrawal(_) => "withdrawal",
            Self::Transfer(_) => "transfer",
            Self::Reversal(_) => "reversal",
            Self::GrantMandate(_) => "grant_mandate",
            Self::RevokeMandate { .. } => "revoke_mandate",
            Self::DeclineMandate { .. } => "decline_mandate",
            Self::FreezeAccount { .. } => "freeze_account",
            Self::UnfreezeAccount { .. } => "unfreeze_account",
            Self::CloseAccount { .. } => "close_account",
            Self::SetLimits(_) => "set_limits",
            Self::SetSettlementAccount { .. } => "set_settlement_account",
            Self::RedriveDeadLetters { .. } => "redrive_dead_letters",
            Self::RejectDeadLetter(_) => "reject_dead_letter",
        }
    }

    /// Whether it leaves a row of `payments`; otherwise it leaves one of `changes`.
    pub const fn moves_money(&self) -> bool {
        matches!(self, Self::Deposit(_) | Self::Withdrawal(_) | Self::Transfer(_) | Self::Reversal(_))
    }
}

impl PartnerCommand {
    /// The word of the command, as in its JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Payment(_) => "payment",
            Self::Capture(_) => "capture",
            Self::Void(_) => "void",
            Self::Refund(_) => "refund",
            Self::Transfer(_) => "transfer",
            Self::Expire => "expire",
            Self::CancelMandate(_) => "cancel_mandate",
            Self::ExpireMandate(_) => "expire_mandate",
            Self::SandboxMandate(_) => "sandbox_mandate",
        }
    }

    /// Whether it leaves a row of `payments`; otherwise it leaves one of `changes`. A sandbox mandate may leave both.
    pub const fn moves_money(&self) -> bool {
        matches!(
            self,
            Self::Payment(_)
                | Self::Capture(_)
                | Self::Void(_)
                | Self::Refund(_)
                | Self::Transfer(_)
                | Self::Expire
        )
    }
}

impl PaymentCommand {
    /// Until when it may be captured, when it is one in two phases.
    pub fn expires_at(&self, accepted_at: Timestamp) -> Option<Timestamp> {
        self.expires_in_s.map(|seconds| accepted_at.plus_seconds(seconds.into()))
    }
}

impl MandateTerms {
    fn check(&self) -> Result<(), DecodeError> {
        check_limits([self.payment_max_minor, self.daily_max_minor, None])
    }
}

fn check_root(fits: bool) -> Result<(), DecodeError> {
    if fits { Ok(()) } else { Err(DecodeError::Field("the root does not fit the command")) }
}

fn check_part(part: Option<Part>) -> Result<(), DecodeError> {
    part.map_or(Ok(()), |part| check_amount(part.amount_minor, part.currency))
}

fn check_limits(limits: [Option<i64>; 3]) -> Result<(), DecodeError> {
    if limits.into_iter().flatten().any(|minor| minor < 0) {
        return Err(DecodeError::Field("a limit is negative"));
    }
    Ok(())
}

fn check_amount(minor: i64, currency: Currency) -> Result<(), DecodeError> {
    Amount::new(minor, currency).map(drop).map_err(|_| DecodeError::Field("the amount is out of bounds"))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Only maps with keys that are no strings or a failing Serialize could make this fail; there are none.
    serde_json::to_vec(value).unwrap_or_default()
}
