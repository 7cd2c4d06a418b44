//! The shapes of requests and answers for the OpenAPI document, each with its example.
//!
//! The answers themselves are written from types of the domain, which knows nothing of OpenAPI; a test compares
//! each shape here with what is really written.

pub mod mandates;
pub mod money;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;

pub use self::mandates::*;
pub use self::money::*;
use crate::problem::FieldError;

/// Debit a customer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct PaymentRequest {
    /// Decimal string with exactly the currency's digits.
    #[schema(example = "12.50", pattern = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$")]
    amount: String,
    /// ISO 4217.
    #[schema(example = "EUR")]
    currency: Currency,
    /// The customer's authority.
    #[schema(example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    mandate: String,
    /// When the money is taken: at once (`automatic`, also when left out), or by a capture (`manual`).
    #[schema(nullable)]
    capture: Option<Capture>,
    /// With `manual`: for how many seconds the funds are held, 60 to 2592000; 604800 (7 days) when left out.
    #[schema(minimum = 60, maximum = 2_592_000)]
    expires_in: Option<u32>,
    /// The partner's own reference.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[schema(min_length = 1, max_length = 200)]
    description: Option<String>,
    /// Up to 20 keys of at most 40 characters with values of at most 500.
    metadata: Option<BTreeMap<String, String>>,
}

/// When the money is taken.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Capture {
    /// At once.
    Automatic,
    /// By a capture.
    Manual,
}

/// ISO 4217.
#[derive(ToSchema)]
#[expect(missing_docs, reason = "the codes say it")]
pub enum Currency {
    EUR,
    USD,
    GBP,
    CHF,
    SEK,
    NOK,
    DKK,
    PLN,
    CZK,
    JPY,
    KWD,
}

/// A payment.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Payment {
    /// The payment.
    id: String,
    /// What it does: `payment`, `capture`, `void`, `refund`, `transfer`, …
    kind: String,
    /// The payment that this one belongs to; itself for a payment.
    root: String,
    /// `pending`, `authorized`, `posted`, `rejected`, `voided`, `expired` or `conflicted`.
    status: String,
    /// It could not be applied and waits for an operator.
    under_review: bool,
    /// Counts the changes; drop what is older than what you have.
    version: u32,
    /// Decimal string with the currency's digits. Left out, like the other amounts, while it is not known: of a void,
    /// and of "everything that is left".
    amount: Option<String>,
    /// ISO 4217.
    currency: Option<Currency>,
    /// Decimal string: what was captured of it.
    amount_captured: Option<String>,
    /// Decimal string: what was refunded of it.
    amount_refunded: Option<String>,
    /// The debited account, of a transfer.
    from: Option<String>,
    /// The credited account, of a transfer.
    to: Option<String>,
    /// The mandate it debits under.
    mandate: Option<String>,
    /// The partner's own reference.
    reference: Option<String>,
    /// What the customer reads on the statement.
    description: Option<String>,
    /// The partner's own keys and values.
    metadata: Option<BTreeMap<String, String>>,
    /// Why it was rejected.
    reason: Option<String>,
    /// `false` for a test partner.
    livemode: bool,
    /// When it was accepted, RFC 3339.
    created_at: String,
    /// When it was decided, RFC 3339.
    decided_at: Option<String>,
    /// Until when it may be captured, of a payment in two phases, RFC 3339.
    expires_at: Option<String>,
    /// Where to ask for its state; use it as it is.
    status_url: String,
}

/// A payment that was accepted and is not decided.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct AcceptedPayment {
    #[schema(inline)]
    #[serde(flatten)]
    payment: Payment,
    /// The request, for support.
    request_id: String,
    /// Milliseconds until it is probably decided; left out when that is not known.
    expected_wait_ms: Option<u64>,
}

/// RFC 9457 problem document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Problem {
    /// Path of the documentation page.
    r#type: String,
    /// The same for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// The request as a URN.
    instance: String,
    /// The request, for support.
    request_id: String,
    /// A stable word.
    code: String,
    /// The fields that have to change.
    errors: Option<Vec<FieldError>>,
}

/// The partner's accounts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Balances {
    /// By currency.
    data: Vec<Balance>,
}

/// One account.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Balance {
    /// The account.
    account: String,
    /// ISO 4217.
    currency: Currency,
    /// Decimal string.
    balance: String,
    /// Decimal string: what authorised payments hold; now.
    held: Option<String>,
    /// Decimal string: balance and overdraft without what is held; now.
    available: Option<String>,
    /// `active`, `frozen` or `closed`; now.
    status: Option<String>,
    /// The instant that was asked for, RFC 3339; then `held`, `available` and `status` are left out.
    at: Option<String>,
}

