//! `POST /v1/transfers`: from an account of the partner to another one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::command::{PartnerCommand, TransferCommand};

use super::refusals::OfWrites;
use super::schema;
use crate::accept::{Asked, accept};
use crate::app::App;
use crate::problem::Problem;
use crate::requests::{self, transfer};
use crate::signed::{Signed, Transfers};
use crate::{query, write};

const PATH: &str = "/v1/transfers";

/// Move money between accounts
///
/// From an account of your own to another one of your own, or, with a key that has the scope `transfers_out`, to
/// anybody's. Answered like a payment.
#[utoipa::path(
    post, path = "/v1/transfers", tag = "payments", operation_id = "create_transfer",
    security(("message_signature" = ["transfers"])),
    params(schema::MoneyHeaders),
    request_body(content = schema::TransferRequest, content_type = "application/json", example = json!(schema::transfer_request())),
    responses(
        (status = 200, description = "Decided: posted or rejected. `Idempotent-Replayed: true` when the key was used before", body = schema::Payment, example = json!(schema::transfer())),
        (status = 202, description = "Accepted, not decided yet", body = schema::AcceptedPayment, example = json!(schema::accepted_transfer())),
        OfWrites
    )
)]
pub async fn create(State(app): State<Arc<App>>, signed: Signed<Transfers>) -> Result<Response, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    let key = write::idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    let command = transfer::parse(&body, caller.transfers_out)?;
    // What the key may do is no part of the request: a retry with another key of the partner is the same transfer.
    let asked = TransferCommand { outward: false, ..command.clone() };
    let fingerprint = requests::fingerprint(PATH, &asked);
    let asked = Asked { command: PartnerCommand::Transfer(command), fingerprint, root: None };
    accept(&app, &caller, &parts.headers, key, asked).await
}
