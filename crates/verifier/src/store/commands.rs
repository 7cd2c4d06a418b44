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
    pub(crate) currency: Option<String>,
    pub(crate) amount_minor: i64,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
    pub(crate) debit: Option<Uuid>,
    pub(crate) debit_version: Option<u64>,
    pub(crate) credit: Option<Uuid>,
    pub(crate) credit_version: Option<u64>,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) livemode: u8,
    pub(crate) reference: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) accepted_at: i64,
    pub(crate) decided_at: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) told_partner: Option<Uuid>,
    pub(crate) told_sequence: Option<u64>,
}

impl Payment {
    pub(crate) const fn position(&self) -> (u8, u16, u64) {
        (self.source, self.partition, self.offset)
    }

    /// The entries it names: debit and credit.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Uuid, u64)> {
        let sides = [(self.debit, self.debit_version), (self.credit, self.credit_version)];
        sides.into_iter().filter_map(|(account, version)| account.zip(version))
    }

    /// The events it names.
    pub(crate) fn events(&self) -> impl Iterator<Item = (Uuid, u64)> {
        let told = [(self.partner, self.event_sequence), (self.told_partner, self.told_sequence)];
        told.into_iter().filter_map(|(partner, sequence)| partner.zip(sequence))
    }
}

/// The columns of `payments p`, as [`payment`] reads them.
macro_rules! payment_columns {
    () => {
        concat!(
            "p.source, p.kafka_partition, p.kafka_offset, p.id, p.root_id, p.kind, p.status, p.reason, p.version, \
             p.partner_id, p.mandate_id, p.currency, p.amount_minor, p.captured_minor, p.refunded_minor, \
             p.debit_account, p.debit_version, p.credit_account, p.credit_version, p.event_sequence, p.fingerprint, \
             p.livemode, p.reference, p.description, p.metadata, p.idempotency_key, ",
            micros!("p.accepted_at"),
            ", ",
            micros!("p.decided_at"),
            ", ",
            micros!("p.expires_at"),
            ", p.told_partner_id, p.told_sequence"
        )
    };
}

const PAYMENTS: &str = concat!("SELECT ", payment_columns!(), " FROM payments p ");

fn payment(row: &MySqlRow) -> Result<Payment> {
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
        currency: opt_text(row, 11)?,
        amount_minor: row.try_get(12)?,
        captured_minor: row.try_get(13)?,
        refunded_minor: row.try_get(14)?,
        debit: opt_uuid(row, 15)?,
        debit_version: row.try_get(16)?,
        credit: opt_uuid(row, 17)?,
        credit_version: row.try_get(18)?,
        event_sequence: row.try_get(19)?,
        fingerprint: row.try_get(20)?,
        livemode: row.try_get(21)?,
        reference: opt_text(row, 22)?,
        description: opt_text(row, 23)?,
        metadata: opt_text(row, 24)?,
        idempotency_key: opt_text(row, 25)?,
        accepted_at: row.try_get(26)?,
        decided_at: row.try_get(27)?,
        expires_at: row.try_get(28)?,
        told_partner: opt_uuid(row, 29)?,
        told_sequence: row.try_get(30)?,
    })
}

fn command_page(select: &'static str, source: u8, partition: u16, from: u64, below: u64) -> Sql {
    let mut sql = Sql::new();
    sql.text(select).text("WHERE source = ").int(source).text(" AND kafka_partition = ").int(partition);
    sql.text(" AND kafka_offset >= ").int(from).text(" AND kafka_offset < ").int(below);
    sql.text(" ORDER BY kafka_offset LIMIT ").int(COMMAND_PAGE);
    sql
}

fn at_positions(select: &'static str, table: &'static str, at: &[(u8, u16, u64)]) -> Option<Sql> {
    if at.is_empty() {
        return None;
    }
    let mut sql = Sql::new();
    sql.text(select).text("WHERE (").text(table).text("source, ").text(table).text("kafka_partition, ");
    sql.text(table).text("kafka_offset) IN (").list(at, |sql, (source, partition, offset)| {
        sql.text("(").int(*source).text(",").int(*partition).text(",").int(*offset).text(")");
    });
    sql.text(")");
    Some(sql)
}

