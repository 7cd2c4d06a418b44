//! Registering, logging in and out. Nothing here tells whether an address is registered: answers, their cost and what
//! is written are the same for known and unknown ones.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use domain::ids::UserId;
use domain::time::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::documents::ProblemShape;
use super::fields::Fields;
use super::second_factor::take_code;
use crate::access::{Signed, Visitor};
use crate::app::App;
use crate::audit::{Action, Entry, Origin, Outcome};
use crate::body::Json;
use crate::jwt::{Bearer, LIFETIME_S};
use crate::metrics;
use crate::password;
use crate::personal::{Email, Field, Index, network};
use crate::problem::{Code, Problem};
use crate::random::{Token, token_hash};
use crate::roles::{Role, UserStatus};
use crate::store::links::{self, Purpose};
use crate::store::mails::{self, MailKind};
use crate::store::sessions as sessions_store;
use crate::store::users::{self, UserRow};
use crate::store::{audit, is_duplicate};
use crate::throttle::seconds;

/// How long a session of staff lives, whatever happens: a working day.
const STAFF_SESSION_S: u32 = 8 * 3_600;
/// How long a customer's session lives.
const CUSTOMER_SESSION_S: u32 = 30 * 24 * 3_600;
/// Live sessions of one user; with one more, the oldest ends.
const SESSIONS_MAX: u32 = 20;

/// Somebody wants to be a customer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The address, which a mail will have to reach.
    #[schema(example = "anna@example.com", max_length = 254)]
    email: String,
    /// The name, in any script.
    #[schema(example = "Anna Bell", min_length = 1, max_length = 100)]
    name: String,
}

/// Somebody has forgotten a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    /// The address.
    #[schema(example = "anna@example.com", max_length = 254)]
    email: String,
}

/// A password for whom a link was made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The `token` of the link.
    #[schema(example = "4Tn0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1")]
    token: String,
    /// 12 to 256 bytes, and none of the commonest.
    #[schema(example = "seven quiet herons", min_length = 12, max_length = 256)]
    password: String,
}

/// Who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The address.
    #[schema(example = "anna@example.com", max_length = 254)]
    email: String,
    /// The password.
    #[schema(example = "seven quiet herons", max_length = 256)]
    password: String,
    /// Of staff: six digits of the authenticator, or a recovery code.
    #[schema(example = "492039", nullable)]
    code: Option<String>,
}

/// What continues a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The refresh token of the last answer; it counts once.
    #[schema(example = "qT0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1A")]
    refresh_token: String,
}

/// A proof that it is still the same person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Of customers: the password.
    #[schema(example = "seven quiet herons", nullable)]
    password: Option<String>,
    /// Of staff: six digits of the authenticator, or a recovery code.
    #[schema(example = "492039", nullable)]
    code: Option<String>,
}

/// What was asked for is done if it can be; who owns the address learns more by mail.
#[derive(Serialize, ToSchema)]
#[schema(as = MailAccepted)]
pub struct Accepted {
    /// Always `accepted`.
    #[schema(example = "accepted")]
    status: &'static str,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// A JWT to send as `Authorization: Bearer …`.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSIsImtpZCI6IsKrIn0.eyJpc3MiOiLigKYifQ.4oCm")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    expires_in: u64,
    /// For a new access token, once. Seeing it twice ends the session.
    #[schema(example = "qT0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1A")]
    refresh_token: String,
    /// When the session ends, whatever happens.
    #[schema(value_type = String, example = "2026-02-01T17:00:00.000000Z")]
    session_expires_at: Timestamp,
    /// Whether a second factor has to be set up before anything else.
    #[schema(example = false)]
    second_factor_missing: bool,
}

pub(super) fn accepted() -> (StatusCode, axum::Json<Accepted>) {
    (StatusCode::ACCEPTED, axum::Json(Accepted { status: "accepted" }))
}

