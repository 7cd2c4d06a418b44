//! `POST /v1/sandbox/mandates`: a real mandate on a funded test account, so that a merchant's developer can reach every
//! outcome alone.
//!
//! For test partners only. The ids are derived from partner and idempotency key, so a retry on any replica finds what
//! the first request made. The key is one of its own kind: the same may be used for a payment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::command::{MandateTerms, PartnerCommand, PartnerEnvelope, SCHEMA, SandboxMandate, SandboxState};
use domain::ids::{AccountId, MandateId, derived_uuid, payment_id};
use domain::payment::Reason;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::refusals::OfWrites;
use super::schema;
use crate::accept::{conflict, not_placed, with_preference};
use crate::app::App;
use crate::problem::{Code, Problem};
use crate::requests::{self, mandate::SandboxRequest};
use crate::signed::{Caller, Mandates, Signed, now};
use crate::store::mandates::{self as store, Change};
use crate::{prefer, query, read, write};

const PATH: &str = "/v1/sandbox/mandates";
/// How long the outcome is waited for when the request does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// A mandate on a test account.
#[derive(Debug, Serialize, ToSchema)]
pub struct SandboxAnswer {
    /// To pay with.
    #[schema(value_type = String, example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    mandate: MandateId,
    /// The test account behind it.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: AccountId,
    /// `ready`; `pending` when that took too long: it will be there in a moment; `rejected`.
    status: Outcome,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    /// What the mandate or its account is like.
    #[schema(value_type = String, example = "active")]
    state: SandboxState,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ready,
    Pending,
    Rejected,
}

/// Make a test mandate
///
/// For test partners: opens a test account with `balance` and grants you a mandate on it, in the wished `state`. Waits
/// for up to 10 seconds, or as long as `Prefer: wait=N` says, until it can be used.
#[utoipa::path(
    post, path = "/v1/sandbox/mandates", tag = "sandbox", operation_id = "create_sandbox_mandate",
    security(("message_signature" = ["mandates"])),
    params(schema::MoneyHeaders),
    request_body(content = schema::SandboxRequest, content_type = "application/json", example = json!(schema::sandbox_request())),
    responses(
        (status = 200, description = "Ready. `Idempotent-Replayed: true` when the key was used before", body = SandboxAnswer, example = json!(schema::sandbox("ready"))),
        (status = 202, description = "Accepted; it will be there in a moment", body = SandboxAnswer, example = json!(schema::sandbox("pending"))),
        OfWrites
    )
)]
pub async fn create(State(app): State<Arc<App>>, signed: Signed<Mandates>) -> Result<Response, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    let key = write::idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    if caller.partner.livemode {
        return Err(Problem::plain(Code::TestPartnersOnly));
    }
    let request = SandboxRequest::parse(&body)?;
    let fingerprint = requests::fingerprint(PATH, &request);
    // No key of a payment holds a space.
    let id = payment_id(caller.partner.id, &format!("sandbox mandate {key}"));
    let mut answer = SandboxAnswer {
        mandate: MandateId::from_uuid(derived_uuid(&format!("sandbox mandate:{id}"))),
        account: AccountId::from_uuid(derived_uuid(&format!("sandbox account:{id}"))),
        status: Outcome::Pending,
        reason: None,
        state: request.state,
    };
    let known = look(&app, &caller, id.uuid()).await.unwrap_or_default();
    let replayed = known.is_some();
    let mut change = known;
    if !replayed {
        request.terms.check_time(now())?;
        let command = PartnerCommand::SandboxMandate(command(request, &answer));
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
            command,
        };
        app.queue.put(id.uuid(), &envelope.encode()).await.map_err(not_placed)?;
        if let Some(_place) = caller.partner.wait(app.waiters_per_partner) {
            let until = Instant::now() + prefer::wait(&parts.headers).unwrap_or(WAIT_DEFAULT);
            while change.is_none() && Instant::now() < until {
                tokio::time::sleep(POLL).await;
                match look(&app, &caller, id.uuid()).await {
                    Ok(found) => change = found,
                    // It is accepted, whatever can be read of it.
                    Err(_) => break,
                }
            }
        }
    }
    let mut status = StatusCode::ACCEPTED;
    if let Some(change) = change {
        if change.fingerprint != fingerprint {
            return Err(conflict());
        }
        status = StatusCode::OK;
        answer.status = if change.reason.is_some() { Outcome::Rejected } else { Outcome::Ready };
        answer.reason = change.reason;
    }
    let mut response = (status, Json(answer)).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", http::HeaderValue::from_static("true"));
    }
    Ok(with_preference(response, prefer::wait(&parts.headers).is_some() && !replayed))
}

async fn look(app: &App, caller: &Caller, id: Uuid) -> Result<Option<Change>, Problem> {
    read::within(app, caller.request_id, store::change(&app.reads, id)).await
}

fn command(request: SandboxRequest, answer: &SandboxAnswer) -> SandboxMandate {
    let terms = request.terms;
    SandboxMandate {
        account: answer.account,
        balance_minor: request.balance_minor,
        terms: MandateTerms {
            mandate: answer.mandate,
            kind: terms.kind,
            currency: terms.currency,
            payment_max_minor: terms.payment_max_minor,
            daily_max_minor: terms.daily_max_minor,
            expires_at: terms.expires_at,
            reference: terms.reference,
            answer_by: None,
        },
        state: request.state,
    }
}
