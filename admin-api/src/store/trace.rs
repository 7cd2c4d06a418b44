//! What a payment left in the other tables: entries, follow-ups, events, deliveries, attempts, dead letters. Every
//! statement goes by a primary key or an index of its own, and is bounded.

use domain::account::{Direction, OwnerKind};
use domain::event::EventType;
use domain::ids::{AccountId, ChangeId, EndpointId, EventId, PartnerId, PaymentId, event_id};
use domain::time::Timestamp;
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlConnection};
use uuid::Uuid;

use super::Columns;
use super::payments::{PaymentRow, Place, place};

/// Commands on either side of a payment that are looked at for its batch: more than a batch has.
const BATCH_MAX: u64 = 2_000;

/// One entry.
#[derive(Debug, Clone)]
pub struct EntryRow {
    /// The account.
    pub account: AccountId,
    /// Whose it is.
    pub owner: OwnerKind,
    /// Counts the account's entries.
    pub version: u64,
    /// The payment.
    pub payment: PaymentId,
    /// Debit or credit.
    pub direction: Direction,
    /// Minor units.
    pub amount_minor: i64,
    /// The balance after it.
    pub balance_minor: i64,
    /// When it was booked.
    pub entered_at: Timestamp,
}

/// The two entries of each of these payments, debits first.
pub async fn entries(
    connection: &mut MySqlConnection,
    payments: &[PaymentRow],
) -> Result<Vec<EntryRow>, sqlx::Error> {
    let sides = payments.iter().flat_map(|row| [row.debit, row.credit]).flatten();
    let keys: Vec<_> = sides.filter_map(|side| Some((side.account, side.version?))).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(400 + 48 * keys.len());
    sql.text(
        "SELECT e.account_id, a.owner_kind, e.version, e.payment_id, e.direction, e.amount_minor, e.balance_minor, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.entered_at) FROM entries e FORCE INDEX (PRIMARY) \
         JOIN accounts a ON a.id = e.account_id WHERE (e.account_id, e.version) IN (",
    );
    sql.list(&keys, |sql, (account, version)| {
        sql.text("(").uuid(account.uuid()).text(",").int(*version).text(")");
    });
    sql.text(") ORDER BY e.direction, e.account_id");
    let rows = connection.fetch_all(sql.as_str()).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(EntryRow {
            account: AccountId::from_uuid(columns.uuid()?),
            owner: columns.named(OwnerKind::from_code)?,
            version: columns.take()?,
            payment: PaymentId::from_uuid(columns.uuid()?),
            direction: columns.named(Direction::from_code)?,
            amount_minor: columns.take()?,
            balance_minor: columns.take()?,
            entered_at: columns.time()?,
        })
    };
    rows.iter().map(read).collect()
}

/// The payment of an account's entry.
pub async fn payment_of_entry(
    connection: &mut MySqlConnection,
    account: AccountId,
    version: u64,
) -> Result<Option<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT payment_id FROM entries WHERE account_id = ").uuid(account.uuid());
    sql.text(" AND version = ").int(version);
    let row = connection.fetch_optional(sql.as_str()).await?;
    row.map(|row| Columns::new(&row).uuid()).transpose()
}

/// Up to `max` payments that belong to a root.
pub async fn follow_ups(
    connection: &mut MySqlConnection,
    root: PaymentId,
    max: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT payment_id FROM follow_ups WHERE root_id = ").uuid(root.uuid());
    sql.text(" ORDER BY payment_id LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

/// How many commands on money came by the same partition and were decided in the same transaction.
pub async fn batch(
    connection: &mut MySqlConnection,
    at: Place,
    decided_at: Timestamp,
) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT COUNT(*) FROM payments FORCE INDEX (PRIMARY) WHERE source = ").int(at.source.code());
    sql.text(" AND kafka_partition = ").int(at.partition);
    sql.text(" AND kafka_offset >= ").int(at.offset.saturating_sub(BATCH_MAX));
    sql.text(" AND kafka_offset <= ").int(at.offset.saturating_add(BATCH_MAX));
    sql.text(" AND decided_at = ").datetime(decided_at.civil());
    let row = connection.fetch_one(sql.as_str()).await?;
    Columns::new(&row).take::<i64>().map(i64::unsigned_abs)
}

/// An event, without what it says.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// Its id.
    pub id: EventId,
    /// Who is told.
    pub partner: PartnerId,
    /// Its place in the partner's log.
    pub sequence: u64,
    /// What it tells.
    pub event_type: EventType,
    /// When it was decided.
    pub occurred_at: Timestamp,
}

