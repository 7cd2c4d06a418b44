//! Applies the migrations and tells which are applied.
//!
//! **One at a time:** a named lock of the server, held by the one connection that does all the work; who comes
//! second waits for it, bounded, and then finds nothing to do. It ends with the connection, so a killed run
//! leaves none behind.
//!
//! **Half a file:** DDL commits by itself, so a file is no transaction. `schema_migrations` therefore counts the
//! statements of a file that are done, and the next run goes on behind them. An applied file that was edited, or
//! a database that is ahead of this program, is refused.

use std::fmt;

use runtime::config::MysqlConfig;
use runtime::mysql::Text;
use sha2::{Digest, Sha256};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor};

use crate::database::{self, DatabaseError};
use crate::files::{ALL, Migration};
use crate::split;

/// How long to wait for another run, in seconds.
pub const LOCK_TIMEOUT_SECONDS: u32 = 60;

/// Not part of the migrations, since it says which of them are applied.
const CREATE_SCHEMA_MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version         INT UNSIGNED NOT NULL,
    name            VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- SHA-256 of the file, hexadecimal.
    checksum        CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- How many statements of the file are done; what follows them is still to do while applied_at is NULL.
    statements_done INT UNSIGNED NOT NULL,
    applied_at      DATETIME(6)  NULL,
    PRIMARY KEY (version) /*T![clustered_index] CLUSTERED */
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database cannot be reached or named.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The bookkeeping failed.
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
    /// Another run holds the lock.
    #[error("another migration run has been at work for {0} s: wait for it to end, then run this again")]
    Locked(u32),
    /// An applied file has another content now.
    #[error(
        "{name} is applied with another content: restore the file and put the change into a new one{}",
        partly(*.done)
    )]
    Edited {
        /// The file.
        name: &'static str,
        /// The statements done, when it is half applied.
        done: Option<u32>,
    },
    /// The database knows a migration that this program does not.
    #[error(
        "the database has migration {version} ({name}), which this program does not know: use the newer program"
    )]
    Ahead {
        /// Its version.
        version: u32,
        /// Its file.
        name: String,
    },
    /// A file cannot be split into statements.
    #[error("{name}: {source}")]
    Malformed {
        /// The file.
        name: &'static str,
        /// How it ends.
        source: split::Unterminated,
    },
    /// A statement failed.
    #[error(
        "{name}: statement {number} of {of} failed: {source}\n  {excerpt}\n\
         Statements 1 to {} of this file are done and stay, since DDL is not transactional. Correct the cause and run \
         this again: it goes on with statement {number}. If that statement is in the database already (the program was \
         killed before it could say so), run: UPDATE schema_migrations SET statements_done = {number} WHERE version = {version}",
        .number - 1
    )]
    Statement {
        /// The file.
        name: &'static str,
        /// The file's version.
        version: u32,
        /// Which statement, from 1.
        number: usize,
        /// How many the file has.
        of: usize,
        /// The statement's first line.
        excerpt: String,
        /// What MySQL says.
        source: sqlx::Error,
    },
}

fn partly(done: Option<u32>) -> String {
    done.map_or_else(String::new, |done| {
        format!(
            " (only its first {done} statements are applied; when it has never been applied anywhere else, you may undo these by hand, delete its row of schema_migrations and run this again)"
        )
    })
}

/// How one migration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Applied, at this time (UTC).
    Applied(String),
    /// The first statements of the file are done.
    Partly(u32),
    /// Not applied.
    Pending,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(at) => write!(f, "applied {at} UTC"),
            Self::Partly(done) => write!(f, "pending, first {done} statements applied"),
            Self::Pending => f.write_str("pending"),
        }
    }
}

/// A row of `schema_migrations`.
struct Row {
    version: u32,
    name: String,
    checksum: String,
    statements_done: u32,
    applied_at: Option<String>,
}

/// Creates the database when it is missing and applies what is pending. Returns the files applied now.
pub async fn apply(config: &MysqlConfig) -> Result<Vec<&'static str>, SchemaError> {
    apply_list(config, ALL, LOCK_TIMEOUT_SECONDS).await
}

/// [`apply`] with another list and another patience, for tests.
pub async fn apply_list(
    config: &MysqlConfig,
    list: &[Migration],
    lock_timeout_seconds: u32,
) -> Result<Vec<&'static str>, SchemaError> {
    let (mut connection, name) = database::connect(config).await?;
    create_database(&mut connection, &name).await?;
    take_lock(&mut connection, &name, lock_timeout_seconds).await?;
    connection.execute(CREATE_SCHEMA_MIGRATIONS).await?;
    let rows = read_rows(&mut connection).await?;
    let mut applied = Vec::new();
    for (migration, state) in compare(list, &rows)? {
        let done = match state {
            State::Applied(_) => continue,
            State::Partly(done) => done,
            State::Pending => begin(&mut connection, migration).await?,
        };
        apply_file(&mut connection, migration, done).await?;
        applied.push(migration.name);
    }
    // The lock ends with the connection in any case.
    let _ = connection.close().await;
    Ok(applied)
}

