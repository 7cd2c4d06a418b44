//! What one person asks for and a second one agrees to.
//!
//! A request holds exactly what will be carried out and its SHA-256; whoever agrees repeats that hash, so nobody agrees
//! to something else than was shown. It waits for 24 hours. Whoever agrees has the right himself at that moment (the row
//! of the user is locked), did not ask, and owns nothing of what is touched; who asked must still have the right, too.
//! One transaction decides, with a conditional update: two who agree at once are one.
//!
//! A command of the bank is written down in that transaction under the request's own id, and reaches the ledger like
//! every other ([`crate::bank`]), after a crash as well. Other actions are changes of this service's own tables and are
//! done in that transaction. Rows are locked in the order users (sorted by id), approvals, then what the action needs.

use std::fmt::Write as _;
use std::net::IpAddr;

use axum::response::{IntoResponse, Response};
use domain::command::{BankCommand, BankEnvelope, SCHEMA};
use domain::ids::{ApprovalId, UserId};
use domain::money::decimal_text;
use domain::time::Timestamp;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::App;
use crate::audit::{self, Entry};
use crate::bank::{self, CommandStatus, CommandView, Sent, Wait};
use crate::commands;
use crate::partners::{self, PartnerChange};
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::second_person::Approved;
use crate::staff::{self, StaffChange};
use crate::store::approvals::{self as store, ApprovalRow, NewApproval};
use crate::store::audit as audit_store;
use crate::store::{commands as command_store, is_duplicate, users};

/// How long a request waits.
pub const LIFE_S: u32 = 86_400;

/// What needs a second person, exactly as it will be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A command of the bank.
    Bank(BankCommand),
    /// A change of a partner or its keys.
    Partner(PartnerChange),
    /// A change of a user.
    Staff(StaffChange),
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Status {
    /// Nobody has decided yet.
    Waiting = 1,
    /// A second person agreed.
    Approved = 2,
    /// A second person did not.
    Rejected = 3,
    /// Whoever asked took it back.
    Cancelled = 4,
    /// Nobody decided within 24 hours; stored as waiting.
    Expired = 5,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Approved, Self::Rejected, Self::Cancelled, Self::Expired];

    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl Action {
    /// The word of what it does.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Bank(command) => command.word(),
            Self::Partner(change) => change.word(),
            Self::Staff(change) => change.word(),
        }
    }

    /// Who may ask for it and who may agree.
    pub const fn may(&self, role: Role) -> bool {
        match self {
            Self::Bank(_) => bank::may(role),
            Self::Partner(_) | Self::Staff(_) => matches!(role, Role::Admin),
        }
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        match self {
            Self::Bank(command) => summary(command),
            Self::Partner(change) => change.summary(),
            Self::Staff(change) => change.summary(),
        }
    }

    /// The command of the bank that carries it out, if one does.
    pub const fn command(&self) -> Option<&BankCommand> {
        match self {
            Self::Bank(command) => Some(command),
            Self::Partner(_) | Self::Staff(_) => None,
        }
    }

    /// Who owns what it touches, or is changed by it: they may not agree.
    async fn owners(&self, db: &mut MySqlConnection) -> Result<Vec<UserId>, sqlx::Error> {
        match self {
            Self::Bank(command) => bank::owners(db, command).await,
            Self::Partner(_) => Ok(Vec::new()),
            Self::Staff(change) => Ok(vec![change.about()]),
        }
    }

    /// As stored: what is hashed.
    fn text(&self) -> String {
        // Only maps with keys that are no strings or a failing Serialize could make this fail; there are none.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn summary(command: &BankCommand) -> String {
    match command {
        BankCommand::Deposit(it) => {
            format!(
                "deposit {} {} to {}",
                decimal_text(it.amount_minor, it.currency),
                it.currency,
                it.account
            )
        }
        BankCommand::Withdrawal(it) => {
            format!(
                "withdraw {} {} from {}",
                decimal_text(it.amount_minor, it.currency),
                it.currency,
                it.account
            )
        }
        BankCommand::Transfer(it) => {
            let amount = decimal_text(it.amount_minor, it.currency);
            format!("transfer {amount} {} from {} to {}", it.currency, it.from, it.to)
        }
        BankCommand::Reversal(it) => match it.part {
            Some(part) => {
                let amount = decimal_text(part.amount_minor, part.currency);
                format!("reverse {amount} {} of {}", part.currency, it.payment)
            }
            None => format!("reverse what is left of {}", it.payment),
        },
        BankCommand::SetLimits(it) => {
            let mut text = format!("limits of {}: overdraft {}", it.account, it.overdraft_minor);
            for (name, limit) in [("one payment", it.payment_max_minor), ("a day", it.daily_max_minor)] {
                // Writing to a string does not fail.
                let _ = match limit {
                    Some(limit) => write!(text, ", {name} {limit}"),
                    None => write!(text, ", {name} unlimited"),
                };
            }
            text + " (minor units)"
        }
        BankCommand::SetSettlementAccount { partner, account } => {
            format!("credit payments of {partner} to {account}")
        }
        BankCommand::OpenAccount(it) => format!("open {} in {}", it.account, it.currency),
        BankCommand::GrantMandate(it) => format!("grant {} on {}", it.mandate, it.account),
        BankCommand::RevokeMandate { mandate } => format!("revoke {mandate}"),
        BankCommand::DeclineMandate { terms, .. } => format!("decline {}", terms.mandate),
        BankCommand::FreezeAccount { account } => format!("freeze {account}"),
        BankCommand::UnfreezeAccount { account } => format!("unfreeze {account}"),
        BankCommand::CloseAccount { account } => format!("close {account}"),
        BankCommand::RedriveDeadLetters { root } => format!("redrive dead letters of {root}"),
        BankCommand::RejectDeadLetter(it) => {
            format!("reject the dead letter {}", crate::routes::dead_letter_id(it))
        }
    }
}

