//! The writes of a batch, as one text: a statement per table, rows sorted by key where they are changed.
//!
//! Rows that were read under lock are changed by `INSERT … ON DUPLICATE KEY UPDATE` on their primary key, which is
//! one statement however many rows there are; each counts as two affected rows, and the sum is asserted.

use std::net::IpAddr;

use domain::ids::{AccountId, PaymentId};
use domain::money::Amount;
use domain::time::Timestamp;
use domain::topic::Position;
use runtime::sql::Sql;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::error::StoreError;
use super::positions::PartitionKey;
use super::session::Session;
use crate::decide::{
    Account, Asked, ChangeRow, DeadLetter, DeadLetterEnd, DeadLetterRow, Effects, EntryRow, EventRow,
    HoldRow, Mandate, Origin, Payment, Slot, Touch, View,
};
use crate::item::Item;

/// `dead_letters.status`: nobody has dealt with it.
const DEAD_LETTER_OPEN: u8 = 1;
/// It was applied after all.
const DEAD_LETTER_REDRIVEN: u8 = 2;
/// It was given up.
const DEAD_LETTER_REJECTED: u8 = 3;
/// Characters of `dead_letters.detail`.
const DETAIL_CHARS_MAX: usize = 500;
/// Bytes of `dead_letters.record_key`; a longer key is cut, since setting a record aside must not fail.
const KEY_BYTES_MAX: usize = 1_024;

/// What a batch writes, and the number of rows that each statement must affect.
pub struct Writes {
    sql: Sql,
    expected: Vec<(&'static str, u64)>,
}

/// Where a partition stands after the batch.
#[derive(Debug, Clone, Copy)]
pub struct NewPosition<'a> {
    /// The partition.
    pub key: PartitionKey,
    /// The last record of the batch.
    pub last: &'a Item,
    /// What is known to be announced.
    pub announced_offset: i64,
}

/// Writes a decided batch inside the open transaction of `session`, and commits.
pub async fn commit(session: &mut Session, writes: &Writes) -> Result<(), StoreError> {
    let answer = session.send(&writes.sql).await?;
    for ((table, expected), affected) in writes.expected.iter().zip(&answer.affected) {
        if expected != affected {
            session.reset();
            return Err(StoreError::Fatal(format!(
                "{table}: {affected} rows affected where {expected} were due"
            )));
        }
    }
    let mut sql = Sql::new();
    sql.text("COMMIT");
    session.send(&sql).await.map(drop)
}

