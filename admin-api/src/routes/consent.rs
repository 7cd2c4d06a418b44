//! A customer's answer to a merchant who asks for the right to debit.
//!
//! The merchant shows a code, or sends the customer to a link that ends with the request's id; either names the request
//! here. Whoever answers first has answered: the ledger knows a mandate once. A request that is unknown, has come to its
//! time or was answered by somebody else is not there, in one and the same answer, and who asks for too many such ones
//! waits.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::account::{AccountStatus, Owner};
use domain::command::{BankCommand, GrantMandate, MandateTerms};
use domain::ids::{AccountId, MandateId};
use domain::mandate::{MandateKind, MandateStatus, is_request_code, request_code_hash};
use domain::money::{Amount, Currency, decimal_text};
use domain::payment::Reason;
use domain::return_url::lies_under;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

use super::commands::CommandHeaders;
use super::documents::ProblemShape;
use super::fields::Fields;
use super::ledger::mandates::find as find_mandate;
use super::ledger::{Account, Mandate, Merchant, Viewer, find as find_account, now};
use super::my_money::{REASON, sent_before};
use crate::access::{Caller, Customer, Fresh};
use crate::app::App;
use crate::bank::{CommandView, Sent, Wait, answer};
use crate::body::{FromPath, Json};
use crate::commands::Outcome;
use crate::idempotency::IdempotencyKey;
use crate::personal::network;
use crate::problem::{Code, Problem};
use crate::store::ledger::mandates::{self as store, Named, RequestRow, Terms};
use crate::store::ledger::{Filters, accounts};
use crate::throttle::seconds;

/// Accounts that are offered.
const ACCOUNTS_MAX: usize = 50;

/// What a merchant asks for.
#[derive(Debug, Serialize, ToSchema)]
pub struct MandateRequest {
    /// The mandate that it will be.
    #[schema(value_type = String, example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    id: MandateId,
    /// Who asks.
    merchant: Merchant,
    /// `pending`, or what became of it once you have granted it.
    #[schema(value_type = String, example = "pending")]
    status: MandateStatus,
    /// `single`: for one payment; `standing`: until it expires or is revoked.
    #[schema(value_type = String, example = "standing")]
    kind: MandateKind,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// Decimal string: the most that one payment may debit; nothing: no limit.
    #[schema(example = "50.00")]
    per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank; nothing: no limit.
    #[schema(example = "100.00")]
    daily_cap: Option<String>,
    /// From when on it authorises nothing.
    #[schema(value_type = Option<String>, example = "2027-01-31T12:00:00.000000Z")]
    expires_at: Option<Timestamp>,
    /// The merchant's reference.
    #[schema(example = "customer-7")]
    reference: Option<String>,
    /// Until when it may be answered.
    #[schema(value_type = String, example = "2026-01-31T12:15:00.000000Z")]
    answer_by: Timestamp,
    /// Where you go afterwards; nothing: the merchant named no place that the bank knows.
    #[schema(example = "https://shop.example/return?order=4711")]
    return_url: Option<String>,
    /// Your accounts that it can be granted on.
    accounts: Vec<Account>,
}

/// A yes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The own account to be debited.
    #[schema(example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: String,
    /// Less than what was asked for as the most that one payment may debit.
    #[schema(example = "20.00")]
    per_payment_max: Option<String>,
    /// Less than what was asked for as the most that may be debited in a day.
    #[schema(example = "40.00")]
    daily_cap: Option<String>,
    /// Sooner than what was asked for.
    #[schema(value_type = Option<String>, example = "2026-12-31T00:00:00Z")]
    expires_at: Option<Timestamp>,
}

/// What was answered, and where to go now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answered {
    /// The mandate.
    mandate: Mandate,
    /// Where the merchant waits, with `mandate` and `status` added; nothing: stay.
    #[schema(
        example = "https://shop.example/return?order=4711&mandate=mdt_01k9q5m3v7f8h9j0kamcneprqs&status=active"
    )]
    return_url: Option<String>,
}

fn unknown() -> Problem {
    let detail = "there is no request to answer under this code or id: it may be mistyped, too old, or answered already";
    Problem::new(Code::NotFound, detail)
}

/// What a customer may name a request by.
fn named(text: &str) -> Option<Named> {
    if let Ok(id) = text.parse() {
        return Some(Named::Id(id));
    }
    is_request_code(text).then(|| Named::Code(request_code_hash(text)))
}

