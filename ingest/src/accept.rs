//! How a partner's command is accepted: its key is looked up, it is put on Kafka, and the answer tells where it stands.
//!
//! The same for every kind that moves money. A used key replays what became of it, with another request it conflicts.
//! MySQL away: the look-up is skipped, and a root that a command refers to is never looked for here; the processor
//! decides. The answer is 202 once Kafka has acknowledged the command, or 200 with the outcome when the client
//! prefers to wait and it is known in time.

use std::time::Instant;

use axum::Json;
use axum::response::{IntoResponse, Response};
use domain::command::{PartnerCommand, PartnerEnvelope, SCHEMA};
use domain::fingerprint::Fingerprint;
use domain::ids::{PaymentId, payment_id};
use domain::payment::{PaymentView, status_path};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use crate::app::App;
use crate::lookup::Seen;
use crate::problem::{Code, Problem};
use crate::queue::{Placed, QueueError};
use crate::signed::Caller;
use crate::store::payments::Stored;
use crate::{metrics, prefer, token};

/// While Kafka is away.
const RETRY_AFTER_S: u32 = 1;

/// A payment that was accepted and is not decided.
#[derive(Debug, Serialize)]
pub struct Accepted {
    /// The payment.
    #[serde(flatten)]
    pub payment: PaymentView,
    /// The request, for support.
    pub request_id: Uuid,
    /// How long it probably takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_wait_ms: Option<u64>,
}

/// A command and what it is compared by when its key comes again.
#[derive(Debug)]
pub struct Asked {
    /// What to do.
    pub command: PartnerCommand,
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// The payment that it belongs to; itself when there is none.
    pub root: Option<PaymentId>,
}

impl Asked {
    /// The envelope of this command under an idempotency key.
    pub fn envelope(self, caller: &Caller, key: &str) -> PartnerEnvelope {
        let id = payment_id(caller.partner.id, key);
        PartnerEnvelope {
            schema: SCHEMA,
            id,
            root: self.root.unwrap_or(id),
            partner: caller.partner.id,
            key: caller.key,
            idempotency_key: key.to_owned(),
            fingerprint: self.fingerprint,
            request_id: caller.request_id,
            address: caller.address,
            command: self.command,
        }
    }
}

/// Accepts a command under the key of the request.
pub async fn accept(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    key: &str,
    asked: Asked,
) -> Result<Response, Problem> {
    let envelope = asked.envelope(caller, key);
    caller.known.target(envelope.id);
    let started = Instant::now();
    match app.lookup.used(envelope.id, app.lookup_budget).await {
        Ok(seen) => {
            if let Some((stored, status)) = known(&seen, &envelope.fingerprint)? {
                return Ok(replayed(caller, stored, status));
            }
        }
        Err(_) => metrics::lookup_skipped(),
    }
    metrics::looked_up(started.elapsed());
    let placed = app.queue.put(envelope.root.uuid(), &envelope.encode()).await.map_err(not_placed)?;
    respond(app, caller, headers, &envelope, placed).await
}

/// What is known of a used key, and the status that tells it; a conflict when it was used for something else.
pub fn known<'s>(
    seen: &'s Seen,
    fingerprint: &Fingerprint,
) -> Result<Option<(&'s Stored, StatusCode)>, Problem> {
    let (stored, status) = match seen {
        Seen::Decided(stored) => (stored, StatusCode::OK),
        Seen::UnderReview(Some(stored)) => (stored, StatusCode::ACCEPTED),
        Seen::UnderReview(None) | Seen::Absent { .. } => return Ok(None),
    };
    if stored.fingerprint != *fingerprint {
        metrics::replay("conflict");
        return Err(conflict());
    }
    metrics::replay("replay");
    Ok(Some((stored, status)))
}

fn replayed(caller: &Caller, stored: &Stored, status: StatusCode) -> Response {
    let mut response = (status, Json(stored.for_caller(caller.partner.livemode))).into_response();
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}

/// The answer to an accepted command, after the wait that the client would like.
async fn respond(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    envelope: &PartnerEnvelope,
    placed: Placed,
) -> Result<Response, Problem> {
    let mut under_review = false;
    let mut waited = false;
    if let Some(wish) = prefer::wait(headers)
        && let Some(_place) = caller.partner.wait(app.waiters_per_partner)
    {
        let record = (placed.partition, placed.offset);
        let seen = app.lookup.wait(envelope.id, record, Instant::now() + wish).await;
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
    let mut accepted = accepted(app, caller, envelope, &placed).ok_or_else(internal)?;
    accepted.payment.under_review = under_review;
    let location = HeaderValue::try_from(&accepted.payment.status_url);
    let mut response = (StatusCode::ACCEPTED, Json(accepted)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(with_preference(response, waited))
}

/// What is told of a command that was placed; `None` for one that is no payment.
pub fn accepted(app: &App, caller: &Caller, envelope: &PartnerEnvelope, placed: &Placed) -> Option<Accepted> {
    let view = PaymentView::pending(envelope, caller.partner.livemode, placed.accepted_at, String::new())?;
    let claims = token::Accepted::of(placed, &view);
    let token = token::encode(&app.token_key, caller.partner.id, envelope.id, &claims);
    let status_url = format!("{}?position={token}", status_path(envelope.id));
    Some(Accepted {
        payment: PaymentView { status_url, ..view },
        request_id: caller.request_id,
        expected_wait_ms: app.lag.expected_wait_ms(Instant::now()),
    })
}

/// RFC 7240, section 3: what was honoured is said.
pub fn with_preference(mut response: Response, waited: bool) -> Response {
    if waited {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("wait"));
    }
    response
}

/// The key was used for another request.
pub fn conflict() -> Problem {
    Problem::plain(Code::IdempotencyConflict)
}

/// Why a command is not on Kafka, or may not be.
pub fn not_placed(error: QueueError) -> Problem {
    let code = match error {
        QueueError::Unavailable => Code::QueueUnavailable,
        QueueError::Unknown => Code::OutcomeUnknown,
    };
    Problem::plain(code).retry_after(RETRY_AFTER_S)
}

/// Something that our own code should have made impossible.
pub fn internal() -> Problem {
    Problem::plain(Code::Internal)
}
