//! Posting payments.

use domain::{
    ids::MandateId,
    money::{Amount, Currency},
    payment::{Metadata, PaymentStatus, PaymentView},
};
use serde::Serialize;

/// The body of `POST /v1/payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaymentRequest {
    mandate: MandateId,
    amount: String,
    currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u32>,
    /// The partner's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the customer reads on the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl PaymentRequest {
    /// Debits the mandate's account by `amount`.
    pub fn new(mandate: MandateId, amount: Amount) -> Self {
        Self {
            mandate,
            amount: amount.to_string(),
            currency: amount.currency(),
            capture: None,
            expires_in: None,
            reference: None,
            description: None,
            metadata: Metadata::new(),
        }
    }

    /// In two phases: the funds are held until a capture, a void, or so many seconds later; 7 days without a number.
    #[must_use]
    pub fn authorize(self, expires_in_s: Option<u32>) -> Self {
        Self { capture: Some("manual"), expires_in: expires_in_s, ..self }
    }
}

/// What the bank answered to a payment.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The payment as it stands.
    pub payment: PaymentView,
    /// `true`: the idempotency key had been used for this same request, and this is what became of it.
    pub replayed: bool,
    /// The HTTP status: 202 while pending, 200 when decided.
    pub status: u16,
}

impl Accepted {
    /// Whether the outcome is known and will not change.
    pub fn is_decided(&self) -> bool {
        self.payment.status != PaymentStatus::Pending
    }
}
