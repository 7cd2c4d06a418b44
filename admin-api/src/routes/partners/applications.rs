//! Who would like to become a partner. An approval makes a new, live partner; the test partner that the application
//! made stays one for ever.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::ids::{ApplicationId, PartnerId, UserId, derived_uuid};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::super::commands::Why;
use super::super::documents::ProblemShape;
use super::super::fields::Fields;
use super::{cut, nobody, rate, word};
use crate::access::{Admin, Fresh, Reader};
use crate::app::App;
use crate::approvals::{self, Approval};
use crate::audit::{Action, Entry};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::idempotency::IdempotencyKey;
use crate::partners::contact::{Contact, MaskedContact};
use crate::partners::{PartnerChange, REQUESTS_PER_SECOND_DEFAULT};
use crate::problem::{Code, Problem};
use crate::second_person::ask;
use crate::store::applications::{self as store, ApplicationRow, Status};
use crate::store::audit;

/// An application.
#[derive(Serialize, ToSchema)]
pub struct Application {
    /// The id.
    #[schema(value_type = String, example = "app_01k9q5m3v7f8h9j0kamcneprqs")]
    id: ApplicationId,
    /// Where it stands.
    #[schema(inline)]
    status: Status,
    /// The business, as it called itself.
    #[schema(example = "Café Mozart")]
    name: String,
    /// Who applied, masked.
    #[schema(inline)]
    contact: MaskedContact,
    /// The test partner that it made at once.
    #[schema(value_type = String, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    test_partner: PartnerId,
    /// The live partner that its approval made.
    #[schema(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqt")]
    live_partner: Option<PartnerId>,
    /// When.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
    /// When it was decided.
    #[schema(value_type = Option<String>, example = "2026-02-01T12:00:00.000000Z")]
    decided_at: Option<Timestamp>,
    /// Who decided.
    #[schema(value_type = Option<String>, example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    decided_by: Option<UserId>,
}

/// Applications, newest first.
#[derive(Serialize, ToSchema)]
pub struct Applications {
    /// The applications.
    data: Vec<Application>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
}

/// Which applications.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// `pending`, `approved` or `declined`.
    #[param(example = "pending")]
    status: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AZmZmQAAcACAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// What the live partner may do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationApproval {
    /// Requests that it may make in a second, sustained; 50 when nothing is said.
    #[schema(example = 50, minimum = 1, maximum = 100_000, nullable)]
    requests_per_second: Option<u32>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "contract signed, checks done", min_length = 5, max_length = 300)]
    reason: String,
}

impl Application {
    fn of(app: &App, row: ApplicationRow) -> Result<Self, Problem> {
        let contact = Contact::open_application(&app.partner_kek, row.id, &row.contact_sealed)?;
        Ok(Self {
            id: row.id,
            status: row.status,
            name: row.name,
            contact: contact.masked(),
            test_partner: row.partner,
            live_partner: row.live_partner,
            created_at: row.created_at,
            decided_at: row.decided_at,
            decided_by: row.decided_by,
        })
    }
}

/// Applications of partners
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/partner-applications", tag = "partners", operation_id = "list_applications", security(("access_token" = [])),
    params(Search),
    responses(
        (status = 200, description = "The applications", body = Applications),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(search): FromQuery<Search>,
) -> Result<axum::Json<Applications>, Problem> {
    let limit = cursor::limit(search.limit)?;
    let below = search.cursor.as_deref().map(cursor::read).transpose()?;
    let read = |text: &str| Status::ALL.into_iter().find(|status| status.as_str() == text);
    let status = word(search.status.as_deref(), read, "`status` is pending, approved or declined")?;
    let rows = store::list(&app.pool, status, below, limit + 1).await?;
    let (rows, next) = cut(rows, limit, |row| cursor::after(row.id.uuid()));
    let data = rows.into_iter().map(|row| Application::of(&app, row)).collect::<Result<_, _>>()?;
    Ok(axum::Json(Applications { data, next }))
}