/// Bounds what a network may ask mails for; `false`: this address gets no more mails for a while, and nobody is told.
pub(super) fn may_mail(app: &App, origin: Origin, email: &Index, kind: MailKind) -> Result<bool, Problem> {
    if let Some(address) = origin.address {
        let taken = app.throttles.network_mails.try_take(network(address));
        taken.map_err(|wait| Problem::plain(Code::TooManyRequests).retry_after(seconds(wait)))?;
    }
    Ok(app.throttles.address_mails.try_take((*email, kind)).is_ok())
}

/// Register as a customer
///
/// The answer is the same for every address. A mail brings a link that counts once and for 30 minutes, by which the
/// password is set; without it nothing comes of the registration.
#[utoipa::path(
    post, path = "/v1/auth/registrations", tag = "auth", operation_id = "register",
    request_body(content = Registration, example = json!({"email": "anna@example.com", "name": "Anna Bell"})),
    responses(
        (status = 202, description = "A mail is on its way, if one can be sent", body = Accepted, example = json!({"status": "accepted"})),
    )
)]
pub async fn register(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<Registration>,
) -> Result<(StatusCode, axum::Json<Accepted>), Problem> {
    let mut fields = Fields::default();
    let (email, name) = (fields.email(&body.email), fields.name(&body.name));
    fields.done()?;
    let Some(email) = email else { return Err(Problem::plain(Code::InvalidField)) };
    let index = app.personal.email_index(&email);
    if may_mail(&app, origin, &index, MailKind::Registration)? {
        match write_registration(&app, origin, &email, &index, &name).await {
            Ok(()) => app.mail_waits.notify_one(),
            // Two at once: the other one did it.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(accepted())
}

async fn write_registration(
    app: &App,
    origin: Origin,
    email: &Email,
    index: &Index,
    name: &str,
) -> Result<(), sqlx::Error> {
    let id = UserId::from_uuid(Uuid::now_v7());
    let (person, data_key_sealed) = app.personal.new_person(id);
    let mut transaction = app.pool.begin().await?;
    let known = users::by_email(&mut *transaction, index).await?;
    let (target, kind) = match known {
        None => {
            let user = users::NewUser {
                id,
                role: Role::Customer,
                data_key_sealed,
                email_index: *index,
                email_sealed: person.seal(Field::Email, email.as_str().as_bytes()),
                name_sealed: person.seal(Field::Name, name.as_bytes()),
            };
            users::insert(&mut transaction, &user).await?;
            (id, MailKind::Registration)
        }
        // The name of the first registration stays: whoever gets the mail can change it.
        Some(user) if user.status == UserStatus::Registered && user.role == Role::Customer => {
            (user.id, MailKind::Registration)
        }
        Some(user) => (user.id, MailKind::RegisteredAlready),
    };
    mails::insert(&mut *transaction, index, kind).await?;
    let entry = Entry { actor: None, ..Entry::own(target, Action::Register, origin) };
    audit::write(&mut transaction, &entry).await?;
    transaction.commit().await
}

/// Ask for a link to set a forgotten password
///
/// The answer is the same for every address.
#[utoipa::path(
    post, path = "/v1/auth/password-resets", tag = "auth", operation_id = "ask_password_reset",
    request_body(content = ResetRequest, example = json!({"email": "anna@example.com"})),
    responses(
        (status = 202, description = "A mail is on its way, if somebody has this address", body = Accepted, example = json!({"status": "accepted"})),
    )
)]
pub async fn ask_password_reset(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<ResetRequest>,
) -> Result<(StatusCode, axum::Json<Accepted>), Problem> {
    let mut fields = Fields::default();
    let email = fields.email(&body.email);
    fields.done()?;
    let Some(email) = email else { return Err(Problem::plain(Code::InvalidField)) };
    let index = app.personal.email_index(&email);
    if may_mail(&app, origin, &index, MailKind::Reset)? {
        let mut transaction = app.pool.begin().await?;
        // Nobody is looked up: the sender of mails finds out whether somebody has the address.
        mails::insert(&mut *transaction, &index, MailKind::Reset).await?;
        let entry = Entry {
            actor: None,
            action: Action::AskPasswordReset,
            target: None,
            outcome: Outcome::Done,
            detail: json!({}),
            origin,
        };
        audit::write(&mut transaction, &entry).await?;
        transaction.commit().await?;
        app.mail_waits.notify_one();
    }
    Ok(accepted())
}

