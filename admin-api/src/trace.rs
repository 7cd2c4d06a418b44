//! The whole life of a payment, put together from what every stage has left: request, position, decision, entries,
//! follow-ups, events, deliveries and attempts, with the time between the steps.
//!
//! Times are those of whoever took the step: ingest (the request's id), Kafka (accepted), the processor (decided), the
//! notifier (attempts). Clocks of several machines differ, so a time between two of them may be a little negative.
//! Everything is bounded; where there is more than is shown, a flag says so.

use domain::account::{Direction, OwnerKind};
use domain::event::EventType;
use domain::ids::{AccountId, ChangeId, EndpointId, EventId, PartnerId, PaymentId};
use domain::money::{Currency, decimal_text};
use domain::payment::{PaymentStatus, Reason};
use domain::time::Timestamp;
use serde::Serialize;
use sqlx::MySqlConnection;
use uuid::Uuid;

use crate::routes::payments::{Actor, Payment, Position};
use crate::store::payments::{self, PaymentRow};
use crate::store::trace::{self as store, DeadLetterRow, DeliveryRow, EntryRow, EventRow};
use crate::store::webhooks::{self, AttemptRow};

/// Captures, refunds and the like of one payment that are shown.
const FOLLOW_UPS_MAX: usize = 50;
/// Deliveries that are shown.
const DELIVERIES_MAX: usize = 200;
/// Attempts that are shown.
const ATTEMPTS_MAX: usize = 500;
/// Dead letters that are shown.
const DEAD_LETTERS_MAX: usize = 50;

/// The whole life of a payment.
#[derive(Debug, Serialize)]
pub struct Trace {
    /// The payment itself.
    payment: Life,
    /// What belongs to it, in the order of acceptance: captures, voids, expiries, refunds, reversals.
    follow_ups: Vec<Life>,
    /// There are more than the 50 that are shown.
    more_follow_ups: bool,
    /// Commands on it that could not be applied, open and dealt with.
    dead_letters: Vec<DeadLetter>,
    /// There are more than the 50 that are shown.
    more_dead_letters: bool,
    /// There are more deliveries than the 200 that are shown.
    more_deliveries: bool,
    /// There are more attempts than the 500 that are shown.
    more_attempts: bool,
    /// From the first step to the last, in milliseconds.
    total_ms: f64,
}

/// One command, from its request to the last attempt to tell of it.
#[derive(Debug, Serialize)]
pub struct Life {
    /// What it is and what has become of it by now.
    payment: Payment,
    /// How it came.
    request: Request,
    /// What was decided; nothing while it is under review.
    decision: Option<Decision>,
    /// What it moved: the debit, then the credit.
    entries: Vec<Entry>,
    /// What was told.
    events: Vec<Event>,
    /// From its first step to its last, in milliseconds.
    total_ms: f64,
}

/// How a command came.
#[derive(Debug, Serialize)]
pub struct Request {
    /// When the request was received, to the millisecond; nothing when the bank asked by itself.
    received_at: Option<Timestamp>,
    /// When Kafka had it on disk.
    accepted_at: Timestamp,
    /// Between the two.
    after_ms: Option<f64>,
    /// Who asked.
    actor: Actor,
    /// The request's id, as in `x-request-id`.
    request_id: Uuid,
    /// The client's network address.
    address: Option<std::net::IpAddr>,
    /// Where the command stands.
    position: Position,
}

/// What was decided.
#[derive(Debug, Serialize)]
pub struct Decision {
    /// When.
    decided_at: Timestamp,
    /// After it was accepted.
    after_ms: f64,
    /// `posted`, `authorized`, `rejected` or `conflicted`, as it was decided then.
    outcome: PaymentStatus,
    /// Why it was rejected.
    reason: Option<Reason>,
    /// Commands on money of the same partition in the same transaction, itself among them.
    batch: u64,
}

