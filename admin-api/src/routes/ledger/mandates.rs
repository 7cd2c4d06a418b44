//! Mandates: customers see those on their accounts, staff all.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::{AccountId, MandateId};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::documents::ProblemShape;
use super::accounts::PageQuery;
use super::{Mandate, Viewer, find as find_account, now};
use crate::access::{Customer, Reader};
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::page::Pages;
use crate::problem::{Code, Problem};
use crate::store::ledger::mandates::{self as store, MandateRow, Of};

/// Mandates, newest first.
#[derive(Serialize, ToSchema)]
pub struct Mandates {
    /// The mandates.
    data: Vec<Mandate>,
    /// For the next page; nothing on the last one.
    #[schema(example = json!(null))]
    next: Option<String>,
}

/// A mandate, when the viewer may see it.
pub async fn find(app: &App, viewer: Viewer, id: MandateId) -> Result<MandateRow, Problem> {
    let found = store::find(&app.pool, id).await?;
    let found = found.filter(|mandate| viewer.may_see(mandate.owner));
    found.ok_or_else(|| Problem::new(Code::NotFound, "there is no such mandate, or it is not yours"))
}

async fn list(app: &App, of: Of, query: PageQuery) -> Result<axum::Json<Mandates>, Problem> {
    let page = (query.limit, query.cursor.as_deref());
    let pages = Pages::new(app, "mandates", &"of", &of, page)?;
    let below = pages.below(MandateId::from_uuid)?;
    let mut rows = store::list(&app.pool, of, below, pages.rows_max()).await?;
    let next = pages.cut(&mut rows, |row| row.id.uuid().as_bytes().to_vec());
    let now = now();
    Ok(axum::Json(Mandates { data: rows.into_iter().map(|row| Mandate::of(row, now)).collect(), next }))
}

/// Your mandates
///
/// Who may debit your accounts, or might once; newest first.
#[utoipa::path(
    get, path = "/v1/me/mandates", tag = "me", operation_id = "list_my_mandates", security(("access_token" = [])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of them", body = Mandates),
    )
)]
pub async fn list_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromQuery(query): FromQuery<PageQuery>,
) -> Result<axum::Json<Mandates>, Problem> {
    list(&app, Of::Customer(caller.user), query).await
}

/// One of your mandates
#[utoipa::path(
    get, path = "/v1/me/mandates/{id}", tag = "me", operation_id = "read_my_mandate", security(("access_token" = [])),
    params(("id" = String, Path, description = "The mandate", example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The mandate", body = Mandate),
        (status = 404, description = "You have no such mandate", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(id): FromPath<MandateId>,
) -> Result<axum::Json<Mandate>, Problem> {
    let row = find(&app, Viewer::Customer(caller.user), id).await?;
    Ok(axum::Json(Mandate::of(row, now())))
}

/// The mandates on an account
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/mandates", tag = "accounts", operation_id = "list_mandates_of_account", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), PageQuery),
    responses(
        (status = 200, description = "A page of them", body = Mandates),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list_of_account(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<PageQuery>,
) -> Result<axum::Json<Mandates>, Problem> {
    find_account(&app, Viewer::Staff, id).await?;
    list(&app, Of::Account(id), query).await
}

/// A mandate
#[utoipa::path(
    get, path = "/v1/mandates/{id}", tag = "accounts", operation_id = "read_mandate", security(("access_token" = [])),
    params(("id" = String, Path, description = "The mandate", example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The mandate", body = Mandate),
        (status = 404, description = "There is no such mandate", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<MandateId>,
) -> Result<axum::Json<Mandate>, Problem> {
    let row = find(&app, Viewer::Staff, id).await?;
    Ok(axum::Json(Mandate::of(row, now())))
}
