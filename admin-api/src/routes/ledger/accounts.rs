//! Accounts and their balances, now or at a past instant. Of the past the balance alone is known: what was held then is
//! not kept.

use std::sync::Arc;

use axum::extract::State;
use domain::account::{AccountStatus, Owner};
use domain::ids::{AccountId, PartnerId, UserId};
use domain::money::{Currency, decimal_text};
use domain::past::Search;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::documents::ProblemShape;
use super::{Account, Viewer, find, now};
use crate::access::{Customer, Reader};
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::page::Pages;
use crate::personal::Email;
use crate::problem::{Code, Problem};
use crate::store::ledger::entries::past;
use crate::store::ledger::{self as store, AccountRow, Filters};
use crate::store::users;

/// Accounts, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub struct Accounts {
    /// The accounts.
    data: Vec<Account>,
    /// For the next page; nothing on the last one.
    #[schema(example = json!(null))]
    next: Option<String>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many, 1 to 200.
    #[param(example = 50)]
    pub(super) limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    pub(super) cursor: Option<String>,
}

/// Which accounts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountsQuery {
    /// Those of the customer with exactly this address.
    #[param(example = "anna@example.com")]
    email: Option<String>,
    /// Those of this customer or partner, or of the `bank`.
    #[param(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    owner: Option<String>,
    /// `active`, `frozen` or `closed`.
    #[param(example = "frozen")]
    status: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// When.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AtQuery {
    /// An instant that has passed; now when left out.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    at: Option<Timestamp>,
}

/// A balance. Amounts are decimal strings with the currency's digits.
#[derive(Serialize, ToSchema)]
pub struct Balance {
    /// The account.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: AccountId,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// What is, or was, on the account.
    #[schema(example = "99987.50")]
    balance: String,
    /// What authorised payments hold of it; of now alone.
    #[schema(example = "0.00")]
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// What can be spent; of now alone.
    #[schema(example = "99987.50")]
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<String>,
    /// The account's status; of now alone.
    #[schema(value_type = Option<String>, example = "active")]
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<AccountStatus>,
    /// The instant that was asked for.
    #[schema(value_type = Option<String>, example = json!(null))]
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

async fn list(
    app: &App,
    of: &str,
    filters: Filters,
    page: (Option<u32>, Option<&str>),
) -> Result<axum::Json<Accounts>, Problem> {
    let pages = Pages::new(app, "accounts", &of, &filters, page)?;
    let below = pages.below(AccountId::from_uuid)?;
    let mut rows = store::accounts(&app.pool, filters, below, pages.rows_max()).await?;
    let next = pages.cut(&mut rows, |row| row.id.uuid().as_bytes().to_vec());
    Ok(axum::Json(Accounts { data: rows.into_iter().map(Account::from).collect(), next }))
}

/// Your accounts
#[utoipa::path(
    get, path = "/v1/me/accounts", tag = "me", operation_id = "list_my_accounts", security(("access_token" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of them", body = Accounts),
    )
)]
pub async fn list_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromQuery(query): FromQuery<PageQuery>,
) -> Result<axum::Json<Accounts>, Problem> {
    let filters = Filters { owner: Some(Owner::Customer(caller.user)), status: None };
    list(&app, "own", filters, (query.limit, query.cursor.as_deref())).await
}