/// Payments of a partition at `from..below`, by offset.
pub(crate) async fn payments_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Payment>> {
    rows(pool, &command_page(PAYMENTS, source, partition, from, below), payment).await
}

/// The payments at these positions; absent ones are not in the answer.
pub(crate) async fn payments_at(pool: &MySqlPool, at: &[(u8, u16, u64)]) -> Result<Vec<Payment>> {
    match at_positions(PAYMENTS, "p.", at) {
        Some(sql) => rows(pool, &sql, payment).await,
        None => Ok(Vec::new()),
    }
}

/// Id, status and kind of those of these payments that there are.
pub(crate) async fn payment_statuses(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<(Uuid, u8, u8)>> {
    by_ids(pool, "SELECT id, status, kind FROM payments ", "WHERE id IN (", ids, |row| {
        Ok((uuid(row, 0)?, row.try_get(1)?, row.try_get(2)?))
    })
    .await
}

/// A payment that others may belong to, with what belongs to it at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) payment: Payment,
    /// What is held for it.
    pub(crate) hold: Option<i64>,
    /// Rows of `follow_ups` that name no follow-up of this payment.
    pub(crate) strangers: i64,
    /// Posted follow-ups: captures, voids, expiries, refunds and reversals.
    pub(crate) posted: [i64; 5],
    /// Minor units of the posted captures.
    pub(crate) captured_minor: i128,
    /// Minor units of the posted refunds and reversals.
    pub(crate) given_back_minor: i128,
}

/// The payments with these ids, each with its follow-ups and its hold; unknown ids are not in the answer.
pub(crate) async fn roots(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Root>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = Sql::new();
    list.list(ids, |sql, id| {
        sql.uuid(*id);
    });
    let mut sql = Sql::new();
    // The kinds are those of `PaymentKind`; status 2 is posted.
    sql.text(concat!(
        "SELECT ",
        payment_columns!(),
        ", (SELECT h.amount_minor FROM holds h WHERE h.account_id = p.debit_account AND h.payment_id = p.id), \
         CAST(COALESCE(x.strangers, 0) AS SIGNED), CAST(COALESCE(x.captures, 0) AS SIGNED), \
         CAST(COALESCE(x.voids, 0) AS SIGNED), CAST(COALESCE(x.expiries, 0) AS SIGNED), \
         CAST(COALESCE(x.refunds, 0) AS SIGNED), CAST(COALESCE(x.reversals, 0) AS SIGNED), \
         CAST(COALESCE(x.captured, 0) AS CHAR), CAST(COALESCE(x.given_back, 0) AS CHAR) FROM payments p \
         LEFT JOIN (SELECT f.root_id, SUM(q.id IS NULL OR q.root_id <> f.root_id OR q.kind NOT IN (4, 5, 6, 7, 10)) \
         AS strangers, SUM(q.kind = 4 AND q.status = 2) AS captures, SUM(q.kind = 5 AND q.status = 2) AS voids, \
         SUM(q.kind = 6 AND q.status = 2) AS expiries, SUM(q.kind = 7 AND q.status = 2) AS refunds, \
         SUM(q.kind = 10 AND q.status = 2) AS reversals, \
         SUM(IF(q.kind = 4 AND q.status = 2, q.amount_minor, 0)) AS captured, \
         SUM(IF(q.kind IN (7, 10) AND q.status = 2, q.amount_minor, 0)) AS given_back \
         FROM follow_ups f LEFT JOIN payments q ON q.id = f.payment_id WHERE f.root_id IN ("
    ));
    sql.append(&list)
        .text(") GROUP BY f.root_id) x ON x.root_id = p.id WHERE p.id IN (")
        .append(&list)
        .text(")");
    rows(pool, &sql, |row| {
        Ok(Root {
            payment: payment(row)?,
            hold: row.try_get(31)?,
            strangers: row.try_get(32)?,
            posted: [
                row.try_get(33)?,
                row.try_get(34)?,
                row.try_get(35)?,
                row.try_get(36)?,
                row.try_get(37)?,
            ],
            captured_minor: number(row, 38)?,
            given_back_minor: number(row, 39)?,
        })
    })
    .await
}