/// A request that needs a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "apr_01k9q5m3v7f8h9j0kamcneprqs", "status": "waiting", "kind": "deposit",
    "summary": "deposit 1500.00 EUR to acct_01k9q5m3v7f8h9j0kamcneprqs",
    "action": {"bank": {"deposit": {"account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "amount_minor": 150_000, "currency": "EUR"}}},
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "requester": "usr_01k9q5m3v7f8h9j0kamcneprqs", "reason": "cash desk, receipt 17",
    "requested_at": "2026-01-31T12:00:00.000000Z", "expires_at": "2026-02-01T12:00:00.000000Z",
    "command": {"id": "pay_01k9q5m3v7f8h9j0kamcneprqs", "kind": "deposit", "status": "waiting_for_approval",
        "target": "acct_01k9q5m3v7f8h9j0kamcneprqs"}
}))]
pub struct Approval {
    /// The id.
    #[schema(value_type = String, example = "apr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: ApprovalId,
    /// Where it stands.
    pub status: Status,
    /// What is to be done, as a word.
    #[schema(example = "deposit")]
    pub kind: String,
    /// What is to be done, as a line for people.
    #[schema(example = "deposit 1500.00 EUR to acct_01k9q5m3v7f8h9j0kamcneprqs")]
    pub summary: String,
    /// Exactly what will be carried out.
    #[schema(value_type = Object)]
    pub action: Value,
    /// SHA-256 of it in hexadecimal digits, which whoever agrees repeats.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: String,
    /// Who asked.
    #[schema(value_type = String, example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub requester: UserId,
    /// Why.
    #[schema(example = "cash desk, receipt 17")]
    pub reason: String,
    /// When.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub requested_at: Timestamp,
    /// Until when somebody may agree.
    #[schema(value_type = String, example = "2026-02-01T12:00:00.000000Z")]
    pub expires_at: Timestamp,
    /// Who decided.
    #[schema(value_type = Option<String>, example = "usr_01k9q5m3v7f8h9j0kamcneprqt")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decider: Option<UserId>,
    /// Why so.
    #[schema(example = "receipt checked")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decider_reason: Option<String>,
    /// When.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:10:00.000000Z")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// What became of it, when it is a command of the bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandView>,
}

