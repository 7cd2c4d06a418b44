//! The database that a URL names, and a connection to its server that does not need it to exist.

use runtime::config::MysqlConfig;
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

/// Why the database of a URL cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL names no database, or one whose name would need quoting.
    #[error(
        "the MySQL URL must name a database of 1 to 64 letters, digits, `_` or `-`: mysql://user:password@host:port/database"
    )]
    Name,
    /// The server cannot be reached, or refuses.
    #[error("MySQL: {0}")]
    Mysql(#[from] sqlx::Error),
}

/// A connection to the server of a URL without a database chosen, and the name of the URL's database.
pub(crate) async fn connect(config: &MysqlConfig) -> Result<(MySqlConnection, String), DatabaseError> {
    let (server, name) = split(config)?;
    let mut connection = server.connect().await?;
    // DDL waits behind every open transaction on its table; a year is MySQL's own idea of a bound.
    connection.execute("SET SESSION lock_wait_timeout = 60").await?;
    Ok((connection, name))
}

fn split(config: &MysqlConfig) -> Result<(MysqlConfig, String), DatabaseError> {
    let mut url = url::Url::parse(&config.mysql_url).map_err(|_| DatabaseError::Name)?;
    let name = url.path().trim_start_matches('/').to_owned();
    if !is_plain(&name, 64) {
        return Err(DatabaseError::Name);
    }
    url.set_path("");
    Ok((MysqlConfig { mysql_url: url.into() }, name))
}

/// A name that can stand between backticks or quotes as it is.
pub(crate) fn is_plain(name: &str, characters_max: usize) -> bool {
    (1..=characters_max).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
