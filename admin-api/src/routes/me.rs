//! Everybody's own profile and data.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::{AccountId, SessionId, UserId};
use domain::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::auth::{Attempt, check_password, email_of};
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Customer, Fresh, Person, Signed};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::{FromPath, Json};
use crate::personal::Field;
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::staff;
use crate::store::mails::{self, MailKind};
use crate::store::users::{self, UserRow};
use crate::store::{audit, links, sessions};

/// A person's own profile.
#[derive(Serialize, ToSchema)]
pub struct Profile {
    /// The id.
    #[schema(value_type = String, example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub(super) id: UserId,
    /// The role.
    pub(super) role: Role,
    /// The address.
    #[schema(example = "anna@example.com")]
    pub(super) email: String,
    /// The name.
    #[schema(example = "Anna Bell")]
    pub(super) name: String,
    /// The telephone number.
    #[schema(example = "+43 1 234 56 78")]
    pub(super) phone: Option<String>,
    /// The postal address.
    #[schema(example = "Ring 1\n1010 Wien")]
    pub(super) address: Option<String>,
    /// Whether there is a second factor.
    #[schema(example = false)]
    pub(super) second_factor: bool,
    /// Since when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub(super) created_at: Timestamp,
}

/// What is to change; a field that is left out stays, an empty one is removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileChange {
    /// The name.
    #[schema(example = "Anna Bell", max_length = 100)]
    name: Option<String>,
    /// The telephone number.
    #[schema(example = "+43 1 234 56 78", max_length = 30)]
    phone: Option<String>,
    /// The postal address.
    #[schema(example = "Ring 1\n1010 Wien", max_length = 300)]
    address: Option<String>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The one that counts now.
    #[schema(example = "seven quiet herons")]
    current_password: String,
    /// 12 to 256 bytes, and none of the commonest.
    #[schema(example = "eight loud herons", min_length = 12, max_length = 256)]
    new_password: String,
}

/// Everything that is kept of a person beside the ledger.
#[derive(Serialize, ToSchema)]
pub struct Export {
    /// The profile.
    profile: Profile,
    /// The own accounts; their statements are read there.
    #[schema(value_type = Vec<String>, example = json!(["acct_01k9q5m3v7f8h9j0kamcneprqs"]))]
    accounts: Vec<AccountId>,
    /// Log-ins, newest first, at most 1,000.
    sessions: Vec<ExportedSession>,
    /// What the person did, newest first, at most 1,000.
    actions: Vec<ExportedAction>,
}

/// A log-in.
#[derive(Serialize, ToSchema)]
pub struct ExportedSession {
    /// From when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
    /// Until when.
    #[schema(value_type = String, example = "2026-01-31T20:00:00.000000Z")]
    ended_at: Timestamp,
}

/// A row of the audit log.
#[derive(Serialize, ToSchema)]
pub struct ExportedAction {
    /// When.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    at: Timestamp,
    /// What.
    #[schema(example = "user.log_in")]
    action: String,
    /// Whether it was done, or refused.
    #[schema(example = true)]
    done: bool,
}

/// A live log-in.
#[derive(Serialize, ToSchema)]
pub struct LiveSession {
    /// The id.
    #[schema(value_type = String, example = "ses_01k9q5m3v7f8h9j0kamcneprqs")]
    id: SessionId,
    /// Whether this request belongs to it.
    #[schema(example = true)]
    current: bool,
    /// Since when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = String, example = "2026-01-31T20:00:00.000000Z")]
    expires_at: Timestamp,
}

/// Live log-ins, newest first.
#[derive(Serialize, ToSchema)]
pub struct LiveSessions {
    /// At most 20.
    data: Vec<LiveSession>,
}

/// Opens everything of a user; `None` once erased.
pub(super) fn open(app: &App, user: &UserRow) -> Result<Option<Profile>, Problem> {
    let Some(data_key) = &user.data_key_sealed else { return Ok(None) };
    let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
    let open = |field, sealed: &Option<Vec<u8>>| {
        let opened = sealed.as_ref().map(|sealed| person.open_text(field, sealed)).transpose();
        opened.map_err(|error| Problem::internal(&error))
    };
    Ok(Some(Profile {
        id: user.id,
        role: user.role,
        email: open(Field::Email, &user.email_sealed)?.unwrap_or_default(),
        name: open(Field::Name, &user.name_sealed)?.unwrap_or_default(),
        phone: open(Field::Phone, &user.phone_sealed)?,
        address: open(Field::Address, &user.address_sealed)?,
        second_factor: user.totp_confirmed,
        created_at: user.created_at,
    }))
}

