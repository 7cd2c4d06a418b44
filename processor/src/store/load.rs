//! The reads of a batch: locks its positions and everything it may change, and reads everything it refers to.
//!
//! One text, in the order of locks: positions, (no lock: used ids, dead letters, partners, settlement accounts),
//! payments that others belong to, mandates, accounts, partner sequences. What a batch does not refer to is not asked
//! for.

use std::collections::BTreeSet;
use std::time::Instant;

use domain::account::{AccountStatus, Owner, OwnerKind};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId, conflict_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::{Day, Timestamp};
use domain::topic::{Position, Source};
use jiff::tz::TimeZone;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::dead_letters;
use super::error::StoreError;
use super::facts::Facts;
use super::positions::{StoredPosition, database_clock, select_for_update};
use super::references::References;
use super::row::{Columns as _, unreadable};
use super::session::Session;
use crate::clock::DatabaseClock;
use crate::decide::{Account, Mandate, Partner, Payment, Sequence, Slot, Spent, View};
use crate::item::Item;

/// A partner's `status` that lets it move money.
const PARTNER_ACTIVE: i64 = 1;

/// The state that a batch is decided on, under lock.
pub struct Loaded {
    /// The positions of its partitions.
    pub positions: Vec<StoredPosition>,
    /// Everything else.
    pub view: View,
    /// The latest time of any locked account: nothing may be decided before it.
    pub not_before: Timestamp,
    /// MySQL's clock.
    pub clock: DatabaseClock,
}

/// What a statement of the text reads.
#[derive(Clone, Copy)]
enum Set {
    Begin,
    Positions,
    Used,
    BlockedRoots,
    DeadLetters,
    Partners,
    SettlementAccounts,
    Payments,
    Mandates,
    Accounts,
    Sequences,
}

/// Begins the transaction and reads under lock. The transaction stays open on `session`.
pub async fn load(
    session: &mut Session,
    references: &References,
    facts: &mut Facts,
    zone: &TimeZone,
) -> Result<Loaded, StoreError> {
    let (sql, sets) = statements(references);
    let mut loaded = Loaded {
        positions: Vec::new(),
        view: View::default(),
        not_before: Timestamp::default(),
        clock: DatabaseClock { read: Timestamp::default(), sent: Instant::now() },
    };
    let answer = session.send(&sql).await?;
    if answer.rows.len() < sets.len() {
        return Err(StoreError::Fatal("the reads of a batch gave too few answers".to_owned()));
    }
    for (set, rows) in sets.iter().zip(&answer.rows) {
        if let Set::DeadLetters = set {
            (loaded.view.dead_letters, loaded.view.crowded_roots) = dead_letters::open(rows.iter(), zone)?;
            continue;
        }
        for row in rows {
            loaded.take(*set, row)?;
        }
    }
    for ((partner, currency), slot) in &loaded.view.settlement_accounts {
        facts.settles(*partner, *currency, slot.row);
    }
    Ok(loaded)
}

impl Loaded {
    fn take(&mut self, set: Set, row: &MySqlRow) -> Result<(), StoreError> {
        let view = &mut self.view;
        match set {
            // The one has no rows, the other is read as a whole.
            Set::Begin | Set::DeadLetters => {}
            Set::Positions => {
                self.positions.push(StoredPosition::read(row)?);
                self.clock.read = database_clock(row)?;
            }
            Set::Used => {
                let fingerprint = Fingerprint::from_bytes(row.bytes(1)?).ok_or_else(|| unreadable(1))?;
                view.used.insert(row.uuid(0)?, fingerprint);
            }
            Set::BlockedRoots => {
                view.blocked_roots.insert(row.uuid(0)?);
            }
            Set::Partners => {
                let partner = Partner { active: row.int(1)? == PARTNER_ACTIVE, livemode: row.int(2)? != 0 };
                view.partners.insert(PartnerId::from_uuid(row.uuid(0)?), partner);
            }
            Set::SettlementAccounts => {
                let currency = row.string(1)?.parse().map_err(|_| unreadable(1))?;
                let key = (PartnerId::from_uuid(row.uuid(0)?), currency);
                view.settlement_accounts.insert(key, Slot::read(AccountId::from_uuid(row.uuid(2)?)));
            }
            Set::Payments => {
                let payment = payment(row)?;
                view.payments.insert(payment.id, Slot::read(payment));
            }
            Set::Mandates => {
                let mandate = mandate(row)?;
                view.mandates.insert(mandate.id, Slot::read(mandate));
            }
            Set::Accounts => {
                let account = account(row)?;
                self.not_before = self.not_before.max(account.entered_at);
                view.accounts.insert(account.id, Slot::read(account));
            }
            Set::Sequences => {
                let sequence = Sequence { last: row.small(1)?, epoch: row.small(2)? };
                view.sequences.insert(PartnerId::from_uuid(row.uuid(0)?), Slot::read(sequence));
            }
        }
        Ok(())
    }
}

