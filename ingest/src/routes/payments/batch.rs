//! `POST /v1/payments/batch`: up to 500 payments in one request, each with a key and an outcome of its own.
//!
//! An item is the payment that `POST /v1/payments` with its key and its fields would be: retried alone or in another
//! batch it is the same payment. One look-up asks for all keys; all items are on their way to Kafka before the first
//! acknowledgement is waited for. A bad item is answered in its place and harms no other.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use domain::command::{PartnerCommand, PartnerEnvelope, limits};
use domain::payment::PaymentView;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::accept::{Asked, accepted, internal, known, not_placed};
use crate::app::App;
use crate::fields::Fields;
use crate::json::Node;
use crate::metrics;
use crate::problem::{Code, FieldError, Problem};
use crate::queue::Sent;
use crate::requests::{self, payment};
use crate::routes::refusals::OfWrites;
use crate::routes::schema;
use crate::signed::{Caller, PaymentBatch, Signed};
use crate::{query, write};

/// Items of one batch.
const ITEMS_MAX: usize = 500;
/// After so many items others get their turn on this thread.
const ITEMS_PER_TURN: usize = 50;

/// What became of each item, in their order.
#[derive(Debug, Serialize)]
pub struct Answer {
    items: Vec<Item>,
}

#[derive(Debug, Serialize)]
struct Item {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    /// The HTTP status that the payment alone would have been answered with.
    status: u16,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Payment(Box<PaymentView>),
    Problem(ItemProblem),
}

/// The problem document of one item; the request's id is that of the whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemProblem {
    /// Path of the documentation page.
    r#type: &'static str,
    /// The same for every problem of this code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this item.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// A stable word.
    code: &'static str,
    /// The fields that have to change; their pointers begin at the whole body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// Seconds after which the item can be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u32>,
}

/// An item on its way.
enum Stage {
    Answered(u16, Outcome),
    Asked(Box<PartnerEnvelope>),
    Sent(Box<PartnerEnvelope>, Sent),
}

impl Stage {
    fn refused(problem: Problem) -> Self {
        let Problem { code, detail, errors, retry_after_s, .. } = problem;
        let status = code.status().as_u16();
        let problem = ItemProblem {
            r#type: code.type_path(),
            title: code.title(),
            status,
            detail,
            code: code.as_str(),
            errors,
            retry_after_s,
        };
        Self::Answered(status, Outcome::Problem(problem))
    }

    fn told(status: StatusCode, payment: PaymentView) -> Self {
        Self::Answered(status.as_u16(), Outcome::Payment(Box::new(payment)))
    }
}

struct Entry {
    key: Option<String>,
    stage: Stage,
}

/// Debit many customers
///
/// Up to 500 payments in a body of up to 1 MiB. Each item has an `idempotency_key` of its own and is answered in its
/// place with the status, and the payment or the problem, that it would have been answered with alone; the request's
/// own `Idempotency-Key` only satisfies the signature. `Prefer: wait` is not honoured. Every item counts against your
/// rate: items beyond it are answered 429 and can be sent again.
#[utoipa::path(
    post, path = "/v1/payments/batch", tag = "payments", operation_id = "create_payments",
    security(("message_signature" = ["payments"])),
    params(schema::SignedWriteHeaders),
    request_body(content = schema::BatchRequest, content_type = "application/json", example = json!(schema::batch_request())),
    responses(
        (status = 200, description = "What became of each item, in their order", body = schema::BatchAnswer, example = json!(schema::batch_answer())),
        OfWrites
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    signed: Signed<PaymentBatch>,
) -> Result<Json<Answer>, Problem> {
    let Signed { caller, parts, body, .. } = signed;
    write::idempotency_key(&parts.headers)?;
    query::none(parts.uri.query())?;
    let mut entries = Vec::new();
    let mut keys = HashSet::new();
    for (index, node) in items(&body)?.into_iter().enumerate() {
        entries.push(read(&app, &caller, index, node, &mut keys));
        breathe(index).await;
    }
    look_up(&app, &caller, &mut entries).await;
    for (index, entry) in entries.iter_mut().enumerate() {
        send(&app, &mut entry.stage);
        breathe(index).await;
    }
    let mut items = Vec::with_capacity(entries.len());
    for (index, Entry { key, stage }) in entries.into_iter().enumerate() {
        let (status, outcome) = finish(&app, &caller, stage).await?;
        items.push(Item { index, idempotency_key: key, status, outcome });
    }
    Ok(Json(Answer { items }))
}

/// A batch is milliseconds of work, which other requests are not to wait for.
async fn breathe(index: usize) {
    if index % ITEMS_PER_TURN == ITEMS_PER_TURN - 1 {
        tokio::task::yield_now().await;
    }
}

