//! What customers do with their accounts: open one, and transfer from one.
//!
//! Whether money moves is the ledger's decision alone; here it is only asked whose account it is, which never changes. A
//! new account's id follows from how many the customer has, so two requests at once ask for the same account and one
//! of them is told that it is there: the bound on open accounts holds without a lock.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::account::Owner;
use domain::command::limits::DESCRIPTION_MAX;
use domain::command::{BankCommand, BankEnvelope, BankTransfer, OpenAccount};
use domain::ids::{AccountId, PaymentId, UserId, derived_uuid};
use domain::payment::Reason;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::commands::CommandHeaders;
use super::documents::ProblemShape;
use super::fields::Fields;
use super::ledger::{Account, Viewer, find};
use super::money::Movement;
use crate::access::{Caller, Customer, Fresh};
use crate::app::App;
use crate::bank::{CommandView, Sent, Wait, answer};
use crate::body::Json;
use crate::commands::Outcome;
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::store::{commands, ledger as store};

/// Accounts that a customer has at once; staff can open more for them.
const OPEN_ACCOUNTS_MAX: u64 = 10;
/// What the ledger keeps as the reason of whatever customers ask for.
pub(super) const REASON: &str = "asked for by the customer";

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwnAccount {
    /// Its currency, for good: ISO 4217.
    #[schema(example = "EUR")]
    currency: String,
}

/// Money from an own account to any other.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwnTransfer {
    /// The own account.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    from: String,
    /// The account to credit.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqt")]
    to: String,
    /// Decimal string with exactly the currency's digits.
    #[schema(example = "25.00")]
    amount: String,
    /// ISO 4217: that of both accounts.
    #[schema(example = "EUR")]
    currency: String,
    /// What both sides read on the statement.
    #[schema(example = "Lunch", min_length = 1, max_length = 200)]
    description: Option<String>,
}

/// The command that this caller sent under this id before.
pub(super) async fn sent_before(
    app: &App,
    caller: &Caller,
    id: Uuid,
) -> Result<Option<BankCommand>, Problem> {
    let found = commands::by_id(&app.pool, id).await?.filter(|row| row.actor == caller.user);
    Ok(found.and_then(|row| BankEnvelope::decode(&row.envelope).ok()).map(|envelope| envelope.command))
}

