//! Everything that was done, for auditors and admins: searched, exported, verified.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::access::{Auditor, Caller};
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::body::FromQuery;
use crate::cursor;
use crate::problem::{Code, Problem};
use crate::store::audit;
use crate::trail::export::{self, Format};
use crate::trail::{Item, Merge, Query, ROWS_MAX};
use crate::verification::{self, Verification};

/// What was done, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditItems)]
pub struct Items {
    /// The items; fewer than `limit`, or none, when too many rows in between did not fit.
    data: Vec<Item>,
    /// For the next page; nothing on the last one.
    #[schema(example = "eyJmIjoiY2RrTVRfeGsiLCJzIjpbImUiXX0")]
    next: Option<String>,
}

/// The last verification.
#[derive(Serialize, ToSchema)]
#[schema(as = LastAuditVerification)]
pub struct LastVerification {
    /// It; nothing when there was none.
    last: Option<Verification>,
}

/// What was done
///
/// Commands of partners and of the bank, what people did, and calls of both APIs in one list, newest first. A page looks at
/// 10,000 rows at most: with filters that few rows fit it may be short, and `next` says where to go on; a range of time
/// makes it quick.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", operation_id = "search_audit", security(("access_token" = [])),
    params(Query),
    responses(
        (status = 200, description = "A page", body = Items),
    )
)]
pub async fn search(
    State(app): State<Arc<App>>,
    _: Auditor,
    FromQuery(query): FromQuery<Query>,
) -> Result<axum::Json<Items>, Problem> {
    let limit = cursor::limit(query.limit)? as usize;
    let mut merge = Merge::new(&app.pool, query.filter()?, query.cursor.as_deref()).await?;
    let mut data = Vec::new();
    while data.len() < limit
        && let Some(item) = merge.next(&app.pool, ROWS_MAX).await?
    {
        data.push(item);
    }
    Ok(axum::Json(Items { data, next: merge.cursor() }))
}

/// What was done, as CSV
///
/// Everything that the filters let through, newest first; text is neutralised against formulas. The last line says how
/// many lines of items came before it, and the SHA-256 of all lines before: without it, the export was cut off. The export
/// itself is audited.
#[utoipa::path(
    get, path = "/v1/audit/export.csv", tag = "audit", operation_id = "export_audit_csv", security(("access_token" = [])),
    params(Query),
    responses(
        (status = 200, description = "The items", body = String, content_type = "text/csv", example = "at,source,action,outcome,…\r\nend,0,\"rows, SHA-256 of all lines before\",e3b0…\r\n"),
    )
)]
pub async fn export_csv(
    State(app): State<Arc<App>>,
    Auditor(caller): Auditor,
    FromQuery(query): FromQuery<Query>,
) -> Result<Response, Problem> {
    exported(&app, &caller, &query, Format::Csv).await
}

/// What was done, as lines of JSON
///
/// The same as the CSV, an item of the search on each line; the last line is `{"end":{"rows":…,"sha256":…}}`.
#[utoipa::path(
    get, path = "/v1/audit/export.ndjson", tag = "audit", operation_id = "export_audit_ndjson", security(("access_token" = [])),
    params(Query),
    responses(
        (status = 200, description = "The items", body = String, content_type = "application/x-ndjson", example = "{\"end\":{\"rows\":0,\"sha256\":\"e3b0…\"}}\n"),
    )
)]
pub async fn export_ndjson(
    State(app): State<Arc<App>>,
    Auditor(caller): Auditor,
    FromQuery(query): FromQuery<Query>,
) -> Result<Response, Problem> {
    exported(&app, &caller, &query, Format::Ndjson).await
}

async fn exported(app: &App, caller: &Caller, query: &Query, format: Format) -> Result<Response, Problem> {
    if query.limit.is_some() || query.cursor.is_some() {
        return Err(Problem::new(Code::MalformedRequest, "an export has neither `limit` nor `cursor`"));
    }
    let slot = app.exports.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Problem::plain(Code::Unavailable).retry_after(10))?;
    let merge = Merge::new(&app.pool, query.filter()?, None).await?;
    let (kind, media_type, name) = match format {
        Format::Csv => ("csv", "text/csv; charset=utf-8; header=present", "audit.csv"),
        Format::Ndjson => ("ndjson", "application/x-ndjson", "audit.ndjson"),
    };
    let entry = Entry { target: None, ..Entry::own(caller.user, Action::ExportAudit, caller.origin) };
    let entry = entry.with(json!({ "format": kind, "filters": query.told() }));
    let mut transaction = app.pool.begin().await?;
    audit::write(&mut transaction, &entry).await?;
    // Nothing is shown before it is written down that it was.
    transaction.commit().await?;
    let pieces = export::start(app.pool.clone(), merge, format);
    // The slot is given back when the last piece was taken, or nobody takes them any more.
    let body = futures_util::stream::unfold((pieces, slot), |(mut pieces, slot)| async move {
        pieces.recv().await.map(|piece| (piece, (pieces, slot)))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Verify the audit log
///
/// Begins to verify the whole chain of the audit log, against the signed checkpoints where they are kept. One at a time:
/// while one runs, that is answered. `GET` of the same path tells how far it is and what it found.
#[utoipa::path(
    post, path = "/v1/audit/verify", tag = "audit", operation_id = "verify_audit", security(("access_token" = [])),
    responses(
        (status = 202, description = "It runs", body = Verification),
    )
)]
pub async fn verify(State(app): State<Arc<App>>, Auditor(caller): Auditor) -> Result<Response, Problem> {
    let begun = verification::begin(&app, &caller).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(begun)).into_response())
}

/// The last verification
///
/// Of the audit log, asked for by anybody: how far it is, or what it found.
#[utoipa::path(
    get, path = "/v1/audit/verify", tag = "audit", operation_id = "read_audit_verification", security(("access_token" = [])),
    responses(
        (status = 200, description = "The last verification", body = LastVerification),
    )
)]
pub async fn last_verification(
    State(app): State<Arc<App>>,
    _: Auditor,
) -> Result<axum::Json<LastVerification>, Problem> {
    Ok(axum::Json(LastVerification { last: verification::last(&app.pool).await? }))
}
