//! `/v1/mandates`: what a partner asks customers for.
//!
//! A request is a row of ingest's. The customer answers it on the bank's page, to which `consent_url` leads, or where
//! the code is entered; the answer is a command, and the mandate one of the ledger's with the id of the request. So is
//! the partner's own end of it: a cancelled request becomes a mandate that is revoked and can never be granted.
//! Cancelling is once by itself: it names the mandate, and its command is the same however often it is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::command::{MandateTerms, PartnerCommand, PartnerEnvelope, SCHEMA};
use domain::event::MandateView;
use domain::ids::{MandateId, PartnerId, PaymentId, mandate_end_id};
use domain::mandate::{MandateStatus, request_code, request_code_hash};
use domain::money::decimal_text;
use domain::return_url::lies_under;
use domain::time::Timestamp;
use http::StatusCode;
use serde::Serialize;
use sqlx::MySqlConnection;
use url::Url;
use uuid::Uuid;

use super::refusals::{OfReads, OfWrites};
use super::schema;
use crate::accept::{not_placed, with_preference};
use crate::app::App;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::{Code, Problem};
use crate::query::{Query, invalid_cursor};
use crate::requests;
use crate::requests::mandate::{MandateRequest, fault};
use crate::signed::{Caller, Mandates, Signed, now};
use crate::store::mandates::{self as store, MandateRow, NewRequest, Place};
use crate::write::{self, Answer, Failure};
use crate::{prefer, query, read, seal};

/// How long a request may be answered: a customer who stands at a till, or reads a mail.
const ANSWER_SECONDS: i64 = 15 * 60;
/// How long an end of a mandate is waited for when the request does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// A mandate as its partner sees it.
#[derive(Debug, Serialize)]
pub struct Mandate {
    #[serde(flatten)]
    view: MandateView,
    created_at: Timestamp,
    /// Until when the customer may answer; of a pending request.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_by: Option<Timestamp>,
    /// Where the customer answers; of a pending request.
    #[serde(skip_serializing_if = "Option::is_none")]
    consent_url: Option<String>,
}

impl Mandate {
    fn of(app: &App, row: MandateRow, now: Timestamp) -> Self {
        let status = row.status_at(now);
        let pending = status == MandateStatus::Pending;
        let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, row.currency));
        let consent_url = app.consent_url.as_ref().filter(|_| pending).map(|url| consent_url(url, row.id));
        Self {
            view: MandateView {
                id: row.id,
                kind: row.kind,
                status,
                currency: row.currency,
                per_payment_max: text(row.payment_max_minor),
                daily_cap: text(row.daily_max_minor),
                expires_at: row.expires_at,
                reference: row.reference,
            },
            created_at: row.created_at,
            answer_by: row.answer_by.filter(|_| pending),
            consent_url,
        }
    }
}

fn consent_url(page: &Url, id: MandateId) -> String {
    format!("{}/{id}", page.as_str().trim_end_matches('/'))
}

fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is no such mandate of yours")
}

fn mandate_of(id: Result<Path<String>, PathRejection>) -> Result<MandateId, Problem> {
    id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)
}

/// Ask for a mandate
///
/// Send the customer to `consent_url`, or show the `code`, which is entered on the bank's page; either works for 15
/// minutes. What the customer answers comes as an event `mandate.active` or `mandate.declined`. `code` is shown in
/// this answer and never again. A suspended partner asks nobody (403 `partner_suspended`).
#[utoipa::path(
    post, path = "/v1/mandates", tag = "mandates", operation_id = "create_mandate",
    security(("message_signature" = ["mandates"])),
    params(schema::SignedWriteHeaders),
    request_body(content = schema::MandateRequest, content_type = "application/json", example = json!(schema::mandate_request())),
    responses(
        (status = 201, description = "The customer may answer", body = schema::RequestedMandate, example = json!(schema::requested_mandate())),
        OfWrites
    )
)]
pub async fn create(State(app): State<Arc<App>>, signed: Signed<Mandates>) -> Result<Response, Problem> {
    let request = Arc::new(MandateRequest::parse(&signed.body, app.loopback)?);
    if !signed.caller.partner.is_active() {
        return Err(Problem::plain(Code::PartnerSuspended));
    }
    let partner = signed.caller.partner.id;
    let shared = app.clone();
    let done = write::run(&app, &signed, move |connection| {
        let (app, request) = (shared.clone(), request.clone());
        Box::pin(async move { insert(&app, connection, partner, &request).await })
    });
    Ok(done.await?.into_response())
}

async fn insert(
    app: &App,
    connection: &mut MySqlConnection,
    partner: PartnerId,
    request: &MandateRequest,
) -> Result<Answer, Failure> {
    let now = now();
    request.terms.check_time(now)?;
    if let Some(url) = &request.return_url {
        let registered = store::return_urls(connection, partner).await?;
        let known = registered.iter().filter_map(|text| Url::parse(text).ok());
        if !known.into_iter().any(|registered| lies_under(url, &registered)) {
            let detail = "lies under none of the URLs that are registered for you; have the bank register it";
            return Err(fault("/return_url", "not_registered", detail).into());
        }
    }
    let code = request_code(u64::from_be_bytes(seal::random()?));
    let terms = request.terms.clone();
    let row = MandateRow {
        id: MandateId::from_uuid(Uuid::now_v7()),
        kind: terms.kind,
        currency: terms.currency,
        payment_max_minor: terms.payment_max_minor,
        daily_max_minor: terms.daily_max_minor,
        expires_at: terms.expires_at,
        reference: terms.reference,
        created_at: now,
        answer_by: Some(now.plus_seconds(ANSWER_SECONDS)),
        status: None,
    };
    let new = NewRequest {
        row,
        return_url: request.return_url.as_ref().map(ToString::to_string),
        code_hash: request_code_hash(&code),
    };
    store::insert(connection, partner, &new).await?;
    let id = new.row.id;
    let mut answer = Answer::json(StatusCode::CREATED, &Mandate::of(app, new.row, now))?;
    answer.once.insert("code".to_owned(), code.into());
    Ok(answer.at(format!("/v1/mandates/{id}")))
}

