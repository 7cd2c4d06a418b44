//! The reads of a batch: locks its positions and everything it may change, and reads everything it refers to.
//!
//! One text, in the order of locks: positions, (no lock: used ids, dead letters, partners, settlement accounts),
//! mandates, accounts, partner sequences.

use std::collections::{BTreeMap, BTreeSet};

use domain::account::{AccountStatus, Owner, OwnerKind};
use domain::command::{BankCommand, PartnerCommand};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId, bank_account_id, conflict_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::time::{Day, Timestamp};
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::error::StoreError;
use super::facts::{Facts, Wanted};
use super::positions::{PartitionKey, StoredPosition};
use super::row::{Columns as _, unreadable};
use super::session::Session;
use crate::decide::{Account, Mandate, Partner, Sequence, Slot, Spent, View};
use crate::item::{Content, Item};

/// A partner's `status` that lets it move money.
const PARTNER_ACTIVE: i64 = 1;

/// What a batch refers to, sorted.
#[derive(Debug, Default)]
pub struct References {
    partitions: BTreeSet<PartitionKey>,
    ids: BTreeSet<Uuid>,
    /// Of these, those of bank commands, which may be payments or changes; a partner's can only be payments.
    bank_ids: BTreeSet<Uuid>,
    roots: BTreeSet<Uuid>,
    partners: BTreeSet<PartnerId>,
    mandates: BTreeSet<MandateId>,
    accounts: BTreeSet<AccountId>,
    sequences: BTreeSet<PartnerId>,
    /// Settlement accounts that are remembered, which never change.
    settled: BTreeMap<(PartnerId, Currency), AccountId>,
    /// Partners whose settlement accounts must be read.
    unsettled: BTreeSet<PartnerId>,
}

/// The state that a batch is decided on, under lock.
pub struct Loaded {
    /// The positions of its partitions.
    pub positions: Vec<StoredPosition>,
    /// Everything else.
    pub view: View,
    /// The latest time of any locked account: nothing may be decided before it.
    pub not_before: Timestamp,
}

impl References {
    /// What `items` refer to, with the accounts that `facts` know of their mandates.
    pub async fn of(items: &[Item], facts: &mut Facts, session: &mut Session) -> Result<Self, StoreError> {
        let mut references = Self::default();
        let mut wanted = Wanted::default();
        for item in items {
            references.item(item, &mut wanted);
        }
        facts.learn(session, &wanted).await?;
        for (partner, account) in wanted.mandates.iter().filter_map(|id| facts.mandate(*id)) {
            references.accounts.insert(account);
            references.sequences.insert(partner);
        }
        for (partner, currency) in &wanted.settlement {
            if let Some(account) = facts.settlement(*partner, *currency) {
                references.accounts.insert(account);
                references.settled.insert((*partner, *currency), account);
            } else {
                references.unsettled.insert(*partner);
            }
        }
        let owners: Vec<_> = wanted.owners.iter().filter_map(|account| facts.owner(*account)).collect();
        references.sequences.extend(&owners);
        references.partners.extend(owners);
        Ok(references)
    }

    fn item(&mut self, item: &Item, wanted: &mut Wanted) {
        self.partitions.insert(PartitionKey::of(item.position));
        self.ids.extend(item.id());
        self.roots.extend(item.root());
        match &item.content {
            Content::Partner(envelope) => {
                self.partners.insert(envelope.partner);
                self.sequences.insert(envelope.partner);
                match &envelope.command {
                    PartnerCommand::Payment(payment) => {
                        self.mandates.insert(payment.mandate);
                        wanted.mandates.push(payment.mandate);
                        wanted.settlement.push((envelope.partner, payment.currency));
                    }
                }
            }
            Content::Bank(envelope, _) => {
                self.bank_ids.insert(envelope.id);
                self.bank(&envelope.command, wanted);
            }
            Content::Undecodable(_) => {}
        }
    }

