//! The API of customers and staff: routes and their OpenAPI document, from the same list.

pub mod accounts;
pub mod analytics;
pub mod approvals;
pub mod audit;
pub mod auth;
pub mod commands;
pub mod consent;
pub mod dead_letters;
pub mod documents;
pub mod email;
pub mod fields;
pub mod ledger;
pub mod me;
pub mod money;
pub mod my_money;
pub mod partners;
pub mod payments;
pub mod second_factor;
pub mod staff;
pub mod system;
pub mod trace;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa::OpenApi;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::Ref;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer;
use crate::app::App;
pub use dead_letters::dead_letter_id;
pub use fields::NAME_CHARS_MAX;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wired City bank API",
        version = "1",
        description = "For customers and the bank's staff. Log in, send the access token as `Authorization: Bearer …`, and \
                       ask for a new one with the refresh token before it expires. Errors are problem documents (RFC 9457)."
    ),
    modifiers(&Security),
    tags(
        (name = "auth", description = "Registering, logging in and out"),
        (name = "me", description = "The own profile, password, second factor and data"),
        (name = "users", description = "Customers and staff, as staff see them"),
        (name = "payments", description = "Payments of everybody, and the whole life of each"),
        (name = "analytics", description = "Figures by hour and day"),
        (name = "system", description = "Whether the ledger is whole, and how the parts of the bank are"),
        (name = "audit", description = "Everything that was done: searched, exported, verified"),
        (name = "accounts", description = "Accounts, statements and mandates, as staff see and change them"),
        (name = "money", description = "Money that staff move"),
        (name = "commands", description = "What became of what was asked for"),
        (name = "approvals", description = "What needs a second person"),
        (name = "dead letters", description = "Commands that could not be applied"),
        (name = "partners", description = "Partners, their keys, return URLs, settlement accounts, endpoints and deliveries"),
        (name = "documents", description = "This document, public keys, the error catalogue, health")
    )
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        scheme.description = Some("the access token of a log-in, valid for ten minutes".to_owned());
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("access_token", SecurityScheme::Http(scheme));
    }
}

/// The routes, without their state, and the document of exactly these.
fn documented() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(auth::register))
        .routes(routes!(auth::ask_password_reset))
        .routes(routes!(auth::set_password))
        .routes(routes!(auth::log_in))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::log_out))
        .routes(routes!(auth::log_out_everywhere))
        .routes(routes!(auth::step_up))
        .routes(routes!(me::read, me::change, me::erase))
        .routes(routes!(me::change_password))
        .routes(routes!(me::export))
        .routes(routes!(me::list_sessions))
        .routes(routes!(me::end_session))
        .routes(routes!(email::ask))
        .routes(routes!(email::confirm))
        // What customers and staff see of the ledger.
        .routes(routes!(ledger::accounts::list_own))
        .routes(routes!(ledger::accounts::read_own))
        .routes(routes!(ledger::accounts::balance_own))
        .routes(routes!(ledger::entries::list_own))
        .routes(routes!(ledger::statement::read_own))
        .routes(routes!(ledger::mandates::list_own))
        .routes(routes!(ledger::mandates::read_own))
        .routes(routes!(my_money::open))
        .routes(routes!(my_money::transfer))
        .routes(routes!(consent::read))
        .routes(routes!(consent::grant))
        .routes(routes!(consent::decline))
        .routes(routes!(consent::revoke))
        .routes(routes!(ledger::accounts::list_all))
        .routes(routes!(ledger::accounts::read))
        .routes(routes!(ledger::accounts::balance_of))
        .routes(routes!(ledger::entries::list_of))
        .routes(routes!(ledger::statement::read))
        .routes(routes!(ledger::mandates::list_of_account))
        .routes(routes!(ledger::mandates::read))
        .routes(routes!(second_factor::begin, second_factor::remove))
        .routes(routes!(second_factor::confirm))
        .routes(routes!(second_factor::renew_recovery_codes))
        .routes(routes!(users::list))
        .routes(routes!(users::read))
        .routes(routes!(users::read_personal_data))
        // Payments, their traces, figures and the system.
        .routes(routes!(payments::list))
        .routes(routes!(payments::read))
        .routes(routes!(trace::one))
        .routes(routes!(trace::find))
        .routes(routes!(analytics::volume))
        .routes(routes!(analytics::outcomes))
        .routes(routes!(analytics::latency))
        .routes(routes!(analytics::top_partners))
        .routes(routes!(analytics::active_users))
        .routes(routes!(analytics::api_calls))
        .routes(routes!(analytics::deliveries))
        .routes(routes!(system::reconciliation))
        .routes(routes!(system::system))
        // Audit
        .routes(routes!(audit::search))
        .routes(routes!(audit::export_csv))
        .routes(routes!(audit::export_ndjson))
        .routes(routes!(audit::verify, audit::last_verification))
        // What staff do with accounts and money, and what needs two of them.
        .routes(routes!(accounts::open))
        .routes(routes!(accounts::freeze))
        .routes(routes!(accounts::unfreeze))
        .routes(routes!(accounts::close))
        .routes(routes!(accounts::set_limits))
        .routes(routes!(money::make_deposit))
        .routes(routes!(money::withdraw))
        .routes(routes!(money::transfer))
        .routes(routes!(money::reverse))
        .routes(routes!(commands::read))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::read))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(approvals::cancel))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::read))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(dead_letters::reject))
        // Staff.
        .routes(routes!(staff::invite))
        .routes(routes!(staff::change_role))
        .routes(routes!(staff::disable))
        .routes(routes!(staff::enable))
        .routes(routes!(staff::erase))
        // Partners.
        .routes(routes!(partners::list, partners::register))
        .routes(routes!(partners::read, partners::change))
        .routes(routes!(partners::read_contact))
        .routes(routes!(partners::activate))
        .routes(routes!(partners::suspend))
        .routes(routes!(partners::applications::list))
        .routes(routes!(partners::applications::read))
        .routes(routes!(partners::applications::read_contact))
        .routes(routes!(partners::applications::approve))
        .routes(routes!(partners::applications::decline))
        .routes(routes!(partners::keys::list, partners::keys::issue))
        .routes(routes!(partners::keys::show_secret))
        .routes(routes!(partners::keys::revoke))
        .routes(routes!(partners::settings::list_return_urls, partners::settings::add_return_url))
        .routes(routes!(partners::settings::remove_return_url))
        .routes(routes!(
            partners::settings::list_settlement_accounts,
            partners::settings::set_settlement_account
        ))
        .routes(routes!(partners::webhooks::endpoints))
        .routes(routes!(partners::webhooks::enable))
        .routes(routes!(partners::webhooks::deliveries))
        .routes(routes!(partners::webhooks::delivery))
        .routes(routes!(partners::webhooks::resend))
        .routes(routes!(documents::health))
        .routes(routes!(documents::openapi))
        .routes(routes!(documents::jwks))
        .routes(routes!(documents::checkpoint))
        .routes(routes!(documents::problem))
        .split_for_parts();
    answers_of_every_route(&mut document);
    (router, document)
}

/// Every route may be asked wrongly or too often, and be without MySQL.
fn answers_of_every_route(document: &mut utoipa::openapi::OpenApi) {
    let problem = |description: &str| {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().description(description).content("application/problem+json", content).build()
    };
    for item in document.paths.paths.values_mut() {
        let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in methods.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            let everywhere = [("4XX", "A problem"), ("429", "Too many requests"), ("503", "Try again later")];
            for (status, description) in everywhere {
                responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
            }
        }
    }
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    documented().1
}

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    documented()
        .0
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), answer::complete))
        .with_state(app)
}