fn gone() -> Problem {
    Problem::plain(Code::TokenInvalid)
}

/// The own profile
#[utoipa::path(
    get, path = "/v1/me", tag = "me", operation_id = "read_me", security(("access_token" = [])),
    responses(
        (status = 200, description = "The profile", body = Profile),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
) -> Result<axum::Json<Profile>, Problem> {
    let user = users::by_id(&app.pool, caller.user).await?.ok_or_else(gone)?;
    open(&app, &user)?.map(axum::Json).ok_or_else(gone)
}

/// Change the own profile
#[utoipa::path(
    patch, path = "/v1/me", tag = "me", operation_id = "change_me", security(("access_token" = [])),
    request_body(content = ProfileChange, example = json!({"phone": "+43 1 234 56 78"})),
    responses(
        (status = 200, description = "The profile after the change", body = Profile),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Person(caller): Person,
    Json(body): Json<ProfileChange>,
) -> Result<axum::Json<Profile>, Problem> {
    let mut fields = Fields::default();
    let name = body.name.as_deref().map(|name| fields.name(name));
    let phone = body.phone.as_deref().map(|phone| fields.phone(phone));
    let address = body.address.as_deref().map(|address| fields.address(address));
    fields.done()?;
    let changed: Vec<_> =
        [("name", name.is_some()), ("phone", phone.is_some()), ("address", address.is_some())]
            .into_iter()
            .filter_map(|(field, is_changed)| is_changed.then_some(field))
            .collect();
    let mut transaction = app.pool.begin().await?;
    let mut user = users::lock(&mut transaction, caller.user).await?.ok_or_else(gone)?;
    let data_key = user.data_key_sealed.as_deref().ok_or_else(gone)?;
    let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
    if let Some(name) = name {
        user.name_sealed = Some(person.seal(Field::Name, name.as_bytes()));
    }
    if let Some(phone) = phone {
        user.phone_sealed = phone.map(|phone| person.seal(Field::Phone, phone.as_bytes()));
    }
    if let Some(address) = address {
        user.address_sealed = address.map(|address| person.seal(Field::Address, address.as_bytes()));
    }
    let [name, phone, address] =
        [&user.name_sealed, &user.phone_sealed, &user.address_sealed].map(Option::as_deref);
    users::set_profile(&mut transaction, user.id, name, phone, address).await?;
    let entry = Entry::own(user.id, Action::ChangeProfile, caller.origin).with(json!({ "fields": changed }));
    audit::write(&mut transaction, &entry).await?;
    transaction.commit().await?;
    open(&app, &user)?.map(axum::Json).ok_or_else(gone)
}

