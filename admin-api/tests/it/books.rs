//! Rows of the ledger as the processor would have left them, for tests of what reads them.

use domain::account::{Direction, OwnerKind};
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, bank_owner};
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool};
use uuid::Uuid;

/// A row of `payments`, with its entries when it has versions.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) source: Source,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: PaymentId,
    pub(crate) root: PaymentId,
    pub(crate) kind: PaymentKind,
    pub(crate) status: PaymentStatus,
    pub(crate) reason: Option<Reason>,
    pub(crate) partner: Option<PartnerId>,
    pub(crate) mandate: Option<MandateId>,
    pub(crate) currency: Option<Currency>,
    pub(crate) amount_minor: i64,
    pub(crate) debit: Option<AccountId>,
    pub(crate) credit: Option<AccountId>,
    pub(crate) moved: bool,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) livemode: bool,
    pub(crate) reference: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) request_id: Uuid,
    pub(crate) accepted_at: Timestamp,
    pub(crate) decided_at: Timestamp,
    pub(crate) two_phases: bool,
}

impl Row {
    pub(crate) fn new(offset: u64, at: &str) -> Self {
        let id = PaymentId::from_uuid(Uuid::new_v4());
        let accepted_at: Timestamp = at.parse().unwrap();
        Self {
            source: Source::Partner,
            partition: 0,
            offset,
            id,
            root: id,
            kind: PaymentKind::Payment,
            status: PaymentStatus::Posted,
            reason: None,
            partner: None,
            mandate: None,
            currency: Some(Currency::EUR),
            amount_minor: 1_250,
            debit: None,
            credit: None,
            moved: false,
            event_sequence: None,
            livemode: true,
            reference: None,
            idempotency_key: None,
            request_id: Uuid::now_v7(),
            accepted_at,
            decided_at: accepted_at.plus_micros(4_100),
            two_phases: false,
        }
    }
}

/// Keeps the versions and balances of accounts.
pub(crate) struct Books<'a> {
    pub(crate) pool: &'a MySqlPool,
}