/// One side of what was moved.
#[derive(Debug, Serialize)]
pub struct Entry {
    account: AccountId,
    /// `customer`, `partner` or `bank`.
    owner: OwnerKind,
    version: u64,
    direction: Direction,
    amount: Option<String>,
    currency: Option<Currency>,
    /// After it.
    balance: Option<String>,
    entered_at: Timestamp,
}

/// What a partner was told.
#[derive(Debug, Serialize)]
pub struct Event {
    id: EventId,
    partner: PartnerId,
    r#type: EventType,
    sequence: u64,
    occurred_at: Timestamp,
    /// To each endpoint.
    deliveries: Vec<Delivery>,
}

/// An event on its way to an endpoint.
#[derive(Debug, Serialize)]
pub struct Delivery {
    endpoint: EndpointId,
    url: String,
    /// `pending`, `delivered` or `dead`.
    status: &'static str,
    /// Made so far.
    attempts_made: u8,
    /// When the next attempt is due, or the lease of the present one ends.
    next_attempt_at: Option<Timestamp>,
    /// When it was received or given up.
    finished_at: Option<Timestamp>,
    /// From the event to its end.
    after_ms: Option<f64>,
    attempts: Vec<Attempt>,
}

/// One HTTP request to an endpoint.
#[derive(Debug, Serialize)]
pub struct Attempt {
    attempt: u8,
    started_at: Timestamp,
    /// After the end of the one before; of the first, after the event.
    after_ms: f64,
    /// How long it took.
    duration_ms: f64,
    /// Of the answer.
    status_code: Option<u16>,
    /// Why it failed, as a word.
    error: Option<String>,
    /// The rule by which it was not sent.
    refused_by: Option<String>,
    /// The beginning of the answer's body of a failure.
    excerpt: Option<String>,
}

/// A command that could not be applied.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    position: Position,
    /// What it asked for.
    payment: Option<PaymentId>,
    /// `open`, `redriven` or `rejected`.
    status: &'static str,
    /// `undecodable`, `data_error` or `behind_dead_letter`.
    reason: String,
    detail: String,
    recorded_at: Timestamp,
    /// The command that dealt with it.
    change: Option<ChangeId>,
}

/// Puts the trace together of what `row` belongs to: a capture's is that of its payment.
pub async fn of(connection: &mut MySqlConnection, row: PaymentRow) -> Result<Trace, sqlx::Error> {
    let root = if row.root == row.id { None } else { payments::find(connection, row.root).await? };
    // A command on a payment that is not there has a life of its own, and so has what does not belong to its root.
    let (root, alone) = match root {
        Some(root) => (root, row),
        None => (row.clone(), row),
    };
    let mut ids = store::follow_ups(connection, root.id, FOLLOW_UPS_MAX + 1).await?;
    let more_follow_ups = ids.len() > FOLLOW_UPS_MAX;
    ids.truncate(FOLLOW_UPS_MAX);
    let mut rows = payments::by_ids(connection, &ids).await?;
    if alone.id != root.id && rows.iter().all(|row| row.id != alone.id) {
        // Not listed with its root: a foreign partner's, a conflict, or one that is under review.
        rows.push(alone);
    }
    rows.sort_by_key(|row| (row.accepted_at, row.place));
    rows.insert(0, root);

    let entries = store::entries(connection, &rows).await?;
    let keys: Vec<_> = rows.iter().flat_map(told).collect();
    let events = store::events(connection, &keys).await?;
    let mut deliveries = store::deliveries(connection, &events, DELIVERIES_MAX + 1).await?;
    let more_deliveries = deliveries.len() > DELIVERIES_MAX;
    deliveries.truncate(DELIVERIES_MAX);
    let keys: Vec<_> = deliveries.iter().map(|delivery| (delivery.endpoint, delivery.event)).collect();
    let mut attempts = webhooks::attempts(connection, &keys, ATTEMPTS_MAX + 1).await?;
    let more_attempts = attempts.len() > ATTEMPTS_MAX;
    attempts.truncate(ATTEMPTS_MAX);
    let all: Vec<Uuid> = rows.iter().map(|row| row.id.uuid()).collect();
    let mut letters = store::dead_letters(connection, &all, DEAD_LETTERS_MAX + 1).await?;
    let more_dead_letters = letters.len() > DEAD_LETTERS_MAX;
    letters.truncate(DEAD_LETTERS_MAX);

    let left = Left { entries: &entries, events: &events, deliveries: &deliveries, attempts: &attempts };
    let (mut lives, mut span) = (Vec::with_capacity(rows.len()), Span::default());
    for row in &rows {
        let batch = match row.decided_at {
            Some(decided_at) => store::batch(connection, row.place, decided_at).await?,
            None => 0,
        };
        let (life, its_span) = life(row, batch, &left);
        lives.push(life);
        span = span.with(its_span);
    }
    let follow_ups = lives.split_off(1);
    let Some(payment) = lives.pop() else { return Err(sqlx::Error::RowNotFound) };
    Ok(Trace {
        payment,
        follow_ups,
        more_follow_ups,
        dead_letters: letters.into_iter().map(dead_letter).collect(),
        more_dead_letters,
        more_deliveries,
        more_attempts,
        total_ms: span.ms(),
    })
}

