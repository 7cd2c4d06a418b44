//! Rows of `payments`, whole, and payments that are under review.

use std::net::IpAddr;

use domain::command::{BankCommand, BankEnvelope, PartnerEnvelope};
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::money::Currency;
use domain::payment::{Metadata, PaymentKind, PaymentStatus, PaymentView, Reason};
use domain::time::Timestamp;
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlConnection};
use uuid::Uuid;

use super::Columns;

/// Where a command stands: the primary key of what it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
}

/// One side of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// The account.
    pub account: AccountId,
    /// Its entry; `None` when nothing moved.
    pub version: Option<u64>,
}

/// What the bank knows of a payment.
#[derive(Debug, Clone)]
pub struct PaymentRow {
    /// Where its command stands.
    pub place: Place,
    /// The payment.
    pub id: PaymentId,
    /// What it belongs to; itself for a root.
    pub root: PaymentId,
    /// What it does.
    pub kind: PaymentKind,
    /// Where it stands now.
    pub status: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// Counts its changes; 0 while it is under review.
    pub version: u32,
    /// Whose it is; `None` for the bank's own.
    pub partner: Option<PartnerId>,
    /// The mandate it debits under.
    pub mandate: Option<MandateId>,
    /// The currency; `None` for a command on nothing.
    pub currency: Option<Currency>,
    /// What it asks for.
    pub amount_minor: i64,
    /// What was captured of it.
    pub captured_minor: i64,
    /// What was given back of it.
    pub refunded_minor: i64,
    /// The debited account.
    pub debit: Option<Side>,
    /// The credited account.
    pub credit: Option<Side>,
    /// The event that told its partner.
    pub event_sequence: Option<u64>,
    /// A second partner that was told, and by which event.
    pub told: Option<(PartnerId, u64)>,
    /// `false` for test money.
    pub livemode: bool,
    /// The partner's reference.
    pub reference: Option<String>,
    /// What the customer reads.
    pub description: Option<String>,
    /// The partner's own keys and values.
    pub metadata: Metadata,
    /// The API key, or the user of the bank.
    pub actor: Uuid,
    /// Why, in the user's words.
    pub actor_reason: Option<String>,
    /// The request.
    pub request_id: Uuid,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// The idempotency key as sent.
    pub idempotency_key: Option<String>,
    /// When Kafka took it.
    pub accepted_at: Timestamp,
    /// When it was decided; `None` while it is under review.
    pub decided_at: Option<Timestamp>,
    /// Until when it may be captured.
    pub expires_at: Option<Timestamp>,
}

impl PaymentRow {
    /// What became of it when it was decided, whatever came later. Only an authorised payment changes its status.
    pub const fn decided_as(&self) -> PaymentStatus {
        match (self.kind, self.status, self.expires_at) {
            (PaymentKind::Payment, PaymentStatus::Rejected | PaymentStatus::Pending, _) => self.status,
            (PaymentKind::Payment, _, Some(_)) => PaymentStatus::Authorized,
            _ => self.status,
        }
    }

    /// Whether it waits for an operator.
    pub const fn is_under_review(&self) -> bool {
        self.decided_at.is_none()
    }
}

/// What [`payment`] reads of `payments p`, in this order.
pub(super) const COLUMNS: &str = "p.source, p.kafka_partition, p.kafka_offset, p.id, p.root_id, p.kind, p.status, \
     p.reason, p.version, p.partner_id, p.mandate_id, p.currency, p.amount_minor, p.captured_minor, p.refunded_minor, \
     p.debit_account, p.debit_version, p.credit_account, p.credit_version, p.event_sequence, p.told_partner_id, \
     p.told_sequence, p.livemode, p.reference, p.description, p.metadata, p.actor_id, p.actor_reason, p.request_id, \
     p.address, p.idempotency_key, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.decided_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.expires_at)";

