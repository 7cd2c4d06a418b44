//! `POST /v1/payments`, its captures, voids and refunds, and `GET /v1/payments/{id}`; what belongs to it has modules of
//! its own: [`batch`], [`details`], [`list`].

pub mod batch;
pub mod details;
pub mod list;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::command::PartnerCommand;
use domain::ids::PaymentId;
use domain::payment::{Amounts, Metadata, PaymentStatus, PaymentView, status_path};

use super::refusals::{OfReads, OfWrites};
use super::schema;
use crate::accept::{Asked, accept, internal, with_preference};
use crate::app::App;
use crate::lookup::Seen;
use crate::problem::{Code, Problem};
use crate::requests::{self, follow_up, payment};
use crate::signed::{Caller, Payments, ReadPayments, Refunds, Signed};
use crate::store::payments as store;
use crate::write::idempotency_key;
use crate::{metrics, prefer, query, token};

/// For a status read, which has nothing better to do than to wait for MySQL.
const READ_BUDGET: Duration = Duration::from_secs(2);
/// While MySQL is away.
const RETRY_AFTER_S: u32 = 1;

/// Debit a customer
///
/// Debits the customer's account under the mandate and credits the partner's own. The answer is 202 as soon as the
/// payment is stored for good; its outcome comes by webhook and under `status_url`. With `Prefer: wait=N` (N up to 10
/// seconds) the answer is 200 with the outcome when it is known in time. With `"capture": "manual"` the funds are held
/// until they are captured, voided, or `expires_in` seconds have passed.
#[utoipa::path(
    post, path = "/v1/payments", tag = "payments", operation_id = "create_payment",
    security(("message_signature" = ["payments"])),
    params(schema::MoneyHeaders),
    request_body(content = schema::PaymentRequest, content_type = "application/json", example = json!(schema::payment_request())),
    responses(
        (status = 200, description = "Decided: posted, authorized or rejected. `Idempotent-Replayed: true` when the key was used before", body = schema::Payment, example = json!(schema::payment())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_payment())),
        OfWrites
    )
)]
pub async fn create(State(app): State<Arc<App>>, signed: Signed<Payments>) -> Result<Response, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    let key = idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    let command = payment::parse(&body, app.hold_seconds_min)?;
    let fingerprint = requests::fingerprint(payment::PATH, &command);
    let asked = Asked { command: PartnerCommand::Payment(command), fingerprint, root: None };
    accept(&app, &caller, &parts.headers, key, asked).await
}

/// Take what a payment holds
///
/// A part or, without an amount, everything that is authorised; once. What is not taken is released in the same
/// posting. The capture is a payment of its own, with its own id and outcome.
#[utoipa::path(
    post, path = "/v1/payments/{id}/capture", tag = "payments", operation_id = "capture_payment",
    security(("message_signature" = ["payments"])),
    params(schema::PaymentPath, schema::MoneyHeaders),
    request_body(content = schema::PartRequest, content_type = "application/json", example = json!(schema::part_request())),
    responses(
        (status = 200, description = "Decided: posted or rejected", body = schema::Payment, example = json!(schema::capture())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_capture())),
        OfWrites
    )
)]
pub async fn capture(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Payments>,
) -> Result<Response, Problem> {
    let command = PartnerCommand::Capture(follow_up::parse(&signed.body)?);
    follow(&app, id, "capture", signed, command).await
}

/// Release what a payment holds
///
/// Takes no amount: everything is released. Also a payment past its time can be voided, until it has expired.
#[utoipa::path(
    post, path = "/v1/payments/{id}/void", tag = "payments", operation_id = "void_payment",
    security(("message_signature" = ["payments"])),
    params(schema::PaymentPath, schema::MoneyHeaders),
    request_body(content = schema::VoidRequest, content_type = "application/json", example = json!(schema::void_request())),
    responses(
        (status = 200, description = "Decided: posted or rejected", body = schema::Payment, example = json!(schema::void())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_void())),
        OfWrites
    )
)]
pub async fn void(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Payments>,
) -> Result<Response, Problem> {
    let command = PartnerCommand::Void(follow_up::parse_void(&signed.body)?);
    follow(&app, id, "void", signed, command).await
}

/// Give money back
///
/// A part or, without an amount, everything that was captured and not given back yet. As many refunds as there is
/// something left; two at once never give back more than was captured.
#[utoipa::path(
    post, path = "/v1/payments/{id}/refunds", tag = "payments", operation_id = "refund_payment",
    security(("message_signature" = ["refunds"])),
    params(schema::PaymentPath, schema::MoneyHeaders),
    request_body(content = schema::PartRequest, content_type = "application/json", example = json!(schema::part_request())),
    responses(
        (status = 200, description = "Decided: posted or rejected", body = schema::Payment, example = json!(schema::refund())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_refund())),
        OfWrites
    )
)]
pub async fn refund(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Refunds>,
) -> Result<Response, Problem> {
    let command = PartnerCommand::Refund(follow_up::parse(&signed.body)?);
    follow(&app, id, "refunds", signed, command).await
}

/// Accepts a command on an earlier payment, which is not looked for: the processor knows, also without MySQL here, and
/// a foreign payment is as unknown to it as one that never was.
async fn follow<P>(
    app: &App,
    id: Result<Path<String>, PathRejection>,
    operation: &'static str,
    signed: Signed<P>,
    command: PartnerCommand,
) -> Result<Response, Problem> {
    let Signed { caller, parts, .. } = signed;
    let key = idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    let root = payment_of(id)?;
    if domain::ids::payment_id(caller.partner.id, key) == root {
        // A command is never its own root; this key is that payment's.
        return Err(crate::accept::conflict());
    }
    let (PartnerCommand::Capture(parsed) | PartnerCommand::Void(parsed) | PartnerCommand::Refund(parsed)) =
        &command
    else {
        return Err(internal());
    };
    let fingerprint = requests::fingerprint(&format!("{}/{operation}", status_path(root)), parsed);
    accept(app, &caller, &parts.headers, key, Asked { command, fingerprint, root: Some(root) }).await
}

