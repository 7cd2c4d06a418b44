//! Rows of the ledger, as the processor writes them.

use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use sqlx::MySqlPool;
use testkit::fixtures;
use uuid::Uuid;

use crate::harness::Record;

/// A row of payments.
pub(crate) struct Row {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: PaymentId,
    pub(crate) root: PaymentId,
    pub(crate) kind: PaymentKind,
    pub(crate) status: PaymentStatus,
    pub(crate) reason: Option<Reason>,
    pub(crate) partner: Option<PartnerId>,
    pub(crate) mandate: Option<MandateId>,
    pub(crate) amount: i64,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) debit: Option<(AccountId, u64)>,
    pub(crate) credit: Option<(AccountId, u64)>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) reference: Option<String>,
    pub(crate) accepted_at: Timestamp,
}

impl Row {
    /// A posted payment of 12.50 EUR.
    pub(crate) fn posted(partner: PartnerId, offset: u64) -> Self {
        let id = PaymentId::from_uuid(Uuid::now_v7());
        Self {
            source: 1,
            partition: 0,
            offset,
            id,
            root: id,
            kind: PaymentKind::Payment,
            status: PaymentStatus::Posted,
            reason: None,
            partner: Some(partner),
            mandate: None,
            amount: 1_250,
            captured: 1_250,
            refunded: 0,
            debit: None,
            credit: None,
            fingerprint: Fingerprint::of(&[]),
            reference: None,
            accepted_at: at(offset),
        }
    }

    /// What became of a command that was put on Kafka.
    pub(crate) fn of(record: &Record, kind: PaymentKind) -> Self {
        let envelope = record.envelope();
        Self {
            partition: record.partition,
            id: envelope.id,
            root: envelope.root,
            kind,
            fingerprint: envelope.fingerprint,
            ..Self::posted(envelope.partner, record.offset)
        }
    }

    pub(crate) async fn insert(&self, pool: &MySqlPool) {
        let bytes = |id: Uuid| id.as_bytes().to_vec();
        sqlx::query(
            "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version,
            partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account,
            debit_version, credit_account, credit_version, fingerprint, livemode, reference, actor_id, request_id,
            accepted_at, decided_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 'EUR', ?, ?, ?, ?, ?, ?, ?, ?, 1, ?,
            x'00000000000000000000000000000000', x'00000000000000000000000000000000',
            TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND, '2026-11-01 12:00:00.123456')",
        )
        .bind(self.source)
        .bind(self.partition)
        .bind(self.offset)
        .bind(bytes(self.id.uuid()))
        .bind(bytes(self.root.uuid()))
        .bind(self.kind.code())
        .bind(self.status.code())
        .bind(self.reason.map(Reason::code))
        .bind(self.partner.map(|id| bytes(id.uuid())))
        .bind(self.mandate.map(|id| bytes(id.uuid())))
        .bind(self.amount)
        .bind(self.captured)
        .bind(self.refunded)
        .bind(self.debit.map(|(id, _)| bytes(id.uuid())))
        .bind(self.debit.map(|(_, version)| version))
        .bind(self.credit.map(|(id, _)| bytes(id.uuid())))
        .bind(self.credit.map(|(_, version)| version))
        .bind(self.fingerprint.as_bytes().as_slice())
        .bind(&self.reference)
        .bind(self.accepted_at.micros())
        .execute(pool)
        .await
        .unwrap();
        if self.id != self.root {
            sqlx::query("INSERT INTO follow_ups (root_id, payment_id) VALUES (?, ?)")
                .bind(bytes(self.root.uuid()))
                .bind(bytes(self.id.uuid()))
                .execute(pool)
                .await
                .unwrap();
        }
    }
}

/// A second for each number.
pub(crate) fn at(second: u64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000 + second as i64 * 1_000_000)
}

/// An account of a partner with so many credits of 1.00 EUR, three in each second.
pub(crate) async fn account(pool: &MySqlPool, partner: PartnerId, entries: u64) -> AccountId {
    let id = fixtures::account_id();
    sqlx::query(
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, overdraft_minor,
        spent_day, spent_minor, version, head, entered_at)
        VALUES (?, 2, ?, 'EUR', 1, ?, 0, 500, 0, 0, ?, REPEAT('\\0', 32), '2026-11-01')",
    )
    .bind(id.uuid().as_bytes().as_slice())
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(entries as i64 * 100)
    .bind(entries)
    .execute(pool)
    .await
    .unwrap();
    for first in (1..=entries).step_by(2_000) {
        let values: Vec<_> = (first..=entries.min(first + 1_999))
            .map(|version| {
                let payment = Uuid::from_u128(version.into()).simple();
                let micros = at((version - 1) / 3).micros();
                let time = format!("TIMESTAMP'1970-01-01 00:00:00' + INTERVAL {micros} MICROSECOND");
                let account = id.uuid().simple();
                format!(
                    "(x'{account}', {version}, x'{payment}', 2, 100, {}, {time}, REPEAT('\\0', 32))",
                    version * 100
                )
            })
            .collect();
        let text = format!(
            "INSERT INTO entries (account_id, version, payment_id, direction, amount_minor, balance_minor, entered_at,
            hash) VALUES {}",
            values.join(",")
        );
        sqlx::Executor::execute(pool, text.as_str()).await.unwrap();
    }
    id
}
