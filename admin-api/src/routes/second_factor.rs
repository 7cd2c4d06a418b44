//! The second factor of staff, and its recovery codes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use domain::ids::UserId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::mysql::MySqlConnection;
use utoipa::ToSchema;

use super::auth::email_of;
use super::documents::ProblemShape;
use crate::access::{Enrolling, Fresh, Reader};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::Json;
use crate::jwt::now_s;
use crate::personal::Field;
use crate::problem::{Code, Problem};
use crate::store::mails::{self, MailKind};
use crate::store::users::{self, UserRow};
use crate::store::{audit, links, sessions};
use crate::throttle::seconds;
use crate::totp;

/// A secret for an authenticator.
#[derive(Serialize, ToSchema)]
pub struct SecondFactor {
    /// To type into the authenticator, in base32.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// The same for a QR code.
    #[schema(
        example = "otpauth://totp/Wired%20City:anna%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Wired%20City"
    )]
    otpauth_url: String,
}

/// A code of the authenticator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The six digits that it shows.
    #[schema(example = "492039")]
    code: String,
}

/// Codes that each stand in once for the authenticator.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Ten codes, shown once: keep them where the authenticator is not.
    #[schema(example = json!(["abcd-efgh-ijkl-mnop"]))]
    recovery_codes: Vec<String>,
}

/// How long a guesser waits.
fn throttled(wait: Duration) -> Problem {
    Problem::plain(Code::TooManyAttempts).retry_after(seconds(wait))
}

/// Whether a code of the authenticator or a recovery code counts, now and never again. The user is locked, so two
/// requests with one code cannot both have it.
pub(super) async fn take_code(
    app: &App,
    transaction: &mut MySqlConnection,
    user: &UserRow,
    code: &str,
) -> Result<bool, Problem> {
    app.throttles.code_failures.try_take(user.id).map_err(throttled)?;
    let secret = open_secret(app, user)?;
    let step = match &secret {
        Some(secret) => totp::step_of(secret, code, now_s(), user.totp_step)?,
        None => None,
    };
    let taken = match step {
        Some(step) => users::take_step(transaction, user.id, step).await?,
        None => links::consume_recovery_code(transaction, user.id, &totp::recovery_hash(code)).await?,
    };
    if taken {
        app.throttles.code_failures.give_back(&user.id);
    }
    Ok(taken)
}

fn open_secret(app: &App, user: &UserRow) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Problem> {
    let (Some(data_key), Some(sealed)) = (&user.data_key_sealed, &user.totp_sealed) else { return Ok(None) };
    let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
    person.open(Field::Totp, sealed).map(Some).map_err(|error| Problem::internal(&error))
}

async fn locked(transaction: &mut MySqlConnection, id: UserId) -> Result<UserRow, Problem> {
    users::lock(transaction, id).await?.ok_or_else(|| Problem::plain(Code::TokenInvalid))
}

async fn tell(app: &App, transaction: &mut MySqlConnection, user: &UserRow) -> Result<(), Problem> {
    if let Some(email) = email_of(app, user)? {
        mails::insert(transaction, &app.personal.email_index(&email), MailKind::SecondFactorChanged).await?;
    }
    Ok(())
}

