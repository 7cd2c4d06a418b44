//! All statements of the service outside seeding, a file per group of tables.
//!
//! Rows are locked in the order users (several sorted by id), sessions, refresh_tokens, link_tokens, recovery_codes,
//! approvals, commands; mails and the audit log are only inserted into. Times are the database's own.

pub mod analytics;
pub mod api_keys;
pub mod applications;
pub mod approvals;
pub mod audit;
pub mod commands;
pub mod dead_letters;
pub mod ledger;
pub mod links;
pub mod mails;
pub mod offsets;
pub mod partners;
pub mod payment_list;
pub mod payments;
pub mod sessions;
pub mod system;
pub mod trace;
pub mod users;
pub mod webhooks;

use domain::ids::UserId;
use domain::money::Currency;
use domain::time::Timestamp;
use sqlx::mysql::MySqlRow;
use sqlx::{Decode, Executor, MySql, MySqlPool, Row, Type};
use uuid::Uuid;

use crate::personal::Index;

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

    fn opt_uuid(&mut self) -> Result<Option<Uuid>, sqlx::Error> {
        let bytes: Option<&[u8]> = self.take()?;
        bytes.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
    }

    /// Selected as microseconds since 1970.
    fn time(&mut self) -> Result<Timestamp, sqlx::Error> {
        self.take().map(Timestamp::from_micros)
    }

    fn opt_time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    /// A word of a closed set.
    fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &mut self,
    ) -> Result<T, sqlx::Error> {
        self.take::<&str>()?.parse().map_err(|error: T::Err| sqlx::Error::Decode(error.into()))
    }

    fn user(&mut self) -> Result<UserId, sqlx::Error> {
        self.uuid().map(UserId::from_uuid)
    }

    fn index(&mut self) -> Result<Index, sqlx::Error> {
        let bytes: Vec<u8> = self.take()?;
        bytes.try_into().map_err(|_| sqlx::Error::Decode("an index is an HMAC of 32 bytes".into()))
    }

    fn text(&mut self) -> Result<Option<String>, sqlx::Error> {
        let bytes: Option<Vec<u8>> = self.take()?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|error| sqlx::Error::Decode(error.into()))
    }

    /// Nothing of NULL and of an empty text.
    fn currency(&mut self) -> Result<Option<Currency>, sqlx::Error> {
        let text = self.text()?.filter(|text| !text.is_empty());
        let currency = text.map(|text| text.parse()).transpose();
        currency.map_err(|error: domain::money::UnknownCurrency| sqlx::Error::Decode(error.into()))
    }

    /// A number that names something, by what reads it.
    fn named<T>(&mut self, read: impl Fn(u8) -> Option<T>) -> Result<T, sqlx::Error> {
        self.opt_named(read)?.ok_or_else(|| sqlx::Error::Decode("NULL names nothing".into()))
    }

    fn opt_named<T>(&mut self, read: impl Fn(u8) -> Option<T>) -> Result<Option<T>, sqlx::Error> {
        let number: Option<u8> = self.take()?;
        let named = |number| {
            read(number).ok_or_else(|| sqlx::Error::Decode(format!("{number} names nothing").into()))
        };
        number.map(named).transpose()
    }
}

/// A user's id as it is stored.
fn bytes(user: UserId) -> Vec<u8> {
    user.uuid().as_bytes().to_vec()
}