    fn bank(&mut self, command: &BankCommand, wanted: &mut Wanted) {
        match command {
            BankCommand::OpenAccount(open) => {
                self.accounts.insert(open.account);
                if let Owner::Partner(partner) = open.owner {
                    self.partners.insert(partner);
                    self.unsettled.insert(partner);
                }
            }
            BankCommand::Deposit(deposit) => {
                self.accounts.extend([deposit.account, bank_account_id(deposit.currency)]);
                wanted.owners.push(deposit.account);
            }
            BankCommand::GrantMandate(grant) => {
                self.accounts.insert(grant.account);
                self.mandates.insert(grant.mandate);
                self.partners.insert(grant.partner);
                self.sequences.insert(grant.partner);
            }
            BankCommand::RevokeMandate { mandate } => {
                self.mandates.insert(*mandate);
                wanted.mandates.push(*mandate);
            }
            BankCommand::FreezeAccount { account } | BankCommand::UnfreezeAccount { account } => {
                self.accounts.insert(*account);
            }
        }
    }
}

/// Begins the transaction and reads under lock. The transaction stays open on `session`.
pub async fn load(session: &mut Session, references: &References) -> Result<Loaded, StoreError> {
    let answer = session.send(&statements(references)).await?;
    let [
        _begin,
        positions,
        used,
        used_by_changes,
        dead,
        partners,
        settlement,
        mandates,
        accounts,
        sequences,
        ..,
    ] = answer.rows.as_slice()
    else {
        return Err(StoreError::Fatal("the reads of a batch gave too few answers".to_owned()));
    };
    let settlement_accounts = references.settled.iter().map(|(key, account)| (*key, *account)).collect();
    let mut view = View { settlement_accounts, ..View::default() };
    for row in used.iter().chain(used_by_changes) {
        let fingerprint = Fingerprint::from_bytes(row.bytes(1)?).ok_or_else(|| unreadable(1))?;
        view.used.insert(row.uuid(0)?, fingerprint);
    }
    for row in dead {
        view.blocked_roots.insert(row.uuid(0)?);
    }
    for row in partners {
        let partner = Partner { active: row.int(1)? == PARTNER_ACTIVE, livemode: row.int(2)? != 0 };
        view.partners.insert(PartnerId::from_uuid(row.uuid(0)?), partner);
    }
    for row in settlement {
        let currency = row.string(1)?.parse().map_err(|_| unreadable(1))?;
        let key = (PartnerId::from_uuid(row.uuid(0)?), currency);
        view.settlement_accounts.insert(key, AccountId::from_uuid(row.uuid(2)?));
    }
    for row in mandates {
        let mandate = mandate(row)?;
        view.mandates.insert(mandate.id, Slot::read(mandate));
    }
    let mut not_before = Timestamp::default();
    for row in accounts {
        let account = account(row)?;
        not_before = not_before.max(account.entered_at);
        view.accounts.insert(account.id, Slot::read(account));
    }
    for row in sequences {
        let sequence = Sequence { last: row.small(1)?, epoch: row.small(2)? };
        view.sequences.insert(PartnerId::from_uuid(row.uuid(0)?), Slot::read(sequence));
    }
    let positions = positions.iter().map(StoredPosition::read).collect::<Result<_, _>>()?;
    Ok(Loaded { positions, view, not_before })
}

/// Whether every account that a loaded mandate or settlement needs is loaded too. It is not when one was made
/// after the facts were read: then the transaction begins again.
pub fn is_complete(view: &View, items: &[Item]) -> bool {
    items.iter().all(|item| match &item.content {
        Content::Partner(envelope) => match &envelope.command {
            PartnerCommand::Payment(payment) => {
                let debit = view.mandates.get(&payment.mandate).map(|slot| slot.row.account);
                let credit = view.settlement_accounts.get(&(envelope.partner, payment.currency));
                debit.iter().chain(credit).all(|account| view.accounts.contains_key(account))
            }
        },
        Content::Bank(envelope, _) => match &envelope.command {
            BankCommand::RevokeMandate { mandate } => {
                view.mandates.get(mandate).is_none_or(|slot| view.sequences.contains_key(&slot.row.partner))
            }
            BankCommand::Deposit(deposit) => {
                view.accounts.get(&deposit.account).is_none_or(|slot| match slot.row.owner {
                    Owner::Partner(partner) => view.partners.contains_key(&partner),
                    Owner::Customer(_) | Owner::Bank => true,
                })
            }
            BankCommand::OpenAccount(_)
            | BankCommand::GrantMandate(_)
            | BankCommand::FreezeAccount { .. }
            | BankCommand::UnfreezeAccount { .. } => true,
        },
        Content::Undecodable(_) => true,
    })
}