/// Begin to set up the second factor
///
/// Answers a new secret; it counts once it is confirmed with a code. Doing it again makes another one.
#[utoipa::path(
    post, path = "/v1/me/second-factor", tag = "me", operation_id = "begin_second_factor", security(("access_token" = [])),
    responses(
        (status = 200, description = "The secret, shown once", body = SecondFactor),
        (status = 409, description = "There is one: remove it first", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn begin(
    State(app): State<Arc<App>>,
    Enrolling(caller): Enrolling,
) -> Result<axum::Json<SecondFactor>, Problem> {
    let mut transaction = app.pool.begin().await?;
    let user = locked(&mut transaction, caller.user).await?;
    if user.totp_confirmed {
        return Err(Problem::new(Code::Conflict, "there is a second factor: remove it first (DELETE)"));
    }
    let (Some(email), Some(data_key)) = (email_of(&app, &user)?, &user.data_key_sealed) else {
        return Err(Problem::plain(Code::TokenInvalid));
    };
    let secret = totp::new_secret();
    let (base32, otpauth_url) = totp::enrolment(&secret, email.as_str())?;
    let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
    let sealed = person.seal(Field::Totp, &secret);
    users::begin_totp(&mut transaction, user.id, Some(&sealed)).await?;
    audit::write(&mut transaction, &Entry::own(user.id, Action::BeginSecondFactor, caller.origin)).await?;
    transaction.commit().await?;
    Ok(axum::Json(SecondFactor { secret: base32, otpauth_url }))
}

/// Confirm the second factor
///
/// From now on log-ins need it. All other sessions end; this one counts as proven. The recovery codes are shown once.
#[utoipa::path(
    post, path = "/v1/me/second-factor/confirmation", tag = "me", operation_id = "confirm_second_factor", security(("access_token" = [])),
    request_body(content = Confirmation, example = json!({"code": "492039"})),
    responses(
        (status = 200, description = "It counts", body = RecoveryCodes),
        (status = 401, description = "The code is wrong", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "There is nothing to confirm", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn confirm(
    State(app): State<Arc<App>>,
    Enrolling(caller): Enrolling,
    Json(body): Json<Confirmation>,
) -> Result<axum::Json<RecoveryCodes>, Problem> {
    app.throttles.code_failures.try_take(caller.user).map_err(throttled)?;
    let mut transaction = app.pool.begin().await?;
    let user = locked(&mut transaction, caller.user).await?;
    let secret = open_secret(&app, &user)?.filter(|_| !user.totp_confirmed);
    let Some(secret) = secret else {
        return Err(Problem::new(
            Code::Conflict,
            "there is nothing to confirm: begin with POST /v1/me/second-factor",
        ));
    };
    let Some(step) = totp::step_of(&secret, &body.code, now_s(), user.totp_step)? else {
        return Err(Problem::plain(Code::CredentialsInvalid));
    };
    app.throttles.code_failures.give_back(&user.id);
    users::take_step(&mut transaction, user.id, step).await?;
    users::confirm_totp(&mut transaction, user.id).await?;
    let codes = write_recovery_codes(&mut transaction, user.id).await?;
    sessions::revoke_all(&mut transaction, user.id, Some(caller.session)).await?;
    sessions::prove(&mut transaction, caller.session, true).await?;
    tell(&app, &mut transaction, &user).await?;
    audit::write(&mut transaction, &Entry::own(user.id, Action::ConfirmSecondFactor, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget_all();
    app.mail_waits.notify_one();
    Ok(axum::Json(codes))
}

async fn write_recovery_codes(
    transaction: &mut MySqlConnection,
    user: UserId,
) -> Result<RecoveryCodes, sqlx::Error> {
    let recovery_codes = totp::recovery_codes();
    let hashes: Vec<_> = recovery_codes.iter().map(|code| totp::recovery_hash(code)).collect();
    links::replace_recovery_codes(transaction, user, &hashes).await?;
    Ok(RecoveryCodes { recovery_codes })
}

/// Remove the second factor
///
/// For another authenticator. All sessions end; the next log-in can only set up a new one.
#[utoipa::path(
    delete, path = "/v1/me/second-factor", tag = "me", operation_id = "remove_second_factor", security(("access_token" = [])),
    responses(
        (status = 204, description = "Removed", example = json!(null)),
        (status = 403, description = "Not staff, or the proof is too old", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    Fresh(Reader(caller)): Fresh<Reader>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let user = locked(&mut transaction, caller.user).await?;
    users::begin_totp(&mut transaction, user.id, None).await?;
    sessions::revoke_all(&mut transaction, user.id, None).await?;
    links::replace_recovery_codes(&mut transaction, user.id, &[]).await?;
    tell(&app, &mut transaction, &user).await?;
    audit::write(&mut transaction, &Entry::own(user.id, Action::RemoveSecondFactor, caller.origin)).await?;
    transaction.commit().await?;
    app.sessions.forget_all();
    app.mail_waits.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Renew the recovery codes
///
/// The old ones count no more.
#[utoipa::path(
    post, path = "/v1/me/recovery-codes", tag = "me", operation_id = "renew_recovery_codes", security(("access_token" = [])),
    responses(
        (status = 200, description = "The new ones, shown once", body = RecoveryCodes),
        (status = 403, description = "Not staff, or the proof is too old", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn renew_recovery_codes(
    State(app): State<Arc<App>>,
    Fresh(Reader(caller)): Fresh<Reader>,
) -> Result<axum::Json<RecoveryCodes>, Problem> {
    let mut transaction = app.pool.begin().await?;
    let user = locked(&mut transaction, caller.user).await?;
    let codes = write_recovery_codes(&mut transaction, user.id).await?;
    tell(&app, &mut transaction, &user).await?;
    let entry = Entry::own(user.id, Action::RenewRecoveryCodes, caller.origin);
    audit::write(&mut transaction, &entry.with(json!({ "codes": codes.recovery_codes.len() }))).await?;
    transaction.commit().await?;
    app.mail_waits.notify_one();
    Ok(axum::Json(codes))
}
