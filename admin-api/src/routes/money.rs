//! Money as staff move it: deposits, withdrawals, transfers and reversals. Each is a command of the bank; above the
//! thresholds a second person has to agree.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::command::limits::{DESCRIPTION_MAX, REFERENCE_MAX};
use domain::command::{BankCommand, BankTransfer, Deposit, Part, Reversal};
use domain::ids::{AccountId, PaymentId};
use domain::money::{Amount, Currency, decimal_text};
use domain::payment::{PaymentKind, PaymentStatus};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::commands::{Accepted, Asked, CommandHeaders};
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Fresh, Operator};
use crate::app::App;
use crate::bank::Wait;
use crate::body::Json;
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::store::commands as store;

/// Money that came in from outside, or goes there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeposit {
    /// The account to credit or debit.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: String,
    /// How much, with exactly the currency's digits.
    #[schema(example = "150.00")]
    amount: String,
    /// The account's currency.
    #[schema(example = "EUR")]
    currency: String,
    /// Where the money came from or goes; it stands on the statement.
    #[schema(example = "cash desk 3", max_length = 100)]
    reference: Option<String>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "cash desk, receipt 17", min_length = 5, max_length = 300)]
    reason: String,
}

/// Money between two accounts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// The account to debit.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    from: String,
    /// The account to credit.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqt")]
    to: String,
    /// How much, with exactly the currency's digits.
    #[schema(example = "20.00")]
    amount: String,
    /// The currency of both accounts.
    #[schema(example = "EUR")]
    currency: String,
    /// What both sides read on the statement.
    #[schema(example = "rent of March", max_length = 200)]
    description: Option<String>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "asked for by letter, case 4711", min_length = 5, max_length = 300)]
    reason: String,
}

/// What is to be moved back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReversal {
    /// A posted payment, transfer, deposit or withdrawal.
    #[schema(example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    payment: String,
    /// How much of it; everything that is left when left out.
    #[schema(example = "5.00")]
    amount: Option<String>,
    /// Its currency, together with `amount`.
    #[schema(example = "EUR")]
    currency: Option<String>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "paid twice, case 4711", min_length = 5, max_length = 300)]
    reason: String,
}

/// Money that was moved.
#[derive(Serialize, ToSchema)]
pub struct Movement {
    /// The payment.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    id: PaymentId,
    /// What it is: `deposit`, `withdrawal`, `transfer` or `reversal`.
    #[schema(value_type = String, example = "deposit")]
    kind: PaymentKind,
    /// Where it stands.
    #[schema(value_type = String, example = "posted")]
    status: PaymentStatus,
    /// The payment that it belongs to; itself, but for a reversal.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    root: PaymentId,
    /// How much.
    #[schema(example = "150.00")]
    amount: Option<String>,
    /// The currency.
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: Option<Currency>,
    /// The debited account.
    #[schema(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    from: Option<AccountId>,
    /// The credited account.
    #[schema(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcneprqt")]
    to: Option<AccountId>,
    /// When the ledger decided it.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    decided_at: Timestamp,
}

impl From<store::MovementRow> for Movement {
    fn from(row: store::MovementRow) -> Self {
        let amount = row.currency.map(|currency| decimal_text(row.amount_minor, currency));
        Self {
            id: row.id,
            kind: row.kind,
            status: row.status,
            root: row.root,
            amount,
            currency: row.currency,
            from: row.from,
            to: row.to,
            decided_at: row.decided_at,
        }
    }
}

/// Carries it out and reads it back.
async fn move_money(asked: Asked<'_>, command: BankCommand) -> Result<Response, Problem> {
    let id = PaymentId::from_uuid(asked.id());
    let pool = &asked.app.pool;
    let applied = async move {
        let row = store::movement(pool, id).await?;
        row.map(Movement::from).ok_or_else(|| Problem::plain(Code::Unavailable).retry_after(1))
    };
    asked.carry_out(command, Some(format!("/v1/payments/{id}")), applied).await
}

fn deposit(body: &NewDeposit) -> Result<(Deposit, String), Problem> {
    let mut fields = Fields::default();
    let account = fields.account("/account", &body.account);
    let amount = fields.amount(&body.amount, &body.currency);
    let reference = fields.optional_line("/reference", body.reference.as_deref(), REFERENCE_MAX);
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let (account, amount) = account.zip(amount).ok_or_else(|| Problem::plain(Code::InvalidField))?;
    let (amount_minor, currency) = (amount.minor(), amount.currency());
    Ok((Deposit { account, amount_minor, currency, reference }, reason))
}