/// What the other tables hold of all payments of a trace.
struct Left<'a> {
    entries: &'a [EntryRow],
    events: &'a [EventRow],
    deliveries: &'a [DeliveryRow],
    attempts: &'a [AttemptRow],
}

/// The events that told of a payment.
fn told(row: &PaymentRow) -> impl Iterator<Item = (PartnerId, u64)> + use<> {
    row.partner.zip(row.event_sequence).into_iter().chain(row.told)
}

fn life(row: &PaymentRow, batch: u64, left: &Left<'_>) -> (Life, Span) {
    let received_at = received_at(row.request_id).filter(|_| Actor::of(row).is_somebody());
    let mut span = Span::default().and(received_at).and(Some(row.accepted_at)).and(row.decided_at);
    let request = Request {
        received_at,
        accepted_at: row.accepted_at,
        after_ms: received_at.map(|at| ms(at, row.accepted_at)),
        actor: Actor::of(row),
        request_id: row.request_id,
        address: row.address,
        position: Position::of(row.place),
    };
    let decision = row.decided_at.map(|decided_at| Decision {
        decided_at,
        after_ms: ms(row.accepted_at, decided_at),
        outcome: row.decided_as(),
        reason: row.reason,
        batch,
    });
    let entries = left.entries.iter().filter(|entry| entry.payment == row.id);
    let keys: Vec<_> = told(row).collect();
    let its_events = left.events.iter().filter(|event| keys.contains(&(event.partner, event.sequence)));
    let events = its_events.map(|event_row| {
        let (event, last) = event(event_row, left);
        span = span.and(last);
        event
    });
    let events: Vec<_> = events.collect();
    let life = Life {
        payment: Payment::from(row),
        request,
        decision,
        entries: entries.map(|entry| entry_of(entry, row.currency)).collect(),
        events,
        total_ms: span.ms(),
    };
    (life, span)
}

fn entry_of(entry: &EntryRow, currency: Option<Currency>) -> Entry {
    let decimal = |minor| currency.map(|currency| decimal_text(minor, currency));
    Entry {
        account: entry.account,
        owner: entry.owner,
        version: entry.version,
        direction: entry.direction,
        amount: decimal(entry.amount_minor),
        currency,
        balance: decimal(entry.balance_minor),
        entered_at: entry.entered_at,
    }
}

/// The event, and when the last step to tell it ended.
fn event(row: &EventRow, left: &Left<'_>) -> (Event, Option<Timestamp>) {
    let mut last = Some(row.occurred_at);
    let its = left.deliveries.iter().filter(|delivery| delivery.event == row.id);
    let deliveries = its.map(|delivery_row| {
        let (delivery, ended) = delivery(delivery_row, row.occurred_at, left.attempts);
        last = last.max(ended);
        delivery
    });
    let deliveries = deliveries.collect();
    let event = Event {
        id: row.id,
        partner: row.partner,
        r#type: row.event_type,
        sequence: row.sequence,
        occurred_at: row.occurred_at,
        deliveries,
    };
    (event, last)
}

