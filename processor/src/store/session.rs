//! The one connection that a processor applies its batches on.
//!
//! Whatever goes wrong, the connection is dropped, which rolls back, and the next transaction has a new one. So no
//! transaction ever meets what an earlier one left open.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use runtime::config::MysqlConfig;
use runtime::sql::Sql;
use sqlx::mysql::{MySqlConnection, MySqlQueryResult, MySqlRow};
use sqlx::{Connection as _, Either, Error};

use super::error::StoreError;
use crate::metrics;

/// How long one round trip may take. A server that answers nothing for so long has gone away without saying so;
/// the outcome is then unknown, and the position tells it. Longer than any lock wait (5 s).
const ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that is made when it is needed.
pub struct Session {
    config: MysqlConfig,
    connection: Option<MySqlConnection>,
}

/// Rows of each statement of a text, and how many rows it affected.
pub struct Answer {
    /// Rows by statement.
    pub rows: Vec<Vec<MySqlRow>>,
    /// Affected rows by statement.
    pub affected: Vec<u64>,
}

impl Session {
    /// No connection yet.
    pub const fn new(config: MysqlConfig) -> Self {
        Self { config, connection: None }
    }

    /// Sends `text` and waits for the answers of all its statements. After an error the connection is gone.
    pub async fn send(&mut self, text: &Sql) -> Result<Answer, StoreError> {
        let mut connection = self.take().await?;
        let answer = tokio::time::timeout(ROUND_TRIP_TIMEOUT, run(&mut connection, text)).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out()))?;
        metrics::statements(answer.affected.len());
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Keeps an idle connection, which the server would close, and notices early that it is gone.
    pub async fn keep_alive(&mut self) -> Result<(), StoreError> {
        let mut connection = self.take().await?;
        match tokio::time::timeout(ROUND_TRIP_TIMEOUT, connection.ping()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(timed_out().into()),
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Drops the connection, and with it whatever it left open.
    pub fn reset(&mut self) {
        self.connection = None;
    }

    async fn take(&mut self) -> Result<MySqlConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => match tokio::time::timeout(ROUND_TRIP_TIMEOUT, self.config.connect()).await {
                Ok(connection) => Ok(connection?),
                Err(_) => Err(timed_out().into()),
            },
        }
    }
}

async fn run(connection: &mut MySqlConnection, text: &Sql) -> Result<Answer, Error> {
    let mut answer = Answer { rows: vec![Vec::new()], affected: Vec::new() };
    let mut stream = sqlx::raw_sql(text.as_str()).fetch_many(connection);
    while let Some(step) = stream.try_next().await? {
        let step: Either<MySqlQueryResult, MySqlRow> = step;
        match step {
            Either::Left(done) => {
                answer.affected.push(done.rows_affected());
                answer.rows.push(Vec::new());
            }
            Either::Right(row) => {
                if let Some(rows) = answer.rows.last_mut() {
                    rows.push(row);
                }
            }
        }
    }
    Ok(answer)
}

fn timed_out() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "MySQL did not answer in time"))
}