/// Deposit money
///
/// Credits an account with money that came in from outside. Above the thresholds a second person has to agree.
#[utoipa::path(
    post, path = "/v1/deposits", tag = "money", operation_id = "deposit", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewDeposit, example = json!({"account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "amount": "150.00", "currency": "EUR", "reason": "cash desk, receipt 17"})),
    responses(
        (status = 201, description = "The money is on the account", body = Movement, headers(("Location" = String, description = "The payment"))),
        (status = 202, description = "On its way, or a second person has to agree", body = Accepted),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn make_deposit(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewDeposit>,
) -> Result<Response, Problem> {
    let (deposit, reason) = deposit(&body)?;
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    move_money(asked, BankCommand::Deposit(deposit)).await
}

/// Withdraw money
///
/// Debits an account with money that goes out. Above the thresholds a second person has to agree.
#[utoipa::path(
    post, path = "/v1/withdrawals", tag = "money", operation_id = "withdraw", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewDeposit, example = json!({"account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "amount": "150.00", "currency": "EUR", "reason": "cash desk, receipt 18"})),
    responses(
        (status = 201, description = "The money is gone from the account", body = Movement, headers(("Location" = String, description = "The payment"))),
        (status = 202, description = "On its way, or a second person has to agree", body = Accepted),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn withdraw(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewDeposit>,
) -> Result<Response, Problem> {
    let (withdrawal, reason) = deposit(&body)?;
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    move_money(asked, BankCommand::Withdrawal(withdrawal)).await
}

/// Transfer money
///
/// Between two accounts of customers or partners. Above the thresholds a second person has to agree.
#[utoipa::path(
    post, path = "/v1/transfers", tag = "money", operation_id = "transfer", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewTransfer, example = json!({"from": "acct_01k9q5m3v7f8h9j0kamcneprqs", "to": "acct_01k9q5m3v7f8h9j0kamcneprqt", "amount": "20.00", "currency": "EUR", "reason": "asked for by letter, case 4711"})),
    responses(
        (status = 201, description = "The money is moved", body = Movement, headers(("Location" = String, description = "The payment"))),
        (status = 202, description = "On its way, or a second person has to agree", body = Accepted),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn transfer(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewTransfer>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let from = fields.account("/from", &body.from);
    let to = fields.account("/to", &body.to);
    let amount = fields.amount(&body.amount, &body.currency);
    let description = fields.optional_line("/description", body.description.as_deref(), DESCRIPTION_MAX);
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let missing = || Problem::plain(Code::InvalidField);
    let ((from, to), amount) = from.zip(to).zip(amount).ok_or_else(missing)?;
    let (amount_minor, currency) = (amount.minor(), amount.currency());
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    let transfer = BankTransfer { from, to, amount_minor, currency, description };
    move_money(asked, BankCommand::Transfer(transfer)).await
}

/// Reverse a payment
///
/// Moves back what a payment, transfer, deposit or withdrawal moved, in part or whole, and never more than is left of it.
/// Above the thresholds a second person has to agree; without `amount` the whole payment counts.
#[utoipa::path(
    post, path = "/v1/reversals", tag = "money", operation_id = "reverse", security(("access_token" = [])),
    params(CommandHeaders),
    request_body(content = NewReversal, example = json!({"payment": "pay_01k9q5m3v7f8h9j0kamcneprqs", "reason": "paid twice, case 4711"})),
    responses(
        (status = 201, description = "The money is moved back", body = Movement, headers(("Location" = String, description = "The payment"))),
        (status = 202, description = "On its way, or a second person has to agree", body = Accepted),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn reverse(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<NewReversal>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let payment: Option<PaymentId> = fields.id("/payment", &body.payment, "a payment's id", "pay");
    let amount = fields.part(body.amount.as_deref(), body.currency.as_deref());
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let payment = payment.ok_or_else(|| Problem::plain(Code::InvalidField))?;
    if store::movement(&app.pool, payment).await?.is_none() {
        let mut fields = Fields::default();
        fields.refuse("/payment", "unknown", "there is no such payment, or it is not decided yet");
        fields.done()?;
    }
    let part = |amount: Amount| Part { amount_minor: amount.minor(), currency: amount.currency() };
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    move_money(asked, BankCommand::Reversal(Reversal { payment, part: amount.map(part) })).await
}