/// What arrived of a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Echo {
    /// Whether a signed route would accept the signature.
    verified: bool,
    /// With what it would refuse it.
    problem: Option<EchoProblem>,
    /// The request, for support.
    request_id: String,
    /// The server's clock, RFC 3339.
    server_time: String,
    /// `@method`.
    method: String,
    /// `@authority`, when it is one of this server's.
    authority: Option<String>,
    /// `@path`.
    path: String,
    /// `@query`.
    query: String,
    /// Bytes of the body.
    body_bytes: u64,
    /// Names of all header fields.
    headers: Vec<String>,
    /// The signature, when its shape is acceptable.
    signature: Option<EchoSignature>,
}

/// Why a signed route would refuse the request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EchoProblem {
    /// The problem's code.
    code: String,
    /// What is wrong.
    detail: String,
}

/// What the server read of the signature.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct EchoSignature {
    /// The key that it names.
    key_id: String,
    /// The covered components.
    components: Vec<String>,
    /// Seconds since 1970.
    created: i64,
    /// `created` minus the server's clock.
    clock_skew_s: i64,
    /// RFC 9421, section 2.5.
    signature_base: String,
}

const PAYMENT: &str = "pay_01k9q5m3v7f8h9j0kamcneprqs";
const MANDATE: &str = "mdt_01k9q5m3v7f8h9j0kamcneprqs";

/// An example.
pub fn payment_request() -> Value {
    json!({
        "amount": "12.50", "currency": "EUR", "mandate": MANDATE, "reference": "order-4711",
        "description": "Two coffees", "metadata": {"table": "7"}
    })
}

/// An example.
pub fn payment() -> Value {
    json!({
        "id": PAYMENT, "kind": "payment", "root": PAYMENT, "status": "posted", "under_review": false, "version": 1,
        "amount": "12.50", "currency": "EUR", "amount_captured": "12.50", "amount_refunded": "0.00",
        "mandate": MANDATE, "reference": "order-4711", "description": "Two coffees", "metadata": {"table": "7"},
        "livemode": true, "created_at": "2026-11-01T12:00:00.000000Z", "decided_at": "2026-11-01T12:00:00.004100Z",
        "status_url": format!("/v1/payments/{PAYMENT}")
    })
}

/// An example.
pub fn accepted_payment() -> Value {
    json!({
        "id": PAYMENT, "kind": "payment", "root": PAYMENT, "status": "pending", "under_review": false, "version": 0,
        "amount": "12.50", "currency": "EUR", "amount_captured": "0.00", "amount_refunded": "0.00",
        "mandate": MANDATE, "reference": "order-4711", "description": "Two coffees", "metadata": {"table": "7"},
        "livemode": true, "created_at": "2026-11-01T12:00:00.000000Z",
        "status_url": format!("/v1/payments/{PAYMENT}?position=AQADAAAAAAAAEmc"),
        "request_id": "019a4f6e-0d0c-7b5a-9a55-0c4d5c2d7f10", "expected_wait_ms": 10
    })
}

/// An example.
pub fn balances() -> Value {
    json!({"data": [{
        "account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "currency": "EUR", "balance": "1250.00", "held": "0.00",
        "available": "1250.00", "status": "active"
    }]})
}

/// An example.
pub fn problem() -> Value {
    json!({
        "type": "/problems/invalid_amount", "title": "The amount is not acceptable", "status": 400,
        "detail": "/amount: an amount in EUR has exactly 2 digits behind the point",
        "instance": "urn:uuid:019a4f6e-0d0c-7b5a-9a55-0c4d5c2d7f10",
        "request_id": "019a4f6e-0d0c-7b5a-9a55-0c4d5c2d7f10", "code": "invalid_amount",
        "errors": [{
            "pointer": "/amount", "code": "invalid_amount",
            "detail": "an amount in EUR has exactly 2 digits behind the point"
        }]
    })
}

/// An example.
pub fn echo() -> Value {
    json!({
        "verified": false,
        "problem": {
            "code": "signature_invalid",
            "detail": "the signature does not verify: unknown key, or another secret or content than what was signed"
        },
        "request_id": "019a4f6e-0d0c-7b5a-9a55-0c4d5c2d7f10", "server_time": "2026-11-01T12:00:00.000000Z",
        "method": "POST", "authority": "api.example.com", "path": "/v1/sandbox/echo", "query": "?", "body_bytes": 2,
        "headers": ["content-digest", "content-type", "host", "idempotency-key", "signature", "signature-input"],
        "signature": {
            "key_id": "key_01k9q5m3v7f8h9j0kamcneprqs", "components": ["@method", "@authority", "@path", "@query",
                "content-digest", "content-type", "idempotency-key"],
            "created": 1_793_534_400, "clock_skew_s": 0, "signature_base": "\"@method\": POST\n…"
        }
    })
}
