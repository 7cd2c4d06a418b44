//! Customers and staff, as staff see them: masked, unless somebody says why not, which is written down.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::UserId;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::commands::Why;
use super::documents::ProblemShape;
use super::me;
use crate::access::{Caller, Fresh, Reader};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::personal::{Email, mask_email, mask_name, mask_phone};
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::store::audit;
use crate::store::users::{self as store, UserRow};

/// A user, masked.
#[derive(Serialize, ToSchema)]
pub struct User {
    /// The id.
    #[schema(value_type = String, example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    id: UserId,
    /// The role.
    role: Role,
    /// Where the user stands.
    status: UserStatus,
    /// The address, masked; nothing once erased.
    #[schema(example = "a•••@example.com")]
    email: Option<String>,
    /// The name, masked.
    #[schema(example = "A••• B•••")]
    name: Option<String>,
    /// The telephone number, masked.
    #[schema(example = "•••78")]
    phone: Option<String>,
    /// Whether there is a second factor.
    #[schema(example = false)]
    second_factor: bool,
    /// Since when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
}

/// Users, newest first.
#[derive(Serialize, ToSchema)]
pub struct Users {
    /// The users.
    data: Vec<User>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
}

/// Which users.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// The user with exactly this address.
    #[param(example = "anna@example.com")]
    email: Option<String>,
    /// Only users of this role.
    #[param(example = "customer")]
    role: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AZmZmQAAcACAAAAAAAAAAA")]
    cursor: Option<String>,
}

pub(super) fn masked(app: &App, user: &UserRow) -> Result<User, Problem> {
    let profile = me::open(app, user)?;
    let profile = profile.as_ref();
    Ok(User {
        id: user.id,
        role: user.role,
        status: user.status,
        email: profile.map(|profile| mask_email(&profile.email)),
        name: profile.map(|profile| mask_name(&profile.name)),
        phone: profile.and_then(|profile| profile.phone.as_deref()).map(mask_phone),
        second_factor: user.totp_confirmed,
        created_at: user.created_at,
    })
}

/// Search users
///
/// Newest first, masked. Operators find customers alone.
#[utoipa::path(
    get, path = "/v1/users", tag = "users", operation_id = "list_users", security(("access_token" = [])),
    params(Search),
    responses(
        (status = 200, description = "The users", body = Users),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Reader(caller): Reader,
    FromQuery(search): FromQuery<Search>,
) -> Result<axum::Json<Users>, Problem> {
    let limit = cursor::limit(search.limit)?;
    let below = search.cursor.as_deref().map(cursor::read).transpose()?.map(UserId::from_uuid);
    let refuse = |detail: &'static str| Problem::new(Code::MalformedRequest, detail);
    let role = search.role.as_deref().map(|word| {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == word);
        found.ok_or_else(|| refuse("`role` is customer, operator, auditor or admin"))
    });
    let role = role.transpose()?;
    let rows = match &search.email {
        Some(email) => {
            let email = Email::parse(email).map_err(refuse)?;
            let found = store::by_email(&app.pool, &app.personal.email_index(&email)).await?;
            let fits = |user: &UserRow| {
                sees(&caller, user.role)
                    && role.is_none_or(|role| user.role == role)
                    && below.is_none_or(|below| user.id < below)
            };
            found.into_iter().filter(fits).collect()
        }
        None if role.is_some_and(|role| !sees(&caller, role)) => Vec::new(),
        // One more tells whether there is another page.
        None => {
            let role = role.or((caller.role == Role::Operator).then_some(Role::Customer));
            store::list(&app.pool, below, role, limit + 1).await?
        }
    };
    let more = rows.len() > limit as usize;
    let shown = &rows[..rows.len().min(limit as usize)];
    let next = shown.last().filter(|_| more).map(|user| cursor::after(user.id.uuid()));
    let data = shown.iter().map(|user| masked(&app, user)).collect::<Result<_, _>>()?;
    Ok(axum::Json(Users { data, next }))
}

fn nobody() -> Problem {
    Problem::plain(Code::NotFound)
}

/// Operators serve customers; colleagues are none of their business.
fn sees(caller: &Caller, role: Role) -> bool {
    caller.role != Role::Operator || role == Role::Customer
}

/// The user, if the caller may see him at all.
async fn seen(db: impl sqlx::MySqlExecutor<'_>, caller: &Caller, id: UserId) -> Result<UserRow, Problem> {
    let user = store::by_id(db, id).await?;
    user.filter(|user| sees(caller, user.role)).ok_or_else(nobody)
}

/// A user
///
/// Masked.
#[utoipa::path(
    get, path = "/v1/users/{id}", tag = "users", operation_id = "read_user", security(("access_token" = [])),
    params(("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "There is no such user", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    Reader(caller): Reader,
    FromPath(id): FromPath<UserId>,
) -> Result<axum::Json<User>, Problem> {
    let user = seen(&app.pool, &caller, id).await?;
    Ok(axum::Json(masked(&app, &user)?))
}

/// A user's personal data
///
/// Unmasked, for a reason, which is written into the audit log with who asked.
#[utoipa::path(
    post, path = "/v1/users/{id}/personal-data", tag = "users", operation_id = "read_personal_data", security(("access_token" = [])),
    params(("id" = String, Path, description = "The user", example = "usr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "called about a lost card, case 4711"})),
    responses(
        (status = 200, description = "The data", body = me::Profile),
        (status = 404, description = "There is no such user, or not any more", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_personal_data(
    State(app): State<Arc<App>>,
    Fresh(Reader(caller)): Fresh<Reader>,
    FromPath(id): FromPath<UserId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<me::Profile>, Problem> {
    let reason = why.checked()?;
    let mut transaction = app.pool.begin().await?;
    let user = seen(&mut *transaction, &caller, id).await?;
    let profile = me::open(&app, &user)?.ok_or_else(nobody)?;
    let entry = Entry {
        target: Some(id.to_string()),
        ..Entry::own(caller.user, Action::ReadPersonalData, caller.origin)
    };
    audit::write(&mut transaction, &entry.with(json!({ "reason": reason }))).await?;
    // Nothing is shown before it is written down that it was.
    transaction.commit().await?;
    Ok(axum::Json(profile))
}
