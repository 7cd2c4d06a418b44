//! Commands that could not be applied: read, applied again, given up.

mod shown;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::command::{BankCommand, RejectDeadLetter};
use domain::ids::ChangeId;
use domain::time::Timestamp;
use domain::topic::Source;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::commands::{Accepted, Asked, CommandHeaders, Why};
use super::documents::ProblemShape;
use crate::access::{Fresh, Operator, Reader};
use crate::app::App;
use crate::bank::{CommandView, Wait};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};
use crate::store::dead_letters::{self as store, DeadLetterRow, Place};

/// The words of a dead letter's status, from 1.
const STATUSES: [&str; 3] = ["open", "redriven", "rejected"];

/// A command that could not be applied.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "partner-3-17", "status": "open", "root": "01999999-0000-7000-8000-000000000000",
    "command": "01999999-0000-7000-8000-000000000000", "reason": "data_error",
    "detail": "Data too long for column '•••' at row 1",
    "record": {"schema": 1, "id": "pay_01k9q5m3v7f8h9j0kamcneprqs", "address": "•••",
        "command": {"payment": {"amount_minor": 1250, "currency": "EUR", "description": "•••"}}},
    "record_bytes": 512, "accepted_at": "2026-01-31T12:00:00.000000Z", "recorded_at": "2026-01-31T12:00:00.010000Z",
    "ended_by": null
}))]
pub struct DeadLetter {
    /// Where its record stands: topic, partition, offset.
    #[schema(example = "partner-3-17")]
    id: String,
    /// `open`, `redriven` or `rejected`.
    #[schema(example = "open")]
    status: &'static str,
    /// What it was keyed by: later commands on it wait behind it. Nothing: the key is no id.
    #[schema(value_type = Option<String>, example = "01999999-0000-7000-8000-000000000000")]
    root: Option<Uuid>,
    /// The payment or change that it asked for, when it could be read.
    #[schema(value_type = Option<String>, example = "01999999-0000-7000-8000-000000000000")]
    command: Option<Uuid>,
    /// `undecodable`, `data_error` or `behind_dead_letter`.
    #[schema(example = "data_error")]
    reason: String,
    /// What went wrong, without what it quotes of the record.
    #[schema(example = "Data too long for column '•••' at row 1")]
    detail: String,
    /// The record, with a mask for all that a person may have written; nothing when it is no JSON.
    #[schema(value_type = Option<Object>)]
    record: Option<Value>,
    /// How long the record is.
    #[schema(example = 512)]
    record_bytes: usize,
    /// When it was accepted.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    accepted_at: Timestamp,
    /// When it was set aside.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.010000Z")]
    recorded_at: Timestamp,
    /// The command that redrove or rejected it.
    #[schema(value_type = Option<String>, example = "chg_01k9q5m3v7f8h9j0kamcneprqs")]
    ended_by: Option<ChangeId>,
}

/// Dead letters in the order of their places.
#[derive(Serialize, ToSchema)]
pub struct DeadLetters {
    /// The dead letters.
    data: Vec<DeadLetter>,
    /// For the next page; nothing on the last one.
    #[schema(example = "partner-3-17")]
    next: Option<String>,
}

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only of this status: `open`, `redriven` or `rejected`.
    #[param(example = "open")]
    status: Option<String>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "partner-3-17")]
    cursor: Option<String>,
}

fn text(source: Source, partition: impl std::fmt::Display, offset: impl std::fmt::Display) -> String {
    format!("{source}-{partition}-{offset}")
}

/// The id in the API of a dead letter that a command names.
pub fn dead_letter_id(letter: &RejectDeadLetter) -> String {
    text(letter.source, letter.partition, letter.offset)
}

/// The place that an id names; exactly as it is written by [`text`].
fn place(id: &str) -> Option<Place> {
    let mut parts = id.split('-');
    let place = Place {
        source: parts.next()?.parse().ok()?,
        partition: parts.next()?.parse().ok()?,
        offset: parts.next()?.parse().ok()?,
    };
    (text(place.source, place.partition, place.offset) == id).then_some(place)
}

impl From<DeadLetterRow> for DeadLetter {
    fn from(row: DeadLetterRow) -> Self {
        let Place { source, partition, offset } = row.place;
        Self {
            id: text(source, partition, offset),
            status: STATUSES.get(usize::from(row.status).wrapping_sub(1)).copied().unwrap_or("unknown"),
            root: row.root,
            command: row.id,
            reason: row.reason,
            detail: shown::detail(&row.detail),
            record: shown::record(&row.value),
            record_bytes: row.value.len(),
            accepted_at: row.accepted_at,
            recorded_at: row.recorded_at,
            ended_by: row.change.map(ChangeId::from_uuid),
        }
    }
}

