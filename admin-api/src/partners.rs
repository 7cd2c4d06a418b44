//! Partners: who may sign requests, with which keys, and what needs a second person.
//!
//! A [`PartnerChange`] is asked for by one member of the staff and carried out by [`apply`] in the transaction in which
//! another approves it. Whatever it depends on is locked and looked at again there, in the order application, partner,
//! key, so that of two approvals of the same one does it and the other is told why not. Money is the processor's: it
//! reads a partner's status with each batch, and ingest learns of a status or a key within five seconds.

pub mod contact;
pub mod keys;

use domain::ids::{ApplicationId, KeyId, PartnerId};
use domain::scope::Scope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::MySqlConnection;

use crate::app::App;
use crate::audit::{Action, Entry, Outcome};
use crate::problem::{Code, Problem};
use crate::second_person::Approved;
use crate::store::{api_keys, applications, audit, partners as store};
use contact::Contact;

/// Live keys of one partner, at most: for its systems, and their successors while they are rotated.
pub const LIVE_KEYS_MAX: usize = 10;
/// Requests in a second of a new partner, when nothing is said.
pub const REQUESTS_PER_SECOND_DEFAULT: u32 = 50;
/// The highest rate that a partner can be given: what one ingest takes from everybody.
pub const REQUESTS_PER_SECOND_MAX: u32 = 100_000;

/// Where a partner stands, as `partners.status` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PartnerStatus {
    /// May move money.
    Active = 1,
    /// May read, refund and void, and nothing else.
    Suspended = 2,
    /// Registered, and not active yet.
    Pending = 3,
}

impl PartnerStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Suspended, Self::Pending];

    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Pending => "pending",
        }
    }
}

/// A change of a partner that needs a second person, exactly as it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PartnerChange {
    /// Let a partner move money.
    Activate {
        /// The partner.
        partner: PartnerId,
    },
    /// Stop a partner.
    Suspend {
        /// The partner.
        partner: PartnerId,
    },
    /// Make a live partner of who applied.
    ApproveApplication {
        /// The application.
        application: ApplicationId,
        /// The partner that it makes.
        partner: PartnerId,
        /// Requests that it may make in a second.
        requests_per_second: u32,
    },
    /// Give a partner another API key.
    IssueKey {
        /// The partner.
        partner: PartnerId,
        /// The key that is made.
        key: KeyId,
        /// What it may be used for.
        scopes: Vec<Scope>,
    },
}

impl PartnerChange {
    /// What it is, in a word of a closed set.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Activate { .. } => "activate_partner",
            Self::Suspend { .. } => "suspend_partner",
            Self::ApproveApplication { .. } => "approve_application",
            Self::IssueKey { .. } => "issue_key",
        }
    }

    /// What it will do, for who approves it.
    pub fn summary(&self) -> String {
        match self {
            Self::Activate { partner } => format!("activate the partner {partner}"),
            Self::Suspend { partner } => format!("suspend the partner {partner}"),
            Self::ApproveApplication { application, partner, requests_per_second } => format!(
                "make the live partner {partner} of the application {application}, with {requests_per_second} requests a second"
            ),
            Self::IssueKey { partner, key, scopes } => {
                let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
                format!("issue the key {key} to the partner {partner} for {}", scopes.join(", "))
            }
        }
    }

    /// What it is about, as an id with its prefix.
    pub fn target(&self) -> String {
        match self {
            Self::Activate { partner } | Self::Suspend { partner } => partner.to_string(),
            Self::ApproveApplication { application, .. } => application.to_string(),
            Self::IssueKey { key, .. } => key.to_string(),
        }
    }
}

fn conflict(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Code::Conflict, detail)
}

