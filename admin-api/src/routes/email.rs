//! The change of an e-mail address: asked for by whoever is logged in, done by whoever reads the new mailbox.
//!
//! Nobody is looked up when it is asked for, so the answer is the same for an address that is free and one that somebody
//! has; the sender of mails finds out, and tells either mailbox. The new address travels with the mail and its link,
//! sealed, and becomes the user's in one transaction with its look-up.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{Accepted, accepted, email_of, may_mail};
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Fresh, Person, Visitor};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::Json;
use crate::personal::Field;
use crate::problem::{Code, Problem};
use crate::random::token_hash;
use crate::roles::{Role, UserStatus};
use crate::store::links::{self, NewAddress};
use crate::store::mails::{self, MailKind};
use crate::store::{audit, is_duplicate, users};

/// Another address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailChange {
    /// The new address, which a mail will have to reach.
    #[schema(example = "anna.bell@example.org", max_length = 254)]
    email: String,
}

/// The link of a mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfirmation {
    /// The `token` of the link.
    #[schema(example = "4Tn0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1")]
    token: String,
}

/// Change the own e-mail address
///
/// The answer is the same for every address. A mail to the new one brings a link that counts once and for 30 minutes;
/// until it is opened, the old address stays. A newer link, or another password, makes it worthless.
#[utoipa::path(
    post, path = "/v1/me/email", tag = "me", operation_id = "change_email", security(("access_token" = [])),
    request_body(content = EmailChange, example = json!({"email": "anna.bell@example.org"})),
    responses(
        (status = 202, description = "A mail is on its way, if one can be sent", body = Accepted, example = json!({"status": "accepted"})),
    )
)]
pub async fn ask(
    State(app): State<Arc<App>>,
    Fresh(Person(caller)): Fresh<Person>,
    Json(body): Json<EmailChange>,
) -> Result<(StatusCode, axum::Json<Accepted>), Problem> {
    let mut fields = Fields::default();
    let email = fields.email(&body.email);
    fields.done()?;
    let Some(email) = email else { return Err(Problem::plain(Code::InvalidField)) };
    let index = app.personal.email_index(&email);
    if may_mail(&app, caller.origin, &index, MailKind::ConfirmEmail)? {
        let gone = || Problem::plain(Code::TokenInvalid);
        let mut transaction = app.pool.begin().await?;
        let user = users::lock(&mut transaction, caller.user).await?.ok_or_else(gone)?;
        let data_key = user.data_key_sealed.as_deref().ok_or_else(gone)?;
        let person = app.personal.person(user.id, data_key).map_err(|error| Problem::internal(&error))?;
        let sealed = person.seal(Field::Email, email.as_str().as_bytes());
        let to = NewAddress { index, sealed };
        mails::insert_to(&mut transaction, user.id, &to, MailKind::ConfirmEmail).await?;
        audit::write(&mut transaction, &Entry::own(user.id, Action::AskEmailChange, caller.origin)).await?;
        transaction.commit().await?;
        app.mail_waits.notify_one();
    }
    Ok(accepted())
}

/// Prove a new e-mail address
///
/// With the token of the link that was mailed there. From then on the user logs in with it; the old address is told.
#[utoipa::path(
    post, path = "/v1/auth/email-confirmations", tag = "auth", operation_id = "confirm_email",
    request_body(content = EmailConfirmation, example = json!({"token": "4Tn0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1"})),
    responses(
        (status = 204, description = "The address is changed"),
        (status = 409, description = "Somebody has the address meanwhile", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn confirm(
    State(app): State<Arc<App>>,
    Visitor(origin): Visitor,
    Json(body): Json<EmailConfirmation>,
) -> Result<StatusCode, Problem> {
    let invalid = || Problem::plain(Code::LinkInvalid);
    let taken = || Problem::new(Code::Conflict, "somebody has this address already");
    let token = token_hash(body.token.trim());
    let mut transaction = app.pool.begin().await?;
    let (id, new) = links::find_new_address(&mut transaction, &token).await?.ok_or_else(invalid)?;
    let other =
        users::by_email(&mut *transaction, &new.index).await?.map(|user| user.id).filter(|it| *it != id);
    let mut ids: Vec<_> = [Some(id), other].into_iter().flatten().collect();
    ids.sort();
    let mut locked = Vec::with_capacity(ids.len());
    for id in ids {
        locked.extend(users::lock(&mut transaction, id).await?);
    }
    let user = locked.iter().find(|user| user.id == id && user.status == UserStatus::Active);
    let user = user.ok_or_else(invalid)?;
    // Looked up again, now that nobody can use the link or change the address at the same time.
    if !links::consume(&mut transaction, &token).await? {
        return Err(invalid());
    }
    if let Some(other) = locked.iter().find(|user| user.id != id) {
        // Whoever registers an address without proving it keeps nobody from it who does.
        let is_unproven = other.status == UserStatus::Registered && other.role == Role::Customer;
        if !is_unproven {
            return Err(taken());
        }
        users::delete(&mut transaction, other.id).await?;
    }
    let old = email_of(&app, user)?.ok_or_else(invalid)?;
    let old_sealed = user.email_sealed.clone().ok_or_else(invalid)?;
    let old = NewAddress { index: app.personal.email_index(&old), sealed: old_sealed };
    users::set_email(&mut transaction, id, &new)
        .await
        .map_err(|error| if is_duplicate(&error) { taken() } else { error.into() })?;
    links::delete_all(&mut transaction, id).await?;
    mails::insert_to(&mut transaction, id, &old, MailKind::EmailChanged).await?;
    audit::write(&mut transaction, &Entry::own(id, Action::ChangeEmail, origin)).await?;
    transaction.commit().await?;
    app.mail_waits.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