/// Set the password by a link
///
/// Completes a registration, replaces a forgotten password, or is an admin's first. The link counts once; all sessions
/// and all other links of the user end.
#[utoipa::path(
    post, path = "/v1/auth/passwords", tag = "auth", operation_id = "set_password",
    request_body(content = NewPassword, example = json!({"token": "4Tn0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1", "password": "seven quiet herons"})),
    responses(
        (status = 204, description = "The password is set; log in with it"),
    )
)]
pub async fn set_password(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    let invalid = || Problem::plain(Code::LinkInvalid);
    let token = token_hash(body.token.trim());
    // Looked at before the password is hashed: guessing links costs nobody a core.
    let (id, purpose) = links::find(&app.pool, &token).await?.ok_or_else(invalid)?;
    let user = users::by_id(&app.pool, id).await?.filter(|user| sets_password(purpose, user));
    let user = user.ok_or_else(invalid)?;
    let email = email_of(&app, &user)?.ok_or_else(invalid)?;
    let mut fields = Fields::default();
    fields.new_password("/password", &body.password, email.as_str());
    fields.done()?;
    let hash = app.hasher.hash(&body.password).await?;

    let mut transaction = app.pool.begin().await?;
    let user = users::lock(&mut transaction, id).await?.ok_or_else(invalid)?;
    let (_, purpose) = links::find(&mut *transaction, &token).await?.ok_or_else(invalid)?;
    if !sets_password(purpose, &user) || !links::consume(&mut transaction, &token).await? {
        return Err(invalid());
    }
    if purpose == Purpose::Admin
        && users::lock_active_admins(&mut transaction).await? >= crate::create_admin::ADMINS
    {
        return Err(Problem::new(
            Code::Conflict,
            "there are two active admins already: let them make further ones",
        ));
    }
    users::set_password(&mut transaction, id, &hash).await?;
    links::delete_all(&mut transaction, id).await?;
    sessions_store::revoke_all(&mut transaction, id, None).await?;
    let index = app.personal.email_index(&email);
    if purpose == Purpose::Reset {
        mails::insert(&mut *transaction, &index, MailKind::PasswordChanged).await?;
    }
    audit::write(&mut transaction, &Entry::own(id, Action::SetPassword, origin)).await?;
    transaction.commit().await?;
    app.sessions.forget_all();
    app.mail_waits.notify_one();
    // Who reaches the mailbox is the owner: guesses of others do not keep them out any longer.
    app.throttles.user_failures.forgive(&index);
    if let Some(address) = origin.address {
        app.throttles.pair_failures.forgive(&(index, network(address)));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a link for this sets the password of this user.
fn sets_password(purpose: Purpose, user: &UserRow) -> bool {
    match purpose {
        Purpose::Registration => user.status == UserStatus::Registered && user.role == Role::Customer,
        Purpose::Reset => user.status == UserStatus::Active,
        Purpose::Admin => user.status == UserStatus::Registered && user.role == Role::Admin,
        Purpose::NewAddress => false,
        Purpose::Staff => user.status == UserStatus::Registered && user.role.is_staff(),
    }
}

/// A user's address; `None` once erased.
pub(crate) fn email_of(app: &App, user: &UserRow) -> Result<Option<Email>, Problem> {
    let (Some(data_key), Some(sealed)) = (&user.data_key_sealed, &user.email_sealed) else { return Ok(None) };
    let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
    let text = person.open_text(Field::Email, sealed).map_err(|error| Problem::internal(&error))?;
    Email::parse(&text).map(Some).map_err(|error| Problem::internal(&error))
}

/// Log in
///
/// Staff with a second factor send its `code` along; staff without one get a session in which they can only set it up.
#[utoipa::path(
    post, path = "/v1/auth/login", tag = "auth", operation_id = "log_in",
    request_body(content = Login, example = json!({"email": "anna@example.com", "password": "seven quiet herons"})),
    responses(
        (status = 200, description = "A new session", body = Tokens),
        (status = 401, description = "Wrong address, password or code; or a code is needed (`code_missing`)", body = ProblemShape, content_type = "application/problem+json"),
        (status = 429, description = "Too many failed attempts", body = ProblemShape, content_type = "application/problem+json"),
        (status = 503, description = "Too many log-ins at once; try again later", body = ProblemShape, content_type = "application/problem+json")
    )
)]
pub async fn log_in(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<Login>,
) -> Result<axum::Json<Tokens>, Problem> {
    let mut fields = Fields::default();
    let email = fields.email(&body.email);
    fields.done()?;
    let Some(email) = email else { return Err(Problem::plain(Code::InvalidField)) };
    app.hasher.check_room()?;
    let attempt = Attempt::begin(&app, app.personal.email_index(&email), origin).await?;
    let user = users::by_email(&app.pool, &attempt.index).await?;
    let user = check_password(&app, &attempt, user, &body.password, Action::LogIn).await?;

    let session = Uuid::now_v7();
    let mut transaction = app.pool.begin().await?;
    // What was read before the password was checked may have changed.
    let locked = users::lock(&mut transaction, user.id).await?;
    let user = locked.filter(|it| it.password_hash == user.password_hash && it.status == UserStatus::Active);
    let user = user.ok_or_else(|| Problem::plain(Code::CredentialsInvalid))?;
    let second_factor = user.role.is_staff() && user.totp_confirmed;
    if second_factor {
        let code = body.code.as_deref().ok_or_else(|| Problem::plain(Code::CodeMissing))?;
        if !take_code(&app, &mut transaction, &user, code).await? {
            transaction.rollback().await?;
            return Err(attempt.refuse(&app, Some(user.id), Action::LogIn).await?);
        }
    }
    let lifetime = if user.role.is_staff() { STAFF_SESSION_S } else { CUSTOMER_SESSION_S };
    let refresh = Token::draw();
    let address = app.personal.address_index(attempt.network());
    sessions_store::insert(&mut transaction, session, user.id, &address, second_factor, lifetime).await?;
    sessions_store::insert_refresh_token(&mut transaction, &refresh.hash(), session).await?;
    sessions_store::revoke_beyond(&mut transaction, user.id, SESSIONS_MAX).await?;
    let entry = Entry::own(user.id, Action::LogIn, origin).with(json!({ "second_factor": second_factor }));
    audit::write(&mut transaction, &entry).await?;
    transaction.commit().await?;
    attempt.succeeded(&app);
    tokens(&app, Bearer { user: user.id, session }, &refresh).await
}

