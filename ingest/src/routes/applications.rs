//! `POST /v1/partner-applications`: a sandbox at once, live after an administrator's approval.
//!
//! Public and unsigned, so it is bounded: per client address and hour, and by the day for all together. It makes a test
//! partner (`livemode: false`), which moves no real money and has a rate of its own. What is personal is sealed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::ids::{ApplicationId, KeyId, PartnerId};
use domain::time::Timestamp;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::schema;
use crate::app::App;
use crate::fields::Fields;
use crate::problem::{Code, Problem};
use crate::signed::{self, BODY_BYTES_MAX, address, check_accept, check_media_type, read_body, request_id};
use crate::store::applications::{self as store, NewApplication};
use crate::write::{self, Failure};
use crate::{query, read, seal};

/// Requests of a test partner in a second.
const REQUESTS_PER_SECOND: u32 = 20;
/// Every scope: in the sandbox there is nothing to protect.
const SCOPES: u32 = 0xff;
const NAME_CHARS_MAX: usize = 100;
/// RFC 5321, section 4.5.3.1.
const EMAIL_CHARS_MAX: usize = 254;
const WEBSITE_CHARS_MAX: usize = 200;
/// When the day's number is reached: nobody knows when it will be less.
const RETRY_AFTER_S: u32 = 3_600;

/// Who applies.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationRequest {
    /// The name of the business, shown to customers.
    #[schema(example = "Café Mozart", min_length = 1, max_length = 100)]
    name: String,
    /// Whom to write to.
    #[schema(example = "it@cafe-mozart.example", max_length = 254)]
    contact_email: String,
    /// Whom to speak to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    contact_name: Option<String>,
    /// An https URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    website: Option<String>,
}

/// The application, and the key of its test partner.
#[derive(Serialize, ToSchema)]
pub struct Application {
    /// Its id.
    #[schema(value_type = String, example = "app_01k9q5m3v7f8h9j0kamcneprqs")]
    id: ApplicationId,
    /// `pending`: an administrator decides whether the partner goes live.
    status: &'static str,
    /// The test partner.
    #[schema(value_type = String, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: PartnerId,
    /// `false`: a test partner.
    livemode: bool,
    /// The key's id: `keyid` of signatures.
    #[schema(value_type = String, example = "key_01k9q5m3v7f8h9j0kamcneprqs")]
    key_id: KeyId,
    /// The key's secret in base64; shown here and never again. It is known to every replica within 5 seconds.
    key_secret: String,
    /// When it was made.
    #[schema(value_type = String)]
    created_at: Timestamp,
}

fn request_example() -> Value {
    json!({"name": "Café Mozart", "contact_email": "it@cafe-mozart.example", "website": "https://cafe-mozart.example"})
}

fn example() -> Value {
    json!({
        "id": "app_01k9q5m3v7f8h9j0kamcneprqs", "status": "pending", "partner": "ptr_01k9q5m3v7f8h9j0kamcneprqs",
        "livemode": false, "key_id": "key_01k9q5m3v7f8h9j0kamcneprqs",
        "key_secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw2fK1Yy7sQ8o=", "created_at": "2026-11-01T12:00:00.000000Z"
    })
}