/// The requests as they are shown. What became of their commands is read at once.
pub async fn views(pool: &MySqlPool, rows: Vec<ApprovalRow>) -> Result<Vec<Approval>, sqlx::Error> {
    let approved = rows.iter().filter(|row| row.status == Status::Approved);
    let ids: Vec<Uuid> = approved.map(|row| row.id.uuid()).collect();
    let mut outcomes = commands::outcomes(pool, &ids).await?;
    let mut sent = |id: ApprovalId| outcomes.remove(&id.uuid()).map_or(Sent::Pending, Sent::Decided);
    Ok(rows.into_iter().map(|row| view(&row, &mut sent)).collect())
}

fn view(row: &ApprovalRow, sent: impl FnOnce(ApprovalId) -> Sent) -> Approval {
    let action: Option<Action> = serde_json::from_str(&row.action).ok();
    let command = action.as_ref().and_then(Action::command).map(|command| match row.status {
        Status::Waiting => CommandView::new(row.id.uuid(), command, CommandStatus::WaitingForApproval),
        Status::Approved => CommandView::of(row.id.uuid(), command, &sent(row.id)),
        Status::Rejected | Status::Cancelled | Status::Expired => {
            CommandView::new(row.id.uuid(), command, CommandStatus::NotApproved)
        }
    });
    Approval {
        id: row.id,
        status: row.status,
        kind: row.kind.clone(),
        summary: action.as_ref().map(Action::summary).unwrap_or_default(),
        action: serde_json::from_str(&row.action).unwrap_or_default(),
        digest: hex(&row.action_hash),
        requester: row.requester,
        reason: row.reason.clone(),
        requested_at: row.requested_at,
        expires_at: row.requested_at.plus_seconds(LIFE_S.into()),
        decider: row.decider,
        decider_reason: row.decider_reason.clone(),
        decided_at: row.decided_at,
        command,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 202 with the request, or once it is decided, 200.
pub fn accepted(approval: &Approval) -> Response {
    let status = if approval.status == Status::Waiting { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = (status, axum::Json(approval)).into_response();
    // An id is always a valid value.
    if let Ok(location) = HeaderValue::try_from(format!("/v1/approvals/{}", approval.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Asks a second person. The same caller with the same id finds the request again; with another action it is a
/// conflict.
pub async fn request(
    tx: &mut MySqlConnection,
    caller: &Caller,
    id: Uuid,
    action: Action,
    reason: &str,
) -> Result<Approval, Problem> {
    let id = ApprovalId::from_uuid(id);
    let text = action.text();
    let hash: [u8; 32] = Sha256::digest(&text).into();
    let new = NewApproval {
        id,
        kind: action.word(),
        action: &text,
        action_hash: &hash,
        requester: caller.user,
        reason,
        origin: caller.origin,
    };
    let is_new = match store::by_id(&mut *tx, id).await? {
        Some(_) => false,
        None => match store::insert(tx, &new).await {
            Ok(()) => true,
            Err(error) if is_duplicate(&error) => false,
            Err(error) => return Err(error.into()),
        },
    };
    let row = store::by_id(&mut *tx, id).await?;
    let row = row.ok_or_else(|| Problem::plain(Code::Unavailable).retry_after(1))?;
    let is_command = command_store::by_id(&mut *tx, id.uuid()).await?.is_some();
    let is_same = row.requester == caller.user && row.action_hash == hash;
    if !is_same || (is_command && row.status != Status::Approved) {
        return Err(Problem::plain(Code::IdempotencyConflict));
    }
    if is_new {
        let entry = entry(caller, audit::Action::RequestApproval, &row).with(json!({
            "kind": row.kind, "digest": hex(&hash), "reason": reason
        }));
        audit_store::write(tx, &entry).await?;
    }
    Ok(view(&row, |_| Sent::Pending))
}

fn entry(caller: &Caller, action: audit::Action, row: &ApprovalRow) -> Entry {
    Entry { target: Some(row.id.to_string()), ..Entry::own(caller.user, action, caller.origin) }
}

/// What is said to whoever may not agree.
const NOT_BY_REQUESTER: &str = "whoever asked cannot agree: it takes a second person";
const NOT_BY_OWNER: &str = "whoever it is about does not decide: it takes somebody else";

/// Agrees to a request, which is then carried out. `digest` is what was shown of it.
pub async fn approve(
    app: &App,
    caller: &Caller,
    id: ApprovalId,
    digest: &str,
    reason: &str,
    wait: Wait,
) -> Result<Approval, Problem> {
    match approve_in_transaction(app, caller, id, digest, reason).await {
        Ok(()) => {}
        Err(problem) => {
            if matches!(problem.code, Code::SecondPersonNeeded | Code::ApprovalAltered) {
                refuse(app, caller, id, audit::Action::Approve, &problem).await?;
            }
            return Err(problem);
        }
    }
    let sent = match command_store::by_id(&app.pool, id.uuid()).await {
        Ok(Some(row)) => app.bank.send_approved(app, &row, wait).await,
        // It is agreed to, and the dispatcher goes on with it.
        Ok(None) | Err(_) => Sent::Pending,
    };
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nothing)?;
    Ok(view(&row, |_| sent))
}

async fn approve_in_transaction(
    app: &App,
    caller: &Caller,
    id: ApprovalId,
    digest: &str,
    reason: &str,
) -> Result<(), Problem> {
    let mut tx = app.pool.begin().await?;
    let asked = store::by_id(&mut *tx, id).await?.ok_or_else(nothing)?;
    let mut people = [caller.user, asked.requester];
    people.sort_unstable();
    let mut locked = Vec::with_capacity(2);
    for person in people {
        locked.extend(users::lock(&mut tx, person).await?);
    }
    let row = store::lock(&mut tx, id).await?.ok_or_else(nothing)?;
    let hash: [u8; 32] = Sha256::digest(&row.action).into();
    let altered = || Problem::plain(Code::ApprovalAltered);
    let action: Action = serde_json::from_str(&row.action).map_err(|_| altered())?;
    let may = |user: UserId| {
        let found = locked.iter().find(|found| found.id == user);
        found.is_some_and(|found| found.status == UserStatus::Active && action.may(found.role))
    };
    if !may(caller.user) {
        return Err(Problem::plain(Code::RoleMissing));
    }
    if row.status == Status::Approved && row.decider == Some(caller.user) {
        // The same once more.
        return Ok(());
    }
    if caller.user == row.requester {
        return Err(Problem::new(Code::SecondPersonNeeded, NOT_BY_REQUESTER));
    }
    if row.status != Status::Waiting {
        return Err(decided(&row));
    }
    if !may(row.requester) {
        return Err(Problem::new(Code::Conflict, "whoever asked may not do this any more"));
    }
    if hash[..] != row.action_hash || action.text() != row.action || !digest.eq_ignore_ascii_case(&hex(&hash))
    {
        return Err(altered());
    }
    if action.owners(&mut tx).await?.contains(&caller.user) {
        return Err(Problem::new(Code::SecondPersonNeeded, NOT_BY_OWNER));
    }
    if !store::decide(&mut tx, id, Status::Approved, caller.user, reason).await? {
        return Err(decided(&row));
    }
    carry_out(&mut tx, app, caller, &row, &action).await?;
    let entry = entry(caller, audit::Action::Approve, &row);
    audit_store::write(&mut tx, &entry.with(json!({ "kind": row.kind, "reason": reason }))).await?;
    tx.commit().await?;
    if matches!(action, Action::Staff(_)) {
        // Here it counts at once, on other replicas when what they remember is read again.
        app.sessions.forget_all();
        app.mail_waits.notify_one();
    }
    Ok(())
}

/// Does what was agreed to, in the transaction that says so.
async fn carry_out(
    tx: &mut MySqlConnection,
    app: &App,
    caller: &Caller,
    row: &ApprovalRow,
    action: &Action,
) -> Result<(), Problem> {
    match action {
        Action::Bank(command) => {
            let envelope = BankEnvelope {
                schema: SCHEMA,
                id: row.id.uuid(),
                actor: row.requester,
                reason: row.reason.clone(),
                request_id: row.request_id,
                address: row.address.as_deref().and_then(address),
                command: command.clone(),
            };
            if !bank::write_down_approved(tx, &envelope).await? {
                return Err(Problem::plain(Code::IdempotencyConflict));
            }
            Ok(())
        }
        Action::Partner(change) => partners::apply(tx, app, change, &approved(caller, row)).await,
        Action::Staff(change) => staff::apply(tx, app, change, &approved(caller, row)).await,
    }
}

fn approved(caller: &Caller, row: &ApprovalRow) -> Approved {
    Approved {
        approval: row.id.to_string(),
        requester: row.requester,
        approver: caller.user,
        reason: row.reason.clone(),
        origin: caller.origin,
    }
}

fn address(stored: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(stored)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(stored).map(IpAddr::from))
        .ok()
}

fn nothing() -> Problem {
    Problem::plain(Code::NotFound)
}

fn decided(row: &ApprovalRow) -> Problem {
    let detail = match row.status {
        Status::Expired => "it has waited for more than 24 hours; ask again with another Idempotency-Key",
        Status::Approved => "somebody agreed to it already",
        Status::Rejected => "it was rejected",
        Status::Cancelled => "whoever asked took it back",
        Status::Waiting => "somebody decided at the same moment",
    };
    Problem::new(Code::Conflict, detail)
}

/// Writes down that somebody tried what he must not.
async fn refuse(
    app: &App,
    caller: &Caller,
    id: ApprovalId,
    action: audit::Action,
    problem: &Problem,
) -> Result<(), Problem> {
    let target = Some(id.to_string());
    let entry = Entry { target, ..Entry::own(caller.user, action, caller.origin) };
    let mut tx = app.pool.begin().await?;
    audit_store::write(&mut tx, &entry.refused().with(json!({ "why": problem.detail }))).await?;
    tx.commit().await?;
    Ok(())
}

/// Says no, or takes the own request back.
pub async fn end(
    app: &App,
    caller: &Caller,
    id: ApprovalId,
    to: Status,
    reason: &str,
) -> Result<Approval, Problem> {
    let mut tx = app.pool.begin().await?;
    let asked = store::by_id(&mut *tx, id).await?.ok_or_else(nothing)?;
    let user = users::lock(&mut tx, caller.user).await?;
    let row = store::lock(&mut tx, id).await?.ok_or_else(nothing)?;
    let is_own = asked.requester == caller.user;
    let action = match to {
        Status::Cancelled if !is_own => {
            return Err(Problem::new(Code::Conflict, "only whoever asked takes it back: reject it instead"));
        }
        Status::Cancelled => audit::Action::CancelApproval,
        Status::Rejected if is_own => {
            return Err(Problem::new(Code::Conflict, "it is your own request: cancel it instead"));
        }
        _ => audit::Action::RejectApproval,
    };
    // One that cannot be read can only be rejected, by anybody who runs the bank.
    let what: Option<Action> = serde_json::from_str(&row.action).ok();
    let may = |role| what.as_ref().map_or_else(|| bank::may(role), |what| what.may(role));
    if !user.is_some_and(|user| user.status == UserStatus::Active && (is_own || may(user.role))) {
        return Err(Problem::plain(Code::RoleMissing));
    }
    if row.status == to && row.decider == Some(caller.user) {
        return Ok(view(&row, |_| Sent::Pending));
    }
    if row.status != Status::Waiting || !store::decide(&mut tx, id, to, caller.user, reason).await? {
        return Err(decided(&row));
    }
    if let (Status::Rejected, Some(what)) = (to, &what)
        && what.owners(&mut tx).await?.contains(&caller.user)
    {
        // Or whoever is to be disabled would stay for ever.
        return Err(Problem::new(Code::SecondPersonNeeded, NOT_BY_OWNER));
    }
    let entry = entry(caller, action, &row);
    audit_store::write(&mut tx, &entry.with(json!({ "kind": row.kind, "reason": reason }))).await?;
    let row = store::by_id(&mut *tx, id).await?.ok_or_else(nothing)?;
    tx.commit().await?;
    Ok(view(&row, |_| Sent::Pending))
}
