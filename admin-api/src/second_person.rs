//! Changes of this service's own tables that need a second person: how they are asked for, and what whoever carries one
//! out needs to know of its approval.

use axum::response::Response;
use domain::ids::UserId;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::approvals::{self, Action, Status};
use crate::audit::Origin;
use crate::idempotency::IdempotencyKey;
use crate::problem::Problem;
use crate::{partners, staff};

/// An approval that is being given, inside its transaction.
#[derive(Debug, Clone)]
pub struct Approved {
    /// The approval's id, with its prefix.
    pub approval: String,
    /// Who asked.
    pub requester: UserId,
    /// Who approves.
    pub approver: UserId,
    /// Why, in the requester's words.
    pub reason: String,
    /// Where the approver is.
    pub origin: Origin,
}

impl Approved {
    /// Adds to what an audit row tells by whom it was asked for, and why.
    pub fn describe(&self, detail: &mut Value) {
        detail["approval"] = json!(self.approval);
        detail["requester"] = json!(self.requester);
        detail["reason"] = json!(self.reason);
    }
}

/// Asks for a change that another one has to approve: 202, with the approval. The same key again finds it.
pub async fn ask(
    app: &App,
    caller: &Caller,
    key: &IdempotencyKey,
    action: Action,
    reason: &str,
) -> Result<Response, Problem> {
    let mut transaction = app.pool.begin().await?;
    let id = key.command_id(caller.user);
    let approval = approvals::request(&mut transaction, caller, id, action.clone(), reason).await?;
    // What can never be approved is told at once, and not written down; what was decided meanwhile is.
    if approval.status == Status::Waiting {
        match &action {
            Action::Partner(change) => partners::check(&mut transaction, change).await?,
            Action::Staff(change) => drop(staff::check(&mut transaction, change).await?),
            Action::Bank(_) => {}
        }
    }
    transaction.commit().await?;
    Ok(approvals::accepted(&approval))
}