/// Dead letters
///
/// Commands that could not be applied. Their payments are pending, under review, and later commands on the same root
/// wait behind them.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters", security(("access_token" = [])),
    params(Filter),
    responses(
        (status = 200, description = "The dead letters", body = DeadLetters),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(filter): FromQuery<Filter>,
) -> Result<axum::Json<DeadLetters>, Problem> {
    let limit = cursor::limit(filter.limit)?;
    let after = filter.cursor.as_deref();
    let after =
        after.map(|text| place(text).ok_or_else(|| Problem::plain(Code::InvalidCursor))).transpose()?;
    let status = filter.status.as_deref().map(|word| {
        let found = STATUSES.iter().zip(1..).find(|(status, _)| **status == word).map(|(_, number)| number);
        let detail = "`status` is open, redriven or rejected";
        found.ok_or_else(|| Problem::new(Code::MalformedRequest, detail))
    });
    // One more tells whether there is another page.
    let rows = store::list(&app.pool, status.transpose()?, after, limit + 1).await?;
    let more = rows.len() > limit as usize;
    let data: Vec<DeadLetter> = rows.into_iter().take(limit as usize).map(DeadLetter::from).collect();
    let next = data.last().filter(|_| more).map(|last| last.id.clone());
    Ok(axum::Json(DeadLetters { data, next }))
}

async fn find(app: &App, id: &str) -> Result<DeadLetterRow, Problem> {
    let nothing = || Problem::plain(Code::NotFound);
    store::at(&app.pool, place(id).ok_or_else(nothing)?).await?.ok_or_else(nothing)
}

/// A dead letter
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "read_dead_letter", security(("access_token" = [])),
    params(("id" = String, Path, description = "The dead letter", example = "partner-3-17")),
    responses(
        (status = 200, description = "The dead letter", body = DeadLetter),
        (status = 404, description = "There is no such dead letter", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<String>,
) -> Result<axum::Json<DeadLetter>, Problem> {
    find(&app, &id).await.map(|row| axum::Json(row.into()))
}

/// Redrive
///
/// Applies the open dead letters of the same root again, in their order. One that still cannot be applied stays open.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/redrive", tag = "dead letters", operation_id = "redrive_dead_letter", security(("access_token" = [])),
    params(("id" = String, Path, description = "One of the root", example = "partner-3-17"), CommandHeaders),
    request_body(content = Why, example = json!({"reason": "the column was widened"})),
    responses(
        (status = 200, description = "They were applied", body = CommandView),
        (status = 202, description = "On its way", body = Accepted),
        (status = 404, description = "There is no such dead letter", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was keyed by no id, and can only be rejected", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn redrive(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(id): FromPath<String>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    let reason = why.checked()?;
    let row = find(&app, &id).await?;
    let root = row.root.ok_or_else(|| {
        Problem::new(Code::Conflict, "its record was keyed by no id, so it can only be rejected")
    })?;
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    asked.change(BankCommand::RedriveDeadLetters { root }, None).await
}

/// Reject
///
/// Gives it up: what it asked for is rejected for good, and its partner is told. What waits behind it can then be redriven.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/reject", tag = "dead letters", operation_id = "reject_dead_letter", security(("access_token" = [])),
    params(("id" = String, Path, description = "The dead letter", example = "partner-3-17"), CommandHeaders),
    request_body(content = Why, example = json!({"reason": "no command of ours"})),
    responses(
        (status = 200, description = "It is given up", body = CommandView),
        (status = 202, description = "On its way", body = Accepted),
        (status = 404, description = "There is no such dead letter", body = ProblemShape, content_type = "application/problem+json"),
        (status = 422, description = "The ledger refused it", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn reject(
    State(app): State<Arc<App>>,
    Fresh(Operator(caller)): Fresh<Operator>,
    key: IdempotencyKey,
    wait: Wait,
    FromPath(id): FromPath<String>,
    Json(why): Json<Why>,
) -> Result<Response, Problem> {
    let reason = why.checked()?;
    let row = find(&app, &id).await?;
    let letter = RejectDeadLetter {
        source: row.place.source,
        partition: row.place.partition.into(),
        // Offsets of Kafka are signed.
        offset: i64::try_from(row.place.offset).unwrap_or(i64::MAX),
        root: row.root,
    };
    let asked = Asked { app: &app, caller: &caller, key: &key, wait, reason: &reason };
    asked.change(BankCommand::RejectDeadLetter(letter), None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_place_and_a_place_has_one_id() {
        let found = place("partner-3-17").unwrap();
        assert_eq!((found.source, found.partition, found.offset), (Source::Partner, 3, 17));
        assert!(place("bank-0-18446744073709551615").is_some());
        for text in [
            "",
            "partner",
            "partner-3",
            "partner-3-17-1",
            "partner-03-17",
            "partner-3-+17",
            "x-3-17",
            "partner-99999-1",
        ] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
