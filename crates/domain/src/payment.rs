//! A payment as the ledger stores it and as the API, the events and the webhooks show it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codes::codes;
use crate::ids::{MandateId, PaymentId};
use crate::money::Currency;
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
    }
}

codes! {
    /// Where a payment stands. It only moves from `pending` to one of the final ones, never back.
    PaymentStatus {
        /// Accepted, not decided yet; never stored.
        Pending = 1 "pending",
        /// Money moved.
        Posted = 2 "posted",
        /// Refused for good, with a reason.
        Rejected = 3 "rejected",
        /// A used key with another request; the first request stands.
        Conflicted = 4 "conflicted",
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
    /// Decimal string with the currency's digits.
    pub amount: String,
    /// The currency.
    pub currency: Currency,
    /// Decimal string: what was captured of it.
    pub amount_captured: String,
    /// Decimal string: what was refunded of it.
    pub amount_refunded: String,
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
    /// Where to ask for its state.
    pub status_url: String,
}

/// Where the state of a payment is asked for.
pub fn status_path(id: PaymentId) -> String {
    format!("/v1/payments/{id}")
}