/// Adds the conflicts that these items may repeat: ids that are used, by the ledger or earlier in the batch, for
/// another request. Rare, so the look-up is a round trip of its own.
pub async fn load_conflicts(
    session: &mut Session,
    view: &mut View,
    items: &[Item],
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
    select_used(&mut sql, &conflicts, &conflicts);
    let answer = session.send(&sql).await?;
    for row in answer.rows.iter().flatten() {
        let fingerprint = Fingerprint::from_bytes(row.bytes(1)?).ok_or_else(|| unreadable(1))?;
        view.used.insert(row.uuid(0)?, fingerprint);
    }
    Ok(())
}

fn select_used(sql: &mut Sql, ids: &BTreeSet<Uuid>, bank_ids: &BTreeSet<Uuid>) {
    sql.text("SELECT id, fingerprint FROM payments WHERE id IN (NULL");
    push_ids(sql, ids.iter().copied());
    sql.text("); SELECT id, fingerprint FROM changes WHERE id IN (NULL");
    push_ids(sql, bank_ids.iter().copied());
    sql.text(")");
}

fn statements(references: &References) -> Sql {
    let mut sql = Sql::with_capacity(1024 + 200 * references.ids.len());
    sql.text("START TRANSACTION; ");
    super::positions::select_for_update(&mut sql, references.partitions.iter().copied());
    sql.text("; ");
    select_used(&mut sql, &references.ids, &references.bank_ids);
    sql.text("; SELECT DISTINCT root_id FROM dead_letters WHERE status = 1 AND root_id IN (NULL");
    push_ids(&mut sql, references.roots.iter().copied());
    sql.text("); SELECT id, status, livemode FROM partners WHERE id IN (NULL");
    push_ids(&mut sql, references.partners.iter().map(PartnerId::uuid));
    sql.text("); SELECT partner_id, currency, account_id FROM settlement_accounts WHERE partner_id IN (NULL");
    push_ids(&mut sql, references.unsettled.iter().map(PartnerId::uuid));
    sql.text(
        "); SELECT id, partner_id, account_id, kind, status, version, currency, payment_max_minor, \
         daily_max_minor, spent_day, spent_minor, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), reference, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', granted_at) \
         FROM mandates FORCE INDEX (PRIMARY) WHERE id IN (NULL",
    );
    push_ids(&mut sql, references.mandates.iter().map(MandateId::uuid));
    sql.text(
        ") ORDER BY id FOR UPDATE; SELECT id, owner_kind, owner_id, currency, status, balance_minor, held_minor, \
         overdraft_minor, payment_max_minor, daily_max_minor, spent_day, spent_minor, version, head, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', entered_at) \
         FROM accounts FORCE INDEX (PRIMARY) WHERE id IN (NULL",
    );
    push_ids(&mut sql, references.accounts.iter().map(AccountId::uuid));
    sql.text(
        ") ORDER BY id FOR UPDATE; SELECT partner_id, last_sequence, epoch \
         FROM partner_sequences FORCE INDEX (PRIMARY) WHERE partner_id IN (NULL",
    );
    push_ids(&mut sql, references.sequences.iter().map(PartnerId::uuid));
    sql.text(") ORDER BY partner_id FOR UPDATE");
    sql
}

fn push_ids(sql: &mut Sql, ids: impl Iterator<Item = Uuid>) {
    for id in ids {
        sql.text(",").uuid(id);
    }
}

fn mandate(row: &MySqlRow) -> Result<Mandate, StoreError> {
    Ok(Mandate {
        id: MandateId::from_uuid(row.uuid(0)?),
        partner: PartnerId::from_uuid(row.uuid(1)?),
        account: AccountId::from_uuid(row.uuid(2)?),
        kind: row.code(3, MandateKind::from_code)?,
        status: row.code(4, MandateStatus::from_code)?,
        version: row.small(5)?,
        currency: row.string(6)?.parse().map_err(|_| unreadable(6))?,
        payment_max_minor: row.opt_int(7)?,
        daily_max_minor: row.opt_int(8)?,
        spent: Spent { day: Day(row.small(9)?), minor: row.int(10)? },
        expires_at: row.opt_int(11)?.map(Timestamp::from_micros),
        reference: match row.opt_bytes(12)? {
            Some(_) => Some(row.string(12)?.to_owned()),
            None => None,
        },
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
    })
}