pub(super) fn payment(row: &MySqlRow) -> Result<PaymentRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    let place = place(&mut columns)?;
    let id = PaymentId::from_uuid(columns.uuid()?);
    let root = PaymentId::from_uuid(columns.uuid()?);
    let kind = columns.named(PaymentKind::from_code)?;
    let status = columns.named(PaymentStatus::from_code)?;
    let reason = columns.opt_named(Reason::from_code)?;
    let version = columns.take()?;
    let partner = columns.opt_uuid()?.map(PartnerId::from_uuid);
    let mandate = columns.opt_uuid()?.map(MandateId::from_uuid);
    let currency = columns.currency()?;
    let (amount_minor, captured_minor, refunded_minor) = (columns.take()?, columns.take()?, columns.take()?);
    let (debit, credit) = (side(&mut columns)?, side(&mut columns)?);
    let event_sequence = columns.take()?;
    let told_partner = columns.opt_uuid()?.map(PartnerId::from_uuid);
    let told = told_partner.zip(columns.take::<Option<u64>>()?);
    let livemode = columns.take::<u8>()? != 0;
    let (reference, description) = (columns.text()?, columns.text()?);
    let metadata = columns.text()?.map(|text| serde_json::from_str(&text)).transpose();
    Ok(PaymentRow {
        place,
        id,
        root,
        kind,
        status,
        reason,
        version,
        partner,
        mandate,
        currency,
        amount_minor,
        captured_minor,
        refunded_minor,
        debit,
        credit,
        event_sequence,
        told,
        livemode,
        reference,
        description,
        metadata: metadata.map_err(|error| sqlx::Error::Decode(error.into()))?.unwrap_or_default(),
        actor: columns.uuid()?,
        actor_reason: columns.text()?,
        request_id: columns.uuid()?,
        address: columns.take::<Option<Vec<u8>>>()?.as_deref().and_then(address),
        idempotency_key: columns.text()?,
        accepted_at: columns.time()?,
        decided_at: columns.opt_time()?,
        expires_at: columns.opt_time()?,
    })
}

pub(super) fn place(columns: &mut Columns<'_>) -> Result<Place, sqlx::Error> {
    Ok(Place {
        source: columns.named(Source::from_code)?,
        partition: columns.take()?,
        offset: columns.take()?,
    })
}

fn side(columns: &mut Columns<'_>) -> Result<Option<Side>, sqlx::Error> {
    let account = columns.opt_uuid()?.map(AccountId::from_uuid);
    let version = columns.take()?;
    Ok(account.map(|account| Side { account, version }))
}

/// An address of 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Writes a place as a row of values.
pub(super) fn push_place(sql: &mut Sql, place: &Place) {
    sql.text("(")
        .int(place.source.code())
        .text(",")
        .int(place.partition)
        .text(",")
        .int(place.offset)
        .text(")");
}

/// Payments by id, in no order.
pub async fn by_ids(connection: &mut MySqlConnection, ids: &[Uuid]) -> Result<Vec<PaymentRow>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(1_200 + 36 * ids.len());
    sql.text("SELECT ").text(COLUMNS).text(" FROM payments p FORCE INDEX (payments_id) WHERE p.id IN (");
    sql.list(ids, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(")");
    connection.fetch_all(sql.as_str()).await?.iter().map(payment).collect()
}

/// Payments by place, in no order.
pub async fn at_places(
    connection: &mut MySqlConnection,
    places: &[Place],
) -> Result<Vec<PaymentRow>, sqlx::Error> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(1_200 + 24 * places.len());
    sql.text("SELECT ").text(COLUMNS);
    sql.text(
        " FROM payments p FORCE INDEX (PRIMARY) WHERE (p.source, p.kafka_partition, p.kafka_offset) IN (",
    );
    sql.list(places, push_place);
    sql.text(")");
    connection.fetch_all(sql.as_str()).await?.iter().map(payment).collect()
}

/// The payment with this id, also one that is under review.
pub async fn find(
    connection: &mut MySqlConnection,
    id: PaymentId,
) -> Result<Option<PaymentRow>, sqlx::Error> {
    // The dead letter first: one that is redriven in between is then found as a payment.
    let reviewed = under_review(connection, id).await?;
    let found = by_ids(connection, &[id.uuid()]).await?.pop();
    Ok(found.or(reviewed))
}

