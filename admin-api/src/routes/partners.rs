//! Partners, as staff manage them. What belongs to one has modules of its own: [`applications`], [`keys`], [`settings`],
//! [`webhooks`].

pub mod applications;
pub mod keys;
pub mod settings;
pub mod webhooks;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::ids::PartnerId;
use domain::time::Timestamp;
use http::{HeaderMap, StatusCode, header};
use runtime::precondition::{Expected, etag};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::commands::Why;
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Admin, Fresh, Operator, Reader};
use crate::app::App;
use crate::approvals::{self, Approval};
use crate::audit::{Action, Entry};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::idempotency::IdempotencyKey;
use crate::partners::contact::{Contact, MaskedContact};
use crate::partners::{PartnerChange, PartnerStatus, REQUESTS_PER_SECOND_DEFAULT, REQUESTS_PER_SECOND_MAX};
use crate::problem::{Code, Problem};
use crate::second_person::ask;
use crate::store::partners::{self as store, Filter, NewPartner, PartnerRow};
use crate::store::{audit, is_duplicate};

/// Characters of a web site's address.
const WEBSITE_CHARS_MAX: usize = 200;

/// A partner.
#[derive(Serialize, ToSchema)]
pub struct Partner {
    /// The id.
    #[schema(value_type = String, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    id: PartnerId,
    /// The name, as customers see it.
    #[schema(example = "Café Mozart")]
    name: String,
    /// Where it stands.
    status: PartnerStatus,
    /// `false` for a test partner, which never becomes a live one.
    #[schema(example = true)]
    livemode: bool,
    /// Requests that it may make in a second, sustained.
    #[schema(example = 50)]
    requests_per_second: u32,
    /// Whom to reach, masked; nothing of partners that nobody registered.
    #[schema(inline)]
    contact: Option<MaskedContact>,
    /// Counts changes; also in ETag.
    #[schema(example = 1)]
    version: u32,
    /// Since when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
}

/// Partners, newest first.
#[derive(Serialize, ToSchema)]
pub struct Partners {
    /// The partners.
    data: Vec<Partner>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
}

/// Which partners.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// `active`, `suspended` or `pending`.
    #[param(example = "pending")]
    status: Option<String>,
    /// `false` for test partners.
    #[param(example = true)]
    livemode: Option<bool>,
    /// The name begins so, in whatever case.
    #[param(example = "café")]
    name: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AZmZmQAAcACAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// Whom to reach at a partner.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactInput {
    /// Whom to write to.
    #[schema(example = "it@cafe-mozart.example", max_length = 254)]
    email: String,
    /// Whom to speak to.
    #[schema(example = "Ada Byron", max_length = 100, nullable)]
    name: Option<String>,
    /// An https URL.
    #[schema(example = "https://cafe-mozart.example", max_length = 200, nullable)]
    website: Option<String>,
}

/// A partner to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPartnerInput {
    /// The name, as customers see it.
    #[schema(example = "Café Mozart", min_length = 1, max_length = 100)]
    name: String,
    /// Requests that it may make in a second, sustained; 50 when nothing is said.
    #[schema(example = 50, minimum = 1, maximum = 100_000, nullable)]
    requests_per_second: Option<u32>,
    /// Whom to reach.
    #[schema(inline)]
    contact: ContactInput,
    /// Why, in 5 to 300 characters.
    #[schema(example = "contract of 3 May", min_length = 5, max_length = 300)]
    reason: String,
}

/// What changes of a partner; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PartnerPatch {
    /// The name, as customers see it.
    #[schema(example = "Café Haydn", min_length = 1, max_length = 100, nullable)]
    name: Option<String>,
    /// Requests that it may make in a second, sustained.
    #[schema(example = 100, minimum = 1, maximum = 100_000, nullable)]
    requests_per_second: Option<u32>,
    /// Whom to reach, all of it.
    #[schema(inline, nullable)]
    contact: Option<ContactInput>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "was sold to the neighbour", min_length = 5, max_length = 300)]
    reason: String,
}

pub(super) fn nobody() -> Problem {
    Problem::plain(Code::NotFound)
}

impl Partner {
    fn of(app: &App, row: PartnerRow) -> Result<Self, Problem> {
        let contact = row.contact_sealed.as_deref();
        let contact = contact.map(|sealed| Contact::open(&app.partner_kek, row.id, sealed)).transpose()?;
        Ok(Self {
            id: row.id,
            name: row.name,
            status: row.status,
            livemode: row.livemode,
            requests_per_second: row.requests_per_second,
            contact: contact.map(|contact| contact.masked()),
            version: row.version,
            created_at: row.created_at,
        })
    }
}

fn with_etag(app: &App, row: PartnerRow) -> Result<Response, Problem> {
    let tag = etag(row.version);
    Ok(([(header::ETAG, tag)], axum::Json(Partner::of(app, row)?)).into_response())
}