/// An application
#[utoipa::path(
    get, path = "/v1/partner-applications/{id}", tag = "partners", operation_id = "read_application", security(("access_token" = [])),
    params(("id" = String, Path, description = "The application", example = "app_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The application", body = Application),
        (status = 404, description = "There is no such application", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<ApplicationId>,
) -> Result<axum::Json<Application>, Problem> {
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    Ok(axum::Json(Application::of(&app, row)?))
}

/// Who applied
///
/// Unmasked, for a reason, which is written into the audit log with who asked.
#[utoipa::path(
    post, path = "/v1/partner-applications/{id}/contact", tag = "partners", operation_id = "read_application_contact", security(("access_token" = [])),
    params(("id" = String, Path, description = "The application", example = "app_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "to send the contract"})),
    responses(
        (status = 200, description = "The contact", body = Contact),
        (status = 404, description = "There is no such application", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_contact(
    State(app): State<Arc<App>>,
    Fresh(Reader(caller)): Fresh<Reader>,
    FromPath(id): FromPath<ApplicationId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Contact>, Problem> {
    let reason = why.checked()?;
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    let contact = Contact::open_application(&app.partner_kek, id, &row.contact_sealed)?;
    let mut transaction = app.pool.begin().await?;
    let entry =
        Entry { target: Some(id.to_string()), ..Entry::own(caller.user, Action::ReadContact, caller.origin) };
    audit::write(&mut transaction, &entry.with(json!({ "reason": reason }))).await?;
    // Nothing is shown before it is written down that it was.
    transaction.commit().await?;
    Ok(axum::Json(contact))
}

/// Approve an application
///
/// Another admin approves it, too. Then there is a new partner, live and active, with the name and contact of who
/// applied; keys are issued to it like to every other.
#[utoipa::path(
    post, path = "/v1/partner-applications/{id}/approval", tag = "partners", operation_id = "approve_application", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The application", example = "app_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "approve-mozart")
    ),
    request_body(content = ApplicationApproval, example = json!({"reason": "contract signed, checks done"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such application", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It is decided", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn approve(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(application): FromPath<ApplicationId>,
    key: IdempotencyKey,
    Json(body): Json<ApplicationApproval>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let asked = body.requests_per_second.unwrap_or(REQUESTS_PER_SECOND_DEFAULT);
    let requests_per_second = rate(&mut fields, asked);
    let reason = fields.reason(&body.reason);
    fields.done()?;
    // Of one application there is one live partner, whoever asks how often.
    let partner = PartnerId::from_uuid(derived_uuid(&format!("application:{application}")));
    let change = PartnerChange::ApproveApplication { application, partner, requests_per_second };
    ask(&app, &caller, &key, approvals::Action::Partner(change), &reason).await
}

/// Decline an application
///
/// The test partner stays.
#[utoipa::path(
    post, path = "/v1/partner-applications/{id}/decline", tag = "partners", operation_id = "decline_application", security(("access_token" = [])),
    params(("id" = String, Path, description = "The application", example = "app_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "no answer to three mails"})),
    responses(
        (status = 200, description = "Declined", body = Application),
        (status = 404, description = "There is no such application", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It is decided", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn decline(
    State(app): State<Arc<App>>,
    Admin(caller): Admin,
    FromPath(id): FromPath<ApplicationId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Application>, Problem> {
    let reason = why.checked()?;
    let mut transaction = app.pool.begin().await?;
    let row = store::lock(&mut transaction, id).await?.ok_or_else(nobody)?;
    match row.status {
        Status::Pending => {}
        // The same once more.
        Status::Declined => return Ok(axum::Json(Application::of(&app, row)?)),
        Status::Approved => return Err(Problem::new(Code::Conflict, "the application is approved already")),
    }
    store::decide(&mut transaction, id, Status::Declined, caller.user, None).await?;
    let entry = Entry {
        target: Some(id.to_string()),
        ..Entry::own(caller.user, Action::DeclineApplication, caller.origin)
    };
    audit::write(&mut transaction, &entry.with(json!({ "reason": reason }))).await?;
    let row = store::by_id(&mut *transaction, id).await?.ok_or_else(nobody)?;
    transaction.commit().await?;
    Ok(axum::Json(Application::of(&app, row)?))
}
