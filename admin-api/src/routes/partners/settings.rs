//! Where a partner's customers may be sent back to, and where its payments are credited.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::account::AccountStatus;
use domain::command::BankCommand;
use domain::endpoint_url::{Loopback, check_url};
use domain::ids::{AccountId, PartnerId};
use domain::money::{Currency, decimal_text};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::super::documents::ProblemShape;
use super::super::fields::Fields;
use super::nobody;
use crate::access::{Fresh, Operator, Reader};
use crate::app::App;
use crate::approvals::{self, Approval};
use crate::audit::{Action, Entry};
use crate::body::{FromPath, Json};
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::second_person::ask;
use crate::store::{audit, partners as store};

/// Return URLs of one partner, as many as ingest looks at.
const RETURN_URLS_MAX: u32 = 100;
/// Bytes of a return URL, as its column has them.
const URL_BYTES_MAX: usize = 255;

/// The URLs under which a partner's customers may be sent.
#[derive(Serialize, ToSchema)]
pub struct ReturnUrls {
    /// The URLs, in the order of their letters.
    #[schema(example = json!(["https://shop.example/return"]))]
    data: Vec<String>,
}

/// A return URL.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReturnUrl {
    /// An https URL without user, password, query and fragment. Whatever lies under its path is allowed with it.
    #[schema(example = "https://shop.example/return", max_length = 255)]
    url: String,
    /// Why, in 5 to 300 characters.
    #[schema(example = "their new shop", min_length = 5, max_length = 300)]
    reason: String,
}

/// Where payments of a currency are credited.
#[derive(Serialize, ToSchema)]
pub struct SettlementAccount {
    /// The currency.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// The account.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: AccountId,
    /// Where the account stands.
    #[schema(value_type = String, example = "active")]
    status: AccountStatus,
    /// What is on it.
    #[schema(example = "1204.50")]
    balance: String,
}

/// The settlement accounts of a partner, one for each currency.
#[derive(Serialize, ToSchema)]
pub struct SettlementAccounts {
    /// The accounts.
    data: Vec<SettlementAccount>,
}

/// Another settlement account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSettlementAccount {
    /// An account of the partner; its currency decides which payments it is for.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: AccountId,
    /// Why, in 5 to 300 characters.
    #[schema(example = "second legal person, letter of 3 May", min_length = 5, max_length = 300)]
    reason: String,
}

/// The URL as it is compared and stored, or what is wrong with it.
fn return_url(fields: &mut Fields, text: &str) -> String {
    let url = match check_url(text.trim(), Loopback::Refused) {
        Ok(url)
            if url.query().is_none() && url.fragment().is_none() && url.as_str().len() <= URL_BYTES_MAX =>
        {
            url
        }
        Ok(_) => {
            let detail =
                "at most 255 bytes, without query and fragment: what lies under its path is allowed with it";
            fields.refuse("/url", "invalid_url", detail);
            return String::new();
        }
        Err(refusal) => {
            fields.refuse("/url", format!("url_{refusal}"), refusal.advice());
            return String::new();
        }
    };
    url.to_string()
}

/// The return URLs of a partner
#[utoipa::path(
    get, path = "/v1/partners/{id}/return-urls", tag = "partners", operation_id = "list_return_urls", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The URLs", body = ReturnUrls),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list_return_urls(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<PartnerId>,
) -> Result<axum::Json<ReturnUrls>, Problem> {
    store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    Ok(axum::Json(ReturnUrls { data: store::return_urls(&app.pool, id, RETURN_URLS_MAX).await? }))
}

