//! Facts that never change once they are there, remembered so that the accounts of a batch are known before it
//! locks anything: whom a mandate debits, where a partner is credited, whose an account is.

use std::num::NonZeroUsize;

use domain::account::OwnerKind;
use domain::ids::{AccountId, MandateId, PartnerId};
use domain::money::Currency;
use lru::LruCache;
use runtime::sql::Sql;

use super::error::StoreError;
use super::row::{Columns as _, unreadable};
use super::session::Session;

/// How many mandates and accounts are remembered, about 100 bytes each. Fewer cost a read per batch once more
/// are in use; more cost memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(200_000).unwrap();

/// What is remembered. Absence is never remembered: it may end at any time.
pub struct Facts {
    mandates: LruCache<MandateId, (PartnerId, AccountId)>,
    settlement: LruCache<(PartnerId, Currency), AccountId>,
    owners: LruCache<AccountId, Option<PartnerId>>,
}

/// What a batch asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Mandates.
    pub mandates: Vec<MandateId>,
    /// Settlement accounts.
    pub settlement: Vec<(PartnerId, Currency)>,
    /// Accounts whose owner may be a partner.
    pub owners: Vec<AccountId>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            mandates: LruCache::new(REMEMBERED),
            settlement: LruCache::new(REMEMBERED),
            owners: LruCache::new(REMEMBERED),
        }
    }
}

impl Facts {
    /// The partner and the account of a mandate.
    pub fn mandate(&mut self, id: MandateId) -> Option<(PartnerId, AccountId)> {
        self.mandates.get(&id).copied()
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
        let settlement: Vec<_> =
            wanted.settlement.iter().filter(|key| !self.settlement.contains(key)).collect();
        let owners: Vec<_> = wanted.owners.iter().filter(|id| !self.owners.contains(id)).collect();
        if mandates.is_empty() && settlement.is_empty() && owners.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new();
        sql.text("SELECT id, partner_id, account_id FROM mandates WHERE id IN (NULL");
        for id in mandates {
            sql.text(",").uuid(id.uuid());
        }
        sql.text(
            "); SELECT partner_id, currency, account_id FROM settlement_accounts WHERE partner_id IN (NULL",
        );
        for (partner, _) in settlement {
            sql.text(",").uuid(partner.uuid());
        }
        sql.text("); SELECT id, owner_kind, owner_id FROM accounts WHERE id IN (NULL");
        for id in owners {
            sql.text(",").uuid(id.uuid());
        }
        sql.text(")");
        let answer = session.send(&sql).await?;
        let [mandates, settlement, owners, ..] = answer.rows.as_slice() else { return Err(unreadable(0)) };
        for row in mandates {
            let fact = (PartnerId::from_uuid(row.uuid(1)?), AccountId::from_uuid(row.uuid(2)?));
            self.mandates.put(MandateId::from_uuid(row.uuid(0)?), fact);
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
