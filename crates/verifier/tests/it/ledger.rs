//! A small ledger written by rows, as the processor would write it, so that tests can break it in every way.

mod every_kind;

use std::collections::HashMap;

use domain::{
    account::{Direction, Owner},
    command::{BankCommand, GrantMandate},
    entry::{Entry, GENESIS},
    event::{EventType, MandateView},
    fingerprint::Fingerprint,
    ids::{
        AccountId, MandateId, PartnerId, PaymentId, UserId, bank_account_id, conflict_id, derived_uuid,
        payment_id,
    },
    mandate::{MandateKind, MandateStatus},
    money::Currency,
    payment::{Amounts, Metadata, PaymentKind, PaymentStatus, PaymentView, Reason, status_path},
    time::Timestamp,
};
use runtime::sql::Sql;
use sqlx::MySqlPool;
use testkit::fixtures;
use uuid::Uuid;

const EUR: Currency = Currency::EUR;
const TABLES: [&str; 12] = [
    "accounts",
    "settlement_accounts",
    "payments",
    "changes",
    "entries",
    "holds",
    "follow_ups",
    "mandates",
    "events",
    "partner_sequences",
    "dead_letters",
    "positions",
];

#[derive(Clone, Copy)]
struct Account {
    version: u64,
    balance: i64,
    head: [u8; 32],
}

/// A row of `payments` besides what its partner sees of it.
struct Asked {
    source: usize,
    posting: Option<[(AccountId, u64); 2]>,
    /// The accounts of what moved nothing.
    accounts: Option<[AccountId; 2]>,
    partner: Option<PartnerId>,
    sequence: Option<u64>,
    told: Option<(PartnerId, u64)>,
    key: Option<String>,
    /// Its place, when that is not the next one.
    offset: Option<u64>,
}

/// What a payment row says, when it is not the plain truth.
#[derive(Clone)]
pub(crate) struct Paid {
    pub(crate) key: String,
    pub(crate) mandate: MandateId,
    pub(crate) amount: i64,
    pub(crate) entry_amount: i64,
}

pub(crate) struct Ledger {
    pool: MySqlPool,
    pub(crate) partner: PartnerId,
    pub(crate) customer: AccountId,
    pub(crate) settlement: AccountId,
    pub(crate) standing: MandateId,
    pub(crate) single: MandateId,
    accounts: HashMap<AccountId, Account>,
    sequences: HashMap<PartnerId, u64>,
    offsets: [u64; 2],
    clock: i64,
    /// Accounts are opened for test money.
    test_money: bool,
    queued: String,
}

impl Ledger {
    /// Empties the database and writes a ledger with one of everything.
    pub(crate) async fn write(pool: &MySqlPool) -> Self {
        let partner = PartnerId::from_uuid(derived_uuid("partner"));
        let mut ledger = Self {
            pool: pool.clone(),
            partner,
            customer: AccountId::from_uuid(derived_uuid("customer")),
            settlement: AccountId::from_uuid(derived_uuid("settlement")),
            standing: MandateId::from_uuid(derived_uuid("standing")),
            single: MandateId::from_uuid(derived_uuid("single")),
            accounts: HashMap::new(),
            sequences: HashMap::new(),
            offsets: [0; 2],
            clock: 1_700_000_000_000_000,
            test_money: false,
            queued: TABLES[..11].iter().fold(String::new(), |sql, table| sql + "DELETE FROM " + table + "; "),
        };
        let (customer, settlement) = (ledger.customer, ledger.settlement);
        ledger.open(bank_account_id(EUR), Owner::Bank);
        ledger.open(settlement, Owner::Partner(partner));
        ledger.open(customer, Owner::Customer(UserId::from_uuid(derived_uuid("user"))));
        ledger.grant(ledger.standing, MandateKind::Standing);
        ledger.grant(ledger.single, MandateKind::Single);
        ledger.deposit(customer, 100_000);
        for key in ["a", "b", "c"] {
            ledger.enter_payment(&Self::paid(key, ledger.standing, 1_000));
        }
        ledger.enter_payment(&Self::paid("s", ledger.single, 500));
        ledger.reject("r");
        ledger.conflict("a");
        ledger.queue(&format!(
            "UPDATE mandates SET status = 2, version = 2 WHERE id = {}",
            hex(ledger.single.uuid())
        ));
        ledger.commit().await;
        ledger
    }

