//! All statements of the service outside seeding, a file per group of tables.
//!
//! Rows are locked in the order users, sessions, refresh_tokens, link_tokens, recovery_codes; mails and the audit
//! log are only inserted into. Times are the database's own.

pub mod audit;
pub mod links;
pub mod mails;
pub mod sessions;
pub mod users;

use domain::ids::UserId;
use sqlx::mysql::MySqlRow;
use sqlx::{Decode, Executor, MySql, MySqlPool, Row, Type};
use uuid::Uuid;

/// Whether MySQL answers.
pub(crate) async fn ping(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    pool.execute("DO 1").await.map(drop)
}

/// Whether a row with this unique key is there already.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// The columns of a row in their order. Types are not compared with the server's: sqlx takes text with a binary
/// collation for bytes.
struct Columns<'r> {
    row: &'r MySqlRow,
    next: usize,
}

impl<'r> Columns<'r> {
    const fn new(row: &'r MySqlRow) -> Self {
        Self { row, next: 0 }
    }

    fn take<T: Decode<'r, MySql> + Type<MySql>>(&mut self) -> Result<T, sqlx::Error> {
        let index = self.next;
        self.next += 1;
        self.row.try_get_unchecked(index)
    }

    fn uuid(&mut self) -> Result<Uuid, sqlx::Error> {
        Uuid::from_slice(self.take()?).map_err(|error| sqlx::Error::Decode(error.into()))
    }

    fn user(&mut self) -> Result<UserId, sqlx::Error> {
        self.uuid().map(UserId::from_uuid)
    }

    fn text(&mut self) -> Result<Option<String>, sqlx::Error> {
        let bytes: Option<Vec<u8>> = self.take()?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|error| sqlx::Error::Decode(error.into()))
    }

    /// A number that names something, by what reads it.
    fn named<T>(&mut self, read: impl Fn(u8) -> Option<T>) -> Result<T, sqlx::Error> {
        let number: u8 = self.take()?;
        read(number).ok_or_else(|| sqlx::Error::Decode(format!("{number} names nothing").into()))
    }
}

/// A user's id as it is stored.
fn bytes(user: UserId) -> Vec<u8> {
    user.uuid().as_bytes().to_vec()
}
