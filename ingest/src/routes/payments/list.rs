//! `GET /v1/payments`: the partner's payments of every kind, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::payment::{PaymentKind, PaymentStatus, PaymentView};

use crate::app::App;
use crate::page::{Cursors, Page, limit_and_cursor};
use crate::problem::Problem;
use crate::query::{Query, invalid_cursor};
use crate::read;
use crate::routes::refusals::OfReads;
use crate::routes::schema;
use crate::signed::{ReadPayments, Signed};
use crate::store::payment_list::{self as store, Filters, Place};

/// Your payments
///
/// Decided payments of every kind, newest first. Several filters must all fit; several values of one, separated by
/// commas, are alternatives. A page may hold fewer items than `limit` although `next` is there, when what lies in
/// between does not fit the filters: follow `next` until it is null.
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments", operation_id = "list_payments",
    security(("message_signature" = ["payments"])),
    params(
        ("status" = Option<String>, Query, description = "`authorized`, `posted`, `rejected`, `voided`, `expired`, `conflicted`", example = "posted,rejected"),
        ("kind" = Option<String>, Query, description = "`payment`, `capture`, `void`, `refund`, `transfer`, and other kinds", example = "payment,refund"),
        ("mandate" = Option<String>, Query, description = "The mandate of a payment", example = "mdt_01k9q5m3v7f8h9j0kamcneprqs"),
        ("reference" = Option<String>, Query, description = "Your own reference, exactly", example = "order-4711"),
        ("created_from" = Option<String>, Query, description = "Accepted at this time or later", example = "2026-11-01T00:00:00Z"),
        ("created_to" = Option<String>, Query, description = "Accepted before this time", example = "2026-12-01T00:00:00Z"),
        schema::ListQuery
    ),
    responses(
        (status = 200, description = "A page", body = schema::Payments, example = json!(schema::payments())),
        OfReads
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    signed: Signed<ReadPayments>,
) -> Result<Json<Page<PaymentView>>, Problem> {
    let Signed { caller, parts, .. } = signed;
    let mut query = Query::parse(parts.uri.query());
    let filters = Filters {
        statuses: statuses(&mut query),
        kinds: query.words("kind", &words(PaymentKind::ALL, PaymentKind::as_str)).unwrap_or_default(),
        mandate: query.parsed("mandate", "a mandate's id begins with `mdt_` and has 26 more characters"),
        reference: query.text("reference").map(std::borrow::Cow::into_owned),
        created_from: query.time("created_from"),
        created_to: query.time("created_to"),
    };
    let page = limit_and_cursor(&mut query);
    query.finish()?;
    let partner = caller.partner.id;
    let cursors = Cursors::new(&app.token_key, "payments", partner, &filters);
    let wanted = cursors.wanted(page)?;
    let after = wanted.after.map(|bytes| Place::decode(&bytes).ok_or_else(|| invalid_cursor("not a place")));
    let after = after.transpose()?;
    let found = store::list(&app.reads, partner, &filters, after, wanted.limit);
    let listed = read::within(&app, caller.request_id, found).await?;
    let next = listed.next.map(|place| cursors.encode(&place.encode()));
    Ok(Json(Page { data: listed.payments, next }))
}

/// A pending payment has no row, so it is not listed.
fn statuses(query: &mut Query<'_>) -> Vec<PaymentStatus> {
    let stored: Vec<_> =
        PaymentStatus::ALL.iter().copied().filter(|status| *status != PaymentStatus::Pending).collect();
    let known = words(&stored, PaymentStatus::as_str);
    let statuses: Vec<_> = query.words("status", &known).unwrap_or_default();
    if statuses.contains(&PaymentStatus::Pending) {
        query.refuse(
            "status",
            "unknown_value",
            format!("pending payments are not listed; there are {known}"),
        );
    }
    statuses
}

fn words<T: Copy>(values: &[T], word: fn(T) -> &'static str) -> String {
    values.iter().map(|value| word(*value)).collect::<Vec<_>>().join(", ")
}
