//! A payment as the ledger stores it and as the API, the events and the webhooks show it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codes::codes;
use crate::command::{FollowUp, Part, PartnerCommand, PartnerEnvelope};
use crate::ids::{AccountId, MandateId, PaymentId};
use crate::money::{Currency, decimal_text};
use crate::time::Timestamp;

codes! {
    /// What a payment does.
    PaymentKind {
        /// A partner debits a customer under a mandate.
        Payment = 1 "payment",
        /// The bank credits an account against its own.
        Deposit = 2 "deposit",
        /// A used idempotency key came with another request; nothing moved.
        Conflict = 3 "conflict",
        /// A partner takes what an authorised payment holds.
        Capture = 4 "capture",
        /// A partner releases what an authorised payment holds.
        Void = 5 "void",
        /// The bank releases what an authorised payment held for too long.
        Expire = 6 "expire",
        /// A partner gives back what a payment took.
        Refund = 7 "refund",
        /// Money moves between two accounts.
        Transfer = 8 "transfer",
        /// The bank debits an account against its own.
        Withdrawal = 9 "withdrawal",
        /// The bank moves back what a payment moved.
        Reversal = 10 "reversal",
    }
}

codes! {
    /// Where a payment stands. It only moves from `pending` by way of `authorized` or at once to one of the final ones,
    /// never back.
    PaymentStatus {
        /// Accepted, not decided yet; never stored.
        Pending = 1 "pending",
        /// Done: money moved, or for a void and an expiry, what was held is released.
        Posted = 2 "posted",
        /// Refused for good, with a reason.
        Rejected = 3 "rejected",
        /// A used key with another request; the first request stands.
        Conflicted = 4 "conflicted",
        /// Funds are held until they are captured, voided or expire.
        Authorized = 5 "authorized",
        /// What was held is released.
        Voided = 6 "voided",
        /// What was held is released because nobody captured it in time.
        Expired = 7 "expired",
    }
}

codes! {
    /// Why a payment or an account or mandate command was rejected.
    Reason {
        /// The available balance does not cover the amount.
        InsufficientFunds = 1 "insufficient_funds",
        /// The account is frozen.
        AccountFrozen = 2 "account_frozen",
        /// The account is closed.
        AccountClosed = 3 "account_closed",
        /// There is no such account.
        AccountUnknown = 4 "account_unknown",
        /// There is such an account already.
        AccountExists = 5 "account_exists",
        /// The partner is suspended.
        PartnerSuspended = 6 "partner_suspended",
        /// There is no such partner.
        PartnerUnknown = 7 "partner_unknown",
        /// The partner has no account in this currency to be credited.
        SettlementAccountMissing = 8 "settlement_account_missing",
        /// There is no such mandate of this partner.
        MandateUnknown = 9 "mandate_unknown",
        /// The mandate was revoked.
        MandateRevoked = 10 "mandate_revoked",
        /// The mandate has expired.
        MandateExpired = 11 "mandate_expired",
        /// The single use of the mandate is spent.
        MandateUsed = 12 "mandate_used",
        /// The amount is above the mandate's maximum for one payment.
        MandateLimit = 13 "mandate_limit",
        /// The mandate's or the account's cap for this day would be passed.
        DailyLimit = 14 "daily_limit",
        /// The amount is above the account's maximum for one payment.
        PaymentLimit = 15 "payment_limit",
        /// The currency is not the account's or the mandate's.
        CurrencyMismatch = 16 "currency_mismatch",
        /// There is such a mandate already.
        MandateExists = 17 "mandate_exists",
        /// The account is not in a status that this command can change.
        StatusUnchanged = 18 "status_unchanged",
        /// A sum would not fit.
        AmountOverflow = 19 "amount_overflow",
        /// Debit and credit are the same account.
        SameAccount = 20 "same_account",
        /// The id of an account or mandate command was used for another one.
        IdempotencyConflict = 21 "idempotency_conflict",
        /// The mandate is used or revoked already.
        MandateNotActive = 22 "mandate_not_active",
        /// There is no such payment of this partner.
        PaymentUnknown = 23 "payment_unknown",
        /// The payment holds nothing (any more) that could be captured.
        PaymentNotCapturable = 24 "payment_not_capturable",
        /// Nothing of the payment is left to be given back, or it is none that can be.
        PaymentNotRefundable = 25 "payment_not_refundable",
        /// The amount is above what is authorised.
        AmountExceedsAuthorized = 26 "amount_exceeds_authorized",
        /// The amount is above what is captured and not given back yet.
        AmountExceedsCaptured = 27 "amount_exceeds_captured",
        /// It could not be processed, and an operator gave it up.
        ProcessingFailed = 28 "processing_failed",
        /// The payment holds nothing (any more) that could be released.
        PaymentNotVoidable = 29 "payment_not_voidable",
        /// The payment did not move anything that could be moved back.
        PaymentNotReversible = 30 "payment_not_reversible",
        /// An account with a balance or holds cannot be closed.
        AccountNotEmpty = 31 "account_not_empty",
        /// There is no such open dead letter.
        DeadLetterUnknown = 32 "dead_letter_unknown",
        /// The account to be credited is not the partner's own, and the key may not transfer outward.
        TransferOutForbidden = 33 "transfer_out_forbidden",
        /// Only test partners may do that.
        TestPartnersOnly = 34 "test_partners_only",
        /// The bank's own accounts cannot be changed like this.
        BankAccount = 35 "bank_account",
        /// Test money and real money never mix.
        LivemodeMismatch = 36 "livemode_mismatch",
    }
}