/// Events by partner and sequence.
pub async fn events(
    connection: &mut MySqlConnection,
    keys: &[(PartnerId, u64)],
) -> Result<Vec<EventRow>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(300 + 48 * keys.len());
    sql.text(
        "SELECT partner_id, sequence, epoch, type, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', occurred_at) \
         FROM events FORCE INDEX (PRIMARY) WHERE (partner_id, sequence) IN (",
    );
    sql.list(keys, |sql, (partner, sequence)| {
        sql.text("(").uuid(partner.uuid()).text(",").int(*sequence).text(")");
    });
    sql.text(") ORDER BY partner_id, sequence");
    let rows = connection.fetch_all(sql.as_str()).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        let partner = PartnerId::from_uuid(columns.uuid()?);
        let (sequence, epoch) = (columns.take()?, columns.take()?);
        Ok(EventRow {
            id: event_id(partner, epoch, sequence),
            partner,
            sequence,
            event_type: columns.named(EventType::from_code)?,
            occurred_at: columns.time()?,
        })
    };
    rows.iter().map(read).collect()
}

/// What an event says, as JSON.
pub async fn event_data(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    sequence: u64,
) -> Result<Option<String>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT data FROM events WHERE partner_id = ").uuid(partner.uuid());
    sql.text(" AND sequence = ").int(sequence);
    let row = connection.fetch_optional(sql.as_str()).await?;
    Ok(row.map(|row| Columns::new(&row).text()).transpose()?.flatten())
}

/// A delivery.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// To which endpoint.
    pub endpoint: EndpointId,
    /// Its URL.
    pub url: String,
    /// Of which event.
    pub event: EventId,
    /// 1 pending, 2 delivered, 3 dead.
    pub status: u8,
    /// How many attempts were made.
    pub attempts: u8,
    /// When the next attempt is due.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was first recorded.
    pub created_at: Timestamp,
    /// When it was received or given up.
    pub finished_at: Option<Timestamp>,
}

/// Endpoints of a trace's partners, and pairs of endpoint and event, that are looked at: more than any partner has.
const ENDPOINTS_MAX: u64 = 500;
const PAIRS_MAX: usize = 5_000;