/// Change the own password
///
/// All other sessions end.
#[utoipa::path(
    post, path = "/v1/me/password", tag = "me", operation_id = "change_password", security(("access_token" = [])),
    request_body(content = PasswordChange, example = json!({"current_password": "seven quiet herons", "new_password": "eight loud herons"})),
    responses(
        (status = 204, description = "Changed"),
        (status = 401, description = "The current password is wrong", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn change_password(
    State(app): State<Arc<App>>,
    Person(caller): Person,
    Json(body): Json<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let user = users::by_id(&app.pool, caller.user).await?.ok_or_else(gone)?;
    let email = email_of(&app, &user)?.ok_or_else(gone)?;
    let mut fields = Fields::default();
    fields.new_password("/new_password", &body.new_password, email.as_str());
    fields.done()?;
    app.hasher.check_room()?;
    let attempt = Attempt::begin(&app, app.personal.email_index(&email), caller.origin).await?;
    let user =
        check_password(&app, &attempt, Some(user), &body.current_password, Action::ChangePassword).await?;
    let hash = app.hasher.hash(&body.new_password).await?;
    let mut transaction = app.pool.begin().await?;
    let locked = users::lock(&mut transaction, user.id).await?.ok_or_else(gone)?;
    if locked.password_hash != user.password_hash || locked.status != UserStatus::Active {
        return Err(Problem::plain(Code::CredentialsInvalid));
    }
    users::set_password(&mut transaction, user.id, &hash).await?;
    links::delete_all(&mut transaction, user.id).await?;
    sessions::revoke_all(&mut transaction, user.id, Some(caller.session)).await?;
    mails::insert(&mut *transaction, &attempt.index, MailKind::PasswordChanged).await?;
    audit::write(&mut transaction, &Entry::own(user.id, Action::ChangePassword, caller.origin)).await?;
    transaction.commit().await?;
    attempt.succeeded(&app);
    app.sessions.forget_all();
    app.mail_waits.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Everything that is kept of you
///
/// Beside the ledger, whose statements are read by account.
#[utoipa::path(
    post, path = "/v1/me/exports", tag = "me", operation_id = "export_me", security(("access_token" = [])),
    responses(
        (status = 200, description = "The data", body = Export),
    )
)]
pub async fn export(
    State(app): State<Arc<App>>,
    Fresh(Person(caller)): Fresh<Person>,
) -> Result<axum::Json<Export>, Problem> {
    let mut transaction = app.pool.begin().await?;
    let user = users::by_id(&mut *transaction, caller.user).await?.ok_or_else(gone)?;
    let profile = open(&app, &user)?.ok_or_else(gone)?;
    let accounts = users::accounts(&mut transaction, user.id).await?;
    let sessions = sessions::history(&mut transaction, user.id).await?;
    let actions = audit::of_actor(&mut transaction, user.id).await?;
    audit::write(&mut transaction, &Entry::own(user.id, Action::ExportOwnData, caller.origin)).await?;
    transaction.commit().await?;
    Ok(axum::Json(Export {
        profile,
        accounts: accounts.into_iter().map(|(id, _)| AccountId::from_uuid(id)).collect(),
        sessions: sessions
            .into_iter()
            .map(|(created_at, ended_at)| ExportedSession { created_at, ended_at })
            .collect(),
        actions: actions.into_iter().map(|(at, action, done)| ExportedAction { at, action, done }).collect(),
    }))
}

/// Erase yourself
///
/// For customers whose accounts are closed. What is sealed of the person can never be read again; the ledger, which
/// knows no names, stays.
#[utoipa::path(
    delete, path = "/v1/me", tag = "me", operation_id = "erase_me", security(("access_token" = [])),
    responses(
        (status = 204, description = "Erased", example = json!(null)),
        (status = 409, description = "An account is still open", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn erase(
    State(app): State<Arc<App>>,
    Fresh(Customer(caller)): Fresh<Customer>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    users::lock(&mut transaction, caller.user).await?.ok_or_else(gone)?;
    staff::erase(&mut transaction, caller.user).await?;
    audit::write(&mut transaction, &Entry::own(caller.user, Action::Erase, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget_all();
    Ok(StatusCode::NO_CONTENT)
}

/// Where you are logged in
#[utoipa::path(
    get, path = "/v1/me/sessions", tag = "me", operation_id = "list_sessions", security(("access_token" = [])),
    responses(
        (status = 200, description = "The sessions", body = LiveSessions),
    )
)]
pub async fn list_sessions(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
) -> Result<axum::Json<LiveSessions>, Problem> {
    let rows = sessions::live(&app.pool, caller.user).await?;
    let data = rows.into_iter().map(|(id, created_at, expires_at)| LiveSession {
        id: SessionId::from_uuid(id),
        current: id == caller.session,
        created_at,
        expires_at,
    });
    Ok(axum::Json(LiveSessions { data: data.collect() }))
}

/// Log out elsewhere
#[utoipa::path(
    delete, path = "/v1/me/sessions/{id}", tag = "me", operation_id = "end_session", security(("access_token" = [])),
    params(("id" = String, Path, description = "The session", example = "ses_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 204, description = "It has ended", example = json!(null)),
        (status = 404, description = "You have no such session", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn end_session(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    FromPath(id): FromPath<SessionId>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    if !sessions::revoke_own(&mut transaction, id.uuid(), caller.user).await? {
        return Err(Problem::plain(Code::NotFound));
    }
    let entry =
        Entry { target: Some(id.to_string()), ..Entry::own(caller.user, Action::LogOut, caller.origin) };
    audit::write(&mut transaction, &entry).await?;
    transaction.commit().await?;
    app.sessions.forget(id.uuid());
    Ok(StatusCode::NO_CONTENT)
}
