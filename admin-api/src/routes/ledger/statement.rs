//! Statements as CSV: streamed, some hundred entries in memory at a time, however long the statement is.
//!
//! It ends with the last entry that the account had when it was asked for, so entries that arrive meanwhile do not keep it
//! going. When MySQL goes away in the middle the connection breaks off, which clients notice: nothing looks whole that is
//! not.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::account::Direction;
use domain::ids::AccountId;
use domain::time::Timestamp;
use futures_util::stream::try_unfold;
use http::{HeaderValue, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::documents::ProblemShape;
use super::entries::versions;
use super::{Entry, Viewer, find};
use crate::access::{Customer, Reader};
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::csv::{self, Cell};
use crate::problem::Problem;
use crate::store::ledger::AccountRow;
use crate::store::ledger::entries::{self as store, Range};

/// Entries of one step: some 200 KiB of text at most.
const STEP: usize = 500;
const HEADER: [&str; 12] = [
    "version",
    "entered_at",
    "kind",
    "counterparty",
    "counterparty_account",
    "description",
    "reference",
    "direction",
    "amount",
    "balance",
    "currency",
    "payment",
];

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// Entered at this time or later.
    #[param(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// Entered before this time.
    #[param(value_type = Option<String>, example = "2026-02-01T00:00:00Z")]
    to: Option<Timestamp>,
}

/// A statement under way.
struct Statement {
    app: Arc<App>,
    viewer: Viewer,
    account: Arc<AccountRow>,
    /// What is left.
    range: Range,
    begun: bool,
}

impl Statement {
    /// The next lines; nothing at the end.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, Problem> {
        let mut text = String::new();
        if !self.begun {
            csv::line(&mut text, &HEADER.map(Cell::Plain));
            self.begun = true;
        }
        if self.range.first <= self.range.last {
            let (app, range) = (self.app.clone(), self.range);
            // A client that goes away must not end a read in the middle of its connection.
            let read = tokio::spawn(async move { store::entries(&app.pool, range, STEP).await });
            let rows = read.await.map_err(|error| Problem::internal(&error))??;
            // A full step may be followed by another one.
            let next = rows.last().filter(|_| rows.len() == STEP).map(|last| last.version.saturating_add(1));
            self.range.first = next.unwrap_or(u64::MAX);
            for row in rows {
                write(&mut text, &Entry::of(row, &self.account, self.viewer));
            }
        }
        Ok((!text.is_empty()).then(|| (Bytes::from(text), self)))
    }
}

fn write(text: &mut String, entry: &Entry) {
    let sign = if entry.direction == Direction::Debit { "-" } else { "" };
    let (version, amount) = (entry.version.to_string(), format!("{sign}{}", entry.amount));
    let (entered_at, payment) = (entry.entered_at.to_string(), entry.payment.to_string());
    let account = entry.counterparty_account.map(|id| id.to_string()).unwrap_or_default();
    csv::line(
        text,
        &[
            Cell::Plain(&version),
            Cell::Plain(&entered_at),
            Cell::Plain(entry.kind.map_or("", |kind| kind.as_str())),
            Cell::Text(&entry.counterparty),
            Cell::Plain(&account),
            Cell::Text(entry.description.as_deref().unwrap_or_default()),
            Cell::Text(entry.reference.as_deref().unwrap_or_default()),
            Cell::Plain(entry.direction.as_str()),
            Cell::Plain(&amount),
            Cell::Plain(&entry.balance),
            Cell::Plain(entry.currency.code()),
            Cell::Plain(&payment),
        ],
    );
}

async fn stream(
    app: Arc<App>,
    viewer: Viewer,
    id: AccountId,
    query: StatementQuery,
) -> Result<Response, Problem> {
    let account = find(&app, viewer, id).await?;
    let mut range = versions(&app, &account, [query.from, query.to], true).await?;
    range.last = range.last.min(account.version);
    let statement = Statement { app, viewer, account: Arc::new(account), range, begun: false };
    let mut response = Body::from_stream(try_unfold(statement, Statement::step)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    // Letters, digits and underscores are always a valid value.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{id}.csv\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The statement of one of your accounts as CSV
///
/// Oldest first, streamed; debits are negative. A text that a spreadsheet could take for a formula has an apostrophe
/// before it.
#[utoipa::path(
    get, path = "/v1/me/accounts/{id}/statement.csv", tag = "me", operation_id = "read_my_statement", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), StatementQuery),
    responses(
        (status = 200, description = "The statement", body = String, content_type = "text/csv", example = json!("version,entered_at,kind,…\r\n1,2026-01-31T12:00:00.000000Z,deposit,…\r\n")),
        (status = 404, description = "You have no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read_own(
    State(app): State<Arc<App>>,
    Customer(caller): Customer,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<StatementQuery>,
) -> Result<Response, Problem> {
    stream(app, Viewer::Customer(caller.user), id, query).await
}

/// The statement of an account as CSV
///
/// Oldest first, streamed; debits are negative. A text that a spreadsheet could take for a formula has an apostrophe
/// before it.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/statement.csv", tag = "accounts", operation_id = "read_statement", security(("access_token" = [])),
    params(("id" = String, Path, description = "The account", example = "acct_01k9q5m3v7f8h9j0kamcneprqs"), StatementQuery),
    responses(
        (status = 200, description = "The statement", body = String, content_type = "text/csv", example = json!("version,entered_at,kind,…\r\n1,2026-01-31T12:00:00.000000Z,deposit,…\r\n")),
        (status = 404, description = "There is no such account", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<AccountId>,
    FromQuery(query): FromQuery<StatementQuery>,
) -> Result<Response, Problem> {
    stream(app, Viewer::Staff, id, query).await
}
