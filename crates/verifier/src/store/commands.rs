//! What commands left behind: payments, changes and dead letters.

use super::*;

/// A row of `payments`.
#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: Uuid,
    pub(crate) root: Uuid,
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) reason: Option<u8>,
    pub(crate) version: u32,
    pub(crate) partner: Option<Uuid>,
    pub(crate) mandate: Option<Uuid>,
    pub(crate) currency: String,
    pub(crate) amount_minor: i64,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
    pub(crate) debit: Option<(Uuid, u64)>,
    pub(crate) credit: Option<(Uuid, u64)>,
    /// Only one of account and version is set on a side.
    pub(crate) half_posting: bool,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) livemode: u8,
    pub(crate) reference: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) accepted_at: i64,
    pub(crate) decided_at: i64,
}

const PAYMENT_COLUMNS: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version, partner_id, \
     mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, debit_version, \
     credit_account, credit_version, event_sequence, fingerprint, livemode, reference, description, metadata, \
     idempotency_key, ",
    micros!("accepted_at"),
    ", ",
    micros!("decided_at"),
    " FROM payments "
);

fn payment(row: &MySqlRow) -> Result<Payment> {
    let side = |account: usize| -> Result<(Option<Uuid>, Option<u64>)> {
        Ok((opt_uuid(row, account)?, row.try_get(account + 1)?))
    };
    let (debit, credit) = (side(15)?, side(17)?);
    Ok(Payment {
        source: row.try_get(0)?,
        partition: row.try_get(1)?,
        offset: row.try_get(2)?,
        id: uuid(row, 3)?,
        root: uuid(row, 4)?,
        kind: row.try_get(5)?,
        status: row.try_get(6)?,
        reason: row.try_get(7)?,
        version: row.try_get(8)?,
        partner: opt_uuid(row, 9)?,
        mandate: opt_uuid(row, 10)?,
        currency: text(row, 11)?,
        amount_minor: row.try_get(12)?,
        captured_minor: row.try_get(13)?,
        refunded_minor: row.try_get(14)?,
        debit: debit.0.zip(debit.1),
        credit: credit.0.zip(credit.1),
        half_posting: debit.0.is_some() != debit.1.is_some() || credit.0.is_some() != credit.1.is_some(),
        event_sequence: row.try_get(19)?,
        fingerprint: row.try_get(20)?,
        livemode: row.try_get(21)?,
        reference: opt_text(row, 22)?,
        description: opt_text(row, 23)?,
        metadata: opt_text(row, 24)?,
        idempotency_key: opt_text(row, 25)?,
        accepted_at: row.try_get(26)?,
        decided_at: row.try_get(27)?,
    })
}

fn command_page(select: &'static str, source: u8, partition: u16, from: u64, below: u64) -> Sql {
    let mut sql = Sql::new();
    sql.text(select).text("WHERE source = ").int(source).text(" AND kafka_partition = ").int(partition);
    sql.text(" AND kafka_offset >= ").int(from).text(" AND kafka_offset < ").int(below);
    sql.text(" ORDER BY kafka_offset LIMIT ").int(COMMAND_PAGE);
    sql
}

/// Payments of a partition at `from..below`, by offset.
pub(crate) async fn payments_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Payment>> {
    rows(pool, &command_page(PAYMENT_COLUMNS, source, partition, from, below), payment).await
}

/// Id and status of those of these payments that there are.
pub(crate) async fn payment_statuses(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<(Uuid, u8)>> {
    by_ids(pool, "SELECT id, status FROM payments ", "WHERE id IN (", ids, |row| {
        Ok((uuid(row, 0)?, row.try_get(1)?))
    })
    .await
}

/// Those of these ids that an open dead letter holds.
pub(crate) async fn under_review(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let select = "SELECT id FROM dead_letters WHERE status = 1 ";
    by_ids(pool, select, "AND id IN (", ids, |row| uuid(row, 0)).await
}

/// A row of `changes`.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) reason: Option<u8>,
    pub(crate) target: Uuid,
    pub(crate) partner: Option<Uuid>,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) command: String,
    pub(crate) decided_at: i64,
}

const CHANGE_COLUMNS: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, id, kind, reason, target_id, partner_id, event_sequence, \
     fingerprint, command, ",
    micros!("decided_at"),
    " FROM changes "
);

/// Changes of a partition at `from..below`, by offset.
pub(crate) async fn changes_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Change>> {
    rows(pool, &command_page(CHANGE_COLUMNS, source, partition, from, below), |row| {
        Ok(Change {
            source: row.try_get(0)?,
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
            id: uuid(row, 3)?,
            kind: text(row, 4)?,
            reason: row.try_get(5)?,
            target: uuid(row, 6)?,
            partner: opt_uuid(row, 7)?,
            event_sequence: row.try_get(8)?,
            fingerprint: row.try_get(9)?,
            command: text(row, 10)?,
            decided_at: row.try_get(11)?,
        })
    })
    .await
}

/// Key, status, reason and whether a payment or a change stands at the same position, of dead letters after a position.
pub(crate) type DeadLetter = ((u8, u16, u64), u8, String, bool);

/// Dead letters after a position.
pub(crate) async fn dead_letters_after(
    pool: &MySqlPool,
    after: Option<(u8, u16, u64)>,
) -> Result<Vec<DeadLetter>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT d.source, d.kafka_partition, d.kafka_offset, d.status, d.reason, \
         p.id IS NOT NULL OR c.id IS NOT NULL FROM dead_letters d \
         LEFT JOIN payments p ON p.source = d.source AND p.kafka_partition = d.kafka_partition \
         AND p.kafka_offset = d.kafka_offset \
         LEFT JOIN changes c ON c.source = d.source AND c.kafka_partition = d.kafka_partition \
         AND c.kafka_offset = d.kafka_offset ",
    );
    if let Some((source, partition, offset)) = after {
        sql.text("WHERE (d.source, d.kafka_partition, d.kafka_offset) > (").int(source).text(",");
        sql.int(partition).text(",").int(offset).text(")");
    }
    sql.text(" ORDER BY d.source, d.kafka_partition, d.kafka_offset LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok((key, row.try_get(3)?, text(row, 4)?, row.try_get::<i64, _>(5)? != 0))
    })
    .await
}