impl Books<'_> {
    pub(crate) async fn run(&self, sql: &Sql) {
        self.pool.execute(sql.as_str()).await.unwrap();
    }

    pub(crate) async fn account(&self, owner: OwnerKind, owner_id: Uuid) -> AccountId {
        let id = AccountId::from_uuid(Uuid::now_v7());
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, ",
        );
        sql.text("overdraft_minor, spent_day, spent_minor, version, head, entered_at) VALUES (");
        sql.uuid(id.uuid()).text(",").int(owner.code()).text(",").uuid(owner_id);
        sql.text(", 'EUR', 1, 0, 0, 1000000000000000, 0, 0, 0, REPEAT(0x00, 32), '2026-01-01')");
        self.run(&sql).await;
        id
    }

    pub(crate) async fn customer(&self) -> (UserId, AccountId) {
        let user = UserId::from_uuid(Uuid::new_v4());
        (user, self.account(OwnerKind::Customer, user.uuid()).await)
    }

    pub(crate) async fn cash(&self) -> AccountId {
        self.account(OwnerKind::Bank, bank_owner()).await
    }

    /// Inserts the row, its entries, its place in `follow_ups`, and moves the position behind it.
    pub(crate) async fn insert(&self, row: &Row) {
        let mut versions = [None, None];
        if row.moved {
            for (index, (account, direction)) in
                [(row.debit, Direction::Debit), (row.credit, Direction::Credit)].into_iter().enumerate()
            {
                versions[index] = Some(self.enter(row, account.unwrap(), direction).await);
            }
        }
        let actor = KeyId::from_uuid(Uuid::from_u128(7));
        let mut sql = Sql::new();
        sql.text("INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version, ");
        sql.text(
            "partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, ",
        );
        sql.text("debit_version, credit_account, credit_version, event_sequence, fingerprint, livemode, reference, ");
        sql.text("actor_id, request_id, idempotency_key, accepted_at, decided_at, expires_at) VALUES (");
        sql.int(row.source.code()).text(",").int(row.partition).text(",").int(row.offset).text(",");
        sql.uuid(row.id.uuid()).text(",").uuid(row.root.uuid()).text(",").int(row.kind.code()).text(",");
        sql.int(row.status.code()).text(",").opt_int(row.reason.map(Reason::code)).text(", 1,");
        sql.opt_uuid(row.partner.map(|it| it.uuid()))
            .text(",")
            .opt_uuid(row.mandate.map(|it| it.uuid()))
            .text(",");
        sql.opt_string(row.currency.map(Currency::code)).text(",").int(row.amount_minor).text(",");
        sql.int(if row.moved { row.amount_minor } else { 0 }).text(", 0,");
        sql.opt_uuid(row.debit.map(|it| it.uuid())).text(",").opt_int(versions[0]).text(",");
        sql.opt_uuid(row.credit.map(|it| it.uuid())).text(",").opt_int(versions[1]).text(",");
        sql.opt_int(row.event_sequence).text(", REPEAT(0x01, 33),").int(u8::from(row.livemode)).text(",");
        sql.opt_string(row.reference.as_deref())
            .text(",")
            .uuid(actor.uuid())
            .text(",")
            .uuid(row.request_id)
            .text(",");
        sql.opt_string(row.idempotency_key.as_deref()).text(",").datetime(row.accepted_at.civil()).text(",");
        sql.datetime(row.decided_at.civil()).text(",");
        sql.opt_datetime(row.two_phases.then(|| row.accepted_at.plus_seconds(600).civil())).text(")");
        self.run(&sql).await;
        if row.root != row.id {
            let mut sql = Sql::new();
            sql.text("INSERT INTO follow_ups VALUES (")
                .uuid(row.root.uuid())
                .text(",")
                .uuid(row.id.uuid())
                .text(")");
            self.run(&sql).await;
        }
        self.applied(row.source, row.partition, row.offset + 1).await;
    }

    async fn enter(&self, row: &Row, account: AccountId, direction: Direction) -> u64 {
        let sign = if direction == Direction::Debit { -1 } else { 1 };
        let mut sql = Sql::new();
        sql.text("UPDATE accounts SET version = version + 1, balance_minor = balance_minor + ");
        sql.int(sign * row.amount_minor).text(" WHERE id = ").uuid(account.uuid());
        self.run(&sql).await;
        let mut sql = Sql::new();
        sql.text(
            "INSERT INTO entries (account_id, version, payment_id, direction, amount_minor, balance_minor, ",
        );
        sql.text("entered_at, hash) SELECT id, version, ")
            .uuid(row.id.uuid())
            .text(",")
            .int(direction.code())
            .text(",");
        sql.int(row.amount_minor).text(", balance_minor,").datetime(row.decided_at.civil());
        sql.text(", REPEAT(0x00, 32) FROM accounts WHERE id = ").uuid(account.uuid());
        self.run(&sql).await;
        let version = "SELECT version FROM accounts WHERE id = ?";
        sqlx::query_scalar(version)
            .bind(account.uuid().as_bytes().as_slice())
            .fetch_one(self.pool)
            .await
            .unwrap()
    }

    /// Everything below is applied.
    pub(crate) async fn applied(&self, source: Source, partition: u16, next_offset: u64) {
        let mut sql = Sql::new();
        sql.text("UPDATE positions SET next_offset = GREATEST(next_offset, ").int(next_offset);
        sql.text("), announced_offset = next_offset WHERE source = ").int(source.code());
        sql.text(" AND kafka_partition = ").int(partition);
        self.run(&sql).await;
    }

    /// A record that could not be applied, which asks for `id`.
    pub(crate) async fn dead_letter(&self, source: Source, partition: u16, offset: u64, id: Uuid) {
        let mut sql = Sql::new();
        sql.text("INSERT INTO dead_letters (source, kafka_partition, kafka_offset, status, id, root_id, reason, detail, ");
        sql.text("record_value, accepted_at, recorded_at) VALUES (")
            .int(source.code())
            .text(",")
            .int(partition);
        sql.text(",").int(offset).text(", 1,").uuid(id).text(",").uuid(id);
        sql.text(", 'data_error', 'a value that does not fit', 'x', '2026-11-01', '2026-11-01')");
        self.run(&sql).await;
        self.applied(source, partition, offset + 1).await;
    }

    /// The bank's command at this offset that redrove the dead letters of `root`.
    pub(crate) async fn redrive(&self, partition: u16, offset: u64, root: Uuid) -> Uuid {
        let change = Uuid::now_v7();
        let mut sql = Sql::new();
        sql.text("INSERT INTO changes (source, kafka_partition, kafka_offset, id, kind, target_id, fingerprint, command, ");
        sql.text("actor_id, actor_reason, request_id, accepted_at, decided_at) VALUES (2,")
            .int(partition)
            .text(",");
        sql.int(offset).text(",").uuid(change).text(", 'redrive_dead_letters',").uuid(root);
        sql.text(", REPEAT(0x01, 33), '{}',")
            .uuid(change)
            .text(", 'test',")
            .uuid(change)
            .text(", '2026-11-02', '2026-11-02')");
        self.run(&sql).await;
        let mut sql = Sql::new();
        sql.text("UPDATE dead_letters SET status = 2, change_id = ")
            .uuid(change)
            .text(" WHERE status = 1 AND root_id = ");
        sql.uuid(root);
        self.run(&sql).await;
        self.applied(Source::Bank, partition, offset + 1).await;
        change
    }
}
