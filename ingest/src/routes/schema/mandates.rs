//! The shapes of mandates.

use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{Currency, MANDATE};

/// A mandate in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct MandatePath {
    /// The mandate, or the request for it
    #[param(example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    id: String,
}

/// Once or repeatedly.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum MandateKind {
    /// One payment that is not rejected.
    Single,
    /// Until it expires or is revoked.
    Standing,
}

/// What a customer is asked for.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct MandateRequest {
    /// Once or repeatedly.
    kind: MandateKind,
    /// ISO 4217.
    currency: Currency,
    /// Decimal string: the most that one payment may debit.
    per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank.
    daily_cap: Option<String>,
    /// From when on it authorises nothing, RFC 3339.
    expires_at: Option<String>,
    /// Your own reference; events about the mandate carry it.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// Where the customer goes afterwards: an https URL under one of those that are registered for you.
    #[schema(max_length = 2048)]
    return_url: Option<String>,
}

/// A mandate, or the request for it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Mandate {
    /// Its id.
    id: String,
    /// Once or repeatedly.
    kind: MandateKind,
    /// `pending`, `active`, `used`, `revoked`, `declined` or `expired`.
    status: String,
    /// ISO 4217.
    currency: Currency,
    /// Decimal string: the most that one payment may debit.
    per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank.
    daily_cap: Option<String>,
    /// From when on it authorises nothing, RFC 3339.
    expires_at: Option<String>,
    /// Your own reference.
    reference: Option<String>,
    /// When it was asked for, or granted without a request, RFC 3339.
    created_at: String,
    /// Until when the customer may answer, RFC 3339; while it is pending.
    answer_by: Option<String>,
    /// Where the customer answers; while it is pending.
    consent_url: Option<String>,
}

/// A request that was just made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct RequestedMandate {
    #[schema(inline)]
    #[serde(flatten)]
    mandate: Mandate,
    /// What the customer enters on the bank's page; shown in this answer alone.
    #[schema(min_length = 8, max_length = 8)]
    code: Option<String>,
}

/// A page of mandates.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct MandateList {
    /// Newest first.
    data: Vec<Mandate>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

/// What a test mandate and its account are like.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SandboxStateWord {
    /// Payments are posted while the limits and the balance last.
    Active,
    /// The mandate was used.
    Used,
    /// The mandate was revoked.
    Revoked,
    /// The mandate has expired.
    Expired,
    /// The account is frozen.
    AccountFrozen,
    /// The account is closed; `balance` is zero.
    AccountClosed,
}

/// A test mandate.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct SandboxRequest {
    /// Decimal string, which may be zero: the balance of the test account.
    balance: String,
    /// What they are like; `active` when left out.
    #[schema(nullable)]
    state: Option<SandboxStateWord>,
    /// Once or repeatedly.
    kind: MandateKind,
    /// ISO 4217.
    currency: Currency,
    /// Decimal string: the most that one payment may debit.
    per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank.
    daily_cap: Option<String>,
    /// From when on it authorises nothing, RFC 3339.
    expires_at: Option<String>,
    /// Your own reference.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
}

/// An example.
pub fn mandate_request() -> Value {
    json!({
        "kind": "standing", "currency": "EUR", "per_payment_max": "50.00", "daily_cap": "100.00",
        "reference": "customer-7"
    })
}

/// An example.
pub fn mandate() -> Value {
    json!({
        "id": MANDATE, "kind": "standing", "status": "pending", "currency": "EUR", "per_payment_max": "50.00",
        "daily_cap": "100.00", "reference": "customer-7", "created_at": "2026-11-01T12:00:00.000000Z",
        "answer_by": "2026-11-01T12:15:00.000000Z", "consent_url": format!("https://bank.example/consent/{MANDATE}")
    })
}

/// An example.
pub fn requested_mandate() -> Value {
    let mut value = mandate();
    value["code"] = "K7M2XQ9P".into();
    value
}

/// An example.
pub fn cancelled_mandate() -> Value {
    let mut value = mandate();
    value["status"] = "revoked".into();
    if let Some(members) = value.as_object_mut() {
        members.retain(|name, _| name != "answer_by" && name != "consent_url");
    }
    value
}

/// An example.
pub fn mandates() -> Value {
    json!({"data": [mandate()], "next": null})
}

/// An example.
pub fn sandbox_request() -> Value {
    json!({"balance": "100.00", "state": "active", "kind": "standing", "currency": "EUR", "daily_cap": "50.00"})
}

/// An example.
pub fn sandbox(status: &str) -> Value {
    json!({
        "mandate": MANDATE, "account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "status": status, "state": "active"
    })
}
