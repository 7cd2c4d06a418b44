//! Staff: invitations, roles, disabling, and erasing a customer who asked for it. Every answer is 202 and an approval to
//! be given by another admin, but the invitation of the second admin, whom nobody else could approve.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::ids::UserId;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::commands::Why;
use super::documents::ProblemShape;
use super::fields::Fields;
use super::users::{User, masked};
use crate::access::{Admin, Caller, Fresh};
use crate::app::App;
use crate::approvals::{self, Approval};
use crate::audit::{Action, Entry};
use crate::body::{FromPath, Json};
use crate::create_admin::ADMINS;
use crate::idempotency::IdempotencyKey;
use crate::personal::{Email, Field};
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::second_person::ask;
use crate::staff::{self, StaffChange};
use crate::store::users::{self as store, UserRow};
use crate::store::{audit, is_duplicate};

/// Who is to join the staff.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The address, which the link will have to reach.
    #[schema(example = "otto@example.com", max_length = 254)]
    email: String,
    /// The name, in any script.
    #[schema(example = "Otto Ohm", min_length = 1, max_length = 100)]
    name: String,
    /// `operator`, `auditor` or `admin`.
    #[schema(example = "operator")]
    role: String,
    /// Why, in 5 to 300 characters.
    #[schema(example = "joins the night shift", min_length = 5, max_length = 300)]
    reason: String,
}

/// Another role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    /// `operator`, `auditor` or `admin`.
    #[schema(example = "auditor")]
    role: String,
    /// Why, in 5 to 300 characters.
    #[schema(example = "moves to the auditors", min_length = 5, max_length = 300)]
    reason: String,
}

