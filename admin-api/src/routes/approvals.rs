//! What waits for a second person, as staff see and decide it.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::ApprovalId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::commands::Why;
use super::documents::ProblemShape;
use super::fields::Fields;
use crate::access::{Fresh, Operator, Reader};
use crate::app::App;
use crate::approvals::{self, Approval, Status};
use crate::bank::Wait;
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::problem::{Code, Problem};
use crate::store::approvals as store;

/// Requests, newest first.
#[derive(Serialize, ToSchema)]
pub struct Approvals {
    /// The requests.
    data: Vec<Approval>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AAZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
    /// How many there are of each status, each counted up to 10,000.
    counts: Counts,
}

/// How many requests there are of each status.
#[derive(Default, Serialize, ToSchema)]
pub struct Counts {
    /// Nobody has decided yet.
    #[schema(example = 2)]
    waiting: u32,
    /// A second person agreed.
    #[schema(example = 40)]
    approved: u32,
    /// A second person did not.
    #[schema(example = 1)]
    rejected: u32,
    /// Whoever asked took it back.
    #[schema(example = 0)]
    cancelled: u32,
    /// Nobody decided in time.
    #[schema(example = 3)]
    expired: u32,
}

/// Which requests.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only of this status: `waiting`, `approved`, `rejected`, `cancelled` or `expired`.
    #[param(example = "waiting")]
    status: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AAZmZmQAAcACAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// Agreeing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// `digest` of the request as it was shown to you: you agree to that and to nothing else.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    digest: String,
    /// Why, in 5 to 300 characters.
    #[schema(example = "receipt checked", min_length = 5, max_length = 300)]
    reason: String,
}

/// What waits for a second person
///
/// Newest first, with how many there are of each status.
#[utoipa::path(
    get, path = "/v1/approvals", tag = "approvals", operation_id = "list_approvals", security(("access_token" = [])),
    params(Filter),
    responses(
        (status = 200, description = "The requests", body = Approvals),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(filter): FromQuery<Filter>,
) -> Result<axum::Json<Approvals>, Problem> {
    let limit = cursor::limit(filter.limit)?;
    let before = filter.cursor.as_deref().map(cursor::read_time).transpose()?;
    let status = filter.status.as_deref().map(|word| {
        let found = Status::ALL.into_iter().find(|status| status.as_str() == word);
        let detail = "`status` is waiting, approved, rejected, cancelled or expired";
        found.ok_or_else(|| Problem::new(Code::MalformedRequest, detail))
    });
    // One more tells whether there is another page.
    let mut rows = store::list(&app.pool, status.transpose()?, before, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| cursor::after_time(row.requested_at, row.id.uuid()));
    let data = approvals::views(&app.pool, rows).await?;
    Ok(axum::Json(Approvals { data, next, counts: counts(&app).await? }))
}

async fn counts(app: &App) -> Result<Counts, Problem> {
    let mut counts = Counts::default();
    for (status, count) in store::counts(&app.pool).await? {
        let place = match status {
            Status::Waiting => &mut counts.waiting,
            Status::Approved => &mut counts.approved,
            Status::Rejected => &mut counts.rejected,
            Status::Cancelled => &mut counts.cancelled,
            Status::Expired => &mut counts.expired,
        };
        *place = count;
    }
    Ok(counts)
}

/// A request for a second person
#[utoipa::path(
    get, path = "/v1/approvals/{id}", tag = "approvals", operation_id = "read_approval", security(("access_token" = [])),
    params(("id" = String, Path, description = "The request", example = "apr_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The request", body = Approval),
        (status = 404, description = "There is no such request", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<ApprovalId>,
) -> Result<axum::Json<Approval>, Problem> {
    let nothing = || Problem::plain(Code::NotFound);
    let row = store::by_id(&app.pool, id).await?.ok_or_else(nothing)?;
    let mut shown = approvals::views(&app.pool, vec![row]).await?;
    shown.pop().map(axum::Json).ok_or_else(nothing)
}

/// Agree
///
/// Needs the right to the thing itself; neither whoever asked nor whoever owns the account can. What was asked for is then
/// carried out; `command` says what became of it. Repeating it answers the same.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/approve", tag = "approvals", operation_id = "approve", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The request", example = "apr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: do not wait for the outcome", example = "respond-async")
    ),
    request_body(content = Agreement, example = json!({"digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "reason": "receipt checked"})),
    responses(
        (status = 200, description = "It is agreed to", body = Approval),
        (status = 404, description = "There is no such request", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was decided before, has expired, or was altered", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn approve(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    wait: Wait,
    FromPath(id): FromPath<ApprovalId>,
    Json(body): Json<Agreement>,
) -> Result<axum::Json<Approval>, Problem> {
    let mut fields = Fields::default();
    let reason = fields.reason(&body.reason);
    fields.done()?;
    approvals::approve(&app, &caller, id, &body.digest, &reason, wait).await.map(axum::Json)
}

/// Reject
///
/// What was asked for is never carried out.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/reject", tag = "approvals", operation_id = "reject_approval", security(("access_token" = [])),
    params(("id" = String, Path, description = "The request", example = "apr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "the receipt is another one"})),
    responses(
        (status = 200, description = "It is rejected", body = Approval),
        (status = 404, description = "There is no such request", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was decided before, has expired, or is your own", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn reject(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    FromPath(id): FromPath<ApprovalId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Approval>, Problem> {
    approvals::end(&app, &caller, id, Status::Rejected, &why.checked()?).await.map(axum::Json)
}

/// Take the own request back
///
/// What was asked for is never carried out.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/cancel", tag = "approvals", operation_id = "cancel_approval", security(("access_token" = [])),
    params(("id" = String, Path, description = "The request", example = "apr_01k9q5m3v7f8h9j0kamcneprqs")),
    request_body(content = Why, example = json!({"reason": "wrong account, asked anew"})),
    responses(
        (status = 200, description = "It is cancelled", body = Approval),
        (status = 404, description = "There is no such request", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was decided before, has expired, or is somebody else's", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Operator(caller): Operator,
    FromPath(id): FromPath<ApprovalId>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Approval>, Problem> {
    approvals::end(&app, &caller, id, Status::Cancelled, &why.checked()?).await.map(axum::Json)
}