/// Adds the conflicts that these items may repeat: ids that are used, by the ledger or earlier in the batch, for
/// another request. Rare, so the look-up is a round trip of its own.
pub async fn load_conflicts<'a>(
    session: &mut Session,
    view: &mut View,
    items: impl IntoIterator<Item = &'a Item>,
) -> Result<(), StoreError> {
    let mut seen = view.used.clone();
    let mut conflicts = BTreeSet::new();
    for item in items {
        let (Some(id), Some(fingerprint)) = (item.id(), item.fingerprint()) else { continue };
        if *seen.entry(id).or_insert(fingerprint) != fingerprint {
            conflicts.insert(conflict_id(PaymentId::from_uuid(id), &fingerprint).uuid());
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new();
    select_in(&mut sql, USED_PAYMENTS, conflicts.iter().copied(), "");
    sql.text("; ");
    select_in(&mut sql, USED_CHANGES, conflicts.iter().copied(), "");
    let answer = session.send(&sql).await?;
    for row in answer.rows.iter().flatten() {
        let fingerprint = Fingerprint::from_bytes(row.bytes(1)?).ok_or_else(|| unreadable(1))?;
        view.used.insert(row.uuid(0)?, fingerprint);
    }
    Ok(())
}

const USED_PAYMENTS: &str = "SELECT id, fingerprint FROM payments WHERE id";
const USED_CHANGES: &str = "SELECT id, fingerprint FROM changes WHERE id";
const BLOCKED: &str = "SELECT DISTINCT root_id FROM dead_letters WHERE status = 1 AND root_id";
const PARTNERS: &str = "SELECT id, status, livemode FROM partners WHERE id";
const SETTLEMENT: &str = "SELECT partner_id, currency, account_id \
     FROM settlement_accounts FORCE INDEX (PRIMARY) WHERE partner_id";
const PAYMENTS: &str = "SELECT source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version, \
     partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, credit_account, \
     livemode, reference, description, metadata, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', decided_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) \
     FROM payments FORCE INDEX (payments_id) WHERE id";
const MANDATES: &str = "SELECT id, partner_id, account_id, kind, status, version, currency, payment_max_minor, \
     daily_max_minor, spent_day, spent_minor, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), reference, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', granted_at) FROM mandates FORCE INDEX (PRIMARY) WHERE id";
const ACCOUNTS: &str = "SELECT id, owner_kind, owner_id, currency, status, balance_minor, held_minor, overdraft_minor, \
     payment_max_minor, daily_max_minor, spent_day, spent_minor, version, head, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', entered_at), livemode FROM accounts FORCE INDEX (PRIMARY) WHERE id";
const SEQUENCES: &str = "SELECT partner_id, last_sequence, epoch \
     FROM partner_sequences FORCE INDEX (PRIMARY) WHERE partner_id";
/// Others may read it, and nobody puts another account in its place until what is credited there is written.
const KEEP_BY_PARTNER: &str = " ORDER BY partner_id, currency FOR SHARE";
const LOCK_BY_ID: &str = " ORDER BY id FOR UPDATE";
const LOCK_BY_PARTNER: &str = " ORDER BY partner_id FOR UPDATE";

fn statements(references: &References) -> (Sql, Vec<Set>) {
    let mut sql = Sql::with_capacity(1024 + 200 * references.payment_ids.len());
    let mut sets = vec![Set::Begin, Set::Positions];
    sql.text("START TRANSACTION; ");
    select_for_update(&mut sql, references.partitions.iter().copied());
    let mut select = |set, head, ids: &mut dyn ExactSizeIterator<Item = Uuid>, tail| {
        if ids.len() > 0 {
            sets.push(set);
            sql.text("; ");
            select_in(&mut sql, head, ids, tail);
        }
    };
    select(Set::Used, USED_PAYMENTS, &mut references.payment_ids.iter().copied(), "");
    select(Set::Used, USED_CHANGES, &mut references.change_ids.iter().copied(), "");
    select(Set::BlockedRoots, BLOCKED, &mut references.keys.iter().copied(), "");
    select(Set::Partners, PARTNERS, &mut references.partners.iter().map(PartnerId::uuid), "");
    let settled = &mut references.settled.iter().map(PartnerId::uuid);
    select(Set::SettlementAccounts, SETTLEMENT, settled, KEEP_BY_PARTNER);
    select(Set::Payments, PAYMENTS, &mut references.roots.iter().map(PaymentId::uuid), LOCK_BY_ID);
    select(Set::Mandates, MANDATES, &mut references.mandates.iter().map(MandateId::uuid), LOCK_BY_ID);
    select(Set::Accounts, ACCOUNTS, &mut references.accounts.iter().map(AccountId::uuid), LOCK_BY_ID);
    select(Set::Sequences, SEQUENCES, &mut references.sequences.iter().map(PartnerId::uuid), LOCK_BY_PARTNER);
    if !references.dead_letters.is_empty() {
        sets.push(Set::DeadLetters);
        sql.text("; ");
        references.dead_letters.select(&mut sql);
    }
    (sql, sets)
}

fn select_in(sql: &mut Sql, head: &'static str, ids: impl Iterator<Item = Uuid>, tail: &'static str) {
    sql.text(head).text(" IN (");
    sql.list(ids, |sql, id| {
        sql.uuid(id);
    });
    sql.text(")").text(tail);
}

fn payment(row: &MySqlRow) -> Result<Payment, StoreError> {
    let currency = row.opt_string(11)?.map(|code| code.parse()).transpose().map_err(|_| unreadable(11))?;
    let amount = match currency {
        Some(currency) => Some(Amount::new(row.int(12)?, currency).map_err(|_| unreadable(12))?),
        None => None,
    };
    let accounts = row.opt_uuid(15)?.zip(row.opt_uuid(16)?);
    let metadata = row.opt_string(20)?.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Payment {
        position: Position {
            source: row.code(0, Source::from_code)?,
            partition: row.small(1)?,
            offset: row.int(2)?,
        },
        id: PaymentId::from_uuid(row.uuid(3)?),
        root: PaymentId::from_uuid(row.uuid(4)?),
        kind: row.code(5, PaymentKind::from_code)?,
        status: row.code(6, PaymentStatus::from_code)?,
        reason: row.opt_int(7)?.map(|_| row.code(7, Reason::from_code)).transpose()?,
        version: row.small(8)?,
        partner: row.opt_uuid(9)?.map(PartnerId::from_uuid),
        mandate: row.opt_uuid(10)?.map(MandateId::from_uuid),
        amount,
        captured_minor: row.int(13)?,
        refunded_minor: row.int(14)?,
        accounts: accounts.map(|(debit, credit)| [debit, credit].map(AccountId::from_uuid)),
        // A root's own entries are never written again.
        versions: None,
        livemode: row.int(17)? != 0,
        reference: row.opt_string(18)?,
        description: row.opt_string(19)?,
        metadata: metadata.map_err(|_| unreadable(20))?.unwrap_or_default(),
        accepted_at: row.time(21)?,
        decided_at: row.time(22)?,
        expires_at: row.opt_int(23)?.map(Timestamp::from_micros),
    })
}

fn mandate(row: &MySqlRow) -> Result<Mandate, StoreError> {
    Ok(Mandate {
        id: MandateId::from_uuid(row.uuid(0)?),
        partner: PartnerId::from_uuid(row.uuid(1)?),
        account: row.opt_uuid(2)?.map(AccountId::from_uuid),
        kind: row.code(3, MandateKind::from_code)?,
        status: row.code(4, MandateStatus::from_code)?,
        version: row.small(5)?,
        currency: row.string(6)?.parse().map_err(|_| unreadable(6))?,
        payment_max_minor: row.opt_int(7)?,
        daily_max_minor: row.opt_int(8)?,
        spent: Spent { day: Day(row.small(9)?), minor: row.int(10)? },
        expires_at: row.opt_int(11)?.map(Timestamp::from_micros),
        reference: row.opt_string(12)?,
        granted_at: row.time(13)?,
    })
}

fn account(row: &MySqlRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId::from_uuid(row.uuid(0)?),
        owner: Owner::from_stored(row.code(1, OwnerKind::from_code)?, row.uuid(2)?),
        currency: row.string(3)?.parse().map_err(|_| unreadable(3))?,
        status: row.code(4, AccountStatus::from_code)?,
        balance_minor: row.int(5)?,
        held_minor: row.int(6)?,
        overdraft_minor: row.int(7)?,
        payment_max_minor: row.opt_int(8)?,
        daily_max_minor: row.opt_int(9)?,
        spent: Spent { day: Day(row.small(10)?), minor: row.int(11)? },
        version: row.small(12)?,
        head: row.bytes(13)?.try_into().map_err(|_| unreadable(13))?,
        entered_at: row.time(14)?,
        livemode: row.int(15)? != 0,
    })
}