/// The part of the rows that is shown, and the cursor behind it when there are more.
pub(super) fn cut<T>(
    mut rows: Vec<T>,
    limit: u32,
    cursor: impl FnOnce(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(cursor);
    (rows, next)
}

/// A word of the query, as one of a closed set.
pub(super) fn word<T>(
    asked: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
    detail: &'static str,
) -> Result<Option<T>, Problem> {
    let refuse = || Problem::new(Code::MalformedRequest, detail);
    asked.map(|text| read(text).ok_or_else(refuse)).transpose()
}

/// Search partners
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/partners", tag = "partners", operation_id = "list_partners", security(("access_token" = [])),
    params(Search),
    responses(
        (status = 200, description = "The partners", body = Partners),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(search): FromQuery<Search>,
) -> Result<axum::Json<Partners>, Problem> {
    let limit = cursor::limit(search.limit)?;
    let below = search.cursor.as_deref().map(cursor::read).transpose()?;
    let read = |text: &str| PartnerStatus::ALL.into_iter().find(|status| status.as_str() == text);
    let status = word(search.status.as_deref(), read, "`status` is active, suspended or pending")?;
    let name = search.name.filter(|name| !name.is_empty());
    let filter = Filter { status, livemode: search.livemode, name };
    let rows = store::list(&app.pool, &filter, below, limit + 1).await?;
    let (rows, next) = cut(rows, limit, |row| cursor::after(row.id.uuid()));
    let data = rows.into_iter().map(|row| Partner::of(&app, row)).collect::<Result<_, _>>()?;
    Ok(axum::Json(Partners { data, next }))
}

/// A partner
#[utoipa::path(
    get, path = "/v1/partners/{id}", tag = "partners", operation_id = "read_partner", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The partner; its version in ETag", body = Partner),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<PartnerId>,
) -> Result<Response, Problem> {
    with_etag(&app, store::by_id(&app.pool, id).await?.ok_or_else(nobody)?)
}

fn rate(fields: &mut Fields, asked: u32) -> u32 {
    if !(1..=REQUESTS_PER_SECOND_MAX).contains(&asked) {
        let detail = format!("must be 1 to {REQUESTS_PER_SECOND_MAX}");
        fields.refuse("/requests_per_second", "out_of_range", detail);
    }
    asked
}

/// The contact; its fields are named as they stand in the body.
fn contact(fields: &mut Fields, name: &str, input: &ContactInput) -> Contact {
    let contact_email = fields.email_at("/contact/email", &input.email);
    let contact_name = input.name.as_deref().map(|name| fields.name_at("/contact/name", name));
    let website = input.website.as_deref().map(str::trim);
    let is_https =
        |text: &str| url::Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.host().is_some());
    if website.is_some_and(|text| text.chars().count() > WEBSITE_CHARS_MAX || !is_https(text)) {
        fields.refuse(
            "/contact/website",
            "invalid_url",
            "send a URL that begins with https://, or leave it out",
        );
    }
    Contact {
        name: name.to_owned(),
        contact_email: contact_email.map(|email| email.as_str().to_owned()).unwrap_or_default(),
        contact_name,
        website: website.map(str::to_owned),
    }
}

