//! The ledger, read: accounts here, entries and mandates in files of their own. The processor alone writes it.
//!
//! Statements are literal text, so that a test can have MySQL explain the very text that is run. Each list names its
//! index: by itself MySQL may prefer to walk a primary key backwards when it sees a LIMIT.

pub mod entries;
pub mod mandates;

use domain::account::{AccountStatus, Owner, OwnerKind};
use domain::ids::AccountId;
use domain::money::Currency;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlPool, Row};

use super::Columns;

/// An account.
#[derive(Debug, Clone)]
pub struct AccountRow {
    /// The account.
    pub id: AccountId,
    /// Whose it is.
    pub owner: Owner,
    /// Its currency.
    pub currency: Currency,
    /// Its status.
    pub status: AccountStatus,
    /// Whether it holds real money.
    pub livemode: bool,
    /// Minor units, as all of these.
    pub balance_minor: i64,
    /// What authorised payments hold.
    pub held_minor: i64,
    /// How far it may go below zero.
    pub overdraft_minor: i64,
    /// The most that one payment or transfer may debit.
    pub payment_max_minor: Option<i64>,
    /// The most that payments and transfers may debit in a day.
    pub daily_max_minor: Option<i64>,
    /// How many entries it has.
    pub version: u64,
}

impl AccountRow {
    /// What can be spent.
    pub const fn available_minor(&self) -> i64 {
        // The ledger keeps each of them far from the bounds of an i64.
        self.balance_minor.saturating_add(self.overdraft_minor).saturating_sub(self.held_minor)
    }
}

const ACCOUNTS: &str = "SELECT id, owner_kind, owner_id, currency, status, livemode, balance_minor, held_minor, \
     overdraft_minor, payment_max_minor, daily_max_minor, version FROM accounts";

fn read(row: &MySqlRow) -> Result<AccountRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(AccountRow {
        id: AccountId::from_uuid(columns.uuid()?),
        owner: Owner::from_stored(columns.named(OwnerKind::from_code)?, columns.uuid()?),
        currency: columns.parsed()?,
        status: columns.named(AccountStatus::from_code)?,
        livemode: columns.take::<u8>()? != 0,
        balance_minor: columns.take()?,
        held_minor: columns.take()?,
        overdraft_minor: columns.take()?,
        payment_max_minor: columns.take()?,
        daily_max_minor: columns.take()?,
        version: columns.take()?,
    })
}

/// One account.
pub async fn account(pool: &MySqlPool, id: AccountId) -> Result<Option<AccountRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(ACCOUNTS).text(" WHERE id = ").uuid(id.uuid());
    pool.fetch_all(sql.as_str()).await?.first().map(read).transpose()
}

/// Which accounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filters {
    /// Of this owner.
    pub owner: Option<Owner>,
    /// In this status.
    pub status: Option<AccountStatus>,
}

/// Accounts below an id, the highest id first.
pub async fn accounts(
    pool: &MySqlPool,
    filters: Filters,
    below: Option<AccountId>,
    rows_max: usize,
) -> Result<Vec<AccountRow>, sqlx::Error> {
    let mut sql = Sql::with_capacity(512);
    select(&mut sql, filters, below, rows_max);
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

fn select(sql: &mut Sql, filters: Filters, below: Option<AccountId>, rows_max: usize) {
    let index = match filters {
        Filters { owner: Some(_), .. } => " FORCE INDEX (accounts_of_owner) WHERE ",
        Filters { status: Some(_), .. } => " FORCE INDEX (accounts_of_status) WHERE ",
        Filters { .. } => " FORCE INDEX (PRIMARY) WHERE ",
    };
    sql.text(ACCOUNTS).text(index);
    if let Some(owner) = filters.owner {
        let (kind, id) = owner.stored();
        sql.text("owner_kind = ").int(kind.code()).text(" AND owner_id = ").uuid(id).text(" AND ");
    }
    if let Some(status) = filters.status {
        sql.text("status = ").int(status.code()).text(" AND ");
    }
    match below {
        Some(below) => sql.text("id < ").uuid(below.uuid()),
        None => sql.text("TRUE"),
    };
    sql.text(" ORDER BY id DESC LIMIT ").int(rows_max as i64);
}

/// How many accounts a customer has, and how many of them are not closed.
pub async fn count(pool: &MySqlPool, owner: Owner) -> Result<(u64, u64), sqlx::Error> {
    let (kind, id) = owner.stored();
    let mut sql = Sql::new();
    sql.text("SELECT COUNT(*), COUNT(IF(status = ").int(AccountStatus::Closed.code()).text(", NULL, 1)) ");
    sql.text("FROM accounts WHERE owner_kind = ").int(kind.code()).text(" AND owner_id = ").uuid(id);
    let rows = pool.fetch_all(sql.as_str()).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?))
}

/// [`accounts`], explained.
pub async fn explain(pool: &MySqlPool, filters: Filters) -> Result<Vec<[String; 3]>, sqlx::Error> {
    let mut sql = Sql::new();
    select(&mut sql, filters, Some(AccountId::from_uuid(uuid::Uuid::max())), 51);
    runtime::mysql::explain(pool, &sql).await
}
