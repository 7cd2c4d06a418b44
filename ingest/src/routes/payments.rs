//! `POST /v1/payments` and `GET /v1/payments/{id}`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::command::{PartnerCommand, PartnerEnvelope, SCHEMA};
use domain::fingerprint::Fingerprint;
use domain::ids::{PaymentId, payment_id};
use domain::payment::{Amounts, Metadata, PaymentStatus, PaymentView, status_path};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use super::schema;
use crate::app::App;
use crate::lookup::Seen;
use crate::payment_request;
use crate::prefer;
use crate::problem::{Code, Problem};
use crate::queue::{Placed, QueueError};
use crate::signed::{Caller, Payments, Signed};
use crate::store::payments::Stored;
use crate::write::idempotency_key;
use crate::{metrics, query, token};

/// For a status read, which has nothing better to do than to wait for MySQL.
const READ_BUDGET: Duration = Duration::from_secs(2);
/// While Kafka or MySQL is away.
const RETRY_AFTER_S: u32 = 1;

/// A payment that was accepted and is not decided.
#[derive(Serialize)]
struct Accepted<'a> {
    #[serde(flatten)]
    payment: &'a PaymentView,
    request_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_wait_ms: Option<u64>,
}

/// Debit a customer
///
/// Debits the customer's account under the mandate and credits the partner's own. The answer is 202 as soon as the
/// payment is stored for good; its outcome comes by webhook and under `status_url`. With `Prefer: wait=N` (N up to 10
/// seconds) the answer is 200 with the outcome when it is known in time.
#[utoipa::path(
    post, path = "/v1/payments", tag = "payments", operation_id = "create_payment",
    security(("message_signature" = ["payments"])),
    params(
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters; the same key and request are the same payment, for ever", example = "order-4711"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the outcome", example = "wait=5")
    ),
    request_body(content = schema::PaymentRequest, content_type = "application/json", example = json!(schema::payment_request())),
    responses(
        (status = 200, description = "Decided: posted or rejected. `Idempotent-Replayed: true` when the key was used before", body = schema::Payment, example = json!(schema::payment())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_payment())),
        (status = 400, description = "The request has to be changed; `errors` names the fields", body = schema::Problem, content_type = "application/problem+json", example = json!(schema::problem())),
        (status = 401, description = "The signature is not accepted", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `payments`", body = schema::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = schema::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 64 KiB", body = schema::Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = schema::Problem, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for another request", body = schema::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests; see Retry-After", body = schema::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was accepted (`queue_unavailable`), or that is unknown (`outcome_unknown`): repeat with the same key", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn create(State(app): State<Arc<App>>, signed: Signed<Payments>) -> Result<Response, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    let key = idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    let command = payment_request::parse(&body)?;
    let fingerprint = payment_request::fingerprint(&command);
    let id = payment_id(caller.partner.id, key);

    let started = Instant::now();
    match app.lookup.used(id, app.lookup_budget).await {
        Ok(Seen::Decided(stored)) => return replay(&caller, &stored, &fingerprint, StatusCode::OK),
        Ok(Seen::UnderReview(Some(stored))) => {
            return replay(&caller, &stored, &fingerprint, StatusCode::ACCEPTED);
        }
        Ok(_) => {}
        Err(_) => metrics::lookup_skipped(),
    }
    metrics::looked_up(started.elapsed());

    let envelope = PartnerEnvelope {
        schema: SCHEMA,
        id,
        root: id,
        partner: caller.partner.id,
        key: caller.key,
        idempotency_key: key.to_owned(),
        fingerprint,
        request_id: caller.request_id,
        address: caller.address,
        command: PartnerCommand::Payment(command),
    };
    let placed = app.queue.put(id.uuid(), &envelope.encode()).await.map_err(not_placed)?;
    respond(&app, &caller, &parts.headers, &envelope, placed).await
}