/// The text of a decided batch.
pub fn write(
    items: &[Item],
    view: &View,
    effects: &Effects,
    positions: &[NewPosition<'_>],
    decided_at: Timestamp,
) -> Writes {
    let mut writes = Writes { sql: Sql::with_capacity(16_384 + 3_500 * items.len()), expected: Vec::new() };
    let mut payments: Vec<_> = effects
        .payments
        .iter()
        .filter_map(|asked| Some((&view.payments.get(&asked.payment)?.row, asked)))
        .collect();
    // In the order of the primary key: a redriven dead letter has an old place.
    payments.sort_by_key(|(payment, _)| payment.position);
    writes.insert("payments", INSERT_PAYMENTS, &payments, |sql, (row, asked)| payment(sql, row, asked));
    let changed = view.payments.values().filter(|slot| slot.touch == Touch::Changed);
    writes.upsert("payments", INSERT_ROOTS, UPDATE_ROOTS, changed, root);
    writes.insert("follow_ups", INSERT_FOLLOW_UPS, &effects.follow_ups, |sql, (root, payment)| {
        sql.uuid(root.uuid()).text(",").uuid(payment.uuid());
    });
    writes.insert("changes", INSERT_CHANGES, &effects.changes, change);
    writes.insert("entries", INSERT_ENTRIES, &effects.entries, entry);
    writes.insert("events", INSERT_EVENTS, &effects.events, event);
    writes.upsert("mandates", INSERT_MANDATES, UPDATE_MANDATES, view.mandates.values(), mandate);
    writes.upsert("accounts", INSERT_ACCOUNTS, UPDATE_ACCOUNTS, view.accounts.values(), account);
    writes.insert("holds", INSERT_HOLDS, &effects.holds, hold);
    writes.delete_holds(&effects.released);
    let settlement = view.settlement_accounts.iter();
    let settlement: Vec<_> = settlement
        .map(|(key, slot)| Slot { row: (key, slot.row), touch: slot.touch, before: None })
        .collect();
    writes.upsert(
        "settlement_accounts",
        INSERT_SETTLEMENT,
        UPDATE_SETTLEMENT,
        settlement.iter(),
        |sql, ((partner, currency), account)| {
            sql.uuid(partner.uuid()).text(",").string(currency.code()).text(",").uuid(account.uuid());
        },
    );
    let sequences = view.sequences.iter().map(|(partner, slot)| Slot {
        row: (partner, slot.row),
        touch: slot.touch,
        before: None,
    });
    let sequences: Vec<_> = sequences.collect();
    writes.upsert("partner_sequences", INSERT_SEQUENCES, UPDATE_SEQUENCES, sequences.iter(), |sql, row| {
        sql.uuid(row.0.uuid()).text(",").int(row.1.last).text(",").int(row.1.epoch);
    });
    writes.insert("dead_letters", INSERT_DEAD_LETTERS, &effects.dead_letters, |sql, row| {
        dead_letter(sql, &items[row.item], row, decided_at);
    });
    for slot in view.dead_letters.values().filter(|slot| slot.touch == Touch::Changed) {
        writes.end_dead_letter(&slot.row);
    }
    let positions = positions.iter().map(|row| Slot { row: *row, touch: Touch::Changed, before: None });
    let positions: Vec<_> = positions.collect();
    writes.upsert("positions", INSERT_POSITIONS, UPDATE_POSITIONS, positions.iter(), position);
    writes
}

impl Writes {
    /// The statement that begins with `head` and has a row for each of `rows`; none for none.
    fn insert<T>(&mut self, table: &'static str, head: &'static str, rows: &[T], row: impl Fn(&mut Sql, &T)) {
        self.statement(table, head, "", rows.iter(), 1, row);
    }

    /// The statements for rows that are new and for rows that changed.
    fn upsert<'a, T: 'a>(
        &mut self,
        table: &'static str,
        head: &'static str,
        tail: &'static str,
        slots: impl Iterator<Item = &'a Slot<T>>,
        row: impl Fn(&mut Sql, &T) + Copy,
    ) {
        let touched = slots.filter(|slot| slot.touch != Touch::Read);
        let (new, changed): (Vec<_>, Vec<_>) = touched.partition(|slot| slot.touch == Touch::New);
        self.statement(table, head, "", new.into_iter().map(|slot| &slot.row), 1, row);
        self.statement(table, head, tail, changed.into_iter().map(|slot| &slot.row), 2, row);
    }

    fn delete_holds(&mut self, released: &[(AccountId, PaymentId)]) {
        if released.is_empty() {
            return;
        }
        // Something was inserted before: a payment that ends the hold. Each row is looked up by its key: whatever else
        // names them, MySQL rather scans a small table as a whole, and waits for what others have locked.
        self.sql.text("; DELETE h FROM (SELECT NULL AS account_id, NULL AS payment_id");
        for (account, payment) in released {
            self.sql.text(" UNION ALL SELECT ").uuid(account.uuid()).text(",").uuid(payment.uuid());
        }
        self.sql.text(
            ") AS ended STRAIGHT_JOIN holds AS h FORCE INDEX (PRIMARY) \
             ON h.account_id = ended.account_id AND h.payment_id = ended.payment_id",
        );
        self.expected.push(("holds", released.len() as u64));
    }

    /// Rare, so one statement each.
    fn end_dead_letter(&mut self, letter: &DeadLetter) {
        let Some((end, change)) = letter.end else { return };
        let status = match end {
            DeadLetterEnd::Redriven => DEAD_LETTER_REDRIVEN,
            DeadLetterEnd::Rejected => DEAD_LETTER_REJECTED,
        };
        let at = letter.item.position;
        // Something was inserted before: the change of the command that deals with it.
        self.sql.text("; UPDATE dead_letters SET status = ").int(status).text(", change_id = ").uuid(change);
        self.sql.text(" WHERE status = 1 AND source = ").int(at.source.code());
        self.sql
            .text(" AND kafka_partition = ")
            .int(at.partition)
            .text(" AND kafka_offset = ")
            .int(at.offset);
        self.expected.push(("dead_letters", 1));
    }

    fn statement<'a, T: 'a>(
        &mut self,
        table: &'static str,
        head: &'static str,
        tail: &'static str,
        rows: impl Iterator<Item = &'a T>,
        affected_each: u64,
        row: impl Fn(&mut Sql, &T),
    ) {
        let mut count = 0;
        for item in rows {
            let lead = match (count, self.expected.is_empty()) {
                (0, true) => head,
                (0, false) => {
                    self.sql.text("; ");
                    head
                }
                (_, _) => ",",
            };
            self.sql.text(lead).text("(");
            row(&mut self.sql, item);
            self.sql.text(")");
            count += 1;
        }
        if count > 0 {
            self.sql.text(tail);
            self.expected.push((table, count * affected_each));
        }
    }
}

const INSERT_PAYMENTS: &str = "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, \
     reason, version, partner_id, mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, \
     debit_version, credit_account, credit_version, event_sequence, fingerprint, livemode, reference, description, \
     metadata, actor_id, actor_reason, request_id, address, idempotency_key, accepted_at, decided_at, expires_at, \
     told_partner_id, told_sequence) VALUES ";

fn payment(sql: &mut Sql, row: &Payment, asked: &Asked) {
    at(sql, row.position);
    sql.text(",").uuid(row.id.uuid()).text(",").uuid(row.root.uuid());
    sql.text(",").int(row.kind.code()).text(",").int(row.status.code());
    sql.text(",").opt_int(row.reason.map(domain::payment::Reason::code)).text(",").int(row.version);
    sql.text(",").opt_uuid(row.partner.map(|id| id.uuid())).text(",");
    sql.opt_uuid(row.mandate.map(|id| id.uuid()));
    sql.text(",").opt_string(row.amount.map(|amount| amount.currency().code()));
    sql.text(",").int(row.amount.map_or(0, Amount::minor));
    sql.text(",").int(row.captured_minor).text(",").int(row.refunded_minor);
    for side in 0..2 {
        sql.text(",").opt_uuid(row.accounts.map(|accounts| accounts[side].uuid()));
        sql.text(",").opt_int(row.versions.map(|versions| versions[side]));
    }
    sql.text(",").opt_int(asked.event_sequence).text(",").bytes(asked.fingerprint.as_bytes());
    sql.text(",").int(u8::from(row.livemode)).text(",").opt_string(row.reference.as_deref());
    sql.text(",").opt_string(row.description.as_deref());
    let metadata =
        (!row.metadata.is_empty()).then(|| serde_json::to_string(&row.metadata).unwrap_or_default());
    sql.text(",").opt_string(metadata.as_deref());
    origin(sql, &asked.origin);
    sql.text(",").opt_string(asked.idempotency_key.as_deref());
    sql.text(",").datetime(row.accepted_at.civil()).text(",").datetime(row.decided_at.civil());
    sql.text(",").opt_datetime(row.expires_at.map(Timestamp::civil));
    sql.text(",").opt_uuid(asked.told.map(|(partner, _)| partner.uuid()));
    sql.text(",").opt_int(asked.told.map(|(_, sequence)| sequence));
}

/// A root changes in these columns only. The other ones are what the statement cannot do without: the row is there,
/// and the number of affected rows would tell if it were not.
const INSERT_ROOTS: &str = "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, \
     version, amount_minor, captured_minor, refunded_minor, fingerprint, livemode, actor_id, request_id, accepted_at, \
     decided_at) VALUES ";
const UPDATE_ROOTS: &str = " ON DUPLICATE KEY UPDATE status = VALUES(status), version = VALUES(version), \
     captured_minor = VALUES(captured_minor), refunded_minor = VALUES(refunded_minor)";

fn root(sql: &mut Sql, row: &Payment) {
    at(sql, row.position);
    sql.text(",").uuid(row.id.uuid()).text(",").uuid(row.root.uuid());
    sql.text(",").int(row.kind.code()).text(",").int(row.status.code()).text(",").int(row.version);
    sql.text(",").int(row.amount.map_or(0, Amount::minor));
    sql.text(",").int(row.captured_minor).text(",").int(row.refunded_minor);
    sql.text(",").bytes(&[0; 33]).text(",0,").uuid(Uuid::nil()).text(",").uuid(Uuid::nil());
    sql.text(",").datetime(row.accepted_at.civil()).text(",").datetime(row.decided_at.civil());
}

const INSERT_FOLLOW_UPS: &str = "INSERT INTO follow_ups (root_id, payment_id) VALUES ";

const INSERT_HOLDS: &str =
    "INSERT INTO holds (account_id, payment_id, kafka_partition, amount_minor, expires_at) VALUES ";

fn hold(sql: &mut Sql, row: &HoldRow) {
    sql.uuid(row.account.uuid()).text(",").uuid(row.payment.uuid()).text(",").int(row.partition);
    sql.text(",").int(row.amount.minor()).text(",").datetime(row.expires_at.civil());
}

const INSERT_CHANGES: &str = "INSERT INTO changes (source, kafka_partition, kafka_offset, id, kind, reason, target_id, \
     partner_id, event_sequence, fingerprint, command, actor_id, actor_reason, request_id, address, accepted_at, \
     decided_at) VALUES ";

fn change(sql: &mut Sql, row: &ChangeRow) {
    at(sql, row.position);
    sql.text(",").uuid(row.id).text(",").string(row.kind);
    sql.text(",").opt_int(row.reason.map(domain::payment::Reason::code)).text(",").uuid(row.target);
    sql.text(",").opt_uuid(row.told.map(|(partner, _)| partner.uuid()));
    sql.text(",").opt_int(row.told.map(|(_, sequence)| sequence));
    sql.text(",").bytes(row.fingerprint.as_bytes()).text(",").string(&row.command);
    origin(sql, &row.origin);
    sql.text(",").datetime(row.accepted_at.civil()).text(",").datetime(row.decided_at.civil());
}

const INSERT_ENTRIES: &str = "INSERT INTO entries (account_id, version, payment_id, direction, amount_minor, \
     balance_minor, entered_at, hash) VALUES ";

fn entry(sql: &mut Sql, row: &EntryRow) {
    let entry = &row.entry;
    sql.uuid(entry.account.uuid()).text(",").int(entry.version).text(",").uuid(entry.payment.uuid());
    sql.text(",").int(entry.direction.code()).text(",").int(entry.amount_minor);
    sql.text(",").int(entry.balance_minor).text(",").datetime(entry.entered_at.civil());
    sql.text(",").bytes(&row.hash);
}

const INSERT_EVENTS: &str =
    "INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) VALUES ";

fn event(sql: &mut Sql, row: &EventRow) {
    sql.uuid(row.partner.uuid()).text(",").int(row.sequence).text(",").int(row.epoch);
    sql.text(",").int(row.event_type.code()).text(",").datetime(row.occurred_at.civil());
    sql.text(",").string(&row.data);
}

const INSERT_MANDATES: &str = "INSERT INTO mandates (id, partner_id, account_id, kind, status, version, currency, \
     payment_max_minor, daily_max_minor, spent_day, spent_minor, expires_at, reference, granted_at) VALUES ";
const UPDATE_MANDATES: &str = " ON DUPLICATE KEY UPDATE status = VALUES(status), version = VALUES(version), \
     spent_day = VALUES(spent_day), spent_minor = VALUES(spent_minor)";

fn mandate(sql: &mut Sql, row: &Mandate) {
    sql.uuid(row.id.uuid()).text(",").uuid(row.partner.uuid());
    sql.text(",").opt_uuid(row.account.map(|id| id.uuid()));
    sql.text(",").int(row.kind.code()).text(",").int(row.status.code()).text(",").int(row.version);
    sql.text(",").string(row.currency.code()).text(",").opt_int(row.payment_max_minor);
    sql.text(",").opt_int(row.daily_max_minor).text(",").int(row.spent.day.0).text(",").int(row.spent.minor);
    sql.text(",").opt_datetime(row.expires_at.map(Timestamp::civil));
    sql.text(",").opt_string(row.reference.as_deref()).text(",").datetime(row.granted_at.civil());
}

const INSERT_ACCOUNTS: &str = "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, \
     held_minor, overdraft_minor, payment_max_minor, daily_max_minor, spent_day, spent_minor, version, head, \
     entered_at, livemode) VALUES ";
const UPDATE_ACCOUNTS: &str = " ON DUPLICATE KEY UPDATE status = VALUES(status), balance_minor = VALUES(balance_minor), \
     held_minor = VALUES(held_minor), overdraft_minor = VALUES(overdraft_minor), \
     payment_max_minor = VALUES(payment_max_minor), daily_max_minor = VALUES(daily_max_minor), \
     spent_day = VALUES(spent_day), spent_minor = VALUES(spent_minor), version = VALUES(version), head = VALUES(head), \
     entered_at = VALUES(entered_at)";

fn account(sql: &mut Sql, row: &Account) {
    let (owner_kind, owner_id) = row.owner.stored();
    sql.uuid(row.id.uuid()).text(",").int(owner_kind.code()).text(",").uuid(owner_id);
    sql.text(",").string(row.currency.code()).text(",").int(row.status.code());
    sql.text(",").int(row.balance_minor).text(",").int(row.held_minor).text(",").int(row.overdraft_minor);
    sql.text(",").opt_int(row.payment_max_minor).text(",").opt_int(row.daily_max_minor);
    sql.text(",").int(row.spent.day.0).text(",").int(row.spent.minor).text(",").int(row.version);
    sql.text(",").bytes(&row.head).text(",").datetime(row.entered_at.civil());
    sql.text(",").int(u8::from(row.livemode));
}

const INSERT_SETTLEMENT: &str = "INSERT INTO settlement_accounts (partner_id, currency, account_id) VALUES ";

const UPDATE_SETTLEMENT: &str = " ON DUPLICATE KEY UPDATE account_id = VALUES(account_id)";

const INSERT_SEQUENCES: &str = "INSERT INTO partner_sequences (partner_id, last_sequence, epoch) VALUES ";
const UPDATE_SEQUENCES: &str = " ON DUPLICATE KEY UPDATE last_sequence = VALUES(last_sequence)";

const INSERT_DEAD_LETTERS: &str = "INSERT INTO dead_letters (source, kafka_partition, kafka_offset, status, id, \
     root_id, reason, detail, record_key, record_value, accepted_at, recorded_at) VALUES ";

fn dead_letter(sql: &mut Sql, item: &Item, row: &DeadLetterRow, recorded_at: Timestamp) {
    let detail: String = row.detail.chars().take(DETAIL_CHARS_MAX).collect();
    at(sql, item.position);
    sql.text(",").int(DEAD_LETTER_OPEN).text(",").opt_uuid(item.id()).text(",").opt_uuid(item.root());
    sql.text(",").string(row.reason.as_str()).text(",").string(&detail);
    let key = item.key.as_deref().map(|key| &key[..key.len().min(KEY_BYTES_MAX)]);
    sql.text(",").opt_bytes(key).text(",").bytes(&item.value);
    sql.text(",").datetime(item.accepted_at.civil()).text(",").datetime(recorded_at.civil());
}

const INSERT_POSITIONS: &str =
    "INSERT INTO positions (source, kafka_partition, next_offset, announced_offset, record_hash) VALUES ";
const UPDATE_POSITIONS: &str = " ON DUPLICATE KEY UPDATE next_offset = VALUES(next_offset), \
     announced_offset = GREATEST(announced_offset, VALUES(announced_offset)), record_hash = VALUES(record_hash)";

fn position(sql: &mut Sql, row: &NewPosition<'_>) {
    sql.int(row.key.source.code()).text(",").int(row.key.partition);
    sql.text(",").int(row.last.position.offset + 1).text(",").int(row.announced_offset);
    sql.text(",").bytes(&record_hash(&row.last.value));
}

/// What tells a record from another at the same offset of a topic made anew.
pub fn record_hash(value: &[u8]) -> [u8; 32] {
    Sha256::digest(value).into()
}

fn at(sql: &mut Sql, position: Position) {
    sql.int(position.source.code()).text(",").int(position.partition).text(",").int(position.offset);
}

fn origin(sql: &mut Sql, origin: &Origin) {
    sql.text(",").uuid(origin.actor).text(",").opt_string(origin.reason.as_deref());
    sql.text(",").uuid(origin.request_id).text(",");
    match origin.address {
        Some(IpAddr::V4(address)) => sql.bytes(&address.octets()),
        Some(IpAddr::V6(address)) => sql.bytes(&address.octets()),
        None => sql.null(),
    };
}
