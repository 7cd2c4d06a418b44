//! MySQL connections as every service uses them.
//!
//! Every session: strict mode (a value that does not fit is error 1406 or 1264, never cut off silently), READ
//! COMMITTED, UTC, `innodb_lock_wait_timeout` 5 s, and `wait_timeout` 10 s: a stopped process keeps its row locks
//! no longer than that. Statements are never logged, since they hold personal data.
//!
//! A pool connects when it is first used, so that a service starts while MySQL is away. It does not retry.

use std::time::Duration;

use metrics::gauge;
use sqlx::error::BoxDynError;
use sqlx::mysql::{
    MySqlConnectOptions, MySqlConnection, MySqlPoolOptions, MySqlSslMode, MySqlTypeInfo, MySqlValueRef,
};
use sqlx::{ConnectOptions, Connection, Decode, Executor, MySql, MySqlPool, Row as _, Type};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, MysqlConfig};
use crate::sql::Sql;

/// How long a caller waits for a connection of the pool. Longer only makes a queue that nobody waits for.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection idle for longer is closed, before the server does it at 10 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// A connection idle for longer is tried before it is handed out; below, that would be a round trip for nothing.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// How often [`observe`] looks at the pool.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// What every session is set to. The names stand for the whole of `sql_mode`: the server's own default does not count.
const SESSION: &str = "SET SESSION sql_mode = 'ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,STRICT_ALL_TABLES,\
     NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 5, \
     wait_timeout = 10";

impl MysqlConfig {
    /// Connection options: UTF-8, no statement logging, no TLS on loopback, checked TLS elsewhere.
    pub fn options(&self) -> Result<MySqlConnectOptions, ConfigError> {
        let url =
            url::Url::parse(&self.mysql_url).map_err(|error| ConfigError::MysqlUrl(error.to_string()))?;
        if url.scheme() != "mysql" {
            return Err(ConfigError::MysqlUrl("its scheme is another".to_owned()));
        }
        let mut options = MySqlConnectOptions::from_url(&url).map_err(|_| {
            // The error's text may quote a parameter's value.
            ConfigError::MysqlUrl("a part of it cannot be read".to_owned())
        })?;
        let says_ssl_mode = url.query_pairs().any(|(key, _)| key == "ssl-mode" || key == "sslmode");
        if !says_ssl_mode {
            let mode = if is_loopback(&url) { MySqlSslMode::Disabled } else { MySqlSslMode::VerifyIdentity };
            options = options.ssl_mode(mode);
        }
        Ok(options
            .charset("utf8mb4")
            // Columns bring their own collation; this one is for bare literals, and known to every server.
            .collation("utf8mb4_unicode_ci")
            // What these three would set, and more, stands in SESSION.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .disable_statement_logging())
    }

    /// A pool for one duty, which connects when first used.
    ///
    /// Connections are bounded by `connections`; who gets none within [`ACQUIRE_TIMEOUT`] has an error. What a
    /// returned connection left open is rolled back.
    pub fn pool(&self, duty: &'static str, connections: u32) -> Result<MySqlPool, ConfigError> {
        let options = self.options()?;
        tracing::debug!(pool.duty = duty, pool.connections = connections, "pool configured");
        Ok(MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(prepare_session(connection)))
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.execute("ROLLBACK").await?;
                    Ok(true)
                })
            })
            .connect_lazy_with(options))
    }

    /// One connection outside any pool, for who must keep its session.
    pub async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let options = self.options().map_err(|error| sqlx::Error::Configuration(error.into()))?;
        let mut connection = options.connect().await?;
        prepare_session(&mut connection).await?;
        Ok(connection)
    }
}

async fn prepare_session(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute(SESSION).await.map(drop)
}

/// How MySQL reaches the rows of a statement: for each table its index, the kind of access, and what else it does. For
/// tests, which prove that no list scans a table.
pub async fn explain(pool: &MySqlPool, statement: &Sql) -> Result<Vec<[String; 3]>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("EXPLAIN FORMAT=TRADITIONAL ").append(statement);
    let rows = pool.fetch_all(sql.as_str()).await?;
    rows.iter()
        .map(|row| {
            let mut cells = [const { String::new() }; 3];
            for (cell, name) in cells.iter_mut().zip(["key", "type", "Extra"]) {
                *cell = row.try_get::<Option<Text>, _>(name)?.map(|text| text.0).unwrap_or_default();
            }
            Ok(cells)
        })
        .collect()
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => true,
    }
}

/// Text of a column, whatever its collation.
///
/// sqlx takes a column with a `…_bin` collation for bytes and refuses to decode it as `String`; all columns of the
/// schema are such. This type reads both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

impl Type<MySql> for Text {
    fn type_info() -> MySqlTypeInfo {
        <str as Type<MySql>>::type_info()
    }

    fn compatible(info: &MySqlTypeInfo) -> bool {
        <str as Type<MySql>>::compatible(info) || <[u8] as Type<MySql>>::compatible(info)
    }
}

impl<'r> Decode<'r, MySql> for Text {
    fn decode(value: MySqlValueRef<'r>) -> Result<Self, BoxDynError> {
        <&str as Decode<MySql>>::decode(value).map(|text| Self(text.to_owned()))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

/// Keeps the gauges `wired_mysql_pool_connections{duty, state}` of a pool until `shutdown`.
pub fn observe(pool: &MySqlPool, duty: &'static str, shutdown: CancellationToken) {
    let pool = pool.clone();
    tokio::spawn(async move {
        metrics::describe_gauge!("wired_mysql_pool_connections", "Connections of the pool by state");
        while !pool.is_closed() {
            let idle = pool.num_idle() as f64;
            gauge!("wired_mysql_pool_connections", "duty" => duty, "state" => "idle").set(idle);
            gauge!("wired_mysql_pool_connections", "duty" => duty, "state" => "in_use")
                .set((f64::from(pool.size()) - idle).max(0.0));
            tokio::select! {
                () = tokio::time::sleep(OBSERVE_INTERVAL) => {}
                () = shutdown.cancelled() => break,
            }
        }
    });
}

#[cfg(test)]
mod tests;