/// Up to 20 keys of at most 40 characters with values of at most 500.
pub type Metadata = BTreeMap<String, String>;

/// A payment as its partner sees it: the body of the API's answers and `data.payment` of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    /// The payment.
    pub id: PaymentId,
    /// What it does.
    pub kind: PaymentKind,
    /// The payment that this one belongs to; itself for a payment.
    pub root: PaymentId,
    /// Where it stands.
    pub status: PaymentStatus,
    /// It could not be applied and waits for an operator.
    pub under_review: bool,
    /// Counts the changes of this payment; a receiver drops what is older than what it has.
    pub version: u32,
    /// What it is about in money. Absent for a void, or for "everything", of a payment that is not there.
    #[serde(flatten)]
    pub amounts: Option<Amounts>,
    /// The debited account, for a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<AccountId>,
    /// The credited account, for a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<AccountId>,
    /// The mandate it debits under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mandate: Option<MandateId>,
    /// The partner's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the customer reads on the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metadata: Metadata,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// `false` for a test partner.
    pub livemode: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Until when it may be captured, for a payment in two phases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Where to ask for its state.
    pub status_url: String,
}

/// What a payment asks for and what came of it, as decimal strings with exactly the currency's digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// What it asks for.
    pub amount: String,
    /// The currency of all of them.
    pub currency: Currency,
    /// What was captured of it.
    pub amount_captured: String,
    /// What was given back of it, by refunds and reversals.
    pub amount_refunded: String,
}

impl Amounts {
    /// Of minor units.
    pub fn of(currency: Currency, amount_minor: i64, captured_minor: i64, refunded_minor: i64) -> Self {
        Self {
            amount: decimal_text(amount_minor, currency),
            currency,
            amount_captured: decimal_text(captured_minor, currency),
            amount_refunded: decimal_text(refunded_minor, currency),
        }
    }
}

impl PaymentView {
    /// A command that was accepted and is not decided. `None` for a command that is no payment.
    pub fn pending(
        envelope: &PartnerEnvelope,
        livemode: bool,
        accepted_at: Timestamp,
        status_url: String,
    ) -> Option<Self> {
        let whole = |minor: i64, currency| Some(Amounts::of(currency, minor, 0, 0));
        let part = |part: Option<Part>| part.and_then(|part| whole(part.amount_minor, part.currency));
        let view = Self {
            id: envelope.id,
            kind: PaymentKind::Payment,
            root: envelope.root,
            status: PaymentStatus::Pending,
            under_review: false,
            version: 0,
            amounts: None,
            from: None,
            to: None,
            mandate: None,
            reference: None,
            description: None,
            metadata: Metadata::new(),
            reason: None,
            livemode,
            created_at: accepted_at,
            decided_at: None,
            expires_at: None,
            status_url,
        };
        let follow_up = |kind, command: &FollowUp| Self {
            kind,
            amounts: part(command.part),
            reference: command.reference.clone(),
            description: command.description.clone(),
            metadata: command.metadata.clone(),
            ..view.clone()
        };
        Some(match &envelope.command {
            PartnerCommand::Payment(command) => Self {
                amounts: whole(command.amount_minor, command.currency),
                mandate: Some(command.mandate),
                reference: command.reference.clone(),
                description: command.description.clone(),
                metadata: command.metadata.clone(),
                expires_at: command.expires_at(accepted_at),
                ..view
            },
            PartnerCommand::Capture(command) => follow_up(PaymentKind::Capture, command),
            PartnerCommand::Void(command) => follow_up(PaymentKind::Void, command),
            PartnerCommand::Refund(command) => follow_up(PaymentKind::Refund, command),
            PartnerCommand::Transfer(command) => Self {
                kind: PaymentKind::Transfer,
                amounts: whole(command.amount_minor, command.currency),
                from: Some(command.from),
                to: Some(command.to),
                reference: command.reference.clone(),
                description: command.description.clone(),
                metadata: command.metadata.clone(),
                ..view
            },
            PartnerCommand::Expire => Self { kind: PaymentKind::Expire, ..view },
            PartnerCommand::CancelMandate(_)
            | PartnerCommand::ExpireMandate(_)
            | PartnerCommand::SandboxMandate(_) => return None,
        })
    }
}

/// Where the state of a payment is asked for.
pub fn status_path(id: PaymentId) -> String {
    format!("/v1/payments/{id}")
}
