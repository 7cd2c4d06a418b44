//! `GET /v1/accounts/{id}/entries`: the statement of one of the partner's own accounts.
//!
//! A page is one range read. A cursor is a version, so it stays right while entries arrive. A foreign account is as
//! unknown as one that never was.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use domain::account::Direction;
use domain::ids::{AccountId, PaymentId};
use domain::money::{Currency, decimal_text};
use domain::past::Search;
use domain::payment::PaymentKind;
use domain::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::refusals::OfReads;
use super::schema;
use crate::app::App;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::{Code, Problem};
use crate::query::{Query, invalid_cursor};
use crate::read;
use crate::signed::{Balances, Caller, Signed};
use crate::store::accounts::{self as store, AccountRow};
use crate::store::statements::{self, EntryRow, Range};

/// An entry of a statement.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatementEntry {
    /// Counts the account's entries from 1.
    version: u64,
    /// The payment that moved the money.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    payment: PaymentId,
    /// What it does: `payment`, `refund`, `transfer`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "payment")]
    kind: Option<PaymentKind>,
    /// `debit` or `credit`.
    #[schema(value_type = String, example = "credit")]
    direction: Direction,
    /// Decimal string.
    amount: String,
    /// Decimal string: the account's balance after it.
    balance: String,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// When, RFC 3339.
    #[schema(value_type = String)]
    entered_at: Timestamp,
    /// Your own reference, of your own payments.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// What both sides read on the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl StatementEntry {
    fn of(row: EntryRow, currency: Currency) -> Self {
        Self {
            version: row.version,
            payment: row.payment,
            kind: row.kind,
            direction: row.direction,
            amount: decimal_text(row.amount_minor, currency),
            balance: decimal_text(row.balance_minor, currency),
            currency,
            entered_at: row.entered_at,
            reference: row.reference,
            description: row.description,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Filters {
    ascending: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// The statement of an account
///
/// The entries of one of your own accounts, newest first, each with the balance after it.
#[utoipa::path(
    get, path = "/v1/accounts/{id}/entries", tag = "accounts", operation_id = "list_entries",
    security(("message_signature" = ["balances"])),
    params(
        schema::AccountPath,
        ("order" = Option<String>, Query, description = "`desc` (newest first) or `asc`", example = "asc"),
        ("from" = Option<String>, Query, description = "Entered at this time or later", example = "2026-11-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Entered before this time", example = "2026-12-01T00:00:00Z"),
        schema::ListQuery
    ),
    responses(
        (status = 200, description = "A page", body = schema::Entries, example = json!(schema::entries())),
        OfReads
    )
)]
pub async fn entries(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    signed: Signed<Balances>,
) -> Result<Json<Page<StatementEntry>>, Problem> {
    let Signed { caller, parts, .. } = signed;
    let mut query = Query::parse(parts.uri.query());
    let filters =
        Filters { ascending: is_ascending(&mut query), from: query.time("from"), to: query.time("to") };
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let account = owned(&app, &caller, id).await?;
    let cursors = Cursors::new(&app.token_key, "entries", caller.partner.id, &(account.id, filters));
    let wanted = cursors.wanted(page)?;
    let mut range = versions(&app, &caller, &account, filters).await?;
    if let Some(place) = wanted.after {
        let place = place.try_into().map_err(|_| invalid_cursor("not a place"))?;
        let shown = u64::from_be_bytes(place);
        if filters.ascending {
            range.first = range.first.max(shown.saturating_add(1));
        } else {
            range.last = range.last.min(shown.saturating_sub(1));
        }
    }
    let found = statements::entries(&app.reads, caller.partner.id, range, wanted.limit + 1);
    let rows = read::within(&app, caller.request_id, found).await?;
    let data = rows.into_iter().map(|row| StatementEntry::of(row, account.currency)).collect();
    let place = |entry: &StatementEntry| entry.version.to_be_bytes().to_vec();
    Ok(Json(cursors.page(data, wanted.limit, place)))
}

fn is_ascending(query: &mut Query<'_>) -> bool {
    match query.text("order").as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => {
            query.refuse("order", "unknown_value", "there are asc and desc");
            false
        }
    }
}

/// The versions that lie within the times.
async fn versions(
    app: &App,
    caller: &Caller,
    account: &AccountRow,
    filters: Filters,
) -> Result<Range, Problem> {
    // Up to, and not including, an instant: microseconds are the smallest step there is.
    let before =
        |time: Timestamp| Search { account: account.id, version: account.version, at: time.plus_micros(-1) };
    let searches: Vec<_> = [filters.from, filters.to].into_iter().flatten().map(before).collect();
    let found = read::within(app, caller.request_id, statements::past(&app.reads, &searches)).await?;
    let mut found = found.into_iter().map(|past| past.version);
    let first = filters.from.and_then(|_| found.next()).map_or(1, |version| version.saturating_add(1));
    // Without an end, entries that arrive meanwhile belong to it.
    let last = filters.to.and_then(|_| found.next()).unwrap_or(u64::MAX);
    Ok(Range { account: account.id, first, last, ascending: filters.ascending })
}

/// The account that a path names, when it is the caller's.
pub async fn owned(
    app: &App,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<AccountRow, Problem> {
    let not_found = || Problem::new(Code::NotFound, "there is no such account of yours");
    let id: AccountId = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(not_found)?;
    let found = store::account(&app.reads, caller.partner.id, id);
    read::within(app, caller.request_id, found).await?.ok_or_else(not_found)
}