fn delivery(
    row: &DeliveryRow,
    occurred_at: Timestamp,
    attempts: &[AttemptRow],
) -> (Delivery, Option<Timestamp>) {
    let mut before = occurred_at;
    let its = attempts.iter().filter(|it| it.endpoint == row.endpoint && it.event == row.event);
    let attempts: Vec<Attempt> = its
        .map(|it| {
            let after_ms = ms(before, it.started_at);
            before = it.started_at.plus_micros(it.duration_us.into());
            Attempt {
                attempt: it.attempt,
                started_at: it.started_at,
                after_ms,
                duration_ms: f64::from(it.duration_us) / 1_000.0,
                status_code: it.status_code,
                error: it.error_class.clone(),
                refused_by: it.refused_by.clone(),
                excerpt: it.excerpt.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            }
        })
        .collect();
    let last = if attempts.is_empty() { row.finished_at } else { Some(before) };
    let delivery = Delivery {
        endpoint: row.endpoint,
        url: row.url.clone(),
        status: match row.status {
            2 => "delivered",
            3 => "dead",
            _ => "pending",
        },
        attempts_made: row.attempts,
        next_attempt_at: row.next_attempt_at,
        finished_at: row.finished_at,
        after_ms: row.finished_at.map(|at| ms(occurred_at, at)),
        attempts,
    };
    (delivery, last)
}

fn dead_letter(row: DeadLetterRow) -> DeadLetter {
    DeadLetter {
        position: Position::of(row.place),
        payment: row.payment,
        status: match row.status {
            1 => "open",
            2 => "redriven",
            _ => "rejected",
        },
        reason: row.reason,
        detail: row.detail,
        recorded_at: row.recorded_at,
        change: row.change,
    }
}

/// Milliseconds between two steps.
fn ms(from: Timestamp, to: Timestamp) -> f64 {
    (to.micros() - from.micros()) as f64 / 1_000.0
}

/// Ids of requests are UUIDv7: they say when they were drawn.
pub fn received_at(request_id: Uuid) -> Option<Timestamp> {
    let (seconds, nanos) = request_id.get_timestamp()?.to_unix();
    let millis =
        i64::try_from(seconds).ok()?.checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))?;
    (request_id.get_version_num() == 7).then(|| Timestamp::from_millis(millis))
}

/// The first and the last step.
#[derive(Debug, Clone, Copy, Default)]
struct Span(Option<(Timestamp, Timestamp)>);

impl Span {
    fn and(self, at: Option<Timestamp>) -> Self {
        let Some(at) = at else { return self };
        Self(Some(self.0.map_or((at, at), |(first, last)| (first.min(at), last.max(at)))))
    }

    fn with(self, other: Self) -> Self {
        other.0.map_or(self, |(first, last)| self.and(Some(first)).and(Some(last)))
    }

    fn ms(self) -> f64 {
        self.0.map_or(0.0, |(first, last)| ms(first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_when_it_came() {
        let id: Uuid = "019a1b2c-3d4e-7000-8000-000000000000".parse().unwrap();
        assert_eq!(received_at(id), Some(Timestamp::from_millis(0x019a_1b2c_3d4e)));
        assert_eq!(received_at(Uuid::from_u128(5)), None);
        assert_eq!(received_at(Uuid::new_v4()), None);
    }

    #[test]
    fn the_total_goes_from_the_first_step_to_the_last() {
        let at = |micros| Some(Timestamp::from_micros(micros));
        let one = Span::default().and(at(5_000)).and(None).and(at(2_000));
        assert!((one.ms() - 3.0).abs() < 1e-9);
        assert!((one.with(Span::default()).with(Span::default().and(at(9_500))).ms() - 7.5).abs() < 1e-9);
        assert!(Span::default().ms().abs() < 1e-9);
    }
}
