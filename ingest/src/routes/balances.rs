//! `GET /v1/balances` and `GET /v1/accounts/{id}/balance`: the partner's own accounts, now or at a past instant.
//!
//! Of the past the balance alone is known: what was held then is not kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use domain::account::AccountStatus;
use domain::ids::AccountId;
use domain::money::{Currency, decimal_text};
use domain::past::{Past, Search};
use domain::time::Timestamp;
use serde::Serialize;

use super::accounts::owned;
use super::refusals::OfReads;
use super::schema;
use crate::app::App;
use crate::problem::Problem;
use crate::query::Query;
use crate::read;
use crate::signed::{Balances, Caller, Signed, now};
use crate::store::accounts::{self as store, AccountRow};
use crate::store::statements::past;

/// All accounts.
#[derive(Debug, Serialize)]
pub struct List {
    data: Vec<Balance>,
}

/// One account; amounts are decimal strings with the currency's digits.
#[derive(Debug, Serialize)]
pub struct Balance {
    account: AccountId,
    currency: Currency,
    balance: String,
    #[serde(flatten)]
    time: Time,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Time {
    Now { held: String, available: String, status: AccountStatus },
    Past { at: Timestamp },
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
            time: Time::Now { held: text(row.held_minor), available: text(available), status: row.status },
        }
    }
}

/// The own balances
///
/// `available` is the balance and the overdraft without what is held. With `at` it is the balance at that instant, the
/// entries of that very instant included; what was held then is not kept. An instant of the last seconds may still
/// change.
#[utoipa::path(
    get, path = "/v1/balances", tag = "accounts", operation_id = "list_balances",
    security(("message_signature" = ["balances"])),
    params(schema::AtQuery),
    responses(
        (status = 200, description = "All accounts of the partner, by currency", body = schema::Balances, example = json!(schema::balances())),
        OfReads
    )
)]
pub async fn list(State(app): State<Arc<App>>, signed: Signed<Balances>) -> Result<Json<List>, Problem> {
    let at = instant(signed.parts.uri.query())?;
    let caller = &signed.caller;
    let rows = read::within(&app, caller.request_id, store::accounts(&app.reads, caller.partner.id)).await?;
    Ok(Json(List { data: balances(&app, caller, rows, at).await? }))
}

/// The balance of one account
///
/// As `GET /v1/balances`, for one of the partner's own accounts.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/balance", tag = "accounts", operation_id = "read_balance",
    security(("message_signature" = ["balances"])),
    params(schema::AccountPath, schema::AtQuery),
    responses(
        (status = 200, description = "The account", body = schema::Balance, example = json!(schema::past_balance())),
        OfReads
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Balances>,
) -> Result<Json<Balance>, Problem> {
    let at = instant(signed.parts.uri.query())?;
    let row = owned(&app, &signed.caller, id).await?;
    let balance = balances(&app, &signed.caller, vec![row], at).await?.pop();
    balance.map(Json).ok_or_else(crate::accept::internal)
}

/// `at`, which must have passed.
fn instant(query: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let mut query = Query::parse(query);
    let at = query.time("at");
    if at.is_some_and(|at| at > now()) {
        query.refuse("at", "out_of_range", "lies in the future; leave it out for the balance now");
    }
    query.finish().map(|()| at)
}

async fn balances(
    app: &App,
    caller: &Caller,
    rows: Vec<AccountRow>,
    at: Option<Timestamp>,
) -> Result<Vec<Balance>, Problem> {
    let Some(at) = at else { return Ok(rows.into_iter().map(Balance::from).collect()) };
    let searches: Vec<_> =
        rows.iter().map(|row| Search { account: row.id, version: row.version, at }).collect();
    let found = read::within(app, caller.request_id, past(&app.reads, &searches)).await?;
    let balance = |(row, past): (AccountRow, Past)| Balance {
        account: row.id,
        currency: row.currency,
        balance: decimal_text(past.balance_minor, row.currency),
        time: Time::Past { at },
    };
    Ok(rows.into_iter().zip(found).map(balance).collect())
}
