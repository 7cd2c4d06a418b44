//! The whole life of a payment, by its id or by whatever somebody has in hand.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::{PartnerId, PaymentId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::documents::ProblemShape;
use super::payments::Payment;
use crate::access::Reader;
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::find::{self, Hand};
use crate::problem::{Code, Problem};
use crate::store::payments;
use crate::trace::{self, Trace};

/// No id, key or reference is longer.
const ID_CHARS_MAX: usize = 255;

/// The trace of a payment
///
/// Request, position, decision, entries, follow-ups, events, deliveries and attempts, with the time between the steps. A
/// capture, void or refund answers with the trace of its payment.
#[utoipa::path(
    get, path = "/v1/payments/{id}/trace", tag = "payments", operation_id = "trace_payment", security(("access_token" = [])),
    params(("id" = String, Path, description = "The payment", example = "pay_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The trace", body = Object, example = json!(example())),
        (status = 404, description = "There is no such payment, or it is not decided yet", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<PaymentId>,
) -> Result<axum::Json<Trace>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let row = payments::find(&mut connection, id).await?.ok_or_else(|| Problem::plain(Code::NotFound))?;
    Ok(axum::Json(trace::of(&mut connection, row).await?))
}

/// What somebody has in hand.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InHand {
    /// The id of a payment, event, mandate, account, partner, change or request; a delivery as `ep_…/evt_…`; a place as
    /// `payments.commands.v1/3/4711`; an idempotency key; a merchant's reference.
    #[param(example = "order-4711")]
    id: String,
    /// Whose key or reference it is; needed when there are more than 200 partners.
    #[param(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: Option<PartnerId>,
    /// Which entry, of an account.
    #[param(example = 17)]
    version: Option<u64>,
}

/// What was found.
#[derive(Serialize, ToSchema)]
pub struct Found {
    /// As what the text was understood: `payment`, `event`, `delivery`, `mandate`, `account`, `entry`, `partner`, `change`,
    /// `request`, `position`, `idempotency_key`, `reference`.
    found_by: &'static str,
    /// The payments, at most 20.
    payments: Vec<Payment>,
    /// There are more.
    more: bool,
    /// The trace, when it is one payment.
    #[schema(value_type = Option<Object>)]
    trace: Option<Trace>,
}

/// Find a payment by anything
///
/// Takes any id of the system, an idempotency key, a merchant's reference or a place on Kafka. One payment comes with its
/// trace, several as a list.
#[utoipa::path(
    get, path = "/v1/trace", tag = "payments", operation_id = "find_payment", security(("access_token" = [])),
    params(InHand),
    responses(
        (status = 200, description = "What was found, perhaps nothing", body = Found, example = json!({"found_by": "reference", "payments": [], "more": false, "trace": null})),
    )
)]
pub async fn find(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(InHand { id, partner, version }): FromQuery<InHand>,
) -> Result<axum::Json<Found>, Problem> {
    let id = id.trim().to_owned();
    if id.is_empty() || id.chars().count() > ID_CHARS_MAX {
        return Err(Problem::new(Code::MalformedRequest, "`id` has 1 to 255 characters"));
    }
    let found = find::find(&app.pool, &Hand { id, partner, version }).await?;
    let trace = match found.payments.as_slice() {
        [only] if !found.more => {
            let mut connection = app.pool.acquire().await?;
            Some(trace::of(&mut connection, only.clone()).await?)
        }
        _ => None,
    };
    let payments = found.payments.iter().map(Payment::from).collect();
    Ok(axum::Json(Found { found_by: found.by, payments, more: found.more, trace }))
}

/// A rejected payment, as short as a trace can be.
fn example() -> Value {
    let payment = json!({
        "id": "pay_01k9q5m3v7f8h9j0kamcneprqs", "kind": "payment", "root": "pay_01k9q5m3v7f8h9j0kamcneprqs",
        "status": "rejected", "reason": "insufficient_funds", "under_review": false, "version": 1,
        "amount": "12.50", "currency": "EUR", "amount_captured": "0.00", "amount_refunded": "0.00",
        "partner": "ptr_01k9q5m3v7f8h9j0kamcneprqs", "mandate": "mdt_01k9q5m3v7f8h9j0kamcneprqs",
        "debit_account": null, "credit_account": null, "reference": "order-4711", "description": null, "metadata": {},
        "livemode": true, "actor": {"kind": "key", "id": "key_01k9q5m3v7f8h9j0kamcneprqs", "reason": null},
        "idempotency_key": "8f2c1c9e-4711", "request_id": "01999999-0000-7000-8000-000000000000",
        "accepted_at": "2026-01-31T12:00:00.003000Z", "decided_at": "2026-01-31T12:00:00.007100Z", "expires_at": null
    });
    let attempt = json!({
        "attempt": 1, "started_at": "2026-01-31T12:00:00.009000Z", "after_ms": 1.9, "duration_ms": 12.4,
        "status_code": 200, "error": null, "refused_by": null, "excerpt": null
    });
    let delivery = json!({
        "endpoint": "ep_01k9q5m3v7f8h9j0kamcneprqs", "url": "https://shop.example/hooks", "status": "delivered",
        "attempts_made": 1, "next_attempt_at": null, "finished_at": "2026-01-31T12:00:00.021400Z", "after_ms": 14.3,
        "attempts": [attempt]
    });
    json!({
        "payment": {
            "payment": payment,
            "request": {
                "received_at": "2026-01-31T12:00:00.000000Z", "accepted_at": "2026-01-31T12:00:00.003000Z",
                "after_ms": 3.0, "actor": {"kind": "key", "id": "key_01k9q5m3v7f8h9j0kamcneprqs", "reason": null},
                "request_id": "01999999-0000-7000-8000-000000000000", "address": "198.51.100.7",
                "position": {"topic": "payments.commands.v1", "partition": 3, "offset": 4711}
            },
            "decision": {
                "decided_at": "2026-01-31T12:00:00.007100Z", "after_ms": 4.1, "outcome": "rejected",
                "reason": "insufficient_funds", "batch": 17
            },
            "entries": [],
            "events": [{
                "id": "evt_01k9q5m3v7f8h9j0kamcneprqs", "partner": "ptr_01k9q5m3v7f8h9j0kamcneprqs",
                "type": "payment.rejected", "sequence": 42, "occurred_at": "2026-01-31T12:00:00.007100Z",
                "deliveries": [delivery]
            }],
            "total_ms": 21.4
        },
        "follow_ups": [], "more_follow_ups": false, "dead_letters": [], "more_dead_letters": false,
        "more_deliveries": false, "more_attempts": false, "total_ms": 21.4
    })
}
