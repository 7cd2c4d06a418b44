//! A ledger to read: made by commands and the processor where it matters what is in it, by rows where it matters how
//! much.

use domain::account::Owner;
use domain::command::{BankCommand, BankTransfer, PartnerCommand, PartnerEnvelope};
use domain::ids::{AccountId, MandateId, PartnerId, UserId, bank_account_id};
use domain::money::Currency::EUR;
use serde_json::Value;
use sqlx::Executor as _;
use testkit::{fixtures, wait_until};
use uuid::Uuid;

use crate::harness::{Bank, LONG, Somebody};
use crate::seed::{Running, start_processor};

/// A bank whose processor runs and whose cash account is open.
pub(crate) async fn open_bank(name: &str) -> (Bank, Running) {
    let bank = Bank::new(name).await;
    let processor = start_processor(&bank.env);
    decide(&bank, fixtures::open_account(bank_account_id(EUR), Owner::Bank, EUR)).await;
    (bank, processor)
}

pub(crate) fn user(somebody: &Somebody) -> UserId {
    somebody.id.parse().unwrap()
}

/// Has the ledger decide a command of the bank.
pub(crate) async fn decide(bank: &Bank, command: BankCommand) -> Uuid {
    let envelope = fixtures::bank(fixtures::user_id(), command);
    bank.env.produce_bank(&envelope).await;
    decided(bank, envelope.id).await;
    envelope.id
}

/// Has the ledger decide a command of a partner.
pub(crate) async fn decide_partner(bank: &Bank, envelope: &PartnerEnvelope) {
    bank.env.produce_partner(envelope).await;
    decided(bank, envelope.id.uuid()).await;
}

async fn decided(bank: &Bank, id: Uuid) {
    let count =
        "SELECT (SELECT COUNT(*) FROM payments WHERE id = ?) + (SELECT COUNT(*) FROM changes WHERE id = ?)";
    wait_until("the ledger to decide", LONG, async || {
        let id = id.as_bytes().to_vec();
        let query = sqlx::query_scalar::<_, i64>(count).bind(id.clone()).bind(id);
        query.fetch_one(bank.env.pool()).await.unwrap() > 0
    })
    .await;
}

/// An account of a customer with money on it.
pub(crate) async fn account_of(bank: &Bank, owner: Owner, balance_minor: i64) -> AccountId {
    let account = fixtures::account_id();
    decide(bank, fixtures::open_account(account, owner, EUR)).await;
    if balance_minor > 0 {
        decide(bank, fixtures::deposit(account, balance_minor, EUR)).await;
    }
    account
}

/// A standing mandate without caps.
pub(crate) async fn mandate_on(bank: &Bank, partner: PartnerId, account: AccountId) -> MandateId {
    let mandate = fixtures::mandate_id();
    decide(bank, fixtures::grant_mandate(mandate, partner, account, EUR)).await;
    mandate
}

pub(crate) fn transfer(from: AccountId, to: AccountId, amount_minor: i64, words: &str) -> BankCommand {
    let description = Some(words.to_owned());
    BankCommand::Transfer(BankTransfer { from, to, amount_minor, currency: EUR, description })
}

/// A partner's payment with what both sides read.
pub(crate) fn payment(
    partner: PartnerId,
    mandate: MandateId,
    amount_minor: i64,
    reference: &str,
    description: &str,
) -> PartnerEnvelope {
    let key = domain::ids::KeyId::from_uuid(Uuid::now_v7());
    let mut envelope = fixtures::payment(partner, key, reference, mandate, amount_minor, EUR);
    if let PartnerCommand::Payment(payment) = &mut envelope.command {
        payment.reference = Some(reference.to_owned());
        payment.description = Some(description.to_owned());
    }
    envelope
}

/// An account of a customer as rows, with so many entries of one cent, three in each second.
pub(crate) async fn rows_of(bank: &Bank, owner: UserId, entries: u64) -> AccountId {
    let (id, owner) = (fixtures::account_id(), hex(owner.uuid()));
    let account = hex(id.uuid());
    let text = format!(
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, overdraft_minor, \
         spent_day, spent_minor, version, head, entered_at) VALUES ({account}, 1, {owner}, 'EUR', 1, {entries}, 0, 0, 0, \
         0, {entries}, REPEAT('x', 32), '2026-11-01')"
    );
    bank.env.pool().execute(text.as_str()).await.unwrap();
    let all: Vec<u64> = (1..=entries).collect();
    for versions in all.chunks(500) {
        let row = |version: &u64| {
            let second = (version - 1) / 3;
            format!(
                "({account}, {version}, {}, 2, 1, {version}, '2026-11-01' + INTERVAL {second} SECOND, REPEAT('x', 32))",
                hex(Uuid::from_u128(u128::from(*version)))
            )
        };
        let rows: Vec<_> = versions.iter().map(row).collect();
        let text = format!("INSERT INTO entries VALUES {}", rows.join(", "));
        bank.env.pool().execute(text.as_str()).await.unwrap();
    }
    id
}

/// An active mandate as a row.
pub(crate) async fn mandate_row(bank: &Bank, partner: PartnerId, account: AccountId) -> MandateId {
    let id = fixtures::mandate_id();
    let text = format!(
        "INSERT INTO mandates (id, partner_id, account_id, kind, status, version, currency, spent_day, spent_minor, \
         granted_at) VALUES ({}, {}, {}, 2, 1, 1, 'EUR', 0, 0, '2026-11-01')",
        hex(id.uuid()),
        hex(partner.uuid()),
        hex(account.uuid())
    );
    bank.env.pool().execute(text.as_str()).await.unwrap();
    id
}

/// An id as SQL.
pub(crate) fn hex(id: Uuid) -> String {
    format!("0x{}", id.simple())
}

/// A value with ids and times that are the same in every run.
pub(crate) fn neutral(value: &Value, names: &[(&dyn std::fmt::Display, &str)]) -> Value {
    let mut text = value.to_string();
    for (id, name) in names {
        text = text.replace(&id.to_string(), &format!("[{name}]"));
    }
    let mut value = serde_json::from_str(&text).unwrap();
    hide(&mut value);
    value
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => {
            for (name, member) in members {
                let is_id = member.as_str().is_some_and(|it| {
                    ["acct_", "pay_", "mdt_", "ptr_", "usr_", "chg_"]
                        .iter()
                        .any(|prefix| it.starts_with(prefix))
                });
                let is_time = name.ends_with("_at") || name == "answer_by" || name == "next";
                if (is_id || is_time) && !member.is_null() {
                    *member = Value::from(format!("[{name}]"));
                }
                hide(member);
            }
        }
        _ => {}
    }
}
