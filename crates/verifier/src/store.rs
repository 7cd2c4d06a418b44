//! Every statement of the verifier; all of them only read.
//!
//! Text is made by the literal encoder, so nothing is prepared. A page is bounded in rows, and its key is the
//! table's primary key. Where two tables must agree although the bank is at work, one statement reads both: under
//! READ COMMITTED a statement sees one state.

use runtime::sql::Sql;
use sqlx::{Executor as _, MySqlConnection, MySqlPool, Row as _, mysql::MySqlRow};
use uuid::Uuid;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Accounts, mandates or partners in a page.
pub(crate) const PAGE: u32 = 500;
/// Payments or changes in a page; each has two entries and an event read along.
pub(crate) const COMMAND_PAGE: u32 = 1_000;
/// Entries or events in a page: half a megabyte.
pub(crate) const RANGE_ROWS_MAX: u64 = 2_000;
/// Accounts or partners whose entries or events are read by one statement.
pub(crate) const RANGES_MAX: usize = 200;

/// Microseconds since 1970 of a DATETIME(6) in UTC.
macro_rules! micros {
    ($column:literal) => {
        concat!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ", $column, ")")
    };
}

mod accounts;
mod audit;
mod checkpoints;
mod commands;
mod dead_letters;
mod deliveries;
mod events;
mod export;
mod mandates;
mod snapshot;
pub(crate) mod unaccounted;

pub(crate) use accounts::*;
pub(crate) use audit::*;
pub(crate) use checkpoints::*;
pub(crate) use commands::*;
pub(crate) use dead_letters::*;
pub(crate) use deliveries::*;
pub(crate) use events::*;
pub(crate) use export::*;
pub(crate) use mandates::*;
pub(crate) use snapshot::*;

fn uuid(row: &MySqlRow, column: usize) -> Result<Uuid> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn opt_uuid(row: &MySqlRow, column: usize) -> Result<Option<Uuid>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

fn bytes<const N: usize>(row: &MySqlRow, column: usize) -> Result<[u8; N]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{N} bytes expected").into()))
}

/// Text: MySQL marks columns with a binary collation as binary, so sqlx would refuse to read them as text.
fn text(row: &MySqlRow, column: usize) -> Result<String> {
    row.try_get_unchecked(column)
}

fn opt_text(row: &MySqlRow, column: usize) -> Result<Option<String>> {
    row.try_get_unchecked(column)
}

/// A DECIMAL, read as text: sums of BIGINT may be wider.
fn number(row: &MySqlRow, column: usize) -> Result<i128> {
    text(row, column)?.parse().map_err(|_| sqlx::Error::Decode("a sum that is no number".into()))
}

async fn rows<T>(pool: &MySqlPool, sql: &Sql, read: impl Fn(&MySqlRow) -> Result<T>) -> Result<Vec<T>> {
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

async fn rows_of<T>(
    connection: &mut MySqlConnection,
    sql: &'static str,
    read: impl Fn(&MySqlRow) -> Result<T>,
) -> Result<Vec<T>> {
    connection.fetch_all(sql).await?.iter().map(read).collect()
}

async fn by_ids<T>(
    pool: &MySqlPool,
    select: &'static str,
    filter: &'static str,
    ids: &[Uuid],
    read: impl Fn(&MySqlRow) -> Result<T>,
) -> Result<Vec<T>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text(select).text(filter).list(ids, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(")");
    rows(pool, &sql, read).await
}

/// The first owner of rows after `after` and up to `up_to` that the parent table does not have.
async fn orphan(
    pool: &MySqlPool,
    [select, column, join]: [&'static str; 3],
    after: Option<Uuid>,
    up_to: Option<Uuid>,
) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text(select).text(column);
    match after {
        Some(after) => sql.text(" > ").uuid(after),
        None => sql.text(" IS NOT NULL"),
    };
    if let Some(up_to) = up_to {
        sql.text(" AND ").text(column).text(" <= ").uuid(up_to);
    }
    sql.text(join);
    Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
}

/// Rows `first..=last` of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) owner: Uuid,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Adds the condition of these ranges. Their table is read with FORCE INDEX: where they are a good part of it, MySQL would
/// rather read all of it, again for every page.
fn in_ranges(sql: &mut Sql, owner: &'static str, number: &'static str, ranges: &[Range]) {
    for (index, range) in ranges.iter().enumerate() {
        sql.text(if index == 0 { "(" } else { " OR (" }).text(owner).text(" = ").uuid(range.owner);
        sql.text(" AND ").text(number).text(" >= ").int(range.first);
        sql.text(" AND ").text(number).text(" <= ").int(range.last).text(")");
    }
    sql.text(" ORDER BY ").text(owner).text(", ").text(number);
}