/// The request, while the caller may answer it or has granted it, or when `before`, the command that the caller sent under
/// the same key, was an answer to it.
async fn find(
    app: &App,
    caller: &Caller,
    text: &str,
    before: Option<&BankCommand>,
) -> Result<RequestRow, Problem> {
    let (user, from) = (caller.user, network(caller.origin.address.unwrap_or(IpAddr::from([0; 4]))));
    let throttles = &app.throttles;
    // A miss until it is found to be none: of many at once no more are looked for than of many in turn.
    let taken = throttles.request_misses.try_take(user).and_then(|()| {
        let taken = throttles.network_request_misses.try_take(from);
        taken.inspect_err(|_| throttles.request_misses.give_back(&user))
    });
    taken.map_err(|wait| Problem::plain(Code::TooManyAttempts).retry_after(seconds(wait)))?;
    let found = match named(text) {
        Some(named) => store::request(&app.pool, named).await?,
        None => None,
    };
    let may_see = |request: &RequestRow| {
        let is_open = request.status.is_none() && now() < request.answer_by;
        let is_repeat = before.is_some_and(|command| command.kafka_key() == request.id.uuid());
        is_open || is_repeat || request.owner == Some(Owner::Customer(user))
    };
    let request = found.filter(may_see).ok_or_else(unknown)?;
    throttles.request_misses.give_back(&user);
    throttles.network_request_misses.give_back(&from);
    Ok(request)
}

/// The request's return URL, when it lies under one that is registered for the merchant now.
async fn return_url(app: &App, request: &RequestRow) -> Result<Option<Url>, Problem> {
    let Some(url) = request.return_url.as_deref().and_then(|text| Url::parse(text).ok()) else {
        return Ok(None);
    };
    let registered = store::return_urls(&app.pool, request.merchant.id).await?;
    let mut registered = registered.iter().filter_map(|text| Url::parse(text).ok());
    Ok(registered.any(|registered| lies_under(&url, &registered)).then_some(url))
}

/// What a merchant asks for
///
/// By the code that the merchant shows (spaces, hyphens and small letters will do), or by the id that the merchant's link
/// ends with.
#[utoipa::path(
    get, path = "/v1/me/mandate-requests/{id}", tag = "me", operation_id = "read_mandate_request", security(("access_token" = [])),
    params(("id" = String, Path, description = "The code or the id", example = "K7M2-XQ9P")),
    responses(
        (status = 200, description = "The request", body = MandateRequest),
        (status = 404, description = "There is nothing to answer under it", body = ProblemShape, content_type = "application/problem+json"),
        (status = 429, description = "Too many codes that were none", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(text): FromPath<String>,
) -> Result<axum::Json<MandateRequest>, Problem> {
    let request = find(&app, &caller, &text, None).await?;
    let filters = Filters { owner: Some(Owner::Customer(caller.user)), status: Some(AccountStatus::Active) };
    let own = accounts(&app.pool, filters, None, ACCOUNTS_MAX).await?;
    let fits = own.into_iter().filter(|account| {
        account.currency == request.terms.currency && account.livemode == request.merchant.livemode
    });
    let accounts = fits.map(Account::from).collect();
    let return_url = return_url(&app, &request).await?.map(String::from);
    let terms = request.terms;
    let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, terms.currency));
    Ok(axum::Json(MandateRequest {
        id: request.id,
        merchant: request.merchant.into(),
        status: MandateStatus::at(request.status, terms.expires_at, Some(request.answer_by), now()),
        kind: terms.kind,
        currency: terms.currency,
        per_payment_max: text(terms.payment_max_minor),
        daily_cap: text(terms.daily_max_minor),
        expires_at: terms.expires_at,
        reference: terms.reference,
        answer_by: request.answer_by,
        return_url,
        accounts,
    }))
}

