//! The accounts of a partner.

use domain::account::{AccountStatus, OwnerKind};
use domain::ids::{AccountId, PartnerId};
use domain::money::Currency;
use runtime::sql::Sql;
use sqlx::MySqlPool;

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
}

/// The accounts of a partner, by currency.
pub async fn accounts(pool: &MySqlPool, partner: PartnerId) -> Result<Vec<AccountRow>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT id, currency, status, balance_minor, held_minor, overdraft_minor FROM accounts WHERE owner_kind = ")
        .int(OwnerKind::Partner.code())
        .text(" AND owner_id = ")
        .uuid(partner.uuid())
        .text(" ORDER BY currency, id LIMIT ")
        .int(BALANCES_MAX as i64);
    let rows = sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?;
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
            })
        })
        .collect()
}
