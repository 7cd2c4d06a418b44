//! Finds payments by whatever somebody has in hand: any id of the system, an idempotency key, a merchant's reference, a
//! place on Kafka. Nothing of it has an index of its own but what is there for other work; each look is bounded.

use domain::event::CreditView;
use domain::ids::{
    AccountId, ChangeId, EndpointId, EventId, MandateId, PartnerId, PaymentId, event_position, payment_id,
};
use domain::money::decimal_text;
use domain::time::Timestamp;
use domain::topic::Source;
use serde::Deserialize;
use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use crate::problem::{Code, Problem};
use crate::store::offsets::{self, Applied};
use crate::store::payment_list::{self, Filters, Of};
use crate::store::payments::{self, PaymentRow, Place};
use crate::store::trace as store;
use crate::trace::received_at;

/// Payments that one look finds.
pub const FOUND_MAX: usize = 20;
/// Partners whose keys and references are all tried; with more, somebody has to say which.
const PARTNERS_MAX: usize = 200;
/// Partners whose events are looked through in one step, and steps.
const PARTNERS_PAGE: usize = 10_000;
const PARTNERS_PAGES_MAX: usize = 100;
/// How long after its request a command is looked for on Kafka, and how far clocks may differ.
const ACCEPTED_WITHIN_S: i64 = 15;
const CLOCKS_DIFFER_S: i64 = 2;
/// Commands of each partition that are looked at for a request.
const REQUEST_SCAN_MAX: u64 = 50_000;

/// What somebody has in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    /// An id, a key, a reference, a place.
    pub id: String,
    /// Whose, for keys and references.
    pub partner: Option<PartnerId>,
    /// Which entry, of an account.
    pub version: Option<u64>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// As what the text was understood.
    pub by: &'static str,
    /// The payments, at most [`FOUND_MAX`].
    pub payments: Vec<PaymentRow>,
    /// There are more.
    pub more: bool,
}

impl Found {
    fn of(by: &'static str, mut payments: Vec<PaymentRow>) -> Self {
        let more = payments.len() > FOUND_MAX;
        payments.truncate(FOUND_MAX);
        Self { by, payments, more }
    }

    fn one(by: &'static str, payment: Option<PaymentRow>) -> Self {
        Self::of(by, payment.into_iter().collect())
    }
}

/// Looks; finds nothing rather than guessing.
pub async fn find(pool: &MySqlPool, hand: &Hand) -> Result<Found, Problem> {
    let mut connection = pool.acquire().await?;
    let db = &mut *connection;
    let text = hand.id.as_str();
    if let Ok(id) = text.parse::<PaymentId>() {
        return Ok(Found::one("payment", payments::find(db, id).await?));
    }
    if let Ok(mandate) = text.parse::<MandateId>() {
        return of_mandate(pool, db, mandate).await;
    }
    if let Ok(account) = text.parse::<AccountId>() {
        let Some(version) = hand.version else {
            return listed(pool, "account", Of::Account { account, partner: None }).await;
        };
        let payment = store::payment_of_entry(db, account, version).await?;
        return Ok(Found::of("entry", payments::by_ids(db, payment.as_slice()).await?));
    }
    if let Ok(partner) = text.parse::<PartnerId>() {
        return listed(pool, "partner", Of::Partner { partner, mandate: None, reference: None }).await;
    }
    if let Ok(change) = text.parse::<ChangeId>() {
        let ids = store::of_change(db, change, FOUND_MAX + 1).await?;
        return Ok(Found::of("change", payments::by_ids(db, &ids).await?));
    }
    if let Some((by, event)) = event(text) {
        return of_event(pool, db, by, event).await;
    }
    if let Some(place) = place(text) {
        return Ok(Found::of("position", payments::at_places(db, &[place]).await?));
    }
    if let Some(request_id) = text.parse::<Uuid>().ok().filter(|id| received_at(*id).is_some()) {
        let found = of_request(db, request_id).await?;
        if !found.payments.is_empty() {
            return Ok(found);
        }
        // Many idempotency keys look like this, too.
    }
    of_text(db, text, hand.partner).await
}

/// An event's id, or a delivery's: its endpoint and its event.
fn event(text: &str) -> Option<(&'static str, EventId)> {
    match text.split_once('/') {
        Some((endpoint, event)) => {
            endpoint.parse::<EndpointId>().ok()?;
            Some(("delivery", event.parse().ok()?))
        }
        None => Some(("event", text.parse().ok()?)),
    }
}

/// A place, as `payments.commands.v1/3/4711` or `partner/3/4711`.
fn place(text: &str) -> Option<Place> {
    let mut parts = text.split('/');
    let topic = parts.next()?;
    let source =
        Source::ALL.iter().find(|source| source.as_str() == topic || source.topic().name == topic)?;
    let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Place { source: *source, partition, offset })
}

async fn listed(pool: &MySqlPool, by: &'static str, of: Of) -> Result<Found, Problem> {
    let page = payment_list::list(pool, &of, &Filters::default(), None, FOUND_MAX).await?;
    Ok(Found { by, payments: page.payments, more: page.next.is_some() })
}

async fn of_mandate(
    pool: &MySqlPool,
    db: &mut MySqlConnection,
    mandate: MandateId,
) -> Result<Found, Problem> {
    match store::partner_of_mandate(db, mandate).await? {
        Some(partner) => {
            listed(pool, "mandate", Of::Partner { partner, mandate: Some(mandate), reference: None }).await
        }
        None => Ok(Found::of("mandate", Vec::new())),
    }
}