/// Whether the change makes sense as things stand; `apply` asks again.
pub async fn check(db: &mut MySqlConnection, change: &PartnerChange) -> Result<(), Problem> {
    let nobody = || Problem::plain(Code::NotFound);
    match change {
        PartnerChange::Activate { partner } => {
            let row = store::lock(db, *partner).await?.ok_or_else(nobody)?;
            if row.status == PartnerStatus::Active {
                return Err(conflict("the partner is active already"));
            }
        }
        PartnerChange::Suspend { partner } => {
            let row = store::lock(db, *partner).await?.ok_or_else(nobody)?;
            if row.status != PartnerStatus::Active {
                return Err(conflict("only an active partner can be suspended"));
            }
        }
        PartnerChange::ApproveApplication { application, .. } => {
            let row = applications::lock(db, *application).await?.ok_or_else(nobody)?;
            if row.status != applications::Status::Pending {
                return Err(conflict(format!("the application is {} already", row.status.as_str())));
            }
        }
        PartnerChange::IssueKey { partner, .. } => {
            store::lock(db, *partner).await?.ok_or_else(nobody)?;
            if api_keys::live(db, *partner).await?.len() >= LIVE_KEYS_MAX {
                return Err(conflict(format!(
                    "the partner has {LIVE_KEYS_MAX} live keys; revoke one that is not needed any more"
                )));
            }
        }
    }
    Ok(())
}

/// Carries the change out, in the transaction that approves it.
pub async fn apply(
    db: &mut MySqlConnection,
    app: &App,
    change: &PartnerChange,
    approved: &Approved,
) -> Result<(), Problem> {
    check(db, change).await?;
    let (action, detail) = match change {
        PartnerChange::Activate { partner } => {
            store::set_status(db, *partner, PartnerStatus::Active).await?;
            (Action::ActivatePartner, json!({}))
        }
        PartnerChange::Suspend { partner } => {
            store::set_status(db, *partner, PartnerStatus::Suspended).await?;
            (Action::SuspendPartner, json!({}))
        }
        PartnerChange::ApproveApplication { application, partner, requests_per_second } => {
            let row = applications::lock(db, *application).await?;
            let row = row.ok_or_else(|| Problem::plain(Code::NotFound))?;
            let contact = Contact::open_application(&app.partner_kek, *application, &row.contact_sealed)?;
            let new = store::NewPartner {
                id: *partner,
                name: contact.name.clone(),
                status: PartnerStatus::Active,
                requests_per_second: *requests_per_second,
                contact_sealed: contact.seal(&app.partner_kek, *partner)?,
            };
            store::insert(db, &new).await?;
            applications::decide(
                db,
                *application,
                applications::Status::Approved,
                approved.approver,
                Some(*partner),
            )
            .await?;
            (
                Action::ApproveApplication,
                json!({ "partner": partner, "requests_per_second": requests_per_second }),
            )
        }
        PartnerChange::IssueKey { partner, key, scopes } => {
            let sealed = keys::new_secret(&app.partner_kek, *key);
            let bits = scopes.iter().fold(0, |bits, scope| bits | scope.bit());
            api_keys::insert(db, *key, *partner, &sealed, bits, approved.requester).await?;
            (Action::IssueKey, json!({ "partner": partner, "scopes": scopes }))
        }
    };
    write_down(db, action, change.target(), detail, approved).await
}

async fn write_down(
    db: &mut MySqlConnection,
    action: Action,
    target: String,
    mut detail: Value,
    approved: &Approved,
) -> Result<(), Problem> {
    approved.describe(&mut detail);
    let entry = Entry {
        actor: Some(approved.approver),
        action,
        target: Some(target),
        outcome: Outcome::Done,
        detail,
        origin: approved.origin,
    };
    Ok(audit::write(db, &entry).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_change_reads_back_as_it_was_written() {
        let id = Uuid::from_u128(7);
        let (partner, key) = (PartnerId::from_uuid(id), KeyId::from_uuid(id));
        let application = ApplicationId::from_uuid(id);
        for change in [
            PartnerChange::Activate { partner },
            PartnerChange::Suspend { partner },
            PartnerChange::ApproveApplication { application, partner, requests_per_second: 5 },
            PartnerChange::IssueKey { partner, key, scopes: vec![Scope::Payments, Scope::TransfersOut] },
        ] {
            let text = serde_json::to_string(&change).unwrap();
            assert_eq!(serde_json::from_str::<PartnerChange>(&text).unwrap(), change);
            assert!(change.summary().contains(&change.target()), "{}", change.summary());
        }
        assert!(serde_json::from_str::<PartnerChange>(r#"{"issue_key":{"partner":"x"}}"#).is_err());
    }
}