/// Let a merchant debit an account
///
/// On what was asked for, or on less. Needs a proof that is not older than five minutes.
#[utoipa::path(
    post, path = "/v1/me/mandate-requests/{id}/grant", tag = "me", operation_id = "grant_mandate", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The code or the id", example = "K7M2-XQ9P"),
        CommandHeaders
    ),
    request_body(content = Grant, example = json!({"account": "acct_01k9q5m3v7f8h9j0kamcneprqs", "daily_cap": "40.00"})),
    responses(
        (status = 201, description = "Granted", body = Answered, headers(("Location" = String, description = "The mandate"))),
        (status = 202, description = "Not decided yet: see Location", body = CommandView),
        (status = 404, description = "There is nothing to answer under it, or you have no such account", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was answered at the same moment, or the merchant is suspended", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it; `reason` says why", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn grant(
    State(app): State<Arc<App>>,
    Fresh(Customer(caller)): Fresh<Customer>,
    FromPath(text): FromPath<String>,
    key: IdempotencyKey,
    wait: Wait,
    Json(body): Json<Grant>,
) -> Result<Response, Problem> {
    let id = key.command_id(caller.user);
    let before = sent_before(&app, &caller, id).await?;
    let request = find(&app, &caller, &text, before.as_ref()).await?;
    if before.is_none() && !request.merchant.active {
        return Err(Problem::new(
            Code::Conflict,
            "the bank has suspended this merchant; nothing can be granted to it now",
        ));
    }
    let (account, terms) = granted(&body, &request.terms)?;
    find_account(&app, Viewer::Customer(caller.user), account).await?;
    let command = BankCommand::GrantMandate(GrantMandate {
        mandate: request.id,
        partner: request.merchant.id,
        account,
        kind: terms.kind,
        currency: terms.currency,
        payment_max_minor: terms.payment_max_minor,
        daily_max_minor: terms.daily_max_minor,
        expires_at: terms.expires_at,
        reference: terms.reference,
    });
    carry_out(&app, &caller, id, command, &request, wait, Viewer::Customer(caller.user)).await
}

/// The account, and the terms as the customer narrows them.
fn granted(body: &Grant, asked: &Terms) -> Result<(AccountId, Terms), Problem> {
    let mut fields = Fields::default();
    let account = fields.account("/account", &body.account);
    let payment_max = body.per_payment_max.as_deref();
    let payment_max_minor =
        at_most(&mut fields, "/per_payment_max", payment_max, asked.currency, asked.payment_max_minor);
    let daily_max = body.daily_cap.as_deref();
    let daily_max_minor =
        at_most(&mut fields, "/daily_cap", daily_max, asked.currency, asked.daily_max_minor);
    if body.expires_at.zip(asked.expires_at).is_some_and(|(sooner, asked)| sooner > asked) {
        fields.refuse("/expires_at", "out_of_range", "later than what was asked for");
    }
    fields.done()?;
    let account = account.ok_or_else(|| Problem::plain(Code::InvalidField))?;
    let expires_at = body.expires_at.or(asked.expires_at);
    Ok((account, Terms { payment_max_minor, daily_max_minor, expires_at, ..asked.clone() }))
}

/// A limit that is not above the one that was asked for, which counts when there is none.
fn at_most(
    fields: &mut Fields,
    pointer: &str,
    text: Option<&str>,
    currency: Currency,
    asked: Option<i64>,
) -> Option<i64> {
    let Some(text) = text else { return asked };
    match Amount::parse(text, currency) {
        Ok(amount) if asked.is_none_or(|asked| amount.minor() <= asked) => return Some(amount.minor()),
        Ok(_) => fields.refuse(pointer, "out_of_range", "more than what was asked for"),
        Err(error) => fields.refuse(pointer, "invalid_amount", error.to_string()),
    }
    None
}

/// Say no to a merchant
#[utoipa::path(
    post, path = "/v1/me/mandate-requests/{id}/decline", tag = "me", operation_id = "decline_mandate", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The code or the id", example = "K7M2-XQ9P"),
        CommandHeaders
    ),
    responses(
        (status = 200, description = "Declined", body = Answered),
        (status = 202, description = "Not decided yet: see Location", body = CommandView),
        (status = 404, description = "There is nothing to answer under it", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was answered at the same moment", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn decline(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(text): FromPath<String>,
    key: IdempotencyKey,
    wait: Wait,
) -> Result<Response, Problem> {
    let id = key.command_id(caller.user);
    let before = sent_before(&app, &caller, id).await?;
    let request = find(&app, &caller, &text, before.as_ref()).await?;
    let terms = request.terms.clone();
    let command = BankCommand::DeclineMandate {
        partner: request.merchant.id,
        terms: MandateTerms {
            mandate: request.id,
            kind: terms.kind,
            currency: terms.currency,
            payment_max_minor: terms.payment_max_minor,
            daily_max_minor: terms.daily_max_minor,
            expires_at: terms.expires_at,
            reference: terms.reference,
            answer_by: Some(request.answer_by),
        },
    };
    // Declined, it is on nobody's account; who declined it may see it in this answer.
    carry_out(&app, &caller, id, command, &request, wait, Viewer::Staff).await
}

async fn carry_out(
    app: &App,
    caller: &Caller,
    id: Uuid,
    command: BankCommand,
    request: &RequestRow,
    wait: Wait,
    viewer: Viewer,
) -> Result<Response, Problem> {
    let sent = app.bank.carry_out(app, caller, id, command.clone(), REASON, wait).await?;
    if sent == Sent::Decided(Outcome::Rejected(Some(Reason::MandateExists))) {
        let detail =
            "this request was answered, given up by the merchant, or came to its time at the same moment";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let is_grant = matches!(command, BankCommand::GrantMandate(_));
    let created = is_grant.then(|| format!("/v1/me/mandates/{}", request.id));
    let answered = async {
        let mandate = Mandate::of(find_mandate(app, viewer, request.id).await?, now());
        let return_url = return_url(app, request).await?.map(|mut url| {
            let status = if is_grant { MandateStatus::Active } else { MandateStatus::Declined };
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("mandate", &request.id.to_string()).append_pair("status", status.as_str());
            drop(pairs);
            String::from(url)
        });
        Ok(Answered { mandate, return_url })
    };
    answer(id, &command, sent, created, answered).await
}

/// Take a mandate back
///
/// At once: what the merchant asks for afterwards is rejected. What was authorised before may still be captured.
#[utoipa::path(
    post, path = "/v1/me/mandates/{id}/revoke", tag = "me", operation_id = "revoke_my_mandate", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The mandate", example = "mdt_01k9q5m3v7f8h9j0kamcneprqs"),
        CommandHeaders
    ),
    responses(
        (status = 200, description = "Revoked", body = Mandate),
        (status = 202, description = "Not decided yet: see Location", body = CommandView),
        (status = 404, description = "You have no such mandate", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "It has ended already (`mandate_not_active`)", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(mandate): FromPath<MandateId>,
    key: IdempotencyKey,
    wait: Wait,
) -> Result<Response, Problem> {
    let viewer = Viewer::Customer(caller.user);
    find_mandate(&app, viewer, mandate).await?;
    let id = key.command_id(caller.user);
    let command = BankCommand::RevokeMandate { mandate };
    let sent = app.bank.carry_out(&app, &caller, id, command.clone(), REASON, wait).await?;
    let revoked = async { Ok(Mandate::of(find_mandate(&app, viewer, mandate).await?, now())) };
    answer(id, &command, sent, None, revoked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Terms {
        Terms {
            kind: MandateKind::Standing,
            currency: Currency::EUR,
            payment_max_minor: Some(5_000),
            daily_max_minor: None,
            expires_at: Some(Timestamp::from_micros(1_000)),
            reference: Some("customer-7".to_owned()),
        }
    }

    fn body(per_payment_max: Option<&str>, daily_cap: Option<&str>, expires_at: Option<i64>) -> Grant {
        Grant {
            account: "acct_00000000000000000000000001".to_owned(),
            per_payment_max: per_payment_max.map(str::to_owned),
            daily_cap: daily_cap.map(str::to_owned),
            expires_at: expires_at.map(Timestamp::from_micros),
        }
    }

    #[test]
    fn a_customer_grants_what_was_asked_for_or_less() {
        let terms = |body: &Grant| granted(body, &asked()).map(|(_, terms)| terms);
        assert_eq!(terms(&body(None, None, None)), Ok(asked()));
        let less = terms(&body(Some("50.00"), Some("0.01"), Some(999))).unwrap();
        assert_eq!((less.payment_max_minor, less.daily_max_minor), (Some(5_000), Some(1)));
        assert_eq!(less.expires_at, Some(Timestamp::from_micros(999)));
        for (body, fault) in [
            (body(Some("50.01"), None, None), "/per_payment_max out_of_range"),
            (body(Some("0.00"), None, None), "/per_payment_max invalid_amount"),
            (body(None, Some("1"), None), "/daily_cap invalid_amount"),
            (body(None, None, Some(1_001)), "/expires_at out_of_range"),
            (Grant { account: "mdt_1".to_owned(), ..body(None, None, None) }, "/account invalid_id"),
        ] {
            let problem = terms(&body).unwrap_err();
            let faults: Vec<_> =
                problem.errors.iter().map(|it| format!("{} {}", it.pointer, it.code)).collect();
            assert_eq!(faults, [fault]);
        }
    }

    #[test]
    fn a_request_is_named_by_code_or_id() {
        assert!(matches!(named("mdt_00000000000000000000000001"), Some(Named::Id(_))));
        assert!(
            matches!(named("k7m2-xq9p"), Some(Named::Code(hash)) if hash == request_code_hash("K7M2XQ9P"))
        );
        for text in ["", "K7M2XQ9", "K7M2XQ9PP", "K7M2XQ9O", "acct_00000000000000000000000001", "ééééllll"]
        {
            assert!(named(text).is_none(), "{text}");
        }
    }
}