/// Search accounts
///
/// By owner or status; without either, all of them.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", operation_id = "list_accounts", security(("access_token" = [])),
    params(AccountsQuery),
    responses(
        (status = 200, description = "A page of them", body = Accounts),
    )
)]
pub async fn list_all(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(query): FromQuery<AccountsQuery>,
) -> Result<axum::Json<Accounts>, Problem> {
    let refuse = |detail: &'static str| Problem::new(Code::MalformedRequest, detail);
    let status: Option<AccountStatus> = query
        .status
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| refuse("`status` is active, frozen or closed"))?;
    let owner = query.owner.as_deref().map(|text| {
        owner(text)
            .ok_or_else(|| refuse("`owner` is the id of a customer (usr_…) or a partner (ptr_…), or `bank`"))
    });
    let owner = owner.transpose()?;
    let page = (query.limit, query.cursor.as_deref());
    let Some(email) = &query.email else {
        return list(&app, "staff", Filters { owner, status }, page).await;
    };
    let email = Email::parse(email).map_err(refuse)?;
    let user = users::by_email(&app.pool, &app.personal.email_index(&email)).await?;
    let user = user.map(|user| Owner::Customer(user.id));
    if user.is_none() || owner.is_some_and(|owner| Some(owner) != user) {
        // Nobody, or somebody else than the owner that is asked for.
        return Ok(axum::Json(Accounts { data: Vec::new(), next: None }));
    }
    list(&app, "staff", Filters { owner: user, status }, page).await
}

fn owner(text: &str) -> Option<Owner> {
    let customer = |text: &str| text.parse::<UserId>().ok().map(Owner::Customer);
    let partner = |text: &str| text.parse::<PartnerId>().ok().map(Owner::Partner);
    if text == "bank" { Some(Owner::Bank) } else { customer(text).or_else(|| partner(text)) }
}

/// One of your accounts
#[utoipa::path(
    get, path = "/v1/me/accounts/{id}", tag = "me", operation_id = "read_my_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "You have no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(id): FromPath<AccountId>,
) -> Result<axum::Json<Account>, Problem> {
    find(&app, Viewer::Customer(caller.user), id).await.map(Account::from).map(axum::Json)
}

/// An account
#[utoipa::path(
    get, path = "/v1/accounts/{id}", tag = "accounts", operation_id = "read_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<AccountId>,
) -> Result<axum::Json<Account>, Problem> {
    find(&app, Viewer::Staff, id).await.map(Account::from).map(axum::Json)
}

async fn balance(
    app: &App,
    account: AccountRow,
    at: Option<Timestamp>,
) -> Result<axum::Json<Balance>, Problem> {
    let text = |minor| decimal_text(minor, account.currency);
    let known = Balance {
        account: account.id,
        currency: account.currency,
        balance: text(account.balance_minor),
        held: None,
        available: None,
        status: None,
        at,
    };
    let Some(at) = at else {
        let available = Some(text(account.available_minor()));
        let (held, status) = (Some(text(account.held_minor)), Some(account.status));
        return Ok(axum::Json(Balance { held, available, status, ..known }));
    };
    if at > now() {
        let detail = "`at` lies in the future; leave it out for the balance now";
        return Err(Problem::new(Code::MalformedRequest, detail));
    }
    let found = past(&app.pool, Search { account: account.id, version: account.version, at }).await?;
    Ok(axum::Json(Balance { balance: text(found.balance_minor), ..known }))
}

/// The balance of one of your accounts
///
/// Now or, with `at`, at that instant, the entries of that very instant included. An instant of the last seconds may
/// still change.
#[utoipa::path(
    get, path = "/v1/me/accounts/{id}/balance", tag = "me", operation_id = "read_my_balance", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), AtQuery),
    responses(
        (status = 200, description = "The balance", body = Balance),
        (status = 404, description = "You have no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn balance_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<AtQuery>,
) -> Result<axum::Json<Balance>, Problem> {
    balance(&app, find(&app, Viewer::Customer(caller.user), id).await?, query.at).await
}

/// The balance of an account
///
/// Now or, with `at`, at that instant, the entries of that very instant included.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/balance", tag = "accounts", operation_id = "read_balance", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), AtQuery),
    responses(
        (status = 200, description = "The balance", body = Balance),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn balance_of(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<AtQuery>,
) -> Result<axum::Json<Balance>, Problem> {
    balance(&app, find(&app, Viewer::Staff, id).await?, query.at).await
}
