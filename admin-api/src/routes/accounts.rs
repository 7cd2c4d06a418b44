//! Accounts as staff open, freeze, limit and close them. Each is a command of the bank.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::account::Owner;
use domain::command::{BankCommand, OpenAccount, SetLimits};
use domain::ids::{AccountId, PartnerId, UserId, derived_uuid};
use serde::Deserialize;
use utoipa::ToSchema;

use super::commands::{Accepted, Asked, CommandHeaders, Why};
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Caller, Fresh, Operator};
use crate::app::App;
use crate::bank::{CommandView, Wait};
use crate::body::{FromPath, Json};
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::store::{commands as store, users};

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Whose: a customer (`usr_…`) or a partner (`ptr_…`).
    #[schema(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    owner: String,
    /// ISO 4217.
    #[schema(example = "EUR")]
    currency: String,
    /// Why, in 5 to 300 characters.
    #[schema(example = "second account, asked for at the counter", min_length = 5, max_length = 300)]
    reason: String,
}

/// All limits of an account from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How far it may go below zero.
    #[schema(example = "500.00")]
    overdraft: String,
    /// The most that one payment or transfer may debit; no limit when left out.
    #[schema(example = "500.00")]
    per_payment_max: Option<String>,
    /// The most that payments and transfers may debit in a day of the bank; no limit when left out.
    #[schema(example = "1000.00")]
    daily_cap: Option<String>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "salary account since March", min_length = 5, max_length = 300)]
    reason: String,
}

/// Open an account
///
/// For a customer or a partner, without an overdraft. A partner's first account in a currency is where its payments are
/// credited.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", operation_id = "open_account", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewAccount, example = json!({"owner": "usr_01k9q5m3v7f8h9j0kamcneprqs", "currency": "EUR", "reason": "second account, asked for at the counter"})),
    responses(
        (status = 201, description = "The account is open; `target` and Location name it", body = CommandView,
            headers(("Location" = String, description = "The account"))),
        (status = 202, description = "On its way, or a second person has to agree", body = Accepted),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn open(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewAccount>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let owner = owner(&body.owner);
    if owner.is_none() {
        fields.refuse("/owner", "invalid_id", "a customer's id begins with `usr_`, a partner's with `ptr_`");
    }
    let currency = fields.currency(&body.currency);
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let (Some(owner), Some(currency)) = (owner, currency) else {
        return Err(Problem::plain(Code::InvalidField));
    };
    check_owner(&app, owner).await?;
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    // The same request is the same account.
    let account = AccountId::from_uuid(derived_uuid(&format!("account:{}", asked.id())));
    let open = OpenAccount {
        account,
        owner,
        currency,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    };
    asked.change(BankCommand::OpenAccount(open), Some(format!("/v1/accounts/{account}"))).await
}

fn owner(text: &str) -> Option<Owner> {
    let customer = text.parse::<UserId>().ok().map(Owner::Customer);
    customer.or_else(|| text.parse::<PartnerId>().ok().map(Owner::Partner))
}

/// An account is opened for somebody who is there.
async fn check_owner(app: &App, owner: Owner) -> Result<(), Problem> {
    let is_there = match owner {
        Owner::Customer(user) => {
            let user = users::by_id(&app.pool, user).await?;
            user.is_some_and(|user| user.role == Role::Customer && user.status == UserStatus::Active)
        }
        Owner::Partner(partner) => store::is_partner(&app.pool, partner.uuid()).await?,
        Owner::Bank => false,
    };
    let mut fields = Fields::default();
    if !is_there {
        fields.refuse("/owner", "unknown", "there is no such active customer or partner");
    }
    fields.done()
}

/// Freeze an account
///
/// No debits, holds or captures from now on; money still comes in.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/freeze", tag = "accounts", operation_id = "freeze_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), CommandHeaders),
    request_body(content = Why, example = json!({"reason": "customer called about a lost card"})),
    responses(
        (status = 200, description = "It is frozen", body = CommandView),
        (status = 202, description = "On its way", body = Accepted),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn freeze(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(account): FromPath<AccountId>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    change(&app, &caller, &key, wait, &why, BankCommand::FreezeAccount { account }).await
}

/// Unfreeze an account
///
/// Debits are possible again.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/unfreeze", tag = "accounts", operation_id = "unfreeze_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), CommandHeaders),
    request_body(content = Why, example = json!({"reason": "card was found again"})),
    responses(
        (status = 200, description = "It is active", body = CommandView),
        (status = 202, description = "On its way", body = Accepted),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn unfreeze(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(account): FromPath<AccountId>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    change(&app, &caller, &key, wait, &why, BankCommand::UnfreezeAccount { account }).await
}

/// Close an account
///
/// For ever; it has to be empty and without holds.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/close", tag = "accounts", operation_id = "close_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), CommandHeaders),
    request_body(content = Why, example = json!({"reason": "customer leaves the city"})),
    responses(
        (status = 200, description = "It is closed", body = CommandView),
        (status = 202, description = "On its way", body = Accepted),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn close(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(account): FromPath<AccountId>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    change(&app, &caller, &key, wait, &why, BankCommand::CloseAccount { account }).await
}

async fn change(
    app: &App,
    caller: &Caller,
    key: &IdempotencyKey,
    wait: Wait,
    why: &Why,
    command: BankCommand,
) -> Result<Response, Problem> {
    let reason = why.checked()?;
    for account in crate::bank::alone::accounts(&command) {
        if store::currency_of(&app.pool, account).await?.is_none() {
            return Err(Problem::plain(Code::NotFound));
        }
    }
    Asked { app, caller, key, wait, reason: &reason }.change(command, None).await
}

/// Set the limits of an account
///
/// All of them are replaced. A second person has to agree.
#[utoipa::path(
    post, path = "/v1/accounts/{id}/limits", tag = "accounts", operation_id = "set_account_limits", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), CommandHeaders),
    request_body(content = Limits, example = json!({"overdraft": "500.00", "per_payment_max": "500.00", "reason": "salary account since March"})),
    responses(
        (status = 200, description = "A second person agreed, and it is done", body = CommandView),
        (status = 202, description = "A second person has to agree", body = Accepted,
            headers(("Location" = String, description = "The request for approval"))),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn set_limits(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(account): FromPath<AccountId>,
    Json(body): Json<Limits>,
) -> Result<Response, Problem> {
    let currency = store::currency_of(&app.pool, account).await?;
    let currency = currency.ok_or_else(|| Problem::plain(Code::NotFound))?;
    let mut fields = Fields::default();
    let overdraft_minor = fields.limit("/overdraft", &body.overdraft, currency).unwrap_or_default();
    let mut limit =
        |pointer, text: &Option<String>| text.as_deref().and_then(|it| fields.limit(pointer, it, currency));
    let payment_max_minor = limit("/per_payment_max", &body.per_payment_max);
    let daily_max_minor = limit("/daily_cap", &body.daily_cap);
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let limits = SetLimits { account, overdraft_minor, payment_max_minor, daily_max_minor };
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    asked.change(BankCommand::SetLimits(limits), None).await
}
