//! What became of a command, and how every route that asks for one answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::command::{BankCommand, BankEnvelope};
use domain::ids::{ApprovalId, ChangeId, PaymentId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Caller, Person};
use crate::app::App;
use crate::approvals::{self, Action, Approval, Status};
use crate::bank::{self, CommandStatus, CommandView, Done, Sent, Wait};
use crate::body::FromPath;
use crate::commands;
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::store::approvals as approval_store;
use crate::store::commands as store;

/// Header fields of requests that ask for a command.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub struct CommandHeaders {
    /// A fresh value for each intended change, and the same one for each retry: 1 to 255 visible ASCII characters.
    #[param(rename = "Idempotency-Key", example = "receipt-17", min_length = 1, max_length = 255)]
    idempotency_key: String,
    /// `respond-async`: do not wait for the outcome, which is waited for up to 5 seconds otherwise.
    #[param(rename = "Prefer", example = "respond-async")]
    prefer: Option<String>,
}

/// Nothing was refused, and nothing is decided yet: the command is on its way or under review, or a second person has
/// to agree.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Accepted {
    /// It is on its way, or under review.
    Command(CommandView),
    /// A second person has to agree.
    Approval(Box<Approval>),
}

/// Why staff do something.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// In 5 to 300 characters; it is kept with what was done.
    #[schema(example = "customer called about a lost card", min_length = 5, max_length = 300)]
    reason: String,
}

impl Why {
    /// The reason, checked.
    pub(super) fn checked(&self) -> Result<String, Problem> {
        let mut fields = Fields::default();
        let reason = fields.reason(&self.reason);
        fields.done()?;
        Ok(reason)
    }
}

/// Who asks for a command, and how.
pub(super) struct Asked<'a> {
    pub(super) app: &'a App,
    pub(super) caller: &'a Caller,
    pub(super) key: &'a IdempotencyKey,
    pub(super) wait: Wait,
    pub(super) reason: &'a str,
}

impl Asked<'_> {
    /// The command's id.
    pub(super) fn id(&self) -> Uuid {
        self.key.command_id(self.caller.user)
    }

    /// Carries out what staff ask for; see [`bank::answer`].
    pub(super) async fn carry_out<T: Serialize>(
        &self,
        command: BankCommand,
        created: Option<String>,
        applied: impl Future<Output = Result<T, Problem>> + Send,
    ) -> Result<Response, Problem> {
        let (id, shown) = (self.id(), command.clone());
        match self
            .app
            .bank
            .carry_out_or_ask(self.app, self.caller, id, command, self.reason, self.wait)
            .await?
        {
            Done::Asked(approval) => Ok(approvals::accepted(&approval)),
            Done::Sent(sent) => bank::answer(id, &shown, sent, created, applied).await,
        }
    }

    /// The same of what moves no money, answered with the command.
    pub(super) async fn change(
        &self,
        command: BankCommand,
        created: Option<String>,
    ) -> Result<Response, Problem> {
        let view = CommandView::new(self.id(), &command, CommandStatus::Applied);
        self.carry_out(command, created, async { Ok(view) }).await
    }
}

/// A command
///
/// What became of it. Customers see their own.
#[utoipa::path(
    get, path = "/v1/commands/{id}", tag = "commands", operation_id = "read_command", security(("access_token" = [])),
    params(("id" = String, Path, description = "`pay_…` for what moves money, `chg_…` otherwise", example = "pay_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The command", body = CommandView),
        (status = 404, description = "There is no such command, or it is not yours", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    Person(caller): Person,
    FromPath(text): FromPath<String>,
) -> Result<axum::Json<CommandView>, Problem> {
    let nothing = || Problem::plain(Code::NotFound);
    let payment = text.parse::<PaymentId>().map(|id| id.uuid());
    let id = payment.or_else(|_| text.parse::<ChangeId>().map(|id| id.uuid())).map_err(|_| nothing())?;
    let view = match store::by_id(&app.pool, id).await? {
        Some(row) if !caller.role.is_staff() && row.actor != caller.user => return Err(nothing()),
        Some(row) => {
            let envelope = BankEnvelope::decode(&row.envelope).map_err(|error| Problem::internal(&error))?;
            let sent = commands::outcome(&app.pool, id).await?.map_or(Sent::Pending, Sent::Decided);
            CommandView::of(id, &envelope.command, &sent)
        }
        None => {
            let row = approval_store::by_id(&app.pool, ApprovalId::from_uuid(id)).await?;
            let row = row.filter(|_| caller.role.is_staff()).ok_or_else(nothing)?;
            let status = match row.status {
                Status::Waiting => CommandStatus::WaitingForApproval,
                // It was written down a moment ago.
                Status::Approved => CommandStatus::Pending,
                Status::Rejected | Status::Cancelled | Status::Expired => CommandStatus::NotApproved,
            };
            let action: Option<Action> = serde_json::from_str(&row.action).ok();
            let command = action.as_ref().and_then(Action::command).ok_or_else(nothing)?;
            CommandView::new(id, command, status)
        }
    };
    // The other prefix names something that is not there.
    if view.id == text { Ok(axum::Json(view)) } else { Err(nothing()) }
}
