//! All SQL of ingest, a file per group of tables.

pub mod accounts;
pub mod applications;
pub mod deliveries;
pub mod endpoints;
pub mod events;
pub mod follow_ups;
pub mod idempotency;
pub mod keys;
pub mod mandates;
pub mod notices;
pub mod payment_list;
pub mod payments;
pub mod replays;
pub mod statements;

use domain::money::Currency;
use domain::time::Timestamp;
use sqlx::mysql::{MySqlDatabaseError, MySqlRow};
use sqlx::{Decode, MySql, Row, Type};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

/// Why MySQL could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database, or the way to it.
    #[error("MySQL: {0}")]
    Database(#[from] sqlx::Error),
    /// A row that no honest writer stored.
    #[error("{table} holds a row that cannot be read: {what}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Another transaction was in the way.
    #[error("another transaction was in the way")]
    Busy,
}

/// Deadlock, lock wait, a duplicate that another transaction made first, a server that goes away, starts or is full,
/// and TiDB's ways to say "again".
const PASSING: [u16; 18] = [
    1213, 1205, 1062, 1040, 1053, 1077, 1079, 1158, 1159, 1160, 1161, 1290, 1836, 1927, 4031, 8022, 8028,
    9007,
];

impl StoreError {
    /// Whether the same may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Busy => true,
            Self::Row { .. } => false,
            Self::Database(sqlx::Error::Database(error)) => {
                let mysql = error.try_downcast_ref::<MySqlDatabaseError>();
                mysql.is_some_and(|mysql| {
                    PASSING.contains(&mysql.number())
                        || (mysql.number() == 1105 && mysql.message().contains("retry limit"))
                })
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::WorkerCrashed
            ),
        }
    }
}

/// An id as it is stored.
fn bytes<T: StaticType>(id: &TypeSafeId<T>) -> Vec<u8> {
    id.uuid().as_bytes().to_vec()
}

/// Whether a row with this key is there already.
fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// The columns of a row in their order. Types are not compared with the server's: sqlx takes text with a binary
/// collation for bytes.
struct Columns<'r> {
    table: &'static str,
    row: &'r MySqlRow,
    next: usize,
}

impl<'r> Columns<'r> {
    const fn new(table: &'static str, row: &'r MySqlRow) -> Self {
        Self { table, row, next: 0 }
    }

    fn take<T: Decode<'r, MySql> + Type<MySql>>(&mut self) -> Result<T, StoreError> {
        let index = self.next;
        self.next += 1;
        Ok(self.row.try_get_unchecked(index)?)
    }

    fn wrong(&self, what: &dyn std::fmt::Display) -> StoreError {
        StoreError::Row { table: self.table, what: format!("column {}: {what}", self.next) }
    }

    fn uuid(&mut self) -> Result<Uuid, StoreError> {
        self.opt_uuid()?.ok_or_else(|| self.wrong(&"NULL"))
    }

    fn opt_uuid(&mut self) -> Result<Option<Uuid>, StoreError> {
        let bytes: Option<&[u8]> = self.take()?;
        bytes.map(Uuid::from_slice).transpose().map_err(|error| self.wrong(&error))
    }

    /// Selected as microseconds since 1970.
    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.take().map(Timestamp::from_micros)
    }

    fn opt_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    fn code<T>(&mut self, from_code: fn(u8) -> Option<T>) -> Result<T, StoreError> {
        self.opt_code(from_code)?.ok_or_else(|| self.wrong(&"NULL"))
    }

    fn opt_code<T>(&mut self, from_code: fn(u8) -> Option<T>) -> Result<Option<T>, StoreError> {
        let code: Option<u8> = self.take()?;
        code.map(|code| from_code(code).ok_or_else(|| self.wrong(&format_args!("unknown code {code}"))))
            .transpose()
    }

    fn currency(&mut self) -> Result<Currency, StoreError> {
        self.opt_currency()?.ok_or_else(|| self.wrong(&"NULL"))
    }

    fn opt_currency(&mut self) -> Result<Option<Currency>, StoreError> {
        let text: Option<&str> = self.take()?;
        text.map(str::parse).transpose().map_err(|error: domain::money::UnknownCurrency| self.wrong(&error))
    }
}
