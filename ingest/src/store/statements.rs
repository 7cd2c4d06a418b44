//! Entries of one account: the primary key (account, version) serves a page as a range, and any past instant as a
//! search over versions, since entries never go back in time.

use domain::account::Direction;
use domain::ids::{AccountId, PartnerId, PaymentId};
use domain::past::{Looking, Past, Search};
use domain::payment::PaymentKind;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlConnection, MySqlPool};

use super::{Columns, StoreError};

/// The state of each account at its instant, all in the same rounds.
pub async fn past(pool: &MySqlPool, searches: &[Search]) -> Result<Vec<Past>, StoreError> {
    let mut searches: Vec<Looking> = searches.iter().copied().map(Looking::begin).collect();
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = pool.acquire().await?;
    while searches.iter().any(Looking::is_open) {
        round(&mut connection, &mut searches).await?;
    }
    Ok(searches.into_iter().map(|search| search.found).collect())
}

async fn round(connection: &mut MySqlConnection, searches: &mut [Looking]) -> Result<(), StoreError> {
    let mut sql = Sql::with_capacity(searches.len() * 320);
    let mut is_first = true;
    for (index, search) in searches.iter().enumerate().filter(|(_, it)| it.is_open()) {
        sql.text(if is_first { "SELECT " } else { " UNION ALL SELECT " });
        is_first = false;
        sql.int(index as i64)
            .text(", version, balance_minor, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', entered_at) FROM entries ")
            .text("WHERE account_id = ")
            .uuid(search.search.account.uuid())
            .text(" AND version IN (")
            .list(search.pivots(), |sql, version| {
                sql.int(version);
            })
            .text(")");
    }
    let before: Vec<_> = searches.iter().map(|it| (it.found.version, it.last)).collect();
    for row in &connection.fetch_all(sql.as_str()).await? {
        let mut columns = Columns::new("entries", row);
        let index: i64 = columns.take()?;
        let (version, balance, at) = (columns.take()?, columns.take()?, columns.time()?);
        if let Some(search) = usize::try_from(index).ok().and_then(|index| searches.get_mut(index)) {
            search.take(version, balance, at);
        }
    }
    for (search, before) in searches.iter().zip(before) {
        let open = before.0 < before.1;
        if open && (search.found.version, search.last) == before {
            let what = format!("account {} has no entries up to its version", search.search.account);
            return Err(StoreError::Row { table: "entries", what });
        }
    }
    Ok(())
}

/// An entry of a statement.
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
    /// The payment's reference, when it is the partner's own payment.
    pub reference: Option<String>,
    /// What both sides read on the statement.
    pub description: Option<String>,
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
pub async fn entries(
    pool: &MySqlPool,
    partner: PartnerId,
    range: Range,
    rows_max: usize,
) -> Result<Vec<EntryRow>, StoreError> {
    let mut sql = Sql::with_capacity(640);
    sql.text(
        "SELECT e.version, e.payment_id, p.kind, e.direction, e.amount_minor, e.balance_minor, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.entered_at), IF(p.partner_id = ",
    );
    sql.uuid(partner.uuid());
    sql.text(
        ", p.reference, NULL), p.description FROM entries e LEFT JOIN payments p ON p.id = e.payment_id ",
    );
    sql.text("WHERE e.account_id = ").uuid(range.account.uuid());
    sql.text(" AND e.version BETWEEN ").int(range.first).text(" AND ").int(range.last);
    sql.text(if range.ascending { " ORDER BY e.version LIMIT " } else { " ORDER BY e.version DESC LIMIT " });
    sql.int(rows_max as i64);
    let rows = pool.fetch_all(sql.as_str()).await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new("entries", row);
            Ok(EntryRow {
                version: columns.take()?,
                payment: PaymentId::from_uuid(columns.uuid()?),
                kind: columns.opt_code(PaymentKind::from_code)?,
                direction: columns.code(Direction::from_code)?,
                amount_minor: columns.take()?,
                balance_minor: columns.take()?,
                entered_at: columns.time()?,
                reference: columns.take()?,
                description: columns.take()?,
            })
        })
        .collect()
}
