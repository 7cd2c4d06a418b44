//! The shapes of what moves money beside a plain payment, and of lists and statements.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{Currency, MANDATE, PAYMENT, Payment, PaymentRequest, payment};
use crate::routes::accounts::StatementEntry;
use crate::routes::payments::batch::ItemProblem;
use crate::routes::payments::details::OwnEntry;

const REFUND: &str = "pay_01k9q5m3v7f8h9j0kamcneprqt";
const TRANSFER: &str = "pay_01k9q5m3v7f8h9j0kamcneprqv";
const FROM: &str = "acct_01k9q5m3v7f8h9j0kamcneprqs";
const TO: &str = "acct_01k9q5m3v7f8h9j0kamcneprqt";
const CREATED_AT: &str = "2026-11-01T12:00:00.000000Z";
const DECIDED_AT: &str = "2026-11-01T12:00:00.004100Z";

/// Header fields of what moves money.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct MoneyHeaders {
    /// 1 to 255 visible ASCII characters; the same key and request are the same payment, for ever
    #[param(rename = "Idempotency-Key", example = "order-4711")]
    key: String,
    /// `wait=N`: wait up to N seconds, 10 at most, for the outcome
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

/// The header field of every signed write.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct SignedWriteHeaders {
    /// 1 to 255 visible ASCII characters
    #[param(rename = "Idempotency-Key", example = "request-1")]
    key: String,
}

/// A payment in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct PaymentPath {
    /// The payment
    #[param(example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    id: String,
}

/// An account in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct AccountPath {
    /// One of your own accounts
    #[param(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    id: String,
}

/// The instant of a balance.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct AtQuery {
    /// A past instant; now when left out
    #[param(example = "2026-11-01T00:00:00Z")]
    at: Option<String>,
}

/// What every list takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct ListQuery {
    /// 1 to 200, 50 by default
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// A capture or refund.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct PartRequest {
    /// Decimal string, together with `currency`; everything that is left when both are left out.
    #[schema(example = "5.00")]
    amount: Option<String>,
    /// The payment's currency.
    currency: Option<Currency>,
    /// The partner's own reference.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[schema(min_length = 1, max_length = 200)]
    description: Option<String>,
    /// Up to 20 keys of at most 40 characters with values of at most 500.
    metadata: Option<BTreeMap<String, String>>,
}

/// A void, which takes everything.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct VoidRequest {
    /// The partner's own reference.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[schema(min_length = 1, max_length = 200)]
    description: Option<String>,
    /// Up to 20 keys of at most 40 characters with values of at most 500.
    metadata: Option<BTreeMap<String, String>>,
}

/// A transfer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct TransferRequest {
    /// One of your own accounts.
    from: String,
    /// The account to credit; another than `from`.
    to: String,
    /// Decimal string with exactly the currency's digits.
    #[schema(example = "12.50", pattern = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$")]
    amount: String,
    /// The currency of both accounts.
    currency: Currency,
    /// The partner's own reference.
    #[schema(min_length = 1, max_length = 100)]
    reference: Option<String>,
    /// What both sides read on the statement.
    #[schema(min_length = 1, max_length = 200)]
    description: Option<String>,
    /// Up to 20 keys of at most 40 characters with values of at most 500.
    metadata: Option<BTreeMap<String, String>>,
}

/// Many payments.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct BatchRequest {
    /// The payments.
    #[schema(min_items = 1, max_items = 500)]
    payments: Vec<BatchPayment>,
}

/// A payment of a batch: one shape with its key, because two joined by `allOf` would each refuse the other's fields.
pub struct BatchPayment;

impl PartialSchema for BatchPayment {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut payment)) = PaymentRequest::schema() else {
            return PaymentRequest::schema();
        };
        let key = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The item's own key, as the header field of a payment alone."))
            .min_length(Some(1))
            .max_length(Some(255));
        payment.description = Some("A payment of a batch.".to_owned());
        payment.properties.insert("idempotency_key".to_owned(), key.into());
        payment.required.push("idempotency_key".to_owned());
        payment.into()
    }
}

impl ToSchema for BatchPayment {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        PaymentRequest::schemas(schemas);
    }
}

/// What became of each payment.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct BatchAnswer {
    /// In the order of the request.
    items: Vec<BatchItem>,
}

/// What became of one payment.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct BatchItem {
    /// Its place in the request, from 0.
    index: usize,
    /// Its key, when it has one.
    idempotency_key: Option<String>,
    /// The HTTP status it would have been answered with alone.
    status: u16,
    /// With a status of 200 and 202.
    payment: Option<Payment>,
    /// With any other status.
    problem: Option<ItemProblem>,
}

/// A payment and what belongs to it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct PaymentDetails {
    #[schema(inline)]
    #[serde(flatten)]
    payment: Payment,
    /// Its entries on your own accounts; left out while it is pending and asked for by its position.
    entries: Option<Vec<OwnEntry>>,
    /// Its captures, whatever became of them, the oldest first.
    captures: Option<Vec<Payment>>,
    /// Its refunds, the oldest first.
    refunds: Option<Vec<Payment>>,
    /// What the bank moved back of it.
    reversals: Option<Vec<Payment>>,
    /// There are more captures, refunds and reversals than are shown.
    more: Option<bool>,
}

/// A page of payments.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Payments {
    /// Newest first.
    data: Vec<Payment>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

