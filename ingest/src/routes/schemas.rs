//! `/v1/schemas`: the JSON Schema of each type of webhook. Public, unsigned, the same for everybody.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use domain::event::API_VERSION;
use domain::schema;
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::schema as shapes;
use crate::problem::{Code, Problem};
use crate::query::{self, Query};

/// Schemas change with a release only.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The schemas of a version.
#[derive(Debug, Serialize, ToSchema)]
pub struct SchemaList {
    /// The version of the bodies.
    api_version: &'static str,
    /// One for each type.
    data: Vec<SchemaLink>,
}

/// Where a schema is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SchemaLink {
    /// The type of the webhook.
    #[schema(value_type = String, example = "payment.posted")]
    r#type: &'static str,
    /// The path of its schema.
    #[schema(example = "/v1/schemas/payment.posted")]
    url: String,
}

/// The schemas of webhooks
#[utoipa::path(
    get, path = "/v1/schemas", tag = "documents", operation_id = "list_schemas",
    responses(
        (status = 200, description = "One for each type", body = SchemaList, example = json!({"api_version": "2026-11-01", "data": [{"type": "payment.posted", "url": "/v1/schemas/payment.posted"}]})),
        (status = 400, description = "A query parameter is unknown", body = shapes::Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    query::none(query.as_deref())?;
    let data = schema::types().map(|word| SchemaLink { r#type: word, url: format!("/v1/schemas/{word}") });
    let list = SchemaList { api_version: API_VERSION, data: data.collect() };
    Ok(([(header::CACHE_CONTROL, CACHE)], Json(list)).into_response())
}

/// The schema of a type
///
/// JSON Schema 2020-12 of the body of a webhook. It is open: changes within a version only add, so take what you do not
/// know.
#[utoipa::path(
    get, path = "/v1/schemas/{type}", tag = "documents", operation_id = "read_schema",
    params(
        ("type" = String, Path, description = "The type of an event or a notice", example = "payment.posted"),
        ("api_version" = Option<String>, Query, description = "The version of the bodies", example = "2026-11-01")
    ),
    responses(
        (status = 200, description = "The schema", body = serde_json::Value, content_type = "application/schema+json", example = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "payment.posted"})),
        (status = 400, description = "A query parameter is unknown or doubled", body = shapes::Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such type or version", body = shapes::Problem, content_type = "application/problem+json")
    )
)]
pub async fn one(
    word: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::parse(query.as_deref());
    let version = query.text("api_version").map_or_else(|| API_VERSION.to_owned(), String::from);
    query.finish()?;
    let found = word.ok().and_then(|Path(word)| schema::find(&version, &word));
    let text = found.ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            "there is no schema of this type and version; GET /v1/schemas lists them",
        )
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/schema+json")),
        (header::CACHE_CONTROL, CACHE),
    ];
    Ok((headers, text).into_response())
}
