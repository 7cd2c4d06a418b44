//! Users as staff change them: invitations, roles, disabling, erasing.
//!
//! Everything here needs a second person, is asked for as a [`StaffChange`] and carried out by [`apply`] in the
//! transaction in which another admin approves it. There the rows of all admins and of the user are locked and looked at
//! again. Nobody changes themselves, nobody approves what is done to them, and one active admin is always left. What a
//! running session may do follows from its user's row within two seconds, on every replica.
//!
//! Whoever is invited is a row without a password from the moment of the request on, so that names and addresses stand
//! sealed where they always do and an approval holds only an id. No link to such a row exists before somebody approved
//! it, and its role becomes what was approved only then: an unapproved second invitation must not raise the first one.
//! Upkeep forgets rows that nobody completed.

use domain::ids::UserId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::MySqlConnection;

use crate::app::App;
use crate::audit::{Action, Entry, Outcome};
use crate::problem::{Code, Problem};
use crate::roles::{Role, UserStatus};
use crate::routes::auth::email_of;
use crate::second_person::Approved;
use crate::store::mails::{self, MailKind};
use crate::store::users::{self, UserRow};
use crate::store::{audit, links, sessions};

/// A change of a user that needs a second person, exactly as it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StaffChange {
    /// Send somebody the link by which they become staff.
    Invite {
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// Give a member of the staff another role.
    SetRole {
        /// Who.
        user: UserId,
        /// Which.
        role: Role,
    },
    /// Let somebody in no more.
    Disable {
        /// Who.
        user: UserId,
    },
    /// Let somebody in again.
    Enable {
        /// Who.
        user: UserId,
    },
    /// Leave nothing of a customer but the id.
    Erase {
        /// Who.
        user: UserId,
    },
}

impl StaffChange {
    /// Whom it is about, who may not approve it.
    pub const fn about(&self) -> UserId {
        match self {
            Self::Invite { user, .. }
            | Self::SetRole { user, .. }
            | Self::Disable { user }
            | Self::Enable { user }
            | Self::Erase { user } => *user,
        }
    }

    /// What it is, in a word of a closed set.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Invite { .. } => "invite_staff",
            Self::SetRole { .. } => "change_role",
            Self::Disable { .. } => "disable_user",
            Self::Enable { .. } => "enable_user",
            Self::Erase { .. } => "erase_user",
        }
    }

    /// What it will do, for who approves it.
    pub fn summary(&self) -> String {
        match self {
            Self::Invite { user, role } => format!("invite {user} as {}", role.as_str()),
            Self::SetRole { user, role } => format!("give {user} the role {}", role.as_str()),
            Self::Disable { user } => format!("disable {user} and end all sessions"),
            Self::Enable { user } => format!("enable {user}"),
            Self::Erase { user } => format!("erase {user} for ever"),
        }
    }
}

fn conflict(detail: &'static str) -> Problem {
    Problem::new(Code::Conflict, detail)
}

/// Whether the change makes sense as things stand, with the user's row locked; `apply` asks again.
pub async fn check(db: &mut MySqlConnection, change: &StaffChange) -> Result<UserRow, Problem> {
    // All admins first: two changes that would together leave none wait for each other here.
    let admins = users::lock_active_admins(db).await?;
    let user = users::lock(db, change.about()).await?.ok_or_else(|| Problem::plain(Code::NotFound))?;
    if user.status == UserStatus::Erased {
        return Err(conflict("nothing is left of this user"));
    }
    let is_last_admin = user.role == Role::Admin && user.status == UserStatus::Active && admins <= 1;
    match change {
        StaffChange::Invite { role, .. } => {
            if user.status != UserStatus::Registered || !role.is_staff() {
                return Err(conflict("a user with this address exists"));
            }
        }
        StaffChange::SetRole { role, .. } => {
            if !user.role.is_staff() || !role.is_staff() {
                return Err(conflict("a customer has no other role: invite who joins the staff"));
            }
            if user.role == *role {
                return Err(conflict("the user has this role already"));
            }
            if is_last_admin {
                return Err(conflict("one active admin has to stay"));
            }
        }
        StaffChange::Disable { .. } => {
            if user.status != UserStatus::Active {
                return Err(conflict("only an active user can be disabled"));
            }
            if is_last_admin {
                return Err(conflict("one active admin has to stay"));
            }
        }
        StaffChange::Enable { .. } => {
            if user.status != UserStatus::Disabled {
                return Err(conflict("the user is not disabled"));
            }
        }
        StaffChange::Erase { .. } => {
            if user.role != Role::Customer {
                return Err(conflict("only customers are erased; disable who has left the staff"));
            }
            check_accounts_closed(db, user.id).await?;
        }
    }
    Ok(user)
}

async fn check_accounts_closed(db: &mut MySqlConnection, user: UserId) -> Result<(), Problem> {
    let accounts = users::accounts(db, user).await?;
    if accounts.iter().any(|(_, closed)| !closed) {
        return Err(conflict("an account is still open: close all accounts first"));
    }
    Ok(())
}

/// Leaves nothing of a customer, whose row is locked, but the id.
pub async fn erase(db: &mut MySqlConnection, user: UserId) -> Result<(), Problem> {
    check_accounts_closed(db, user).await?;
    sessions::delete_all(db, user).await?;
    links::delete_all(db, user).await?;
    Ok(users::erase(db, user).await?)
}

/// Has the link sent by which somebody who is not in yet becomes staff. Earlier links count no more: they were for what
/// the user was to be then.
pub async fn invite(db: &mut MySqlConnection, app: &App, user: &UserRow, role: Role) -> Result<(), Problem> {
    let email = email_of(app, user)?.ok_or_else(|| Problem::plain(Code::NotFound))?;
    users::set_role(db, user.id, role).await?;
    links::delete_all(db, user.id).await?;
    Ok(mails::insert(&mut *db, &app.personal.email_index(&email), MailKind::Invitation).await?)
}

/// Carries the change out, in the transaction that approves it.
pub async fn apply(
    db: &mut MySqlConnection,
    app: &App,
    change: &StaffChange,
    approved: &Approved,
) -> Result<(), Problem> {
    let user = check(db, change).await?;
    if [approved.requester, approved.approver].contains(&user.id) {
        return Err(conflict("nobody decides about themselves"));
    }
    let before = json!({ "role": user.role, "status": user.status });
    let (action, mut detail) = match change {
        StaffChange::Invite { role, .. } => {
            invite(db, app, &user, *role).await?;
            (Action::InviteStaff, json!({ "role": role }))
        }
        StaffChange::SetRole { role, .. } => {
            users::set_role(db, user.id, *role).await?;
            (Action::ChangeRole, json!({ "before": before, "after": { "role": role } }))
        }
        StaffChange::Disable { .. } => {
            users::disable(db, user.id).await?;
            sessions::revoke_all(db, user.id, None).await?;
            links::delete_all(db, user.id).await?;
            (Action::DisableUser, json!({ "before": before }))
        }
        StaffChange::Enable { .. } => {
            users::enable(db, user.id).await?;
            (Action::EnableUser, json!({ "before": before }))
        }
        StaffChange::Erase { .. } => {
            erase(db, user.id).await?;
            (Action::Erase, json!({}))
        }
    };
    approved.describe(&mut detail);
    let entry = Entry {
        actor: Some(approved.approver),
        action,
        target: Some(user.id.to_string()),
        outcome: Outcome::Done,
        detail,
        origin: approved.origin,
    };
    Ok(audit::write(db, &entry).await?)
}
