//! Facts remembered so that the accounts of a batch are known before it locks anything: whom a mandate debits, which
//! accounts a payment moves money between, where a partner is credited, whose an account is.
//!
//! All but the settlement account never change once they are there. That one is read again with every batch: what is
//! remembered of it only says what to lock.

use std::num::NonZeroUsize;

use domain::account::OwnerKind;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::money::Currency;
use lru::LruCache;
use runtime::sql::Sql;
use uuid::Uuid;

use super::error::StoreError;
use super::row::{Columns as _, unreadable};
use super::session::Session;

/// How many mandates, payments and accounts are remembered, about 100 bytes each. Fewer cost a read per batch once more
/// are in use; more cost memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(200_000).unwrap();

/// What is remembered. Absence is never remembered: it may end at any time.
pub struct Facts {
    mandates: LruCache<MandateId, (PartnerId, Option<AccountId>)>,
    payments: LruCache<PaymentId, RootFact>,
    settlement: LruCache<(PartnerId, Currency), AccountId>,
    owners: LruCache<AccountId, Option<PartnerId>>,
}

/// What never changes of a payment that others belong to.
#[derive(Debug, Clone, Copy)]
pub struct RootFact {
    /// Who sees it.
    pub partner: Option<PartnerId>,
    /// Debited and credited, when anything moved or may move.
    pub accounts: [Option<AccountId>; 2],
}

/// What a batch asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Mandates.
    pub mandates: Vec<MandateId>,
    /// Payments that others belong to.
    pub payments: Vec<PaymentId>,
    /// Settlement accounts.
    pub settlement: Vec<(PartnerId, Currency)>,
    /// Accounts whose owner may be a partner.
    pub owners: Vec<AccountId>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            mandates: LruCache::new(REMEMBERED),
            payments: LruCache::new(REMEMBERED),
            settlement: LruCache::new(REMEMBERED),
            owners: LruCache::new(REMEMBERED),
        }
    }
}

impl Facts {
    /// The partner and the account of a mandate.
    pub fn mandate(&mut self, id: MandateId) -> Option<(PartnerId, Option<AccountId>)> {
        self.mandates.get(&id).copied()
    }

    /// The accounts of a payment.
    pub fn payment(&mut self, id: PaymentId) -> Option<RootFact> {
        self.payments.get(&id).copied()
    }

    /// Where a partner's payments are credited now.
    pub fn settles(&mut self, partner: PartnerId, currency: Currency, account: AccountId) {
        self.settlement.put((partner, currency), account);
    }

    /// Where a partner's payments are credited.
    pub fn settlement(&mut self, partner: PartnerId, currency: Currency) -> Option<AccountId> {
        self.settlement.get(&(partner, currency)).copied()
    }

    /// The partner that owns an account.
    pub fn owner(&mut self, account: AccountId) -> Option<PartnerId> {
        self.owners.get(&account).copied().flatten()
    }

    /// Reads what is wanted and not remembered, in one round trip or none.
    pub async fn learn(&mut self, session: &mut Session, wanted: &Wanted) -> Result<(), StoreError> {
        let mandates: Vec<_> = wanted.mandates.iter().filter(|id| !self.mandates.contains(id)).collect();
        let payments: Vec<_> = wanted.payments.iter().filter(|id| !self.payments.contains(id)).collect();
        let settlement: Vec<_> =
            wanted.settlement.iter().filter(|key| !self.settlement.contains(key)).collect();
        let owners: Vec<_> = wanted.owners.iter().filter(|id| !self.owners.contains(id)).collect();
        if mandates.is_empty() && payments.is_empty() && settlement.is_empty() && owners.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new();
        sql.text("SELECT id, partner_id, account_id FROM mandates WHERE id IN (NULL");
        push(&mut sql, mandates.into_iter().map(MandateId::uuid));
        sql.text("); SELECT id, partner_id, debit_account, credit_account FROM payments WHERE id IN (NULL");
        push(&mut sql, payments.into_iter().map(PaymentId::uuid));
        sql.text(
            "); SELECT partner_id, currency, account_id FROM settlement_accounts WHERE partner_id IN (NULL",
        );
        push(&mut sql, settlement.into_iter().map(|(partner, _)| partner.uuid()));
        sql.text("); SELECT id, owner_kind, owner_id FROM accounts WHERE id IN (NULL");
        push(&mut sql, owners.into_iter().map(AccountId::uuid));
        sql.text(")");
        let answer = session.send(&sql).await?;
        let [mandates, payments, settlement, owners, ..] = answer.rows.as_slice() else {
            return Err(unreadable(0));
        };
        for row in mandates {
            let fact = (PartnerId::from_uuid(row.uuid(1)?), row.opt_uuid(2)?.map(AccountId::from_uuid));
            self.mandates.put(MandateId::from_uuid(row.uuid(0)?), fact);
        }
        for row in payments {
            let account = |index| Ok::<_, StoreError>(row.opt_uuid(index)?.map(AccountId::from_uuid));
            let fact = RootFact {
                partner: row.opt_uuid(1)?.map(PartnerId::from_uuid),
                accounts: [account(2)?, account(3)?],
            };
            self.payments.put(PaymentId::from_uuid(row.uuid(0)?), fact);
        }
        for row in settlement {
            let currency = row.string(1)?.parse().map_err(|_| unreadable(1))?;
            let key = (PartnerId::from_uuid(row.uuid(0)?), currency);
            self.settlement.put(key, AccountId::from_uuid(row.uuid(2)?));
        }
        for row in owners {
            let owner = match row.code(1, OwnerKind::from_code)? {
                OwnerKind::Partner => Some(PartnerId::from_uuid(row.uuid(2)?)),
                OwnerKind::Customer | OwnerKind::Bank => None,
            };
            self.owners.put(AccountId::from_uuid(row.uuid(0)?), owner);
        }
        Ok(())
    }
}

fn push(sql: &mut Sql, ids: impl Iterator<Item = Uuid>) {
    for id in ids {
        sql.text(",").uuid(id);
    }
}
