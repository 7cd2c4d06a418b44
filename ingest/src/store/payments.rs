//! What became of payments.
//!
//! The look-up is hot: one literal text for all requests of a moment. In it `positions` come first, then the dead
//! letters, then the payments: what is applied in between is then found, and so is a dead letter that is redriven in
//! between. Any other order would sometimes show a position as applied and its payment as missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use domain::command::PartnerEnvelope;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::payment::{Amounts, PaymentKind, PaymentStatus, PaymentView, Reason, status_path};
use domain::time::Timestamp;
use domain::topic::Source;
use futures_util::TryStreamExt;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Either, MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::{Columns, StoreError};

/// A decided payment.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Whose it is; `None` for the bank's own.
    pub partner: Option<PartnerId>,
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// What its partner sees.
    pub view: PaymentView,
}

impl Stored {
    /// What a partner with this `livemode` sees of its own payment.
    pub fn for_caller(&self, livemode: bool) -> PaymentView {
        let livemode = if self.view.under_review { livemode } else { self.view.livemode };
        PaymentView { livemode, ..self.view.clone() }
    }
}

/// What one look-up asks for.
#[derive(Debug, Default)]
pub struct Query {
    /// Payments by id.
    pub ids: HashSet<Uuid>,
    /// Positions on the partners' topic that may be dead letters.
    pub records: HashSet<(u16, u64)>,
    /// Whether payments under review are wanted, too.
    pub dead_letters: bool,
    /// Whether the applied positions are wanted, and whether anything is under review.
    pub positions: bool,
}

/// What one look-up found.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Decided payments.
    pub payments: HashMap<Uuid, Arc<Stored>>,
    /// Payments under review, as they were asked for.
    pub dead_ids: HashMap<Uuid, Arc<Stored>>,
    /// Records under review.
    pub dead_records: HashSet<(u16, u64)>,
    /// Per partition of the partners' topic, up to where it is applied. Empty when not asked for.
    pub positions: HashMap<u16, u64>,
    /// Whether there is any open dead letter; `None` when not asked for.
    pub any_dead_letter: Option<bool>,
}

/// What [`payment`] reads of `payments p`, in this order.
pub(super) const COLUMNS: &str = "p.id, p.root_id, p.kind, p.status, p.reason, p.version, p.partner_id, p.mandate_id, \
     p.currency, p.amount_minor, p.captured_minor, p.refunded_minor, p.debit_account, p.credit_account, p.fingerprint, \
     p.livemode, p.reference, p.description, p.metadata, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.decided_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.expires_at)";

/// Writes the text of a look-up; each statement is one of the sets of rows that [`look_up`] reads, in this order.
fn write_query(sql: &mut Sql, query: &Query) -> Vec<Set> {
    let source = Source::Partner.code();
    let mut sets = Vec::with_capacity(4);
    if query.positions {
        sets.push(Set::Positions);
        sql.text("SELECT kafka_partition, next_offset FROM positions WHERE source = ").int(source).text(";");
        sets.push(Set::AnyDeadLetter);
        sql.text("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE status = 1 AND source = ")
            .int(source)
            .text(");");
    }
    if query.dead_letters && !query.ids.is_empty() {
        sets.push(Set::DeadIds);
        sql.text(
            "SELECT record_value, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at) FROM dead_letters \
             WHERE status = 1 AND source = ",
        );
        sql.int(source)
            .text(" AND id IN (")
            .list(&query.ids, |sql, id| {
                sql.uuid(*id);
            })
            .text(");");
    }
    if query.dead_letters && !query.records.is_empty() {
        sets.push(Set::DeadRecords);
        sql.text("SELECT kafka_partition, kafka_offset FROM dead_letters WHERE status = 1 AND (");
        for (index, (partition, offset)) in query.records.iter().enumerate() {
            sql.text(if index == 0 { "(source = " } else { " OR (source = " }).int(source);
            sql.text(" AND kafka_partition = ")
                .int(*partition)
                .text(" AND kafka_offset = ")
                .int(*offset)
                .text(")");
        }
        sql.text(");");
    }
    if !query.ids.is_empty() {
        sets.push(Set::Payments);
        sql.text("SELECT ").text(COLUMNS).text(" FROM payments p WHERE p.id IN (");
        sql.list(&query.ids, |sql, id| {
            sql.uuid(*id);
        })
        .text(");");
    }
    sets
}

#[derive(Debug, Clone, Copy)]
enum Set {
    Positions,
    AnyDeadLetter,
    Payments,
    DeadIds,
    DeadRecords,
}

/// Reads all that the requests of a moment ask for, in one round trip.
pub async fn look_up(connection: &mut MySqlConnection, query: &Query) -> Result<Snapshot, StoreError> {
    let mut sql = Sql::with_capacity(640 + query.ids.len() * 70);
    let sets = write_query(&mut sql, query);
    let mut snapshot = Snapshot::default();
    let mut done = 0;
    let mut results = sqlx::raw_sql(sql.as_str()).fetch_many(connection);
    while let Some(result) = results.try_next().await? {
        match (result, sets.get(done)) {
            (Either::Right(row), Some(set)) => take_row(&mut snapshot, *set, &row)?,
            // The end of one set of rows.
            (Either::Left(_), _) => done += 1,
            (Either::Right(_), None) => {}
        }
    }
    Ok(snapshot)
}

