//! Events: facts told to a partner, numbered without gaps per partner.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codes::codes;
use crate::ids::{AccountId, EventId, MandateId, PartnerId};
use crate::mandate::{MandateKind, MandateStatus};
use crate::money::Currency;
use crate::time::Timestamp;

codes! {
    /// What an event tells.
    EventType {
        /// Money moved for a payment.
        PaymentPosted = 1 "payment.posted",
        /// A payment was refused for good.
        PaymentRejected = 2 "payment.rejected",
        /// A used idempotency key came with another request.
        PaymentConflicted = 3 "payment.conflicted",
        /// An account of the partner was credited by the bank or by someone else's transfer.
        AccountCredited = 4 "account.credited",
        /// A customer granted a mandate.
        MandateActive = 5 "mandate.active",
        /// A mandate was taken back.
        MandateRevoked = 6 "mandate.revoked",
        /// Funds are held for a payment.
        PaymentAuthorized = 7 "payment.authorized",
        /// What a payment held was released.
        PaymentVoided = 8 "payment.voided",
        /// What a payment held was released because nobody captured it in time.
        PaymentExpired = 9 "payment.expired",
        /// The bank moved back what a payment had moved.
        PaymentReversed = 10 "payment.reversed",
        /// Money moved for an authorised payment.
        CapturePosted = 11 "capture.posted",
        /// A capture was refused for good.
        CaptureRejected = 12 "capture.rejected",
        /// A void was refused for good.
        VoidRejected = 13 "void.rejected",
        /// Money went back to the customer.
        RefundPosted = 14 "refund.posted",
        /// A refund was refused for good.
        RefundRejected = 15 "refund.rejected",
        /// Money moved between two accounts.
        TransferPosted = 16 "transfer.posted",
        /// A transfer was refused for good.
        TransferRejected = 17 "transfer.rejected",
        /// A customer said no to a mandate.
        MandateDeclined = 18 "mandate.declined",
        /// A mandate, or the request for it, came to its time.
        MandateExpired = 19 "mandate.expired",
        /// The bank moved back what someone else had put into an account of the partner.
        AccountDebited = 20 "account.debited",
    }
}

/// The version of the bodies that webhooks carry today; pinned per endpoint, changes are additive.
pub const API_VERSION: &str = "2026-11-01";

/// An event on `payments.events.v1`, keyed by its partner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRecord {
    /// [`crate::command::SCHEMA`].
    pub schema: u8,
    /// Derived from partner, epoch and sequence: `webhook-id`.
    pub id: EventId,
    /// Who is told.
    pub partner: PartnerId,
    /// Counts the partner's events from 1 without gaps.
    pub sequence: u64,
    /// Raised when sequence numbers are used again after a restore that lost some.
    pub epoch: u16,
    /// What it tells.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// `{"payment": …}`, `{"mandate": …}` or `{"account": …}`, the very bytes that are stored and sent.
    pub data: Box<RawValue>,
}

impl EventRecord {
    /// The body of the webhook and of the event log, for an endpoint pinned to `api_version`.
    pub fn webhook_body(&self, api_version: &str) -> String {
        format!(
            r#"{{"type":"{}","api_version":"{}","timestamp":"{}","sequence":{},"epoch":{},"data":{}}}"#,
            self.event_type,
            api_version,
            self.timestamp,
            self.sequence,
            self.epoch,
            self.data.get()
        )
    }
}

/// A mandate as its partner sees it: `data.mandate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateView {
    /// The mandate.
    pub id: MandateId,
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// Whether it authorises.
    pub status: MandateStatus,
    /// The currency.
    pub currency: Currency,
    /// Decimal string: the most that one payment may debit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_cap: Option<String>,
    /// From when on it authorises nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// A credit from outside, or the debit that moves it back, as the partner sees it: `data.account`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditView {
    /// The account.
    pub id: AccountId,
    /// Decimal string.
    pub amount: String,
    /// The currency.
    pub currency: Currency,
    /// Decimal string: the balance after it.
    pub balance: String,
    /// Where the money came from, or had come from; for a transfer its description, which both sides read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
