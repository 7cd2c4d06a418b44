//! All SQL of the notifier.
//!
//! Order of locks, within any transaction: `replays`, `endpoint_states`, `notices`, `deliveries`, each by primary key
//! ascending, then inserts into `attempts`, then `delivery_counts`. No transaction spans a request.

use std::sync::atomic::{AtomicU64, Ordering};

use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};
use uuid::Uuid;

pub mod catch_up;
pub mod claims;
pub mod deliveries;
pub mod endpoint_states;
pub mod endpoints;
pub mod expiry;
pub mod notices;
pub mod replays;

/// An event at an endpoint: the primary key of `deliveries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The endpoint.
    pub endpoint: Uuid,
    /// The event.
    pub event: Uuid,
}

/// The status of a delivery, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// To be attempted.
    Pending,
    /// Accepted by the receiver.
    Delivered,
    /// Given up.
    Dead,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Pending => 1,
            Self::Delivered => 2,
            Self::Dead => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, sqlx::Error> {
        match code {
            1 => Ok(Self::Pending),
            2 => Ok(Self::Delivered),
            3 => Ok(Self::Dead),
            _ => Err(sqlx::Error::Decode(format!("unknown delivery status {code}").into())),
        }
    }
}

static STATEMENTS: AtomicU64 = AtomicU64::new(0);

/// How many statements this process has sent, for the ratio per delivery.
pub fn statements() -> u64 {
    STATEMENTS.load(Ordering::Relaxed)
}

fn count(statements: u64) {
    STATEMENTS.fetch_add(statements, Ordering::Relaxed);
}

async fn fetch(
    connection: &mut MySqlConnection,
    sql: &str,
    statements: u64,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    count(statements);
    connection.fetch_all(sqlx::raw_sql(sql)).await
}

async fn execute(connection: &mut MySqlConnection, sql: &str, statements: u64) -> Result<u64, sqlx::Error> {
    count(statements);
    Ok(connection.execute(sqlx::raw_sql(sql)).await?.rows_affected())
}

fn uuid(row: &MySqlRow, column: usize) -> Result<Uuid, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Reads a DATETIME that was selected as microseconds since 1970.
fn instant(row: &MySqlRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp::from_micros)
}

fn opt_instant(row: &MySqlRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
}

/// Reads characters: columns with a binary collation arrive as bytes.
fn text(row: &MySqlRow, column: usize) -> Result<String, sqlx::Error> {
    opt_text(row, column)?.ok_or_else(|| sqlx::Error::Decode("a text is NULL".into()))
}

fn opt_text(row: &MySqlRow, column: usize) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    bytes.map(String::from_utf8).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}
