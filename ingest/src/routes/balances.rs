//! `GET /v1/balances`: the partner's own accounts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use domain::account::AccountStatus;
use domain::ids::AccountId;
use domain::money::{Currency, decimal_text};
use serde::Serialize;

use super::schema;
use crate::app::App;
use crate::problem::{Code, Problem};
use crate::query;
use crate::signed::{Balances, Signed};
use crate::store::accounts::{self as store, AccountRow};

/// A read that takes longer has met a server that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(4);

/// All accounts.
#[derive(Debug, Serialize)]
pub struct List {
    data: Vec<Balance>,
}

/// One account; amounts are decimal strings with the currency's digits.
#[derive(Debug, Serialize)]
struct Balance {
    account: AccountId,
    currency: Currency,
    balance: String,
    held: String,
    available: String,
    status: AccountStatus,
}

impl From<AccountRow> for Balance {
    fn from(row: AccountRow) -> Self {
        let text = |minor| decimal_text(minor, row.currency);
        // The ledger keeps each of them far from the bounds of an i64.
        let available = row.balance_minor.saturating_add(row.overdraft_minor).saturating_sub(row.held_minor);
        Self {
            account: row.id,
            currency: row.currency,
            balance: text(row.balance_minor),
            held: text(row.held_minor),
            available: text(available),
            status: row.status,
        }
    }
}

/// The own balances
///
/// `available` is the balance and the overdraft without what is held.
#[utoipa::path(
    get, path = "/v1/balances", tag = "accounts", operation_id = "list_balances",
    security(("message_signature" = ["balances"])),
    responses(
        (status = 200, description = "All accounts of the partner, by currency", body = schema::Balances, example = json!(schema::balances())),
        (status = 401, description = "The signature is not accepted", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `balances`", body = schema::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests; see Retry-After", body = schema::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Cannot be read at the moment; see Retry-After", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(State(app): State<Arc<App>>, signed: Signed<Balances>) -> Result<Json<List>, Problem> {
    query::none(signed.parts.uri.query())?;
    let unavailable = || Problem::plain(Code::Unavailable).retry_after(1);
    if !app.lookup.is_up() {
        return Err(unavailable());
    }
    let read =
        tokio::time::timeout(READ_TIMEOUT, store::accounts(&app.reads, signed.caller.partner.id)).await;
    match read {
        Ok(Ok(rows)) => Ok(Json(List { data: rows.into_iter().map(Balance::from).collect() })),
        Ok(Err(error)) => {
            tracing::warn!(error = %error, request.id = %signed.caller.request_id, "balances not read");
            Err(unavailable())
        }
        Err(_) => Err(unavailable()),
    }
}
