//! Entries of one account: the primary key (account, version) serves a page as a range, and any past instant as a
//! search over versions.

use domain::account::{Direction, Owner, OwnerKind};
use domain::ids::{AccountId, PaymentId};
use domain::past::{Looking, Past, Search};
use domain::payment::PaymentKind;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool};

use super::super::Columns;

/// An entry, with what its payment says.
#[derive(Debug)]
pub struct EntryRow {
    /// Counts the account's entries.
    pub version: u64,
    /// What moved the money.
    pub payment: PaymentId,
    /// Its kind.
    pub kind: Option<PaymentKind>,
    /// Which side.
    pub direction: Direction,
    /// Minor units.
    pub amount_minor: i64,
    /// Minor units after it.
    pub balance_minor: i64,
    /// When.
    pub entered_at: Timestamp,
    /// What whoever asked for the payment calls it.
    pub reference: Option<String>,
    /// What both sides read on the statement.
    pub description: Option<String>,
    /// The account on the other side, and whose it is.
    pub counter: Option<(AccountId, Owner)>,
    /// The name of the other side's owner, when that is a partner.
    pub partner_name: Option<String>,
}

/// The entries of an account from version `first` to `last`, both inclusive.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The account.
    pub account: AccountId,
    /// The lowest version.
    pub first: u64,
    /// The highest version.
    pub last: u64,
    /// The oldest first.
    pub ascending: bool,
}

/// Up to `rows_max` entries of a range.
pub async fn entries(pool: &MySqlPool, range: Range, rows_max: usize) -> Result<Vec<EntryRow>, sqlx::Error> {
    let rows = pool.fetch_all(select(range, rows_max).as_str()).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            Ok(EntryRow {
                version: columns.take()?,
                payment: PaymentId::from_uuid(columns.uuid()?),
                kind: columns.opt_named(PaymentKind::from_code)?,
                direction: columns.named(Direction::from_code)?,
                amount_minor: columns.take()?,
                balance_minor: columns.take()?,
                entered_at: columns.time()?,
                reference: columns.take()?,
                description: columns.take()?,
                partner_name: columns.take()?,
                counter: counter(&mut columns)?,
            })
        })
        .collect()
}

fn counter(columns: &mut Columns<'_>) -> Result<Option<(AccountId, Owner)>, sqlx::Error> {
    let (id, kind) = (columns.opt_uuid()?, columns.opt_named(OwnerKind::from_code)?);
    let owner = columns.opt_uuid()?;
    Ok(id
        .zip(kind)
        .zip(owner)
        .map(|((id, kind), owner)| (AccountId::from_uuid(id), Owner::from_stored(kind, owner))))
}

fn select(range: Range, rows_max: usize) -> Sql {
    let mut sql = Sql::with_capacity(1_024);
    sql.text(
        "SELECT e.version, e.payment_id, p.kind, e.direction, e.amount_minor, e.balance_minor, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.entered_at), p.reference, p.description, n.name, \
         c.id, c.owner_kind, c.owner_id FROM entries e \
         LEFT JOIN payments p FORCE INDEX (payments_id) ON p.id = e.payment_id \
         LEFT JOIN accounts c FORCE INDEX (PRIMARY) ON c.id = IF(e.direction = ",
    );
    sql.int(Direction::Debit.code()).text(", p.credit_account, p.debit_account) ");
    sql.text("LEFT JOIN partners n FORCE INDEX (PRIMARY) ON c.owner_kind = ").int(OwnerKind::Partner.code());
    sql.text(" AND n.id = c.owner_id WHERE e.account_id = ").uuid(range.account.uuid());
    sql.text(" AND e.version BETWEEN ").int(range.first).text(" AND ").int(range.last);
    sql.text(if range.ascending { " ORDER BY e.version LIMIT " } else { " ORDER BY e.version DESC LIMIT " });
    sql.int(rows_max as i64);
    sql
}

/// The state of an account at an instant.
pub async fn past(pool: &MySqlPool, search: Search) -> Result<Past, sqlx::Error> {
    let mut looking = Looking::begin(search);
    while looking.is_open() {
        let before = (looking.found.version, looking.last);
        let rows = pool.fetch_all(look(&looking).as_str()).await?;
        for row in &rows {
            let mut columns = Columns::new(row);
            let (version, balance, at) = (columns.take()?, columns.take()?, columns.time()?);
            looking.take(version, balance, at);
        }
        if (looking.found.version, looking.last) == before {
            let what = format!("account {} has no entries up to its version", search.account);
            return Err(sqlx::Error::Decode(what.into()));
        }
    }
    Ok(looking.found)
}

fn look(looking: &Looking) -> Sql {
    let mut sql = Sql::with_capacity(512);
    sql.text(
        "SELECT version, balance_minor, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', entered_at) FROM entries ",
    );
    sql.text("WHERE account_id = ").uuid(looking.search.account.uuid()).text(" AND version IN (");
    sql.list(looking.pivots(), |sql, version| {
        sql.int(version);
    });
    sql.text(")");
    sql
}

/// [`entries`] and one round of [`past`], explained.
pub async fn explain(
    pool: &MySqlPool,
    range: Range,
    search: Search,
) -> Result<[Vec<[String; 3]>; 2], sqlx::Error> {
    let page = runtime::mysql::explain(pool, &select(range, 51)).await?;
    Ok([page, runtime::mysql::explain(pool, &look(&Looking::begin(search))).await?])
}