    pub(crate) fn paid(key: &str, mandate: MandateId, amount: i64) -> Paid {
        Paid { key: key.to_owned(), mandate, amount, entry_amount: amount }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let shown = &sql[..sql.len().min(300)];
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }

    /// Keeps the ledger as it is, to be brought back by [`Self::restore`].
    pub(crate) async fn keep(&self) {
        let keep = |table| format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}; ");
        self.execute(&TABLES.map(keep).concat()).await;
    }

    /// Brings back what was kept.
    pub(crate) async fn restore(&self) {
        let restore =
            |table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}; ");
        self.execute(&format!("START TRANSACTION; {} COMMIT", TABLES.map(restore).concat())).await;
    }

    /// Keeps a statement for [`Self::commit`].
    fn queue(&mut self, sql: &str) {
        self.queued.extend([sql, "; "]);
    }

    /// Carries out what was queued in one transaction, as the processor does.
    async fn commit(&mut self) {
        let queued = std::mem::take(&mut self.queued);
        self.execute(&format!("START TRANSACTION; {queued} COMMIT")).await;
    }

    fn tick(&mut self) -> Timestamp {
        self.clock += 1_000;
        Timestamp::from_micros(self.clock)
    }

    fn offset(&mut self, source: usize) -> u64 {
        self.offsets[source - 1] += 1;
        self.offsets[source - 1] - 1
    }

    /// Says how far the partitions are applied, as every transaction of the processor does.
    fn store_positions(&mut self) {
        for (index, next) in self.offsets.into_iter().enumerate().filter(|(_, next)| *next > 0) {
            let sql = format!(
                "UPDATE positions SET next_offset = {next}, announced_offset = {next}, record_hash = REPEAT('x', 32) \
                 WHERE source = {} AND kafka_partition = 0",
                index + 1
            );
            self.queue(&sql);
        }
    }

    fn tell(&mut self, event_type: EventType, at: Timestamp, data: &str) -> u64 {
        self.tell_to(self.partner, event_type, at, data)
    }

    fn tell_to(&mut self, partner: PartnerId, event_type: EventType, at: Timestamp, data: &str) -> u64 {
        let sequence = self.sequences.entry(partner).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let mut sql = Sql::new();
        sql.text("INSERT INTO events VALUES (").uuid(partner.uuid()).text(",").int(sequence);
        sql.text(",1,")
            .int(event_type.code())
            .text(",")
            .datetime(at.civil())
            .text(",")
            .string(data)
            .text(")");
        self.queue(sql.as_str());
        let sql = format!("REPLACE INTO partner_sequences VALUES ({}, {}, 1)", hex(partner.uuid()), sequence);
        self.queue(&sql);
        sequence
    }

    fn change(&mut self, command: &BankCommand, told: Option<EventType>, data: &str) -> Timestamp {
        let at = self.tick();
        let sequence = told.map(|event_type| self.tell(event_type, at, data));
        let text = serde_json::to_string(command).unwrap();
        let fingerprint = Fingerprint::of(&[text.as_bytes()]);
        let names = (command.word(), command.kafka_key());
        self.change_row(2, derived_uuid(&text), names, sequence, &fingerprint, &text, at, None);
        at
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn change_row(
        &mut self,
        source: usize,
        id: Uuid,
        (kind, target): (&'static str, Uuid),
        sequence: Option<u64>,
        fingerprint: &Fingerprint,
        command: &str,
        at: Timestamp,
        offset: Option<u64>,
    ) {
        let offset = offset.unwrap_or_else(|| self.offset(source));
        let mut sql = Sql::new();
        sql.text("INSERT INTO changes VALUES (").int(source as i64).text(",0,").int(offset).text(",");
        sql.uuid(id).text(",").string(kind).text(",NULL,").uuid(target).text(",");
        sql.opt_uuid(sequence.map(|_| self.partner.uuid())).text(",").opt_int(sequence).text(",");
        sql.bytes(fingerprint.as_bytes()).text(",").string(command).text(",");
        sql.uuid(Uuid::nil()).text(",").string("test").text(",").uuid(Uuid::nil()).text(",NULL,");
        sql.datetime(at.civil()).text(",").datetime(at.civil()).text(")");
        self.queue(sql.as_str());
        self.store_positions();
    }

    fn open(&mut self, account: AccountId, owner: Owner) {
        let at = self.change(&fixtures::open_account(account, owner, EUR), None, "");
        self.account_row(account, owner, at);
    }

    fn account_row(&mut self, account: AccountId, owner: Owner, at: Timestamp) {
        let (kind, id) = owner.stored();
        let mut sql = Sql::new();
        sql.text("INSERT INTO accounts VALUES (").uuid(account.uuid()).text(",").int(kind.code()).text(",");
        sql.uuid(id).text(",'EUR',1,0,0,0,NULL,NULL,0,0,0,").bytes(&GENESIS).text(",");
        let test = self.test_money;
        sql.datetime(at.civil()).text(",").int(u8::from(!test)).text(")");
        self.queue(sql.as_str());
        if let Owner::Partner(partner) = owner {
            let (partner, account) = (hex(partner.uuid()), hex(account.uuid()));
            self.queue(&format!("INSERT INTO settlement_accounts VALUES ({partner}, 'EUR', {account})"));
        }
        self.accounts.insert(account, Account { version: 0, balance: 0, head: GENESIS });
    }

    fn grant(&mut self, mandate: MandateId, kind: MandateKind) {
        let grant = GrantMandate {
            mandate,
            partner: self.partner,
            account: self.customer,
            kind,
            currency: EUR,
            payment_max_minor: Some(50_000),
            daily_max_minor: Some(80_000),
            expires_at: None,
            reference: Some("contract".to_owned()),
        };
        let view = MandateView {
            id: mandate,
            kind,
            status: MandateStatus::Active,
            currency: EUR,
            per_payment_max: Some("500.00".to_owned()),
            daily_cap: Some("800.00".to_owned()),
            expires_at: None,
            reference: Some("contract".to_owned()),
        };
        let data = format!(r#"{{"mandate":{}}}"#, serde_json::to_string(&view).unwrap());
        let command = BankCommand::GrantMandate(grant);
        let at = self.change(&command, Some(EventType::MandateActive), &data);
        let mut sql = Sql::new();
        sql.text("INSERT INTO mandates VALUES (").uuid(mandate.uuid()).text(",").uuid(self.partner.uuid());
        sql.text(",").uuid(self.customer.uuid()).text(",").int(kind.code());
        sql.text(",1,1,'EUR',50000,80000,0,0,NULL,'contract',").datetime(at.civil()).text(")");
        self.queue(sql.as_str());
    }

    /// Writes the two entries of a posting with right chains; a payment row may or may not follow.
    fn enter(
        &mut self,
        payment: PaymentId,
        [debit, credit]: [AccountId; 2],
        amount: i64,
        at: Timestamp,
    ) -> [(AccountId, u64); 2] {
        let mut posting = [(debit, 0); 2];
        let sides = [(debit, Direction::Debit, -amount), (credit, Direction::Credit, amount)];
        for (index, (id, direction, change)) in sides.into_iter().enumerate() {
            let account = self.accounts.get_mut(&id).unwrap();
            account.version += 1;
            account.balance += change;
            let entry = Entry {
                account: id,
                version: account.version,
                payment,
                direction,
                amount_minor: amount,
                balance_minor: account.balance,
                entered_at: at,
            };
            account.head = entry.hash_after(&account.head);
            let account = *account;
            posting[index] = (id, account.version);
            let mut sql = Sql::new();
            sql.text("INSERT INTO entries VALUES (").uuid(id.uuid()).text(",").int(account.version).text(",");
            sql.uuid(payment.uuid()).text(",").int(direction.code()).text(",").int(amount).text(",");
            sql.int(account.balance).text(",").datetime(at.civil()).text(",").bytes(&account.head).text(")");
            self.queue(sql.as_str());
            let mut sql = Sql::new();
            sql.text("UPDATE accounts SET version = ").int(account.version).text(", balance_minor = ");
            sql.int(account.balance).text(", head = ").bytes(&account.head).text(", entered_at = ");
            sql.datetime(at.civil()).text(" WHERE id = ").uuid(id.uuid());
            self.queue(sql.as_str());
        }
        posting
    }

    fn deposit(&mut self, account: AccountId, amount: i64) {
        let at = self.tick();
        let id = PaymentId::from_uuid(derived_uuid("deposit"));
        let posting = self.enter(id, [bank_account_id(EUR), account], amount, at);
        let view = Self::view(id, PaymentKind::Deposit, PaymentStatus::Posted, amount, at);
        self.payment_row(&view, Asked { posting: Some(posting), ..asked(2) });
    }

    fn enter_payment(&mut self, paid: &Paid) {
        let at = self.tick();
        let id = payment_id(self.partner, &paid.key);
        let posting = self.enter(id, [self.customer, self.settlement], paid.entry_amount, at);
        let mut view = Self::view(id, PaymentKind::Payment, PaymentStatus::Posted, paid.amount, at);
        view.mandate = Some(paid.mandate);
        self.told(&view, Some(posting), EventType::PaymentPosted, &paid.key);
    }

    fn reject(&mut self, key: &str) {
        let at = self.tick();
        let id = payment_id(self.partner, key);
        let mut view = Self::view(id, PaymentKind::Payment, PaymentStatus::Rejected, 999_999, at);
        view.mandate = Some(self.standing);
        view.reason = Some(Reason::InsufficientFunds);
        self.told(&view, None, EventType::PaymentRejected, key);
    }

    fn conflict(&mut self, key: &str) {
        let at = self.tick();
        let root = payment_id(self.partner, key);
        let id = conflict_id(root, &Fingerprint::of(&[b"other", key.as_bytes()]));
        let mut view = Self::view(id, PaymentKind::Conflict, PaymentStatus::Conflicted, 7, at);
        view.root = root;
        view.mandate = Some(self.standing);
        self.told(&view, None, EventType::PaymentConflicted, key);
    }

    fn view(
        id: PaymentId,
        kind: PaymentKind,
        status: PaymentStatus,
        amount: i64,
        at: Timestamp,
    ) -> PaymentView {
        let captured = if status == PaymentStatus::Posted { amount } else { 0 };
        PaymentView {
            id,
            kind,
            root: id,
            status,
            under_review: false,
            version: 1,
            amounts: Some(Amounts::of(EUR, amount, captured, 0)),
            from: None,
            to: None,
            mandate: None,
            reference: Some("order".to_owned()),
            description: None,
            metadata: Metadata::from([("table".to_owned(), "7".to_owned())]),
            reason: None,
            livemode: true,
            created_at: at,
            decided_at: Some(at),
            expires_at: None,
            status_url: status_path(id),
        }
    }

    fn told(
        &mut self,
        view: &PaymentView,
        posting: Option<[(AccountId, u64); 2]>,
        event_type: EventType,
        key: &str,
    ) {
        let asked = Asked { posting, key: Some(key.to_owned()), ..asked(1) };
        self.tell_payment(view, event_type, asked);
    }

    fn tell_payment(&mut self, view: &PaymentView, event_type: EventType, asked: Asked) {
        let data = format!(r#"{{"payment":{}}}"#, serde_json::to_string(view).unwrap());
        let sequence = self.tell(event_type, view.decided_at.unwrap(), &data);
        let partner = Some(self.partner);
        self.payment_row(view, Asked { sequence: Some(sequence), partner, ..asked });
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers make it for this")]
    fn payment_row(&mut self, view: &PaymentView, asked: Asked) {
        let minor = |text: &str| text.replace('.', "").parse::<i64>().unwrap();
        let key = asked.key.as_deref();
        let fingerprint = Fingerprint::of(&[b"other", key.unwrap_or_default().as_bytes()]);
        let offset = asked.offset.unwrap_or_else(|| self.offset(asked.source));
        let mut sql = Sql::new();
        sql.text("INSERT INTO payments VALUES (").int(asked.source as i64).text(",0,").int(offset).text(",");
        sql.uuid(view.id.uuid()).text(",").uuid(view.root.uuid()).text(",").int(view.kind.code()).text(",");
        sql.int(view.status.code()).text(",").opt_int(view.reason.map(Reason::code)).text(",");
        sql.int(view.version).text(",").opt_uuid(asked.partner.map(|it| it.uuid())).text(",");
        sql.opt_uuid(view.mandate.map(|it| it.uuid())).text(",");
        match &view.amounts {
            Some(amounts) => {
                sql.string(amounts.currency.code()).text(",").int(minor(&amounts.amount)).text(",");
                sql.int(minor(&amounts.amount_captured)).text(",").int(minor(&amounts.amount_refunded));
            }
            None => {
                sql.text("NULL,0,0,0");
            }
        }
        for side in [0, 1] {
            let version = asked.posting.map(|posting| posting[side].1);
            let account = asked.posting.map(|posting| posting[side].0);
            let account = account.or(asked.accounts.map(|it| it[side]));
            sql.text(",").opt_uuid(account.map(|it| it.uuid())).text(",").opt_int(version);
        }
        sql.text(",").opt_int(asked.sequence).text(",").bytes(fingerprint.as_bytes()).text(",");
        sql.int(u8::from(view.livemode)).text(",").opt_string(view.reference.as_deref()).text(",NULL,");
        sql.string(&serde_json::to_string(&view.metadata).unwrap()).text(",").uuid(Uuid::nil());
        sql.text(",NULL,").uuid(Uuid::nil()).text(",NULL,").opt_string(key).text(",");
        sql.datetime(view.created_at.civil()).text(",").datetime(view.decided_at.unwrap().civil()).text(",");
        sql.opt_datetime(view.expires_at.map(Timestamp::civil)).text(",");
        sql.opt_uuid(asked.told.map(|it| it.0.uuid())).text(",").opt_int(asked.told.map(|it| it.1)).text(")");
        self.queue(sql.as_str());
        self.store_positions();
    }

    /// A posted payment with its entries and its event.
    pub(crate) async fn pay(&mut self, paid: &Paid) {
        self.enter_payment(paid);
        self.commit().await;
    }

    /// Many accounts and many payments, in transactions of some hundred.
    pub(crate) async fn fill(&mut self, accounts: u32, payments: u32) {
        for number in 0..accounts {
            let user = UserId::from_uuid(derived_uuid(&format!("user {number}")));
            let account = AccountId::from_uuid(derived_uuid(&format!("account {number}")));
            self.open(account, Owner::Customer(user));
        }
        self.commit().await;
        for number in 0..payments {
            self.enter_payment(&Self::paid(&format!("many {number}"), self.standing, 1));
            if number % 300 == 299 {
                self.commit().await;
            }
        }
        self.commit().await;
    }

    /// Two entries with right chains, and no payment.
    pub(crate) async fn post(&mut self, id: PaymentId, accounts: [AccountId; 2], amount: i64, at: Timestamp) {
        self.enter(id, accounts, amount, at);
        self.commit().await;
    }

    /// An instant after everything written so far.
    pub(crate) fn later(&mut self) -> Timestamp {
        self.tick()
    }
}

fn asked(source: usize) -> Asked {
    Asked {
        source,
        posting: None,
        accounts: None,
        partner: None,
        sequence: None,
        told: None,
        key: None,
        offset: None,
    }
}

/// An id as a literal.
pub(crate) fn hex(id: Uuid) -> String {
    format!("0x{}", id.simple())
}