/// How each migration stands; changes nothing. Without a database, all are pending.
pub async fn status(config: &MysqlConfig) -> Result<Vec<(&'static Migration, State)>, SchemaError> {
    let (mut connection, name) = database::connect(config).await?;
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = 'schema_migrations'",
    )
    .bind(&name)
    .fetch_one(&mut connection)
    .await?;
    let rows = if tables == 0 {
        Vec::new()
    } else {
        choose(&mut connection, &name).await?;
        read_rows(&mut connection).await?
    };
    compare(ALL, &rows)
}

async fn create_database(connection: &mut MySqlConnection, name: &str) -> Result<(), sqlx::Error> {
    let exists: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
    // Asked first, so that a user who may not create databases can migrate one that is there.
    if exists == 0 {
        let create =
            format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        connection.execute(create.as_str()).await?;
    }
    choose(connection, name).await
}

async fn choose(connection: &mut MySqlConnection, name: &str) -> Result<(), sqlx::Error> {
    // USE is not known to the protocol of prepared statements; the name was checked to need no quoting.
    connection.execute(format!("USE `{name}`").as_str()).await.map(drop)
}

async fn take_lock(
    connection: &mut MySqlConnection,
    database: &str,
    timeout_seconds: u32,
) -> Result<(), SchemaError> {
    // Names of locks belong to the whole server and have at most 64 characters.
    let digest = hex(&Sha256::digest(database));
    let taken: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, ?)")
        .bind(format!("wired-migrate-{}", &digest[..32]))
        .bind(timeout_seconds)
        .fetch_one(connection)
        .await?;
    if taken == Some(1) { Ok(()) } else { Err(SchemaError::Locked(timeout_seconds)) }
}

async fn read_rows(connection: &mut MySqlConnection) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(u32, Text, Text, u32, Option<Text>)> = sqlx::query_as(
        "SELECT version, name, checksum, statements_done,
            DATE_FORMAT(applied_at, '%Y-%m-%d %H:%i:%s') AS applied_at
        FROM schema_migrations ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    let row =
        |(version, name, checksum, statements_done, applied_at): (_, Text, Text, _, Option<Text>)| Row {
            version,
            name: String::from(name),
            checksum: String::from(checksum),
            statements_done,
            applied_at: applied_at.map(String::from),
        };
    Ok(rows.into_iter().map(row).collect())
}

fn compare<'a>(list: &'a [Migration], rows: &[Row]) -> Result<Vec<(&'a Migration, State)>, SchemaError> {
    if let Some(row) = rows.iter().find(|row| !list.iter().any(|migration| migration.version == row.version))
    {
        return Err(SchemaError::Ahead { version: row.version, name: row.name.clone() });
    }
    let state = |migration: &'a Migration| {
        let Some(row) = rows.iter().find(|row| row.version == migration.version) else {
            return Ok((migration, State::Pending));
        };
        if row.checksum != checksum(migration) {
            let done = row.applied_at.is_none().then_some(row.statements_done);
            return Err(SchemaError::Edited { name: migration.name, done });
        }
        Ok((migration, row.applied_at.clone().map_or(State::Partly(row.statements_done), State::Applied)))
    };
    list.iter().map(state).collect()
}

async fn begin(connection: &mut MySqlConnection, migration: &Migration) -> Result<u32, sqlx::Error> {
    sqlx::query(
        "INSERT INTO schema_migrations (version, name, checksum, statements_done) VALUES (?, ?, ?, 0)",
    )
    .bind(migration.version)
    .bind(migration.name)
    .bind(checksum(migration))
    .execute(connection)
    .await
    .map(|_| 0)
}

async fn apply_file(
    connection: &mut MySqlConnection,
    migration: &Migration,
    done: u32,
) -> Result<(), SchemaError> {
    let statements = split::statements(migration.sql)
        .map_err(|source| SchemaError::Malformed { name: migration.name, source })?;
    for (index, statement) in statements.iter().enumerate().skip(done as usize) {
        connection.execute(*statement).await.map_err(|source| SchemaError::Statement {
            name: migration.name,
            version: migration.version,
            number: index + 1,
            of: statements.len(),
            excerpt: statement.lines().next().unwrap_or_default().to_owned(),
            source,
        })?;
        // The last statement's count is written together with the time.
        let last = index + 1 == statements.len();
        sqlx::query(
            "UPDATE schema_migrations SET statements_done = ?, applied_at = IF(?, UTC_TIMESTAMP(6), NULL) WHERE version = ?",
        )
        .bind(index as u32 + 1)
        .bind(last)
        .bind(migration.version)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn checksum(migration: &Migration) -> String {
    hex(&Sha256::digest(migration.sql))
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
