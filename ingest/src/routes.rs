//! The partner API: routes and their OpenAPI document, from the same list.

pub mod accounts;
pub mod applications;
pub mod balances;
pub mod deliveries;
pub mod documents;
pub mod echo;
pub mod endpoints;
pub mod events;
pub mod mandates;
pub mod payments;
pub mod refusals;
pub mod sandbox;
pub mod schema;
pub mod schemas;
pub mod transfers;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer;
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wired City partner API",
        version = "1",
        description = "Payments are accepted with 202 and decided asynchronously; the outcome is told by webhook, under \
                       `status_url`, or at once with `Prefer: wait`. Every request under /v1 but this document and the \
                       echo is signed with RFC 9421 HTTP message signatures (hmac-sha256)."
    ),
    modifiers(&Security),
    tags(
        (name = "payments", description = "Debit customers under their mandates, capture, void, refund, transfer"),
        (name = "mandates", description = "Ask customers for the right to debit them"),
        (name = "accounts", description = "The partner's own accounts"),
        (name = "endpoints", description = "Where webhooks go, and whether the receiver is right"),
        (name = "deliveries", description = "What was sent, and what is to be sent again"),
        (name = "events", description = "The gap-free event log"),
        (name = "sandbox", description = "Is my signature right, and what does every outcome look like?"),
        (name = "documents", description = "This document and the error catalogue")
    )
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let description = "RFC 9421 signature in Signature-Input and Signature, hmac-sha256, covering \"@method\" \
                           \"@authority\" \"@path\" \"@query\", with a body \"content-digest\" \"content-type\", and on \
                           writes \"idempotency-key\"";
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "Signature-Input",
            description,
        )));
        openapi.components.get_or_insert_default().add_security_scheme("message_signature", scheme);
    }
}

/// The routes, without their state, and the document of exactly these.
fn documented() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(money())
        .merge(webhooks())
        .routes(routes!(echo::echo))
        .routes(routes!(applications::create))
        .routes(routes!(schemas::list))
        .routes(routes!(schemas::one))
        .routes(routes!(documents::openapi))
        .routes(routes!(documents::problem))
        .split_for_parts()
}

/// Webhooks as their owner manages them.
fn webhooks() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(endpoints::create, endpoints::list))
        .routes(routes!(endpoints::one, endpoints::change, endpoints::delete))
        .routes(routes!(endpoints::enable))
        .routes(routes!(endpoints::disable))
        .routes(routes!(endpoints::secrets::list, endpoints::secrets::rotate))
        .routes(routes!(endpoints::secrets::delete))
        .routes(routes!(endpoints::pings::ping))
        .routes(routes!(endpoints::pings::rehearse))
        .routes(routes!(endpoints::pings::one))
        .routes(routes!(endpoints::replays::create, endpoints::replays::list))
        .routes(routes!(endpoints::replays::one))
        .routes(routes!(endpoints::replays::cancel))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::one))
        .routes(routes!(events::list))
        .routes(routes!(events::one))
}

/// What moves money, and what became of it.
fn money() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(payments::create, payments::list::list))
        .routes(routes!(payments::batch::create))
        .routes(routes!(payments::read))
        .routes(routes!(payments::capture))
        .routes(routes!(payments::void))
        .routes(routes!(payments::refund))
        .routes(routes!(transfers::create))
        .routes(routes!(balances::list))
        .routes(routes!(balances::read))
        .routes(routes!(accounts::entries))
        .routes(routes!(mandates::create, mandates::list))
        .routes(routes!(mandates::one))
        .routes(routes!(mandates::cancel))
        .routes(routes!(sandbox::create))
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