/// Up to `max` deliveries of these events, in the order of the endpoints' making.
pub async fn deliveries(
    connection: &mut MySqlConnection,
    events: &[EventRow],
    max: usize,
) -> Result<Vec<DeliveryRow>, sqlx::Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(400);
    sql.text(
        "SELECT id, partner_id, url FROM endpoints FORCE INDEX (endpoints_of_partner) WHERE partner_id IN (",
    );
    sql.list(partners(events), |sql, partner| {
        sql.uuid(partner.uuid());
    });
    sql.text(") ORDER BY created_at, id LIMIT ").int(ENDPOINTS_MAX);
    let (mut urls, mut pairs) = (Vec::new(), Vec::new());
    for row in connection.fetch_all(sql.as_str()).await? {
        let mut columns = Columns::new(&row);
        let endpoint = EndpointId::from_uuid(columns.uuid()?);
        let partner = PartnerId::from_uuid(columns.uuid()?);
        urls.push((endpoint, columns.text()?.unwrap_or_default()));
        let its = events.iter().filter(|event| event.partner == partner);
        pairs.extend(its.map(|event| (endpoint, event.id)));
    }
    pairs.truncate(PAIRS_MAX);
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    // Each pair is one row of the primary key; by endpoint alone it would be all that the endpoint ever got.
    let mut sql = Sql::with_capacity(500 + 80 * pairs.len());
    sql.text(
        "SELECT endpoint_id, event_id, status, attempts, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', next_attempt_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', finished_at) \
         FROM deliveries FORCE INDEX (PRIMARY) WHERE (endpoint_id, event_id) IN (",
    );
    sql.list(&pairs, |sql, (endpoint, event)| {
        sql.text("(").uuid(endpoint.uuid()).text(",").uuid(event.uuid()).text(")");
    });
    sql.text(")");
    let mut deliveries = Vec::new();
    for row in connection.fetch_all(sql.as_str()).await? {
        let mut columns = Columns::new(&row);
        let endpoint = EndpointId::from_uuid(columns.uuid()?);
        let place = urls.iter().position(|(known, _)| *known == endpoint);
        let url = place.and_then(|place| urls.get(place)).map_or_else(String::new, |(_, url)| url.clone());
        let delivery = DeliveryRow {
            endpoint,
            url,
            event: EventId::from_uuid(columns.uuid()?),
            status: columns.take()?,
            attempts: columns.take()?,
            next_attempt_at: columns.opt_time()?,
            created_at: columns.time()?,
            finished_at: columns.opt_time()?,
        };
        deliveries.push((place, delivery));
    }
    deliveries.sort_by_key(|(place, delivery)| (*place, delivery.event));
    deliveries.truncate(max);
    Ok(deliveries.into_iter().map(|(_, delivery)| delivery).collect())
}

fn partners(events: &[EventRow]) -> Vec<PartnerId> {
    let mut partners: Vec<PartnerId> = events.iter().map(|event| event.partner).collect();
    partners.sort_unstable();
    partners.dedup();
    partners
}

/// A command that could not be applied.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    /// Where it stands.
    pub place: Place,
    /// 1 open, 2 redriven, 3 rejected.
    pub status: u8,
    /// What it asked for.
    pub payment: Option<PaymentId>,
    /// Why, as a word.
    pub reason: String,
    /// What was found.
    pub detail: String,
    /// When it was set aside.
    pub recorded_at: Timestamp,
    /// The command that dealt with it.
    pub change: Option<ChangeId>,
}

/// Up to `max` dead letters of these roots, and of these payments.
pub async fn dead_letters(
    connection: &mut MySqlConnection,
    payments: &[Uuid],
    max: usize,
) -> Result<Vec<DeadLetterRow>, sqlx::Error> {
    if payments.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(1_000 + 80 * payments.len());
    // Two indexes, so two statements; UNION leaves out what both find.
    sql.text(DEAD_LETTERS).text("FORCE INDEX (dead_letters_of_root) WHERE root_id IN (");
    sql.list(payments, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(") UNION ").text(DEAD_LETTERS).text("FORCE INDEX (dead_letters_id) WHERE id IN (");
    sql.list(payments, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(") ORDER BY source, kafka_partition, kafka_offset LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(DeadLetterRow {
            place: place(&mut columns)?,
            status: columns.take()?,
            payment: columns.opt_uuid()?.map(PaymentId::from_uuid),
            reason: columns.text()?.unwrap_or_default(),
            detail: columns.text()?.unwrap_or_default(),
            recorded_at: columns.time()?,
            change: columns.opt_uuid()?.map(ChangeId::from_uuid),
        })
    };
    rows.iter().map(read).collect()
}

const DEAD_LETTERS: &str = "SELECT source, kafka_partition, kafka_offset, status, id, reason, detail, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', recorded_at), change_id FROM dead_letters ";

/// Up to `max` partners that were ever told anything, above `after`, by id.
pub async fn partners_with_events(
    connection: &mut MySqlConnection,
    after: Uuid,
    max: usize,
) -> Result<Vec<PartnerId>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id FROM partner_sequences WHERE partner_id > ").uuid(after);
    sql.text(" ORDER BY partner_id LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid().map(PartnerId::from_uuid)).collect()
}