/// Whether the partner's record at a place is a dead letter that was rejected. Of one that could not be read this is all
/// that is left.
pub async fn was_given_up(pool: &MySqlPool, partition: u16, offset: u64) -> Result<bool, StoreError> {
    let found: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE source = ? AND kafka_partition = ? AND kafka_offset = ? \
         AND status = 3)",
    )
    .bind(Source::Partner.code())
    .bind(partition)
    .bind(offset)
    .fetch_one(pool)
    .await?;
    Ok(found != 0)
}

fn take_row(snapshot: &mut Snapshot, set: Set, row: &MySqlRow) -> Result<(), StoreError> {
    match set {
        Set::Positions => {
            let mut columns = Columns::new("positions", row);
            let partition = columns.take()?;
            snapshot.positions.insert(partition, columns.take()?);
        }
        Set::AnyDeadLetter => {
            let mut columns = Columns::new("dead_letters", row);
            snapshot.any_dead_letter = Some(columns.take::<i64>()? != 0);
        }
        Set::Payments => {
            let stored = payment(row)?;
            snapshot.payments.insert(stored.view.id.uuid(), Arc::new(stored));
        }
        Set::DeadIds => {
            let mut columns = Columns::new("dead_letters", row);
            let value: Vec<u8> = columns.take()?;
            let accepted_at = Timestamp::from_micros(columns.take()?);
            // A record that cannot be read has no id in its row, so it is not found by id.
            let envelope = PartnerEnvelope::decode(&value).map_err(|error| columns.wrong(&error))?;
            if let Some(stored) = under_review(&envelope, accepted_at) {
                snapshot.dead_ids.insert(envelope.id.uuid(), Arc::new(stored));
            }
        }
        Set::DeadRecords => {
            let mut columns = Columns::new("dead_letters", row);
            let partition = columns.take()?;
            snapshot.dead_records.insert((partition, columns.take()?));
        }
    }
    Ok(())
}

pub(super) fn payment(row: &MySqlRow) -> Result<Stored, StoreError> {
    let mut columns = Columns::new("payments", row);
    let id = PaymentId::from_uuid(columns.uuid()?);
    let root = PaymentId::from_uuid(columns.uuid()?);
    let kind = columns.code(PaymentKind::from_code)?;
    let status = columns.code(PaymentStatus::from_code)?;
    let reason = columns.opt_code(Reason::from_code)?;
    let version = columns.take()?;
    let partner = columns.opt_uuid()?.map(PartnerId::from_uuid);
    let mandate = columns.opt_uuid()?.map(MandateId::from_uuid);
    let currency = columns.opt_currency()?;
    let (amount, captured, refunded): (i64, i64, i64) = (columns.take()?, columns.take()?, columns.take()?);
    let accounts = [columns.opt_uuid()?, columns.opt_uuid()?].map(|id| id.map(AccountId::from_uuid));
    // Whose account a partner debits is not its business; of its own transfers it knows both.
    let [from, to] = if kind == PaymentKind::Transfer { accounts } else { [None, None] };
    let fingerprint: Vec<u8> = columns.take()?;
    let livemode = columns.take::<u8>()? != 0;
    let (reference, description) = (columns.take()?, columns.take()?);
    let metadata: Option<String> = columns.take()?;
    let metadata = metadata.map(|text| serde_json::from_str(&text)).transpose();
    let view = PaymentView {
        id,
        kind,
        root,
        status,
        under_review: false,
        version,
        amounts: currency.map(|currency| Amounts::of(currency, amount, captured, refunded)),
        from,
        to,
        mandate,
        reference,
        description,
        metadata: metadata.map_err(|error| columns.wrong(&error))?.unwrap_or_default(),
        reason,
        livemode,
        created_at: Timestamp::from_micros(columns.take()?),
        decided_at: Some(Timestamp::from_micros(columns.take()?)),
        expires_at: columns.take::<Option<i64>>()?.map(Timestamp::from_micros),
        status_url: status_path(id),
    };
    let fingerprint =
        Fingerprint::from_bytes(&fingerprint).ok_or_else(|| columns.wrong(&"a fingerprint is 33 bytes"))?;
    Ok(Stored { partner, fingerprint, view })
}

/// A payment that could not be applied, as it was asked for. Whether its partner is a test partner does not stand in
/// the record; the partner itself, who alone may see this, knows ([`Stored::for_caller`]).
fn under_review(envelope: &PartnerEnvelope, accepted_at: Timestamp) -> Option<Stored> {
    let view = PaymentView::pending(envelope, true, accepted_at, status_path(envelope.id))?;
    let view = PaymentView { under_review: true, ..view };
    Some(Stored { partner: Some(envelope.partner), fingerprint: envelope.fingerprint, view })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_first_and_payments_last() {
        let mut sql = Sql::new();
        let query = Query {
            ids: [Uuid::from_u128(1)].into(),
            records: [(3, 5), (3, 6)].into(),
            dead_letters: true,
            positions: true,
        };
        let sets = write_query(&mut sql, &query);
        let place = |table: &str| sql.as_str().find(table).unwrap();
        let last = |table: &str| sql.as_str().rfind(table).unwrap();
        assert!(place("FROM positions") < place("FROM dead_letters"));
        assert!(last("FROM dead_letters") < place("FROM payments"));
        assert_eq!(sets.len(), sql.as_str().matches(';').count());
    }
}