async fn tokens(app: &App, bearer: Bearer, refresh: &Token) -> Result<axum::Json<Tokens>, Problem> {
    let row = app.sessions.find(&app.pool, bearer.session).await?;
    let row = row.ok_or_else(|| Problem::plain(Code::RefreshInvalid))?;
    Ok(axum::Json(Tokens {
        access_token: app.signer.issue(bearer)?,
        token_type: "Bearer",
        expires_in: LIFETIME_S,
        refresh_token: refresh.text().to_owned(),
        session_expires_at: row.expires_at,
        second_factor_missing: row.role.is_staff() && !row.totp_confirmed,
    }))
}

/// One attempt to prove with a password or a code to be somebody.
pub(super) struct Attempt {
    pub(super) index: Index,
    origin: Origin,
    /// Whether it counts for the user from wherever: not from where the user has logged in before.
    from_afar: bool,
}

impl Attempt {
    fn network(&self) -> IpAddr {
        network(self.origin.address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)))
    }

    /// Refuses who failed or tried too often, before anything expensive is done. The attempt counts as a failure until it
    /// [succeeds](Self::succeeded): of many at once no more are let in than of many in turn.
    pub(super) async fn begin(app: &App, index: Index, origin: Origin) -> Result<Self, Problem> {
        let mut attempt = Self { index, origin, from_afar: true };
        let (throttles, network) = (&app.throttles, attempt.network());
        let pair = (index, network);
        let taken = throttles
            .network_logins
            .try_take(network)
            .and_then(|()| throttles.logins.try_take(pair))
            .and_then(|()| throttles.network_failures.try_take(network))
            .and_then(|()| {
                let taken = throttles.pair_failures.try_take(pair);
                taken.inspect_err(|_| throttles.network_failures.give_back(&network))
            });
        let mut wait = taken.err();
        if wait.is_none()
            && let Err(of_user) = throttles.user_failures.try_take(index)
        {
            // Somebody guesses from many networks. The user at home goes on.
            let address = app.personal.address_index(network);
            attempt.from_afar = !sessions_store::is_known_address(&app.pool, &index, &address).await?;
            if attempt.from_afar {
                throttles.network_failures.give_back(&network);
                throttles.pair_failures.give_back(&pair);
                wait = Some(of_user);
            }
        }
        let Some(wait) = wait else { return Ok(attempt) };
        metrics::login("throttled");
        Err(Problem::plain(Code::TooManyAttempts).retry_after(seconds(wait)))
    }

    /// Nothing was tried: it counts neither as a failure nor as a log-in.
    fn give_back(&self, app: &App) {
        let (throttles, network) = (&app.throttles, self.network());
        throttles.network_logins.give_back(&network);
        throttles.logins.give_back(&(self.index, network));
        throttles.pair_failures.give_back(&(self.index, network));
        self.no_failure(app);
    }

    fn no_failure(&self, app: &App) {
        app.throttles.network_failures.give_back(&self.network());
        if self.from_afar {
            app.throttles.user_failures.give_back(&self.index);
        }
    }

    /// Writes down a failure: of a known user and of nobody alike.
    pub(super) async fn refuse(
        &self,
        app: &App,
        user: Option<UserId>,
        action: Action,
    ) -> Result<Problem, Problem> {
        metrics::login("refused");
        let entry = Entry {
            actor: None,
            action,
            target: user.map(|user| user.to_string()),
            outcome: Outcome::Refused,
            detail: json!({}),
            origin: self.origin,
        };
        let mut connection = app.pool.acquire().await?;
        audit::write(&mut connection, &entry).await?;
        Ok(Problem::plain(Code::CredentialsInvalid))
    }

    pub(super) fn succeeded(&self, app: &App) {
        app.throttles.pair_failures.forgive(&(self.index, self.network()));
        self.no_failure(app);
        metrics::login("done");
    }
}