/// The items of the body; whether each is good does not matter here.
fn items(body: &[u8]) -> Result<Vec<Node>, Problem> {
    let mut fields = Fields::of_body(body)?;
    let items = match fields.take("payments") {
        Some(Node::Array(items)) if (1..=ITEMS_MAX).contains(&items.len()) => Some(items),
        Some(Node::Array(items)) => {
            let (code, detail) = match items.len() {
                0 => ("empty", "has no items; send from 1 to 500".to_owned()),
                count => ("too_many", format!("has {count} items; send at most {ITEMS_MAX} in one request")),
            };
            fields.refuse("payments", code, detail);
            None
        }
        Some(other) => {
            fields.refuse(
                "payments",
                "wrong_type",
                format!("send an array of payments, not {}", other.kind()),
            );
            None
        }
        None => {
            fields.refuse("payments", "missing", "required; send an array of payments");
            None
        }
    };
    fields.finish(items)
}

/// Reads one item; what is wrong with it is its answer.
fn read(app: &App, caller: &Caller, index: usize, node: Node, keys: &mut HashSet<String>) -> Entry {
    let refused = |key, problem| Entry { key, stage: Stage::refused(problem) };
    let Node::Object(members) = node else {
        let pointer = format!("/payments/{index}");
        let detail = format!("send an object, not {}", node.kind()).into();
        return refused(
            None,
            Problem::fields(vec![FieldError { pointer, code: "wrong_type".into(), detail }]),
        );
    };
    let mut fields = Fields::of_members(members, format!("/payments/{index}"));
    let key = item_key(&mut fields, keys);
    let command = match payment::parse_fields(fields, app.hold_seconds_min) {
        Ok(command) => command,
        Err(problem) => return refused(key, problem),
    };
    // Without a key there is a fault, so that this is not reached.
    let Some(key) = key else { return refused(None, Problem::plain(Code::IdempotencyKeyMissing)) };
    // The request itself has counted for the first.
    if index > 0
        && let Err(seconds) = caller.partner.allow()
    {
        return refused(Some(key), Problem::plain(Code::RateLimited).retry_after(seconds));
    }
    let fingerprint = requests::fingerprint(payment::PATH, &command);
    let asked = Asked { command: PartnerCommand::Payment(command), fingerprint, root: None };
    let envelope = asked.envelope(caller, &key);
    Entry { key: Some(key), stage: Stage::Asked(Box::new(envelope)) }
}

/// The key of an item, as the header field would have to be, and no other item's.
fn item_key(fields: &mut Fields, keys: &mut HashSet<String>) -> Option<String> {
    let key = fields.required_string("idempotency_key", "\"order-4711\"")?;
    if !(1..=limits::IDEMPOTENCY_KEY_MAX).contains(&key.len())
        || !key.bytes().all(|byte| byte.is_ascii_graphic())
    {
        fields.refuse("idempotency_key", "invalid_value", "a key has 1 to 255 visible ASCII characters");
        return None;
    }
    if !keys.insert(key.clone()) {
        let detail = "an earlier item of this batch has the same key; the earlier one counts";
        fields.refuse("idempotency_key", "duplicate_key", detail);
    }
    Some(key)
}

/// Answers the items whose keys were used before.
async fn look_up(app: &App, caller: &Caller, entries: &mut [Entry]) {
    let started = Instant::now();
    let asked = entries.iter().filter_map(|entry| match &entry.stage {
        Stage::Asked(envelope) => Some(envelope.id),
        Stage::Answered(..) | Stage::Sent(..) => None,
    });
    let Ok(seen) = app.lookup.used_all(asked.collect(), app.lookup_budget).await else {
        metrics::lookup_skipped();
        return;
    };
    let waiting = entries.iter_mut().filter(|entry| matches!(entry.stage, Stage::Asked(_)));
    for (entry, seen) in waiting.zip(seen) {
        let Stage::Asked(envelope) = &entry.stage else { continue };
        entry.stage = match known(&seen, &envelope.fingerprint) {
            Ok(None) => continue,
            Ok(Some((stored, status))) => Stage::told(status, stored.for_caller(caller.partner.livemode)),
            Err(problem) => Stage::refused(problem),
        };
    }
    metrics::looked_up(started.elapsed());
}

/// Puts an item on its way.
fn send(app: &App, stage: &mut Stage) {
    let Stage::Asked(envelope) = stage else { return };
    *stage = match app.queue.send(envelope.root.uuid(), &envelope.encode()) {
        Ok(sent) => Stage::Sent(envelope.clone(), sent),
        Err(error) => Stage::refused(not_placed(error)),
    };
}

/// The answer of an item, once Kafka has acknowledged it.
async fn finish(app: &App, caller: &Caller, stage: Stage) -> Result<(u16, Outcome), Problem> {
    let stage = match stage {
        Stage::Sent(envelope, sent) => match sent.placed().await {
            Ok(placed) => {
                let accepted = accepted(app, caller, &envelope, &placed).ok_or_else(internal)?;
                Stage::told(StatusCode::ACCEPTED, accepted.payment)
            }
            Err(error) => Stage::refused(not_placed(error)),
        },
        stage => stage,
    };
    match stage {
        Stage::Answered(status, outcome) => Ok((status, outcome)),
        // Each was sent or answered.
        Stage::Asked(_) | Stage::Sent(..) => Err(internal()),
    }
}
