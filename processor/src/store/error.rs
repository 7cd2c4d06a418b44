//! What a failing statement means for the batch.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

use super::positions::PartitionKey;

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// MySQL is away, the connection broke, or another transaction was in the way: the whole transaction again.
    #[error("transient: {0}")]
    Transient(#[source] Error),
    /// A value of one of the records does not fit: the record is to be found and set aside.
    #[error("a value does not fit: {0}")]
    Data(String),
    /// This machine's clock is ahead of MySQL's: nothing may be decided until it is right.
    #[error("{0}")]
    Clock(String),
    /// A record of this partition was accepted at a time that has not come, by MySQL's clock: it has to wait.
    #[error("{1}")]
    Early(PartitionKey, String),
    /// Anything else, a broken invariant of ours included: nothing is applied and a human must look.
    #[error("{0}")]
    Fatal(String),
}

/// Deadlock, lock wait, duplicate key (another transaction made the row first), server going away or starting,
/// too many connections, read-only while a replica is promoted, and TiDB's ways to say "again".
const TRANSIENT: [u16; 18] = [
    1213, 1205, 1062, 1040, 1053, 1077, 1079, 1158, 1159, 1160, 1161, 1290, 1836, 1927, 4031, 8022, 8028,
    9007,
];

/// Out of range, incorrect value, too long, out of range in an expression.
const DATA: [u16; 4] = [1264, 1366, 1406, 1690];

/// TiDB's "pessimistic lock retry limit reached" has a number that says many things.
const TIDB_UNSPECIFIC: u16 = 1105;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(database) => {
                let Some(mysql) = database.try_downcast_ref::<MySqlDatabaseError>() else {
                    return Self::Fatal(database.to_string());
                };
                let number = mysql.number();
                if TRANSIENT.contains(&number)
                    || (number == TIDB_UNSPECIFIC && mysql.message().contains("retry limit"))
                {
                    Self::Transient(Error::Database(database))
                } else if DATA.contains(&number) {
                    Self::Data(format!("MySQL error {number}: {}", mysql.message()))
                } else {
                    Self::Fatal(format!("MySQL error {number}: {}", mysql.message()))
                }
            }
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::WorkerCrashed => Self::Transient(error),
            other => Self::Fatal(other.to_string()),
        }
    }
}
