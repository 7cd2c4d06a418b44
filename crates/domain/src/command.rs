//! Commands: the only way to change money, accounts and mandates. Each travels in an envelope that says who
//! asked, and is applied once, whatever is retried or redelivered.
//!
//! Partner commands and bank commands are two types on two topics, so that ingest cannot express a deposit.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Owner;
use crate::fingerprint::Fingerprint;
use crate::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId};
use crate::mandate::MandateKind;
use crate::money::{Amount, Currency};
use crate::payment::Metadata;
use crate::time::Timestamp;

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
    /// The API key that signed.
    pub key: KeyId,
    /// The idempotency key as sent.
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
    /// Debit a customer under a mandate and credit the partner's settlement account, at once.
    Payment(PaymentCommand),
}

/// A payment with automatic capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentCommand {
    /// The customer's authority.
    pub mandate: MandateId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
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

/// A command of the bank, keyed on Kafka by what it changes ([`BankCommand::kafka_key`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankEnvelope {
    /// [`SCHEMA`].
    pub schema: u8,
    /// The payment's id for a deposit, the change's id for anything else.
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
    /// Let a partner debit an account.
    GrantMandate(GrantMandate),
    /// Take a mandate back.
    RevokeMandate {
        /// The mandate.
        mandate: MandateId,
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
    /// The most that one payment may debit, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_max_minor: Option<i64>,
    /// The most that payments may debit in a day of the bank, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_max_minor: Option<i64>,
}

/// Credits an account with money that came in from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// The account to credit.
    pub account: AccountId,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
    /// Where the money came from.
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
    /// One value of `metadata`.
    pub const METADATA_VALUE_MAX: usize = 500;
}

impl PartnerEnvelope {
    /// Reads a record's value. Texts are not measured here: a field that does not fit its column is a data
    /// error of that record when it is written.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Self = serde_json::from_slice(value)?;
        if envelope.schema != SCHEMA {
            return Err(DecodeError::Schema(envelope.schema));
        }
        match &envelope.command {
            PartnerCommand::Payment(payment) => check_amount(payment.amount_minor, payment.currency)?,
        }
        Ok(envelope)
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl BankEnvelope {
    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Self = serde_json::from_slice(value)?;
        if envelope.schema != SCHEMA {
            return Err(DecodeError::Schema(envelope.schema));
        }
        let negative = |limit: Option<i64>| limit.is_some_and(|minor| minor < 0);
        match &envelope.command {
            BankCommand::Deposit(deposit) => check_amount(deposit.amount_minor, deposit.currency)?,
            BankCommand::OpenAccount(open) => {
                if open.overdraft_minor < 0
                    || negative(open.payment_max_minor)
                    || negative(open.daily_max_minor)
                {
                    return Err(DecodeError::Field("a limit is negative"));
                }
            }
            BankCommand::GrantMandate(grant) => {
                if negative(grant.payment_max_minor) || negative(grant.daily_max_minor) {
                    return Err(DecodeError::Field("a limit is negative"));
                }
            }
            BankCommand::RevokeMandate { .. }
            | BankCommand::FreezeAccount { .. }
            | BankCommand::UnfreezeAccount { .. } => {}
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
            Self::Deposit(deposit) => deposit.account.uuid(),
            Self::GrantMandate(grant) => grant.mandate.uuid(),
            Self::RevokeMandate { mandate } => mandate.uuid(),
            Self::FreezeAccount { account } | Self::UnfreezeAccount { account } => account.uuid(),
        }
    }
}

fn check_amount(minor: i64, currency: Currency) -> Result<(), DecodeError> {
    Amount::new(minor, currency).map(drop).map_err(|_| DecodeError::Field("the amount is out of bounds"))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Only maps with keys that are no strings or a failing Serialize could make this fail; there are none.
    serde_json::to_vec(value).unwrap_or_default()
}