/// Register a partner
///
/// A live one, which may do nothing with money until two admins activate it.
#[utoipa::path(
    post, path = "/v1/partners", tag = "partners", operation_id = "register_partner", security(("access_token" = [])),
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "cafe-mozart")),
    request_body(content = NewPartnerInput, example = json!({"name": "Café Mozart", "contact": {"email": "it@cafe-mozart.example"}, "reason": "contract of 3 May"})),
    responses(
        (status = 201, description = "Registered; its version in ETag", body = Partner),
        (status = 409, description = "The key was used for another partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn register(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    key: IdempotencyKey,
    Json(body): Json<NewPartnerInput>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (name, reason) = (fields.name(&body.name), fields.reason(&body.reason));
    let requests_per_second =
        rate(&mut fields, body.requests_per_second.unwrap_or(REQUESTS_PER_SECOND_DEFAULT));
    let contact = contact(&mut fields, &name, &body.contact);
    fields.done()?;
    let id = PartnerId::from_uuid(key.command_id(caller.user));
    let new = NewPartner {
        id,
        name,
        status: PartnerStatus::Pending,
        requests_per_second,
        contact_sealed: contact.seal(&app.partner_kek, id)?,
    };
    let mut transaction = app.pool.begin().await?;
    match store::insert(&mut transaction, &new).await {
        Ok(()) => {
            let detail =
                json!({"name": new.name, "requests_per_second": requests_per_second, "reason": reason});
            let entry = Entry {
                target: Some(id.to_string()),
                ..Entry::own(caller.user, Action::RegisterPartner, caller.origin)
            };
            audit::write(&mut transaction, &entry.with(detail)).await?;
            transaction.commit().await?;
        }
        Err(error) if is_duplicate(&error) => transaction.rollback().await?,
        Err(error) => return Err(error.into()),
    }
    // A repetition finds what the first one made, whatever became of it since.
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    let sealed = row.contact_sealed.as_deref();
    let made = sealed.map(|sealed| Contact::open(&app.partner_kek, id, sealed)).transpose()?;
    let same = row.version > 1
        || (row.name == new.name
            && row.requests_per_second == requests_per_second
            && made.as_ref() == Some(&contact));
    if !same {
        return Err(Problem::plain(Code::IdempotencyConflict));
    }
    let location = format!("/v1/partners/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], with_etag(&app, row)?).into_response())
}

/// Change a partner
///
/// Name, rate and contact. The rate holds within 5 seconds.
#[utoipa::path(
    patch, path = "/v1/partners/{id}", tag = "partners", operation_id = "change_partner", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("If-Match" = String, Header, description = "The ETag as it was answered, or *", example = "\"1\"")
    ),
    request_body(content = PartnerPatch, example = json!({"requests_per_second": 100, "reason": "opened a second shop"})),
    responses(
        (status = 200, description = "Changed; the new version in ETag", body = Partner),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = ProblemShape, content_type = "application/problem+json"),
        (status = 428, description = "There is no If-Match", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(id): FromPath<PartnerId>,
    headers: HeaderMap,
    Json(body): Json<PartnerPatch>,
) -> Result<Response, Problem> {
    let expected = Expected::of(&headers)?;
    let mut fields = Fields::default();
    let name = body.name.as_deref().map(|name| fields.name(name));
    let requests_per_second = body.requests_per_second.map(|asked| rate(&mut fields, asked));
    let contact = body.contact.as_ref().map(|input| contact(&mut fields, "", input));
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let mut transaction = app.pool.begin().await?;
    let mut row = store::lock(&mut transaction, id).await?.ok_or_else(nobody)?;
    expected.check(row.version)?;
    let mut detail = json!({ "reason": reason });
    if let Some(name) = name {
        detail["name"] = json!({"before": row.name, "after": name});
        row.name = name;
    }
    if let Some(requests_per_second) = requests_per_second {
        detail["requests_per_second"] =
            json!({"before": row.requests_per_second, "after": requests_per_second});
        row.requests_per_second = requests_per_second;
    }
    if let Some(contact) = contact {
        // Of personal data only that it changed.
        detail["fields"] = json!(["contact"]);
        row.contact_sealed = Some(contact.seal(&app.partner_kek, id)?);
    }
    store::update(&mut transaction, &row).await?;
    let entry = Entry {
        target: Some(id.to_string()),
        ..Entry::own(caller.user, Action::ChangePartner, caller.origin)
    };
    audit::write(&mut transaction, &entry.with(detail)).await?;
    let row = store::by_id(&mut *transaction, id).await?.ok_or_else(nobody)?;
    transaction.commit().await?;
    with_etag(&app, row)
}

/// Whom to reach at a partner
///
/// Unmasked, for a reason, which is written into the audit log with who asked.
#[utoipa::path(
    post, path = "/v1/partners/{id}/contact", tag = "partners", operation_id = "read_partner_contact", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "their webhooks fail"})),
    responses(
        (status = 200, description = "The contact", body = Contact),
        (status = 404, description = "There is no such partner, or nobody to reach", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_contact(
    State(app): State<Arc<App>>,
    Fresh(Reader(caller)): Fresh<Reader>,
    FromPath(id): FromPath<PartnerId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Contact>, Problem> {
    let reason = why.checked()?;
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    let sealed = row.contact_sealed.ok_or_else(nobody)?;
    let contact = Contact { name: row.name, ..Contact::open(&app.partner_kek, id, &sealed)? };
    let mut transaction = app.pool.begin().await?;
    let entry =
        Entry { target: Some(id.to_string()), ..Entry::own(caller.user, Action::ReadContact, caller.origin) };
    audit::write(&mut transaction, &entry.with(json!({ "reason": reason }))).await?;
    // Nothing is shown before it is written down that it was.
    transaction.commit().await?;
    Ok(axum::Json(contact))
}

/// Activate a partner
///
/// Another admin approves it. From then on its payments are decided like everybody's; ingest knows within 5 seconds.
#[utoipa::path(
    post, path = "/v1/partners/{id}/activation", tag = "partners", operation_id = "activate_partner", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "activate-mozart")
    ),
    request_body(content = Why, example = json!({"reason": "contract signed, checks done"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It is active", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn activate(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(partner): FromPath<PartnerId>,
    key: IdempotencyKey,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    let action = approvals::Action::Partner(PartnerChange::Activate { partner });
    ask(&app, &caller, &key, action, &why.checked()?).await
}

/// Suspend a partner
///
/// Another admin approves it. From then on its payments, captures and transfers are rejected and it asks no customer for
/// a mandate; refunds, voids, reads and webhooks go on.
#[utoipa::path(
    post, path = "/v1/partners/{id}/suspension", tag = "partners", operation_id = "suspend_partner", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "suspend-mozart")
    ),
    request_body(content = Why, example = json!({"reason": "complaints of customers, case 4711"})),
    responses(
        (status = 202, description = "Another admin has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It is not active", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn suspend(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(partner): FromPath<PartnerId>,
    key: IdempotencyKey,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    let action = approvals::Action::Partner(PartnerChange::Suspend { partner });
    ask(&app, &caller, &key, action, &why.checked()?).await
}
