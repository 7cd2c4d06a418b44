//! The accounts of a partner.

use domain::account::{AccountStatus, OwnerKind};
use domain::ids::{AccountId, PartnerId};
use domain::money::Currency;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool};

use super::{Columns, StoreError};

/// A partner has an account or two per currency.
const BALANCES_MAX: usize = 1_000;

/// One account of a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// The account.
    pub id: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Its status.
    pub status: AccountStatus,
    /// Minor units.
    pub balance_minor: i64,
    /// Minor units.
    pub held_minor: i64,
    /// Minor units.
    pub overdraft_minor: i64,
    /// How many entries it has.
    pub version: u64,
}

/// The accounts of a partner, by currency.
pub async fn accounts(pool: &MySqlPool, partner: PartnerId) -> Result<Vec<AccountRow>, StoreError> {
    read(pool, partner, None).await
}

/// One account, when it is the partner's.
pub async fn account(
    pool: &MySqlPool,
    partner: PartnerId,
    id: AccountId,
) -> Result<Option<AccountRow>, StoreError> {
    Ok(read(pool, partner, Some(id)).await?.pop())
}

async fn read(
    pool: &MySqlPool,
    partner: PartnerId,
    id: Option<AccountId>,
) -> Result<Vec<AccountRow>, StoreError> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT id, currency, status, balance_minor, held_minor, overdraft_minor, version FROM accounts \
         WHERE owner_kind = ",
    );
    sql.int(OwnerKind::Partner.code()).text(" AND owner_id = ").uuid(partner.uuid());
    if let Some(id) = id {
        sql.text(" AND id = ").uuid(id.uuid());
    }
    sql.text(" ORDER BY currency, id LIMIT ").int(BALANCES_MAX as i64);
    let rows = pool.fetch_all(sql.as_str()).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new("accounts", row);
            Ok(AccountRow {
                id: AccountId::from_uuid(columns.uuid()?),
                currency: columns.currency()?,
                status: columns.code(AccountStatus::from_code)?,
                balance_minor: columns.take()?,
                held_minor: columns.take()?,
                overdraft_minor: columns.take()?,
                version: columns.take()?,
            })
        })
        .collect()
}