/// Apply as a partner
///
/// Public and unsigned. You are a test partner at once: sign with the key, ask `POST /v1/sandbox/mandates` for a funded
/// test account, and pay. An administrator decides whether you go live.
#[utoipa::path(
    post, path = "/v1/partner-applications", tag = "sandbox", operation_id = "apply_as_partner",
    request_body(content = ApplicationRequest, content_type = "application/json", example = json!(request_example())),
    responses(
        (status = 201, description = "The test partner's key", body = Application, example = json!(example())),
        (status = 400, description = "The request has to be changed; `errors` names the fields", body = schema::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = schema::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 64 KiB", body = schema::Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = schema::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many applications from this address, or today; see Retry-After", body = schema::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Cannot be taken at the moment; see Retry-After", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_accept(&parts.headers)?;
    check_media_type(&parts.headers)?;
    query::none(parts.uri.query())?;
    let body = read_body(&parts.headers, body, BODY_BYTES_MAX).await?;
    let contact = parse(&body)?;
    // What cannot be read costs no place.
    if let Some(address) = address(&parts) {
        let limit = app.application_limit.allow(address);
        limit.map_err(|seconds| Problem::plain(Code::RateLimited).retry_after(seconds))?;
    }
    if !app.lookup.is_up() {
        return Err(read::unavailable());
    }
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(seal::random()?);
    let new = new(&app, &contact, &secret)?;
    let view = Application {
        id: new.id,
        status: "pending",
        partner: new.partner,
        livemode: false,
        key_id: new.key,
        key_secret: STANDARD.encode(secret.as_slice()),
        created_at: new.created_at,
    };
    let (pool, per_day) = (app.writes.clone(), u64::from(app.applications_per_day));
    // A client that goes away does not end a transaction half-way.
    let task = tokio::spawn(async move {
        let mut transaction = pool.begin().await?;
        if store::of_a_day(&mut transaction).await? >= per_day {
            let detail = "too many applied today; try again later, or write to us";
            return Err(Problem::new(Code::RateLimited, detail).retry_after(RETRY_AFTER_S).into());
        }
        store::insert(&mut transaction, &new).await?;
        // Without a key the client can only apply again, so an unknown end is as good as none.
        transaction.commit().await.map_err(Failure::from)
    });
    let ended = tokio::time::timeout(write::WRITE_TIMEOUT, task).await;
    match ended {
        Ok(Ok(Ok(()))) => Ok((StatusCode::CREATED, Json(view)).into_response()),
        Ok(Ok(Err(failure))) => Err(write::problem(failure, request_id(&parts))),
        // Whether it was written does not matter: nobody has the key, and the client may apply again.
        Ok(Err(_)) | Err(_) => Err(read::unavailable()),
    }
}

fn new(app: &App, contact: &ApplicationRequest, secret: &[u8; 32]) -> Result<NewApplication, Problem> {
    let id = ApplicationId::from_uuid(Uuid::now_v7());
    let key = KeyId::from_uuid(Uuid::now_v7());
    let json = serde_json::to_vec(contact).map_err(|_| Problem::plain(Code::Internal))?;
    Ok(NewApplication {
        id,
        partner: PartnerId::from_uuid(Uuid::now_v7()),
        name: contact.name.clone(),
        requests_per_second: REQUESTS_PER_SECOND,
        key,
        secret_sealed: seal::seal(&app.partner_kek, "api_keys", "secret_sealed", &key, secret)?,
        scopes: SCOPES,
        contact_sealed: seal::seal(&app.partner_kek, "partner_applications", "contact_sealed", &id, &json)?,
        created_at: signed::now(),
    })
}

fn parse(body: &[u8]) -> Result<ApplicationRequest, Problem> {
    let mut fields = Fields::of_body(body)?;
    let name = fields.required_text("name", "\"Café Mozart\"", NAME_CHARS_MAX);
    let email = fields.required_text("contact_email", "\"it@shop.example\"", EMAIL_CHARS_MAX);
    let contact_name = fields.optional_text("contact_name", NAME_CHARS_MAX);
    let website = fields.optional_text("website", WEBSITE_CHARS_MAX);
    if email.as_deref().is_some_and(|email| !is_email(email)) {
        fields.refuse("contact_email", "invalid_email", "send one address such as it@shop.example");
    }
    let is_https =
        |text: &str| url::Url::parse(text).is_ok_and(|url| url.scheme() == "https" && url.host().is_some());
    if website.as_deref().is_some_and(|website| !is_https(website)) {
        fields.refuse("website", "invalid_url", "send a URL that begins with https://, or leave it out");
    }
    let request = name.zip(email).map(|(name, contact_email)| ApplicationRequest {
        name,
        contact_email,
        contact_name,
        website,
    });
    fields.finish(request)
}

/// Whether a message could be sent there; only sending one would tell.
fn is_email(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    let plain = !text.contains(char::is_whitespace) && !text.contains(['<', '>', ',', ';', '"']);
    plain
        && parts.is_some_and(|(local, host)| !local.is_empty() && !local.contains('@') && host.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_read_or_its_faults_are_named() {
        let full = br#"{"name":"Caf\u00e9","contact_email":"it@shop.example","contact_name":"Ada","website":"https://shop.example"}"#;
        assert_eq!(parse(full).unwrap().contact_name.as_deref(), Some("Ada"));
        let cases = [
            (r#"{"contact_email":"it@shop.example"}"#, "/name", "missing"),
            (r#"{"name":"","contact_email":"it@shop.example"}"#, "/name", "empty"),
            (r#"{"name":"a","contact_email":"shop.example"}"#, "/contact_email", "invalid_email"),
            (r#"{"name":"a","contact_email":"a@b@c.example"}"#, "/contact_email", "invalid_email"),
            (r#"{"name":"a","contact_email":"a b@c.example"}"#, "/contact_email", "invalid_email"),
            (r#"{"name":"a","contact_email":"a@c.example,b@c.example"}"#, "/contact_email", "invalid_email"),
            (
                r#"{"name":"a","contact_email":"a@c.example\r\nBcc: x"}"#,
                "/contact_email",
                "control_character",
            ),
            (
                r#"{"name":"a","contact_email":"a@c.example","website":"http://c.example"}"#,
                "/website",
                "invalid_url",
            ),
            (
                r#"{"name":"a","contact_email":"a@c.example","website":"javascript:alert(1)"}"#,
                "/website",
                "invalid_url",
            ),
            (r#"{"name":"a","contact_email":"a@c.example","livemode":true}"#, "/livemode", "unknown_field"),
        ];
        for (body, pointer, code) in cases {
            let problem = parse(body.as_bytes()).expect_err(body);
            let faults: Vec<_> =
                problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect();
            assert_eq!(faults, [(pointer, code)], "{body}");
        }
    }
}