/// Open an account
///
/// Without overdraft and with no money on it. A customer has at most ten open ones.
#[utoipa::path(
    post, path = "/v1/me/accounts", tag = "me", operation_id = "open_my_account", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewOwnAccount, example = json!({"currency": "EUR"})),
    responses(
        (status = 201, description = "The account", body = Account, headers(("Location" = String, description = "The account"))),
        (status = 202, description = "Not decided yet: see Location", body = CommandView),
        (status = 409, description = "There are ten open ones already, or another one was opened at the same time", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn open(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewOwnAccount>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let currency = fields.currency(&body.currency);
    fields.done()?;
    let currency = currency.ok_or_else(|| Problem::plain(Code::InvalidField))?;
    let id = key.command_id(caller.user);
    let account = match sent_before(&app, &caller, id).await? {
        Some(BankCommand::OpenAccount(open)) => open.account,
        _ => next_account(&app, caller.user).await?,
    };
    let command = BankCommand::OpenAccount(OpenAccount {
        account,
        owner: Owner::Customer(caller.user),
        currency,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    });
    let sent = app.bank.carry_out(&app, &caller, id, command.clone(), REASON, wait).await?;
    if sent == Sent::Decided(Outcome::Rejected(Some(Reason::AccountExists))) {
        let detail = "you opened another account at the same moment; ask again with another Idempotency-Key";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let opened = async { find(&app, Viewer::Customer(caller.user), account).await.map(Account::from) };
    answer(id, &command, sent, Some(format!("/v1/me/accounts/{account}")), opened).await
}

/// The account that is opened next, if there may be one.
async fn next_account(app: &App, user: UserId) -> Result<AccountId, Problem> {
    let (all, open) = store::count(&app.pool, Owner::Customer(user)).await?;
    if open >= OPEN_ACCOUNTS_MAX {
        let detail = "you have ten open accounts; have one closed, or ask the bank for another";
        return Err(Problem::new(Code::Conflict, detail));
    }
    Ok(AccountId::from_uuid(derived_uuid(&format!("account:{user}:{all}"))))
}

/// Transfer money
///
/// From an own account to any other of the same currency, at once. The account's own limits apply. Needs a proof that is
/// not older than five minutes.
#[utoipa::path(
    post, path = "/v1/me/transfers", tag = "me", operation_id = "transfer_mine", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewOwnTransfer, example = json!({
        "from": "acct_01k9q5m3v7f8h9j0kamcneprqs", "to": "acct_01k9q5m3v7f8h9j0kamcneprqt", "amount": "25.00",
        "currency": "EUR", "description": "Lunch"
    })),
    responses(
        (status = 201, description = "Done", body = Movement, headers(("Location" = String, description = "What became of it"))),
        (status = 202, description = "Not decided yet: see Location", body = CommandView),
        (status = 404, description = "You have no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it; `reason` says why", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn transfer(
    State(app): State<Arc<App>>,
    Fresh(Customer(caller)): Fresh<Customer>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewOwnTransfer>,
) -> Result<Response, Problem> {
    let transfer = read(&body)?;
    find(&app, Viewer::Customer(caller.user), transfer.from).await?;
    let id = key.command_id(caller.user);
    let payment = PaymentId::from_uuid(id);
    let command = BankCommand::Transfer(transfer);
    let sent = app.bank.carry_out(&app, &caller, id, command.clone(), REASON, wait).await?;
    let moved = async {
        let row = commands::movement(&app.pool, payment).await?;
        row.map(Movement::from).ok_or_else(|| Problem::plain(Code::Unavailable).retry_after(1))
    };
    answer(id, &command, sent, Some(format!("/v1/commands/{payment}")), moved).await
}

fn read(body: &NewOwnTransfer) -> Result<BankTransfer, Problem> {
    let mut fields = Fields::default();
    let (from, to) = (fields.account("/from", &body.from), fields.account("/to", &body.to));
    let amount = fields.amount(&body.amount, &body.currency);
    let description = fields.optional_line("/description", body.description.as_deref(), DESCRIPTION_MAX);
    fields.done()?;
    let ((from, to), amount) = from.zip(to).zip(amount).ok_or_else(|| Problem::plain(Code::InvalidField))?;
    Ok(BankTransfer { from, to, amount_minor: amount.minor(), currency: amount.currency(), description })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(body: serde_json::Value) -> Vec<String> {
        let body: NewOwnTransfer = serde_json::from_value(body).unwrap();
        match read(&body) {
            Ok(_) => Vec::new(),
            Err(problem) => problem.errors.iter().map(|it| format!("{} {}", it.pointer, it.code)).collect(),
        }
    }

    #[test]
    fn every_fault_of_a_transfer_is_named_at_once() {
        let account = "acct_00000000000000000000000001";
        let body = |amount: &str, currency: &str, description: &str| {
            serde_json::json!({
                "from": account, "to": account, "amount": amount, "currency": currency, "description": description
            })
        };
        assert_eq!(faults(body("25.00", "EUR", "Lunch")), Vec::<String>::new());
        for amount in ["0.00", "-1.00", "1", "1.5", "1e3", "NaN", "1,00", "", " 1.00", "10000000000.01"] {
            assert_eq!(faults(body(amount, "EUR", "x")), ["/amount invalid_amount"], "{amount}");
        }
        assert_eq!(faults(body("1.00", "eur", "x")), ["/currency unknown_currency"]);
        assert_eq!(faults(body("1.00", "EUR", " ")), ["/description missing"]);
        assert_eq!(faults(body("1.00", "EUR", &"x".repeat(201))), ["/description too_long"]);
        assert_eq!(faults(body("1.00", "EUR", "a\u{202e}b")), ["/description invalid_text"]);
        let wrong = serde_json::json!({"from": "usr_1", "to": "x", "amount": "1", "currency": "EUR"});
        assert_eq!(faults(wrong), ["/from invalid_id", "/to invalid_id", "/amount invalid_amount"]);
    }
}