/// Those of these (root, payment) pairs that stand in `follow_ups`.
pub(crate) async fn follow_ups_of(pool: &MySqlPool, pairs: &[(Uuid, Uuid)]) -> Result<Vec<(Uuid, Uuid)>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text("SELECT root_id, payment_id FROM follow_ups WHERE (root_id, payment_id) IN (");
    sql.list(pairs, |sql, (root, payment)| {
        sql.text("(").uuid(*root).text(",").uuid(*payment).text(")");
    });
    sql.text(")");
    rows(pool, &sql, |row| Ok((uuid(row, 0)?, uuid(row, 1)?))).await
}

/// A row of `holds`, and what its payment says at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) account: Uuid,
    pub(crate) payment: Uuid,
    pub(crate) said: Held,
    /// Kind and status of the payment, and what it says of its hold.
    pub(crate) found: Option<(u8, u8, Held)>,
    /// Whether there is such an account.
    pub(crate) has_account: bool,
}

/// What a hold and its payment both say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) partition: u16,
    pub(crate) account: Option<Uuid>,
    pub(crate) amount_minor: i64,
    pub(crate) expires_at: Option<i64>,
}

/// Holds after (account, payment).
pub(crate) async fn holds_after(pool: &MySqlPool, after: Option<(Uuid, Uuid)>) -> Result<Vec<Hold>> {
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT h.account_id, h.payment_id, h.kafka_partition, h.amount_minor, ",
        micros!("h.expires_at"),
        ", p.kind, p.status, p.kafka_partition, p.debit_account, p.amount_minor, ",
        micros!("p.expires_at"),
        ", a.id IS NOT NULL FROM holds h LEFT JOIN payments p ON p.id = h.payment_id \
         LEFT JOIN accounts a ON a.id = h.account_id "
    ));
    if let Some((account, payment)) = after {
        sql.text("WHERE (h.account_id, h.payment_id) > (").uuid(account).text(",").uuid(payment).text(")");
    }
    sql.text(" ORDER BY h.account_id, h.payment_id LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        let kind: Option<u8> = row.try_get(5)?;
        let found = match kind {
            Some(kind) => {
                let held = Held {
                    partition: row.try_get(7)?,
                    account: opt_uuid(row, 8)?,
                    amount_minor: row.try_get(9)?,
                    expires_at: row.try_get(10)?,
                };
                Some((kind, row.try_get(6)?, held))
            }
            None => None,
        };
        let account = uuid(row, 0)?;
        Ok(Hold {
            account,
            payment: uuid(row, 1)?,
            said: Held {
                partition: row.try_get(2)?,
                account: Some(account),
                amount_minor: row.try_get(3)?,
                expires_at: row.try_get(4)?,
            },
            found,
            has_account: row.try_get::<i64, _>(11)? != 0,
        })
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

const CHANGES: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, id, kind, reason, target_id, partner_id, event_sequence, \
     fingerprint, command, ",
    micros!("decided_at"),
    " FROM changes "
);

fn change(row: &MySqlRow) -> Result<Change> {
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
}

/// Changes of a partition at `from..below`, by offset.
pub(crate) async fn changes_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Change>> {
    rows(pool, &command_page(CHANGES, source, partition, from, below), change).await
}

/// The changes at these positions; absent ones are not in the answer.
pub(crate) async fn changes_at(pool: &MySqlPool, at: &[(u8, u16, u64)]) -> Result<Vec<Change>> {
    match at_positions(CHANGES, "", at) {
        Some(sql) => rows(pool, &sql, change).await,
        None => Ok(Vec::new()),
    }
}

/// Kind and applied (no reason) of the changes with these ids.
pub(crate) async fn changes_by_id(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<(Uuid, String, bool)>> {
    by_ids(pool, "SELECT id, kind, reason IS NULL FROM changes ", "WHERE id IN (", ids, |row| {
        Ok((uuid(row, 0)?, text(row, 1)?, row.try_get::<i64, _>(2)? != 0))
    })
    .await
}