/// A payment that could not be applied, as it was asked for.
async fn under_review(
    connection: &mut MySqlConnection,
    id: PaymentId,
) -> Result<Option<PaymentRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT d.source, d.kafka_partition, d.kafka_offset, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', d.accepted_at), \
         d.record_value FROM dead_letters d FORCE INDEX (dead_letters_id) WHERE d.status = 1 AND d.id = ",
    );
    sql.uuid(id.uuid()).text(" ORDER BY d.source, d.kafka_partition, d.kafka_offset LIMIT 1");
    let Some(row) = connection.fetch_optional(sql.as_str()).await? else { return Ok(None) };
    let mut columns = Columns::new(&row);
    let place = place(&mut columns)?;
    let accepted_at = columns.time()?;
    let value: &[u8] = columns.take()?;
    // A record that cannot be read has no id in its row, so it is not found by id.
    let found = match place.source {
        Source::Partner => {
            PartnerEnvelope::decode(value).ok().and_then(|envelope| of_partner(place, accepted_at, &envelope))
        }
        Source::Bank => {
            BankEnvelope::decode(value).ok().and_then(|envelope| of_bank(place, accepted_at, &envelope))
        }
    };
    let Some(mut found) = found else { return Ok(None) };
    // Whether its money is real stands with its partner; the bank's own is.
    if let Some(partner) = found.partner {
        let mut sql = Sql::new();
        sql.text("SELECT livemode FROM partners WHERE id = ").uuid(partner.uuid());
        let row = connection.fetch_optional(sql.as_str()).await?;
        found.livemode = row.map(|row| Columns::new(&row).take::<u8>()).transpose()? != Some(0);
    }
    Ok(Some(found))
}

fn of_partner(place: Place, accepted_at: Timestamp, envelope: &PartnerEnvelope) -> Option<PaymentRow> {
    let view = PaymentView::pending(envelope, true, accepted_at, String::new())?;
    let amount = view
        .amounts
        .as_ref()
        .and_then(|amounts| domain::money::Amount::parse(&amounts.amount, amounts.currency).ok());
    let side = |account: Option<AccountId>| account.map(|account| Side { account, version: None });
    Some(PaymentRow {
        root: envelope.root,
        kind: view.kind,
        partner: Some(envelope.partner),
        mandate: view.mandate,
        currency: amount.map(domain::money::Amount::currency),
        amount_minor: amount.map_or(0, domain::money::Amount::minor),
        debit: side(view.from),
        credit: side(view.to),
        reference: view.reference,
        description: view.description,
        metadata: view.metadata,
        idempotency_key: Some(envelope.idempotency_key.clone()),
        expires_at: view.expires_at,
        ..pending(place, envelope.id, envelope.key.uuid(), envelope.request_id, envelope.address, accepted_at)
    })
}

fn of_bank(place: Place, accepted_at: Timestamp, envelope: &BankEnvelope) -> Option<PaymentRow> {
    let id = PaymentId::from_uuid(envelope.id);
    let row = PaymentRow {
        actor_reason: Some(envelope.reason.clone()),
        ..pending(place, id, envelope.actor.uuid(), envelope.request_id, envelope.address, accepted_at)
    };
    let side = |account| Some(Side { account, version: None });
    Some(match &envelope.command {
        BankCommand::Deposit(command) => PaymentRow {
            kind: PaymentKind::Deposit,
            currency: Some(command.currency),
            amount_minor: command.amount_minor,
            credit: side(command.account),
            reference: command.reference.clone(),
            ..row
        },
        BankCommand::Withdrawal(command) => PaymentRow {
            kind: PaymentKind::Withdrawal,
            currency: Some(command.currency),
            amount_minor: command.amount_minor,
            debit: side(command.account),
            reference: command.reference.clone(),
            ..row
        },
        BankCommand::Transfer(command) => PaymentRow {
            kind: PaymentKind::Transfer,
            currency: Some(command.currency),
            amount_minor: command.amount_minor,
            debit: side(command.from),
            credit: side(command.to),
            description: command.description.clone(),
            ..row
        },
        BankCommand::Reversal(command) => PaymentRow {
            kind: PaymentKind::Reversal,
            root: command.payment,
            currency: command.part.map(|part| part.currency),
            amount_minor: command.part.map_or(0, |part| part.amount_minor),
            ..row
        },
        // The others leave changes.
        _ => return None,
    })
}

fn pending(
    place: Place,
    id: PaymentId,
    actor: Uuid,
    request_id: Uuid,
    address: Option<IpAddr>,
    accepted_at: Timestamp,
) -> PaymentRow {
    PaymentRow {
        place,
        id,
        root: id,
        kind: PaymentKind::Payment,
        status: PaymentStatus::Pending,
        reason: None,
        version: 0,
        partner: None,
        mandate: None,
        currency: None,
        amount_minor: 0,
        captured_minor: 0,
        refunded_minor: 0,
        debit: None,
        credit: None,
        event_sequence: None,
        told: None,
        livemode: true,
        reference: None,
        description: None,
        metadata: Metadata::new(),
        actor,
        actor_reason: None,
        request_id,
        address,
        idempotency_key: None,
        accepted_at,
        decided_at: None,
        expires_at: None,
    }
}