/// What an event is about.
#[derive(Deserialize)]
struct Told {
    payment: Option<Identified<PaymentId>>,
    mandate: Option<Identified<MandateId>>,
    account: Option<CreditView>,
}

#[derive(Deserialize)]
struct Identified<T> {
    id: T,
}

/// The id of an event holds a digest of its partner, so the partner is found by trying all.
async fn of_event(
    pool: &MySqlPool,
    db: &mut MySqlConnection,
    by: &'static str,
    event: EventId,
) -> Result<Found, Problem> {
    let nothing = || Ok(Found::of(by, Vec::new()));
    let (mut after, mut found) = (Uuid::nil(), None);
    for _ in 0..PARTNERS_PAGES_MAX {
        let partners = store::partners_with_events(db, after, PARTNERS_PAGE).await?;
        found = partners.iter().find_map(|partner| Some((*partner, event_position(*partner, event)?.1)));
        match partners.last() {
            Some(last) if found.is_none() && partners.len() == PARTNERS_PAGE => after = last.uuid(),
            _ => break,
        }
    }
    let Some((partner, sequence)) = found else { return nothing() };
    // Of another epoch there is no event of this id any more.
    let row = store::events(db, &[(partner, sequence)]).await?.pop().filter(|row| row.id == event);
    let (Some(row), Some(data)) = (row, store::event_data(db, partner, sequence).await?) else {
        return nothing();
    };
    let told: Told = serde_json::from_str(&data).map_err(|error| Problem::internal(&error))?;
    match told {
        Told { payment: Some(payment), .. } => Ok(Found::one(by, payments::find(db, payment.id).await?)),
        Told { mandate: Some(mandate), .. } => of_mandate(pool, db, mandate.id).await,
        Told { account: Some(credit), .. } => {
            let ids = of_credit(db, &credit, row.occurred_at).await?;
            Ok(Found::of(by, payments::by_ids(db, &ids).await?))
        }
        Told { .. } => nothing(),
    }
}

/// The payment that credited an account then, and left this balance.
async fn of_credit(
    db: &mut MySqlConnection,
    credit: &CreditView,
    at: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let version = offsets::first_version_at(db, credit.id, at).await?;
    let credits = store::credits_at(db, credit.id, version, at).await?;
    let is_it = |(_, balance): &&(Uuid, i64)| decimal_text(*balance, credit.currency) == credit.balance;
    Ok(credits.iter().filter(is_it).map(|(payment, _)| *payment).collect())
}

/// The id of a request says when it was drawn, and the commands of those seconds are few.
async fn of_request(db: &mut MySqlConnection, request_id: Uuid) -> Result<Found, Problem> {
    let Some(received_at) = received_at(request_id) else { return Ok(Found::of("request", Vec::new())) };
    let partitions = offsets::applied(db).await?;
    let first = offsets::first_at(db, &partitions, received_at.plus_seconds(-CLOCKS_DIFFER_S)).await?;
    let end = offsets::first_at(db, &partitions, received_at.plus_seconds(ACCEPTED_WITHIN_S)).await?;
    let range = |((at, first), end): ((&Applied, u64), u64)| {
        (at.source, at.partition, first..end.min(first.saturating_add(REQUEST_SCAN_MAX)))
    };
    let ranges: Vec<_> = partitions.iter().zip(first).zip(end).map(range).collect();
    let ids = store::of_request(db, request_id, &ranges, FOUND_MAX + 1).await?;
    Ok(Found::of("request", payments::by_ids(db, &ids).await?))
}

/// An idempotency key, else a reference.
async fn of_text(db: &mut MySqlConnection, text: &str, partner: Option<PartnerId>) -> Result<Found, Problem> {
    let partners = match partner {
        Some(partner) => vec![partner],
        None => store::partners_up_to(db, PARTNERS_MAX + 1).await?,
    };
    if partners.len() > PARTNERS_MAX {
        let detail = "this is none of the bank's ids; to look for an idempotency key or a reference, say whose with `partner`";
        return Err(Problem::new(Code::MalformedRequest, detail));
    }
    let ids: Vec<Uuid> = partners.iter().map(|partner| payment_id(*partner, text).uuid()).collect();
    let found = payments::by_ids(db, &ids).await?;
    if !found.is_empty() {
        return Ok(Found::of("idempotency_key", found));
    }
    let ids = store::with_reference(db, &partners, text, FOUND_MAX + 1).await?;
    let mut found = payments::by_ids(db, &ids).await?;
    found.sort_by_key(|row| std::cmp::Reverse((row.accepted_at, row.place)));
    Ok(Found::of("reference", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_for_what_they_are() {
        let evt = "evt_00000000000000000000000001";
        assert_eq!(event(evt).map(|it| it.0), Some("event"));
        assert_eq!(event(&format!("ep_00000000000000000000000001/{evt}")).map(|it| it.0), Some("delivery"));
        for text in ["pay_00000000000000000000000001", "order/7", "evt_x", &format!("pay_x/{evt}")] {
            assert_eq!(event(text), None, "{text}");
        }
        let partner = Place { source: Source::Partner, partition: 3, offset: 17 };
        assert_eq!(place("payments.commands.v1/3/17"), Some(partner));
        assert_eq!(place("partner/3/17"), Some(partner));
        assert_eq!(place("bank/0/0").map(|place| place.source), Some(Source::Bank));
        for text in ["partner/3", "partner/3/17/1", "partner/-3/17", "order/3/17", "partner/70000/1", ""] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
