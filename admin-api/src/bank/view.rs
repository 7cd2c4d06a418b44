//! How a command is asked for and answered, the same on every route.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use domain::command::BankCommand;
use domain::ids::{ChangeId, PaymentId};
use domain::payment::Reason;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Sent;
use crate::commands::Outcome;
use crate::problem::{Code, Problem};

/// Whether a caller wants to know the outcome, or only that the command is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Up to 5 seconds.
    Outcome,
    /// `Prefer: respond-async` (RFC 7240, section 4.1).
    Not,
}

impl<S: Sync> FromRequestParts<S> for Wait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let values = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let mut preferences = values.flat_map(|value| value.split(','));
        let is_async = |text: &str| {
            let name = text.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("respond-async")
        };
        Ok(if preferences.any(is_async) { Self::Not } else { Self::Outcome })
    }
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// It is on its way; it will be decided once.
    Pending,
    /// It was done.
    Applied,
    /// The ledger refused it for good.
    Rejected,
    /// It could not be processed and waits for an operator.
    UnderReview,
    /// A second person has to agree first.
    WaitingForApproval,
    /// The second person did not agree, or nobody did in time.
    NotApproved,
}

/// A command and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CommandView {
    /// The payment (`pay_…`), or for what moves no money the change (`chg_…`).
    #[schema(example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: String,
    /// What it does.
    #[schema(example = "deposit")]
    pub kind: &'static str,
    /// Where it stands.
    pub status: CommandStatus,
    /// Why the ledger refused it.
    #[schema(example = "account_closed")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The account, mandate, payment or partner that it is about.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    pub target: String,
}

impl CommandView {
    /// A command that stands like this.
    pub fn new(id: Uuid, command: &BankCommand, status: CommandStatus) -> Self {
        let (id, target) = (command_id_text(command, id), target(command));
        Self { id, kind: command.word(), status, reason: None, target }
    }

    /// A command that was sent.
    pub fn of(id: Uuid, command: &BankCommand, sent: &Sent) -> Self {
        let (status, reason) = match sent {
            Sent::Pending => (CommandStatus::Pending, None),
            Sent::Decided(Outcome::Applied) => (CommandStatus::Applied, None),
            Sent::Decided(Outcome::Rejected(reason)) => (CommandStatus::Rejected, Some(word(*reason))),
            Sent::Decided(Outcome::DeadLetter(_)) => (CommandStatus::UnderReview, None),
        };
        Self { reason: reason.map(str::to_owned), ..Self::new(id, command, status) }
    }
}

/// A reason that this version does not know has no word.
const fn word(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(reason) => reason.as_str(),
        None => "unknown",
    }
}

/// The id of a command in the API.
pub fn command_id_text(command: &BankCommand, id: Uuid) -> String {
    if command.moves_money() {
        PaymentId::from_uuid(id).to_string()
    } else {
        ChangeId::from_uuid(id).to_string()
    }
}

fn target(command: &BankCommand) -> String {
    match command {
        BankCommand::OpenAccount(it) => it.account.to_string(),
        BankCommand::Deposit(it) | BankCommand::Withdrawal(it) => it.account.to_string(),
        BankCommand::Transfer(it) => it.from.to_string(),
        BankCommand::Reversal(it) => it.payment.to_string(),
        BankCommand::GrantMandate(it) => it.mandate.to_string(),
        BankCommand::RevokeMandate { mandate } => mandate.to_string(),
        BankCommand::DeclineMandate { terms, .. } => terms.mandate.to_string(),
        BankCommand::FreezeAccount { account }
        | BankCommand::UnfreezeAccount { account }
        | BankCommand::CloseAccount { account } => account.to_string(),
        BankCommand::SetLimits(it) => it.account.to_string(),
        BankCommand::SetSettlementAccount { partner, .. } => partner.to_string(),
        BankCommand::RedriveDeadLetters { root } => root.to_string(),
        BankCommand::RejectDeadLetter(it) => crate::routes::dead_letter_id(it),
    }
}

/// The answer to a request that carried out a command. What was applied is answered with what `applied` reads back, as
/// 201 when it made what is at `created`; what was refused is a problem; what is not decided yet is 202.
pub async fn answer<T: Serialize>(
    id: Uuid,
    command: &BankCommand,
    sent: Sent,
    created: Option<String>,
    applied: impl Future<Output = Result<T, Problem>> + Send,
) -> Result<Response, Problem> {
    let view = CommandView::of(id, command, &sent);
    match sent {
        Sent::Decided(Outcome::Applied) => {
            let body = axum::Json(applied.await?);
            Ok(match created.as_deref().map(HeaderValue::try_from) {
                Some(Ok(location)) => {
                    (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
                }
                Some(Err(_)) => (StatusCode::CREATED, body).into_response(),
                None => body.into_response(),
            })
        }
        Sent::Decided(Outcome::Rejected(reason)) => Err(rejected(&view, word(reason))),
        Sent::Decided(Outcome::DeadLetter(_)) | Sent::Pending => Ok(pending(&view)),
    }
}

fn rejected(view: &CommandView, reason: &'static str) -> Problem {
    let mut members = Map::new();
    members.insert("reason".to_owned(), Value::from(reason));
    members.insert("command".to_owned(), Value::from(view.id.clone()));
    let detail = format!("the ledger refused it: {reason}");
    Problem { members, ..Problem::new(Code::CommandRejected, detail) }
}

fn pending(view: &CommandView) -> Response {
    let location = HeaderValue::try_from(format!("/v1/commands/{}", view.id));
    let mut response = (StatusCode::ACCEPTED, axum::Json(view)).into_response();
    // An id is always a valid value.
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_preference_is_read_and_never_an_error() {
        for (value, wait) in [
            ("respond-async", Wait::Not),
            ("Respond-Async; x=1", Wait::Not),
            ("wait=5, respond-async", Wait::Not),
            ("respond-sync", Wait::Outcome),
            ("return=minimal", Wait::Outcome),
            ("", Wait::Outcome),
        ] {
            let request = http::Request::builder().header("prefer", value).body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            assert_eq!(Wait::from_request_parts(&mut parts, &()).await, Ok(wait), "{value}");
        }
    }
}