/// Invite somebody to the staff
///
/// Once another admin has approved it, a mail brings a link that counts once and for 30 minutes, by which the password
/// is set. Of somebody who was invited and has not come, a new invitation replaces the old one. While there are fewer
/// than two active admins, nobody has to approve (201).
#[utoipa::path(
    post, path = "/v1/users/invitations", tag = "users", operation_id = "invite_staff", security(("access_token" = [])),
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "invite-otto")),
    request_body(content = Invitation, example = json!({"email": "otto@example.com", "name": "Otto Ohm", "role": "operator", "reason": "joins the night shift"})),
    responses(
        (status = 201, description = "Invited", body = User),
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 409, description = "A user with this address exists", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn invite(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    key: IdempotencyKey,
    Json(body): Json<Invitation>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (email, name) = (fields.email(&body.email), fields.name(&body.name));
    let (role, reason) = (staff_role(&mut fields, &body.role), fields.reason(&body.reason));
    fields.done()?;
    let (Some(email), Some(role)) = (email, role) else { return Err(Problem::plain(Code::InvalidField)) };
    let mut transaction = app.pool.begin().await?;
    let admins = store::lock_active_admins(&mut transaction).await?;
    let user = match invited(&app, &mut transaction, &email, &name, role).await {
        // Two at once: the other one did it.
        Err(InviteError::Database(error)) if is_duplicate(&error) => return Err(exists()),
        Err(InviteError::Database(error)) => return Err(error.into()),
        Err(InviteError::Exists) => return Err(exists()),
        Ok(user) => user,
    };
    if admins < ADMINS {
        staff::invite(&mut transaction, &app, &user, role).await?;
        let entry = Entry {
            target: Some(user.id.to_string()),
            ..Entry::own(caller.user, Action::InviteStaff, caller.origin)
        };
        audit::write(&mut transaction, &entry.with(json!({ "role": role, "reason": reason }))).await?;
        transaction.commit().await?;
        app.mail_waits.notify_one();
        let user = masked(&app, &UserRow { role, ..user })?;
        return Ok((StatusCode::CREATED, axum::Json(user)).into_response());
    }
    let change = approvals::Action::Staff(StaffChange::Invite { user: user.id, role });
    let approval =
        approvals::request(&mut transaction, &caller, key.command_id(caller.user), change, &reason).await?;
    transaction.commit().await?;
    Ok(approvals::accepted(&approval))
}

enum InviteError {
    Exists,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for InviteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

fn exists() -> Problem {
    Problem::new(Code::Conflict, "a user with this address exists")
}

/// The row of who is invited: a new one, or that of somebody who is not in yet, which stays as it is until somebody
/// approves.
async fn invited(
    app: &App,
    db: &mut sqlx::MySqlConnection,
    email: &Email,
    name: &str,
    role: Role,
) -> Result<UserRow, InviteError> {
    let index = app.personal.email_index(email);
    match store::by_email(&mut *db, &index).await? {
        Some(user) if user.status == UserStatus::Registered => return Ok(user),
        Some(_) => return Err(InviteError::Exists),
        None => {}
    }
    let id = UserId::from_uuid(Uuid::now_v7());
    let (person, data_key_sealed) = app.personal.new_person(id);
    let new = store::NewUser {
        id,
        role,
        data_key_sealed,
        email_index: index,
        email_sealed: person.seal(Field::Email, email.as_str().as_bytes()),
        name_sealed: person.seal(Field::Name, name.as_bytes()),
    };
    store::insert(db, &new).await?;
    let row = store::by_id(&mut *db, id).await?;
    row.ok_or_else(|| InviteError::Database(sqlx::Error::RowNotFound))
}

fn staff_role(fields: &mut Fields, word: &str) -> Option<Role> {
    let found = Role::ALL.into_iter().find(|role| role.is_staff() && role.as_str() == word);
    if found.is_none() {
        fields.refuse("/role", "unknown_value", "a member of the staff is operator, auditor or admin");
    }
    found
}

/// Asks for a change of somebody else.
async fn ask_of_another(
    app: &App,
    caller: &Caller,
    key: &IdempotencyKey,
    change: StaffChange,
    reason: &str,
) -> Result<Response, Problem> {
    if change.about() == caller.user {
        return Err(Problem::new(Code::Conflict, "nobody decides about themselves"));
    }
    ask(app, caller, key, approvals::Action::Staff(change), reason).await
}

/// Give a member of the staff another role
///
/// Another admin approves it. Running sessions may do what the new role may within 5 seconds.
#[utoipa::path(
    post, path = "/v1/users/{id}/role", tag = "users", operation_id = "change_role", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "role-otto")
    ),
    request_body(content = RoleChange, example = json!({"role": "auditor", "reason": "moves to the auditors"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "As things stand it cannot be done", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn change_role(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(user): FromPath<UserId>,
    key: IdempotencyKey,
    Json(body): Json<RoleChange>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (role, reason) = (staff_role(&mut fields, &body.role), fields.reason(&body.reason));
    fields.done()?;
    let role = role.ok_or_else(|| Problem::plain(Code::InvalidField))?;
    ask_of_another(&app, &caller, &key, StaffChange::SetRole { user, role }, &reason).await
}

/// Disable a user
///
/// Another admin approves it. All sessions end within 5 seconds, and nobody logs in as this user any more.
#[utoipa::path(
    post, path = "/v1/users/{id}/disabling", tag = "users", operation_id = "disable_user", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "disable-otto")
    ),
    request_body(content = Why, example = json!({"reason": "left the bank"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "As things stand it cannot be done", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn disable(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(user): FromPath<UserId>,
    key: IdempotencyKey,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    ask_of_another(&app, &caller, &key, StaffChange::Disable { user }, &why.checked()?).await
}

/// Enable a user
///
/// Another admin approves it. Password and second factor are what they were.
#[utoipa::path(
    post, path = "/v1/users/{id}/enabling", tag = "users", operation_id = "enable_user", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "enable-otto")
    ),
    request_body(content = Why, example = json!({"reason": "came back to the bank"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "As things stand it cannot be done", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn enable(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(user): FromPath<UserId>,
    key: IdempotencyKey,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    ask_of_another(&app, &caller, &key, StaffChange::Enable { user }, &why.checked()?).await
}

/// Erase a customer
///
/// For a customer who asks for it and whose accounts are closed. Another admin approves it. What is sealed of the person
/// can never be read again; the ledger, which knows no names, stays.
#[utoipa::path(
    post, path = "/v1/users/{id}/erasure", tag = "users", operation_id = "erase_user", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "erase-anna")
    ),
    request_body(content = Why, example = json!({"reason": "asked by letter of 3 May"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "An account is still open, or it is no customer", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn erase(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(user): FromPath<UserId>,
    key: IdempotencyKey,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    ask_of_another(&app, &caller, &key, StaffChange::Erase { user }, &why.checked()?).await
}