/// The payment that a path names.
fn payment_of(id: Result<Path<String>, PathRejection>) -> Result<PaymentId, Problem> {
    id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is no such payment of yours")
}

/// The state of a payment
///
/// With the entries that it made on the partner's own accounts, and its captures, refunds and reversals. `position` is
/// the token of the `status_url` that a 202 answered: with it a payment is found before it is decided, and its state
/// alone is told; `Prefer: wait=N` then waits for the outcome.
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments", operation_id = "read_payment",
    security(("message_signature" = ["payments"])),
    params(
        ("id" = String, Path, description = "The payment", example = "pay_01k9q5m3v7f8h9j0kamcneprqs"),
        ("position" = Option<String>, Query, description = "The token of `status_url`"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the outcome", example = "wait=5")
    ),
    responses(
        (status = 200, description = "The payment, with the entries it made on your accounts, and what followed it", body = schema::PaymentDetails, example = json!(schema::payment_details())),
        OfReads
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<ReadPayments>,
) -> Result<Response, Problem> {
    let Signed { caller, parts, .. } = signed;
    let id = payment_of(id)?;
    let position = position(parts.uri.query())?;
    let accepted = match position {
        Some(text) => Some(token::decode(&app.token_key, caller.partner.id, id, text).ok_or_else(|| {
            let detail =
                "`position` does not belong to this payment; use `status_url` exactly as it was answered";
            Problem::new(Code::InvalidCursor, detail)
        })?),
        None => None,
    };
    let record = accepted.map(|accepted| (accepted.partition, accepted.offset));
    let unavailable = || Problem::plain(Code::Unavailable).retry_after(RETRY_AFTER_S);
    let mut waited = false;
    if let (Some(wish), Some(record)) = (prefer::wait(&parts.headers), record)
        && let Some(_place) = caller.partner.wait(app.waiters_per_partner)
    {
        waited = app.lookup.wait(id, record, Instant::now() + wish).await.is_ok();
    }
    let seen = app.lookup.once(id, record, READ_BUDGET).await.map_err(|_| unavailable())?;
    let view = match (seen, accepted) {
        (Seen::Decided(stored) | Seen::UnderReview(Some(stored)), _) => {
            if stored.partner != Some(caller.partner.id) {
                return Err(not_found());
            }
            let payment = stored.for_caller(caller.partner.livemode);
            if accepted.is_none() {
                let details = details::of(&app, &caller, payment).await?;
                return Ok(Json(details).into_response());
            }
            payment
        }
        (Seen::UnderReview(None), Some(accepted)) => {
            PaymentView { under_review: true, ..accepted_view(id, &accepted, &caller, position) }
        }
        (Seen::Absent { applied: Some(false) }, Some(accepted)) => {
            accepted_view(id, &accepted, &caller, position)
        }
        (Seen::Absent { applied: Some(true) }, Some(accepted)) => {
            let given_up = store::was_given_up(&app.reads, accepted.partition, accepted.offset);
            if crate::read::within(&app, caller.request_id, given_up).await? {
                let detail = "what was accepted could not be read and was given up by the bank; nothing moved, and the \
                              same request may be sent again under its Idempotency-Key";
                return Err(Problem::new(Code::NotFound, detail));
            }
            metrics::payment_missing();
            tracing::error!(
                payment.id = %id, kafka.partition = accepted.partition, kafka.offset = accepted.offset,
                "an accepted payment is applied but not stored: data was lost"
            );
            return Err(Problem::plain(Code::Internal));
        }
        (Seen::Absent { applied: None }, Some(_)) => return Err(unavailable()),
        (Seen::Absent { .. } | Seen::UnderReview(None), None) => return Err(not_found()),
    };
    Ok(with_preference(Json(view).into_response(), waited))
}

/// What the token tells of a payment that MySQL does not know yet.
fn accepted_view(
    id: PaymentId,
    accepted: &token::Accepted,
    caller: &Caller,
    position: Option<&str>,
) -> PaymentView {
    PaymentView {
        id,
        kind: accepted.kind,
        root: accepted.root,
        status: PaymentStatus::Pending,
        under_review: false,
        version: 0,
        amounts: accepted.amount.map(|amount| Amounts::of(amount.currency(), amount.minor(), 0, 0)),
        from: None,
        to: None,
        mandate: accepted.mandate,
        reference: None,
        description: None,
        metadata: Metadata::new(),
        reason: None,
        livemode: caller.partner.livemode,
        created_at: accepted.accepted_at,
        decided_at: None,
        expires_at: None,
        status_url: format!("{}?position={}", status_path(id), position.unwrap_or_default()),
    }
}

/// The one query parameter of a status read.
fn position(query: Option<&str>) -> Result<Option<&str>, Problem> {
    let mut found = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("position", value)) if found.is_none() => found = Some(value),
            _ => {
                let detail = "the one query parameter here is `position`, once";
                return Err(Problem::new(Code::UnknownField, detail));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_position_may_stand_in_the_query() {
        assert_eq!(position(None).unwrap(), None);
        assert_eq!(position(Some("")).unwrap(), None);
        assert_eq!(position(Some("position=abc")).unwrap(), Some("abc"));
        for refused in ["Position=a", "position=a&position=b", "x", "position", "position=a&b=c"] {
            assert!(position(Some(refused)).is_err(), "{refused}");
        }
    }
}