/// A page of a statement.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct Entries {
    /// In the order that was asked for.
    data: Vec<StatementEntry>,
    /// The cursor of the next page; `null` at the end.
    next: Option<String>,
}

fn with(mut value: Value, members: Value) -> Value {
    if let (Some(into), Value::Object(members)) = (value.as_object_mut(), members) {
        into.extend(members);
        into.retain(|_, member| !member.is_null());
    }
    value
}

fn follow_up(kind: &str) -> Value {
    with(
        payment(),
        json!({
            "id": REFUND, "kind": kind, "amount": "5.00", "amount_captured": "5.00", "mandate": null,
            "reference": null, "description": null, "metadata": null, "status_url": format!("/v1/payments/{REFUND}")
        }),
    )
}

/// The example as it is answered before it is decided.
fn accepted(decided: Value, nothing_known: bool) -> Value {
    let id = decided["id"].as_str().unwrap_or_default().to_owned();
    let mut value = with(
        decided,
        json!({
            "status": "pending", "version": 0, "amount_captured": "0.00", "decided_at": null,
            "status_url": format!("/v1/payments/{id}?position=AgADAAAAAAAAEmc"),
            "request_id": "019a4f6e-0d0c-7b5a-9a55-0c4d5c2d7f10", "expected_wait_ms": 10
        }),
    );
    if let (Some(members), true) = (value.as_object_mut(), nothing_known) {
        members.retain(|name, _| !name.starts_with("amount") && name != "currency");
    }
    value
}

/// An example.
pub fn part_request() -> Value {
    json!({"amount": "5.00", "currency": "EUR", "reference": "order-4711-return"})
}

/// An example.
pub fn void_request() -> Value {
    json!({"reference": "order-4711-cancelled"})
}

/// An example.
pub fn capture() -> Value {
    follow_up("capture")
}

/// An example.
pub fn accepted_capture() -> Value {
    accepted(capture(), false)
}

/// An example.
pub fn void() -> Value {
    with(follow_up("void"), json!({"amount": "12.50", "amount_captured": "0.00"}))
}

/// An example.
pub fn accepted_void() -> Value {
    accepted(void(), true)
}

/// An example.
pub fn refund() -> Value {
    follow_up("refund")
}

/// An example.
pub fn accepted_refund() -> Value {
    accepted(refund(), false)
}

/// An example.
pub fn transfer_request() -> Value {
    json!({"from": FROM, "to": TO, "amount": "250.00", "currency": "EUR", "reference": "payout-7"})
}

/// An example.
pub fn transfer() -> Value {
    json!({
        "id": TRANSFER, "kind": "transfer", "root": TRANSFER, "status": "posted", "under_review": false, "version": 1,
        "amount": "250.00", "currency": "EUR", "amount_captured": "250.00", "amount_refunded": "0.00", "from": FROM,
        "to": TO, "reference": "payout-7", "livemode": true, "created_at": CREATED_AT, "decided_at": DECIDED_AT,
        "status_url": format!("/v1/payments/{TRANSFER}")
    })
}

/// An example.
pub fn accepted_transfer() -> Value {
    accepted(transfer(), false)
}

/// An example.
pub fn batch_request() -> Value {
    json!({"payments": [
        {"idempotency_key": "order-4711", "amount": "12.50", "currency": "EUR", "mandate": MANDATE},
        {"idempotency_key": "order-4712", "amount": "3", "currency": "EUR", "mandate": MANDATE}
    ]})
}

/// An example.
pub fn batch_answer() -> Value {
    let problem = json!({
        "type": "/problems/invalid_amount", "title": "The amount is not acceptable", "status": 400,
        "detail": "/payments/1/amount: an amount in EUR has exactly 2 digits behind the point",
        "code": "invalid_amount",
        "errors": [{
            "pointer": "/payments/1/amount", "code": "invalid_amount",
            "detail": "an amount in EUR has exactly 2 digits behind the point"
        }]
    });
    let mut first = accepted(payment(), false);
    if let Some(members) = first.as_object_mut() {
        members.retain(|name, _| name != "request_id" && name != "expected_wait_ms");
    }
    json!({"items": [
        {"index": 0, "idempotency_key": "order-4711", "status": 202, "payment": first},
        {"index": 1, "idempotency_key": "order-4712", "status": 400, "problem": problem}
    ]})
}

fn entry() -> Value {
    json!({
        "account": FROM, "version": 3, "direction": "credit", "amount": "12.50", "balance": "1250.00",
        "currency": "EUR", "entered_at": DECIDED_AT
    })
}

/// An example.
pub fn payment_details() -> Value {
    with(
        with(payment(), json!({"amount_refunded": "5.00", "version": 2})),
        json!({"entries": [entry()], "captures": [], "refunds": [refund()], "reversals": [], "more": false}),
    )
}

/// An example.
pub fn payments() -> Value {
    json!({"data": [payment()], "next": null})
}

/// An example.
pub fn entries() -> Value {
    json!({"data": [{
        "version": 3, "payment": PAYMENT, "kind": "payment", "direction": "credit", "amount": "12.50",
        "balance": "1250.00", "currency": "EUR", "entered_at": DECIDED_AT, "reference": "order-4711",
        "description": "Two coffees"
    }], "next": null})
}

/// An example.
pub fn past_balance() -> Value {
    json!({"account": FROM, "currency": "EUR", "balance": "1250.00", "at": "2026-11-01T00:00:00.000000Z"})
}