/// Up to `max` partners.
pub async fn partners_up_to(
    connection: &mut MySqlConnection,
    max: usize,
) -> Result<Vec<PartnerId>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT id FROM partners ORDER BY id LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid().map(PartnerId::from_uuid)).collect()
}

/// Whose mandate it is, or the request for it.
pub async fn partner_of_mandate(
    connection: &mut MySqlConnection,
    mandate: domain::ids::MandateId,
) -> Result<Option<PartnerId>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id FROM mandates WHERE id = ").uuid(mandate.uuid());
    sql.text(" UNION SELECT partner_id FROM mandate_requests WHERE id = ")
        .uuid(mandate.uuid())
        .text(" LIMIT 1");
    let row = connection.fetch_optional(sql.as_str()).await?;
    row.map(|row| Columns::new(&row).uuid().map(PartnerId::from_uuid)).transpose()
}

/// Up to `max` payments of a request, among those at these offsets of their partitions.
pub async fn of_request(
    connection: &mut MySqlConnection,
    request_id: Uuid,
    ranges: &[(Source, u16, std::ops::Range<u64>)],
    max: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::with_capacity(300 * ranges.len());
    for (source, partition, offsets) in ranges.iter().filter(|(_, _, offsets)| !offsets.is_empty()) {
        sql.text(if sql.is_empty() { "(" } else { " UNION ALL (" });
        sql.text("SELECT id FROM payments FORCE INDEX (PRIMARY) WHERE source = ").int(source.code());
        sql.text(" AND kafka_partition = ").int(*partition).text(" AND kafka_offset >= ").int(offsets.start);
        sql.text(" AND kafka_offset < ").int(offsets.end).text(" AND request_id = ").uuid(request_id);
        sql.text(" LIMIT ").int(max as u64).text(")");
    }
    if sql.is_empty() {
        return Ok(Vec::new());
    }
    sql.text(" LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

/// Up to `max` payments of any of these partners with this reference, each partner's newest.
pub async fn with_reference(
    connection: &mut MySqlConnection,
    partners: &[PartnerId],
    reference: &str,
    max: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::with_capacity(300 * partners.len());
    for partner in partners {
        sql.text(if sql.is_empty() { "(" } else { " UNION ALL (" });
        sql.text(
            "SELECT id, accepted_at FROM payments FORCE INDEX (payments_of_reference) WHERE partner_id = ",
        );
        sql.uuid(partner.uuid()).text(" AND reference = ").string(reference);
        sql.text(" ORDER BY accepted_at DESC LIMIT ").int(max as u64).text(")");
    }
    if sql.is_empty() {
        return Ok(Vec::new());
    }
    sql.text(" ORDER BY accepted_at DESC, id LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

/// Up to `max` payments whose dead letters a change redrove or gave up.
pub async fn of_change(
    connection: &mut MySqlConnection,
    change: ChangeId,
    max: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT id FROM dead_letters FORCE INDEX (dead_letters_of_change) WHERE change_id = ");
    sql.uuid(change.uuid()).text(" AND id IS NOT NULL LIMIT ").int(max as u64);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

/// Credits among the entries of an account from a version on that were booked at an instant: payment and balance.
pub async fn credits_at(
    connection: &mut MySqlConnection,
    account: AccountId,
    from_version: u64,
    entered_at: Timestamp,
) -> Result<Vec<(Uuid, i64)>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT payment_id, balance_minor FROM entries WHERE account_id = ").uuid(account.uuid());
    sql.text(" AND version >= ")
        .int(from_version)
        .text(" AND version < ")
        .int(from_version.saturating_add(BATCH_MAX));
    sql.text(" AND direction = ").int(Direction::Credit.code());
    sql.text(" AND entered_at = ").datetime(entered_at.civil());
    let rows = connection.fetch_all(sql.as_str()).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok((columns.uuid()?, columns.take()?))
    };
    rows.iter().map(read).collect()
}