/// The answer to an accepted payment, after the wait that the client would like.
async fn respond(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    envelope: &PartnerEnvelope,
    placed: Placed,
) -> Result<Response, Problem> {
    let id = envelope.id;
    let mut under_review = false;
    let mut waited = false;
    if let Some(wish) = prefer::wait(headers)
        && let Some(_place) = caller.partner.wait(app.waiters_per_partner)
    {
        let record = (placed.partition, placed.offset);
        let seen = app.lookup.wait(id, record, Instant::now() + wish).await;
        waited = seen.is_ok();
        match seen {
            Ok(Seen::Decided(stored)) if stored.fingerprint == envelope.fingerprint => {
                return Ok(with_preference(Json(&stored.view).into_response(), true));
            }
            Ok(Seen::Decided(_)) => return Err(conflict()),
            Ok(Seen::UnderReview(_)) => under_review = true,
            Ok(Seen::Absent { .. }) | Err(_) => {}
        }
    }
    let view = PaymentView::pending(envelope, caller.partner.livemode, placed.accepted_at, String::new())
        .ok_or_else(|| Problem::plain(Code::Internal))?;
    let accepted = token::Accepted::of(&placed, &view);
    let token = token::encode(&app.token_key, caller.partner.id, id, &accepted);
    let status_url = format!("{}?position={token}", status_path(id));
    let location = HeaderValue::try_from(&status_url);
    let body = Accepted {
        payment: &PaymentView { under_review, status_url, ..view },
        request_id: caller.request_id,
        expected_wait_ms: app.lag.expected_wait_ms(Instant::now()),
    };
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(with_preference(response, waited))
}

/// RFC 7240, section 3: what was honoured is said.
fn with_preference(mut response: Response, waited: bool) -> Response {
    if waited {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("wait"));
    }
    response
}

/// The answer to a key that was used before.
fn replay(
    caller: &Caller,
    stored: &Stored,
    fingerprint: &Fingerprint,
    status: StatusCode,
) -> Result<Response, Problem> {
    if stored.fingerprint != *fingerprint {
        metrics::replay("conflict");
        return Err(conflict());
    }
    metrics::replay("replay");
    let mut response = (status, Json(stored.for_caller(caller.partner.livemode))).into_response();
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    Ok(response)
}

fn conflict() -> Problem {
    Problem::plain(Code::IdempotencyConflict)
}

fn not_placed(error: QueueError) -> Problem {
    let code = match error {
        QueueError::Unavailable => Code::QueueUnavailable,
        QueueError::Unknown => Code::OutcomeUnknown,
    };
    Problem::plain(code).retry_after(RETRY_AFTER_S)
}

/// The state of a payment
///
/// `position` is the token of the `status_url` that a 202 answered: with it a payment is found before it is decided.
/// `Prefer: wait=N` waits for the outcome.
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments", operation_id = "read_payment",
    security(("message_signature" = ["payments"])),
    params(
        ("id" = String, Path, description = "The payment", example = "pay_01k9q5m3v7f8h9j0kamcneprqs"),
        ("position" = Option<String>, Query, description = "The token of `status_url`"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the outcome", example = "wait=5")
    ),
    responses(
        (status = 200, description = "The payment", body = schema::Payment, example = json!(schema::payment())),
        (status = 400, description = "The position is not one of ours", body = schema::Problem, content_type = "application/problem+json"),
        (status = 401, description = "The signature is not accepted", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `payments`", body = schema::Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such payment of yours", body = schema::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests; see Retry-After", body = schema::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Cannot be read at the moment; see Retry-After", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Payments>,
) -> Result<Response, Problem> {
    let Signed { caller, parts, .. } = signed;
    let not_found = || Problem::new(Code::NotFound, "there is no such payment of yours");
    let id: PaymentId = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)?;
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
            stored.for_caller(caller.partner.livemode)
        }
        (Seen::UnderReview(None), Some(accepted)) => {
            PaymentView { under_review: true, ..accepted_view(id, &accepted, &caller, position) }
        }
        (Seen::Absent { applied: Some(false) }, Some(accepted)) => {
            accepted_view(id, &accepted, &caller, position)
        }
        (Seen::Absent { applied: Some(true) }, Some(accepted)) => {
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