/// Add a return URL
///
/// Customers of the partner may be sent there, and to whatever lies under it, after they answered a request for a
/// mandate. To add what is there changes nothing.
#[utoipa::path(
    post, path = "/v1/partners/{id}/return-urls", tag = "partners", operation_id = "add_return_url", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = ReturnUrl, example = json!({"url": "https://shop.example/return", "reason": "their new shop"})),
    responses(
        (status = 201, description = "The URLs", body = ReturnUrls),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "There are as many as there may be", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn add_return_url(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    FromPath(id): FromPath<PartnerId>,
    Json(body): Json<ReturnUrl>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (url, reason) = (return_url(&mut fields, &body.url), fields.reason(&body.reason));
    fields.done()?;
    let mut transaction = app.pool.begin().await?;
    store::lock(&mut transaction, id).await?.ok_or_else(nobody)?;
    let mut urls = store::return_urls(&mut *transaction, id, RETURN_URLS_MAX).await?;
    if !urls.contains(&url) {
        if urls.len() >= RETURN_URLS_MAX as usize {
            let detail = format!("there are {RETURN_URLS_MAX}; remove one that is not needed any more");
            return Err(Problem::new(Code::Conflict, detail));
        }
        store::insert_return_url(&mut transaction, id, &url).await?;
        let entry = Entry {
            target: Some(id.to_string()),
            ..Entry::own(caller.user, Action::AddReturnUrl, caller.origin)
        };
        audit::write(&mut transaction, &entry.with(json!({ "url": url, "reason": reason }))).await?;
        transaction.commit().await?;
        urls.push(url);
        urls.sort_unstable();
    }
    Ok((StatusCode::CREATED, axum::Json(ReturnUrls { data: urls })).into_response())
}

/// Remove a return URL
///
/// Customers are sent there no more; requests that name it already keep it.
#[utoipa::path(
    post, path = "/v1/partners/{id}/return-urls/removals", tag = "partners", operation_id = "remove_return_url", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = ReturnUrl, example = json!({"url": "https://shop.example/return", "reason": "the shop is closed"})),
    responses(
        (status = 200, description = "The URLs that are left", body = ReturnUrls),
        (status = 404, description = "There is no such partner, or no such URL", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn remove_return_url(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    FromPath(id): FromPath<PartnerId>,
    Json(body): Json<ReturnUrl>,
) -> Result<axum::Json<ReturnUrls>, Problem> {
    let mut fields = Fields::default();
    let reason = fields.reason(&body.reason);
    fields.done()?;
    let mut transaction = app.pool.begin().await?;
    store::lock(&mut transaction, id).await?.ok_or_else(nobody)?;
    // As it was listed: rules that came later must not keep an old one from being removed.
    if !store::delete_return_url(&mut transaction, id, body.url.trim()).await? {
        return Err(nobody());
    }
    let entry = Entry {
        target: Some(id.to_string()),
        ..Entry::own(caller.user, Action::RemoveReturnUrl, caller.origin)
    };
    audit::write(&mut transaction, &entry.with(json!({ "url": body.url.trim(), "reason": reason }))).await?;
    let data = store::return_urls(&mut *transaction, id, RETURN_URLS_MAX).await?;
    transaction.commit().await?;
    Ok(axum::Json(ReturnUrls { data }))
}

/// Where a partner's payments are credited
#[utoipa::path(
    get, path = "/v1/partners/{id}/settlement-accounts", tag = "partners", operation_id = "list_settlement_accounts", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The accounts", body = SettlementAccounts),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list_settlement_accounts(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<PartnerId>,
) -> Result<axum::Json<SettlementAccounts>, Problem> {
    store::by_id(&app.pool, id).await?.ok_or_else(nobody)?;
    let rows = store::settlement_accounts(&app.pool, id).await?;
    let data = rows.into_iter().map(|row| SettlementAccount {
        currency: row.currency,
        account: row.account,
        status: row.status,
        balance: decimal_text(row.balance_minor, row.currency),
    });
    Ok(axum::Json(SettlementAccounts { data: data.collect() }))
}

/// Have a partner's payments credited to another account of its own
///
/// A second person approves it. The first account that is opened for a partner in a currency is its settlement account
/// without further ado.
#[utoipa::path(
    post, path = "/v1/partners/{id}/settlement-accounts", tag = "partners", operation_id = "set_settlement_account", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "settle-mozart")
    ),
    request_body(content = NewSettlementAccount, example = json!({"account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "reason": "second legal person, letter of 3 May"})),
    responses(
        (status = 202, description = "A second person has to approve it", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn set_settlement_account(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    FromPath(partner): FromPath<PartnerId>,
    key: IdempotencyKey,
    Json(body): Json<NewSettlementAccount>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let (account, reason) = (body.account, fields.reason(&body.reason));
    store::by_id(&app.pool, partner).await?.ok_or_else(nobody)?;
    if !store::owns(&app.pool, partner, account).await? {
        fields.refuse("/account", "unknown_account", "the partner has no such account");
    }
    fields.done()?;
    let command = BankCommand::SetSettlementAccount { partner, account };
    ask(&app, &caller, &key, approvals::Action::Bank(command), &reason).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_urls_are_https_urls_of_the_public_internet() {
        let read = |text: &str| {
            let mut fields = Fields::default();
            let url = return_url(&mut fields, text);
            fields.done().map(|()| url).map_err(|problem| problem.errors[0].code.to_string())
        };
        assert_eq!(read(" https://Shop.example/a ").unwrap(), "https://shop.example/a");
        assert_eq!(read("https://shöp.example").unwrap(), "https://xn--shp-tna.example/");
        for (bad, code) in [
            ("http://shop.example/", "url_scheme"),
            ("javascript:alert(1)", "url_malformed"),
            ("https://user:pass@shop.example/", "url_credentials"),
            ("https://127.0.0.1/", "url_address"),
            ("https://[::ffff:10.0.0.1]/", "url_address"),
            ("https://localhost/", "url_name"),
            ("https://shop.example:22/", "url_port"),
            ("https://shop.example/a b", "url_malformed"),
            ("https://shop.example/?a=1", "invalid_url"),
            ("https://shop.example/#a", "invalid_url"),
            (&format!("https://shop.example/{}", "a".repeat(240)), "invalid_url"),
            ("", "url_malformed"),
        ] {
            assert_eq!(read(bad).unwrap_err(), code, "{bad}");
        }
    }
}