/// The user, if the password is theirs and they may log in. Nobody costs the same and gets the same answer.
pub(super) async fn check_password(
    app: &App,
    attempt: &Attempt,
    user: Option<UserRow>,
    password: &str,
    action: Action,
) -> Result<UserRow, Problem> {
    let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
    // No password is longer: hashing a megabyte would only cost time.
    let shown = if password.len() > password::BYTES_MAX { "" } else { password };
    let right = app.hasher.verify(shown, hash).await.inspect_err(|_| attempt.give_back(app))?;
    match user {
        Some(user) if right && user.status == UserStatus::Active => Ok(user),
        other => Err(attempt.refuse(app, other.map(|user| user.id), action).await?),
    }
}

/// Continue a session
///
/// Answers a new access token and a new refresh token; the old refresh token counts no more. One that is used twice
/// ends the session, since somebody has a copy.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "auth", operation_id = "refresh",
    request_body(content = Refresh, example = json!({"refresh_token": "qT0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1A"})),
    responses(
        (status = 200, description = "New tokens", body = Tokens),
        (status = 401, description = "The token is unknown, was used, or its session has ended", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn refresh(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<Refresh>,
) -> Result<axum::Json<Tokens>, Problem> {
    let invalid = || Problem::plain(Code::RefreshInvalid);
    let token = token_hash(body.refresh_token.trim());
    let mut transaction = app.pool.begin().await?;
    let found = sessions_store::lock_by_refresh_token(&mut transaction, &token).await?;
    let (session, used) = found.ok_or_else(invalid)?;
    let row = sessions_store::by_id(&mut *transaction, session).await?.ok_or_else(invalid)?;
    if !row.is_live || row.status != UserStatus::Active {
        return Err(invalid());
    }
    if used {
        sessions_store::revoke(&mut transaction, session).await?;
        let user = users::by_id(&mut *transaction, row.user).await?;
        if let Some(email) = user.map(|user| email_of(&app, &user)).transpose()?.flatten() {
            mails::insert(&mut *transaction, &app.personal.email_index(&email), MailKind::SessionEnded)
                .await?;
        }
        let entry = Entry { actor: None, ..Entry::own(row.user, Action::ReuseRefreshToken, origin) };
        audit::write(&mut transaction, &entry.refused()).await?;
        transaction.commit().await?;
        app.sessions.forget(session);
        app.mail_waits.notify_one();
        return Err(invalid());
    }
    let next = Token::draw();
    sessions_store::use_refresh_token(&mut transaction, &token).await?;
    sessions_store::insert_refresh_token(&mut transaction, &next.hash(), session).await?;
    transaction.commit().await?;
    tokens(&app, Bearer { user: row.user, session }, &next).await
}

/// Log out
#[utoipa::path(
    post, path = "/v1/auth/logout", tag = "auth", operation_id = "log_out", security(("access_token" = [])),
    responses(
        (status = 204, description = "The session has ended", example = json!(null)),
    )
)]
pub async fn log_out(State(app): State<Arc<App>>, Signed(caller): Signed) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    sessions_store::revoke(&mut transaction, caller.session).await?;
    audit::write(&mut transaction, &Entry::own(caller.user, Action::LogOut, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget(caller.session);
    Ok(StatusCode::NO_CONTENT)
}

/// Log out everywhere
#[utoipa::path(
    post, path = "/v1/auth/logout-everywhere", tag = "auth", operation_id = "log_out_everywhere", security(("access_token" = [])),
    responses(
        (status = 204, description = "All sessions have ended, this one too", example = json!(null)),
    )
)]
pub async fn log_out_everywhere(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    users::lock(&mut transaction, caller.user).await?;
    sessions_store::revoke_all(&mut transaction, caller.user, None).await?;
    audit::write(&mut transaction, &Entry::own(caller.user, Action::LogOutEverywhere, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget_all();
    Ok(StatusCode::NO_CONTENT)
}

/// Prove again who you are
///
/// Needed for what must not be done with a session that somebody left open: it counts for five minutes.
#[utoipa::path(
    post, path = "/v1/auth/step-up", tag = "auth", operation_id = "step_up", security(("access_token" = [])),
    request_body(content = Proof, example = json!({"code": "492039"})),
    responses(
        (status = 204, description = "Proven, for five minutes"),
        (status = 401, description = "The password or the code is wrong", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn step_up(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Json(body): Json<Proof>,
) -> Result<StatusCode, Problem> {
    let invalid = || Problem::plain(Code::TokenInvalid);
    let user = users::by_id(&app.pool, caller.user).await?.ok_or_else(invalid)?;
    let email = email_of(&app, &user)?.ok_or_else(invalid)?;
    let attempt = Attempt::begin(&app, app.personal.email_index(&email), caller.origin).await?;
    let staff = caller.role.is_staff();
    if staff && !user.totp_confirmed {
        return Err(Problem::plain(Code::SecondFactorMissing));
    }
    if !staff {
        let password = body.password.as_deref().unwrap_or("");
        check_password(&app, &attempt, Some(user.clone()), password, Action::StepUp).await?;
    }
    let mut transaction = app.pool.begin().await?;
    if staff {
        let user = users::lock(&mut transaction, caller.user).await?.ok_or_else(invalid)?;
        let code = body.code.as_deref().ok_or_else(|| Problem::plain(Code::CodeMissing))?;
        if !take_code(&app, &mut transaction, &user, code).await? {
            transaction.rollback().await?;
            return Err(attempt.refuse(&app, Some(caller.user), Action::StepUp).await?);
        }
    }
    sessions_store::prove(&mut transaction, caller.session, staff).await?;
    audit::write(&mut transaction, &Entry::own(caller.user, Action::StepUp, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget(caller.session);
    attempt.succeeded(&app);
    Ok(StatusCode::NO_CONTENT)
}
