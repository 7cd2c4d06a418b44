//! Statements as JSON: a page is one range read of the primary key, and a cursor is a version, so it stays right while
//! entries arrive.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::AccountId;
use domain::past::Search;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::documents::ProblemShape;
use super::{Entry, Viewer, find};
use crate::access::{Customer, Reader};
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::page::Pages;
use crate::problem::{Code, Problem};
use crate::store::ledger::AccountRow;
use crate::store::ledger::entries::{self as store, Range, past};

/// Entries of an account.
#[derive(Serialize, ToSchema)]
pub struct Entries {
    /// Newest first, unless asked for otherwise.
    data: Vec<Entry>,
    /// For the next page; nothing on the last one.
    #[schema(example = json!(null))]
    next: Option<String>,
}

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EntriesQuery {
    /// `desc` (newest first) or `asc`.
    #[param(example = "desc")]
    order: Option<String>,
    /// Entered at this time or later.
    #[param(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// Entered before this time.
    #[param(value_type = Option<String>, example = "2026-02-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// The versions that lie within the times. Without an end, entries that arrive meanwhile belong to it.
pub(super) async fn versions(
    app: &App,
    account: &AccountRow,
    [from, to]: [Option<Timestamp>; 2],
    ascending: bool,
) -> Result<Range, Problem> {
    // Up to, and not including, an instant: microseconds are the smallest step there is.
    let before =
        |time: Timestamp| Search { account: account.id, version: account.version, at: time.plus_micros(-1) };
    let first = match from {
        Some(from) => past(&app.pool, before(from)).await?.version.saturating_add(1),
        None => 1,
    };
    let last = match to {
        Some(to) => past(&app.pool, before(to)).await?.version,
        None => u64::MAX,
    };
    Ok(Range { account: account.id, first, last, ascending })
}

async fn list(
    app: &App,
    viewer: Viewer,
    account: AccountRow,
    query: EntriesQuery,
) -> Result<axum::Json<Entries>, Problem> {
    let ascending = match query.order.as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Problem::new(Code::MalformedRequest, "`order` is desc or asc")),
    };
    let filters = (ascending, query.from, query.to);
    let page = (query.limit, query.cursor.as_deref());
    let pages = Pages::new(app, "entries", &account.id, &filters, page)?;
    let mut range = versions(app, &account, [query.from, query.to], ascending).await?;
    if let Some(place) = &pages.after {
        let place = <[u8; 8]>::try_from(place.as_slice()).map_err(|_| Problem::plain(Code::InvalidCursor))?;
        let shown = u64::from_be_bytes(place);
        if ascending {
            range.first = range.first.max(shown.saturating_add(1));
        } else {
            range.last = range.last.min(shown.saturating_sub(1));
        }
    }
    let mut rows = store::entries(&app.pool, range, pages.rows_max()).await?;
    let next = pages.cut(&mut rows, |row| row.version.to_be_bytes().to_vec());
    let data = rows.into_iter().map(|row| Entry::of(row, &account, viewer)).collect();
    Ok(axum::Json(Entries { data, next }))
}

/// The statement of one of your accounts
///
/// Its entries, newest first, each with the balance after it and who was on the other side.
#[utoipa::path(
    get, path = "/v1/me/accounts/{id}/entries", tag = "me", operation_id = "list_my_entries", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), EntriesQuery),
    responses(
        (status = 200, description = "A page of them", body = Entries),
        (status = 404, description = "You have no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<EntriesQuery>,
) -> Result<axum::Json<Entries>, Problem> {
    let viewer = Viewer::Customer(caller.user);
    list(&app, viewer, find(&app, viewer, id).await?, query).await
}

/// The statement of an account
///
/// Its entries, newest first, each with the balance after it and who was on the other side.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/entries", tag = "accounts", operation_id = "list_entries", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), EntriesQuery),
    responses(
        (status = 200, description = "A page of them", body = Entries),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list_of(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<EntriesQuery>,
) -> Result<axum::Json<Entries>, Problem> {
    list(&app, Viewer::Staff, find(&app, Viewer::Staff, id).await?, query).await
}