/// A mandate
#[utoipa::path(
    get, path = "/v1/mandates/{id}", tag = "mandates", operation_id = "read_mandate",
    security(("message_signature" = ["mandates"])),
    params(schema::MandatePath),
    responses(
        (status = 200, description = "The mandate, or the request for it", body = schema::Mandate, example = json!(schema::mandate())),
        OfReads
    )
)]
pub async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Mandates>,
) -> Result<Json<Mandate>, Problem> {
    query::none(signed.parts.uri.query())?;
    let row = find(&app, &signed.caller, mandate_of(id)?).await?;
    Ok(Json(Mandate::of(&app, row, now())))
}

async fn find(app: &App, caller: &Caller, id: MandateId) -> Result<MandateRow, Problem> {
    let found = store::find(&app.reads, caller.partner.id, id);
    read::within(app, caller.request_id, found).await?.ok_or_else(not_found)
}

/// Your mandates
///
/// Mandates and requests for them, newest first. A page may hold fewer items than `limit` although `next` is there.
#[utoipa::path(
    get, path = "/v1/mandates", tag = "mandates", operation_id = "list_mandates",
    security(("message_signature" = ["mandates"])),
    params(schema::ListQuery),
    responses(
        (status = 200, description = "A page", body = schema::MandateList, example = json!(schema::mandates())),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    signed: Signed<Mandates>,
) -> Result<Json<Page<Mandate>>, Problem> {
    let Signed { caller, parts, .. } = signed;
    let mut query = Query::parse(parts.uri.query());
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let cursors = Cursors::new(&app.token_key, "mandates", caller.partner.id, &());
    let wanted = cursors.wanted(page)?;
    let after = wanted.after.map(|bytes| Place::decode(&bytes).ok_or_else(|| invalid_cursor("not a place")));
    let found = store::list(&app.reads, caller.partner.id, after.transpose()?, wanted.limit);
    let (rows, next) = read::within(&app, caller.request_id, found).await?;
    let now = now();
    let data = rows.into_iter().map(|row| Mandate::of(&app, row, now)).collect();
    Ok(Json(Page { data, next: next.map(|place| cursors.encode(&place.encode())) }))
}

/// Give up a mandate
///
/// An active mandate authorises nothing from then on, and a pending request can no longer be granted; payments that
/// are authorised may still be captured. One that has ended stays as it is, and is answered as it is. Waits for up to 5
/// seconds, or as long as `Prefer: wait=N` says; 202 when that was not enough.
#[utoipa::path(
    post, path = "/v1/mandates/{id}/cancel", tag = "mandates", operation_id = "cancel_mandate",
    security(("message_signature" = ["mandates"])),
    params(schema::MandatePath, schema::MoneyHeaders),
    responses(
        (status = 200, description = "The mandate, which has ended", body = schema::Mandate, example = json!(schema::cancelled_mandate())),
        (status = 202, description = "Accepted; the mandate as it still stands", body = schema::Mandate, example = json!(schema::mandate())),
        OfWrites
    )
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Mandates>,
) -> Result<Response, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    let key = write::idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    crate::fields::Fields::of_optional_body(&body)?.finish(Some(()))?;
    let id = mandate_of(id)?;
    let mut row = find(&app, &caller, id).await?;
    let has_ended = |row: &MandateRow| row.status.is_some_and(|status| status != MandateStatus::Active);
    if !has_ended(&row) {
        let command = PartnerCommand::CancelMandate(terms_of(&row));
        let envelope = PartnerEnvelope {
            schema: SCHEMA,
            id: mandate_end_id(caller.partner.id, id, "cancel"),
            // Commands on one mandate stay in order.
            root: PaymentId::from_uuid(id.uuid()),
            partner: caller.partner.id,
            key: caller.key,
            idempotency_key: key.to_owned(),
            fingerprint: requests::fingerprint(&format!("/v1/mandates/{id}/cancel"), &()),
            request_id: caller.request_id,
            address: caller.address,
            command,
        };
        app.queue.put(envelope.root.uuid(), &envelope.encode()).await.map_err(not_placed)?;
        if let Some(_place) = caller.partner.wait(app.waiters_per_partner) {
            let until = Instant::now() + prefer::wait(&parts.headers).unwrap_or(WAIT_DEFAULT);
            while !has_ended(&row) && Instant::now() < until {
                tokio::time::sleep(POLL).await;
                match find(&app, &caller, id).await {
                    Ok(found) => row = found,
                    // It is accepted, whatever can be read of it.
                    Err(_) => break,
                }
            }
        }
    }
    let status = if has_ended(&row) { StatusCode::OK } else { StatusCode::ACCEPTED };
    let waited = prefer::wait(&parts.headers).is_some();
    Ok(with_preference((status, Json(Mandate::of(&app, row, now()))).into_response(), waited))
}

fn terms_of(row: &MandateRow) -> MandateTerms {
    MandateTerms {
        mandate: row.id,
        kind: row.kind,
        currency: row.currency,
        payment_max_minor: row.payment_max_minor,
        daily_max_minor: row.daily_max_minor,
        expires_at: row.expires_at,
        reference: row.reference.clone(),
        answer_by: row.answer_by,
    }
}
