//! The five MySQL users and what each may do, table by table.
//!
//! After [`apply`], a user's grants are exactly those of [`GRANTS`]: what is missing is granted first, then what is
//! too much is revoked, so that a running service never finds itself without a right that it should have. The
//! password is that of the user's URL.
//!
//! Users are created for every host (`'name'@'%'`): services come over TCP from other machines and containers, and
//! where from is for the network to restrict.

mod grants;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use runtime::config::MysqlConfig;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{Connection, Executor};

use crate::database::{self, DatabaseError, is_plain};
use grants::{Line, Rights};

/// Who has a MySQL user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Accepts requests of partners.
    Ingest,
    /// Writes the ledger.
    Processor,
    /// Delivers webhooks.
    Notifier,
    /// The bank's own API.
    AdminApi,
    /// Checks the ledger, read-only.
    Verifier,
}

impl Role {
    /// Every role, in the order of the columns of [`GRANTS`].
    pub const ALL: [Self; 5] =
        [Self::Ingest, Self::Processor, Self::Notifier, Self::AdminApi, Self::Verifier];

    /// The name, as the service's program has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Processor => "processor",
            Self::Notifier => "notifier",
            Self::AdminApi => "admin-api",
            Self::Verifier => "verifier",
        }
    }

    /// The environment variable of `migrate users` that holds the URL.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Ingest => "WIRED_INGEST_MYSQL_URL",
            Self::Processor => "WIRED_PROCESSOR_MYSQL_URL",
            Self::Notifier => "WIRED_NOTIFIER_MYSQL_URL",
            Self::AdminApi => "WIRED_ADMIN_API_MYSQL_URL",
            Self::Verifier => "WIRED_VERIFIER_MYSQL_URL",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each role may do with a table: S(ELECT), I(NSERT), U(PDATE), D(ELETE).
///
/// The processor alone writes the ledger. Nobody may UPDATE or DELETE an entry or a row of the audit
/// log. A locking read needs UPDATE, and a bulk update by `INSERT … ON DUPLICATE KEY UPDATE` needs INSERT and UPDATE.
#[rustfmt::skip]
pub const GRANTS: &[(&str, [&str; 5])] = &[
    //                       ingest  processor  notifier  admin-api  verifier
    ("accounts",            ["S",    "SIU",     "",       "S",       "S"]),
    ("settlement_accounts", ["S",    "SIU",     "",       "S",       "S"]),
    ("payments",            ["S",    "SIU",     "",       "S",       "S"]),
    ("changes",             ["S",    "SI",      "",       "S",       "S"]),
    ("entries",             ["S",    "SI",      "",       "S",       "S"]),
    ("follow_ups",          ["S",    "SI",      "",       "S",       "S"]),
    ("holds",               ["S",    "SID",     "",       "S",       "S"]),
    ("mandates",            ["S",    "SIU",     "",       "S",       "S"]),
    ("mandate_requests",    ["SI",   "S",       "",       "S",       "S"]),
    ("return_urls",         ["S",    "",        "",       "SID",     "S"]),
    ("events",              ["S",    "SI",      "S",      "S",       "S"]),
    ("partner_sequences",   ["S",    "SIU",     "S",      "S",       "S"]),
    ("positions",           ["S",    "SIU",     "",       "S",       "S"]),
    ("dead_letters",        ["S",    "SIU",     "",       "S",       "S"]),
    ("partners",            ["SI",   "S",       "S",      "SIUD",    "S"]),
    ("api_keys",            ["SI",   "",        "",       "SIUD",    "S"]),
    ("api_key_uses",        ["SIU",  "",        "",       "S",       "S"]),
    ("endpoints",           ["SIUD", "",        "S",      "SIUD",    "S"]),
    ("endpoint_secrets",    ["SIUD", "",        "S",      "SIUD",    "S"]),
    ("endpoint_states",     ["SIU",  "",        "SIUD",   "SU",      "S"]),
    ("deliveries",          ["SI",   "",        "SIUD",   "S",       "S"]),
    ("attempts",            ["S",    "",        "SIUD",   "S",       "S"]),
    ("notices",             ["SI",   "",        "SIUD",   "SI",      "S"]),
    ("replays",             ["SIU",  "",        "SUD",    "SI",      "S"]),
    ("idempotency_keys",    ["SIUD", "",        "",       "",        "S"]),
    ("partner_applications", ["SI",  "",        "",       "SU",      "S"]),
    ("users",               ["",     "",        "",       "SIUD",    ""]),
    ("sessions",            ["",     "",        "",       "SIUD",    ""]),
    ("refresh_tokens",      ["",     "",        "",       "SIUD",    ""]),
    ("link_tokens",         ["",     "",        "",       "SIUD",    ""]),
    ("recovery_codes",      ["",     "",        "",       "SIUD",    ""]),
    ("mails",               ["",     "",        "",       "SIUD",    ""]),
    ("audit_log",           ["",     "",        "",       "SI",      "S"]),
    ("audit_chain",         ["",     "",        "",       "SI",      "S"]),
    ("audit_unsealed",      ["",     "",        "",       "SID",     "S"]),
    ("audit_verifications", ["",     "",        "",       "SIU",     ""]),
    ("api_calls",           ["",     "",        "",       "SID",     "S"]),
    ("api_call_positions",  ["",     "",        "",       "SU",      "S"]),
    ("commands",            ["",     "",        "",       "SIU",     ""]),
    ("approvals",           ["",     "",        "",       "SIU",     ""]),
    ("leases",              ["",     "",        "",       "SU",      "S"]),
    ("checkpoints",         ["",     "",        "",       "SI",      "S"]),
    ("checkpoint_leaves",   ["",     "",        "",       "SI",      "S"]),
    ("checkpoint_publications", ["", "",        "",       "SI",      "S"]),
    ("reconciliations",     ["",     "",        "",       "SID",     "S"]),
    ("reconciliation_states", ["",   "",        "",       "SID",     "S"]),
    ("analytics_generations", ["",   "",        "",       "SIUD",    "S"]),
    ("analytics_positions", ["",     "",        "",       "SIUD",    "S"]),
    ("analytics_outcomes",  ["",     "",        "",       "SIUD",    "S"]),
    ("analytics_latency",   ["",     "",        "",       "SIUD",    "S"]),
    ("analytics_partners",  ["",     "",        "",       "SIUD",    "S"]),
    ("analytics_customers", ["",     "",        "",       "SID",     "S"]),
    ("analytics_days",      ["",     "",        "",       "SIUD",    "S"]),
    ("analytics_calls",     ["",     "",        "",       "SIU",     "S"]),
    ("delivery_counts",     ["",     "",        "SIU",    "S",       "S"]),
    ("schema_migrations",   ["S",    "S",       "S",      "S",       "S"]),
];

/// Why a user could not be set up. Never shows a password.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The administrator's database cannot be reached or named.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A user's URL cannot serve.
    #[error("{variable}: {why} (the value is not shown: it holds a password)", variable = .role.variable())]
    Url {
        /// Whose.
        role: Role,
        /// What is wrong.
        why: &'static str,
    },
    /// MySQL refuses; the administrator needs CREATE USER and the granted rights with GRANT OPTION.
    #[error("MySQL, for the user of {role}: {source}")]
    Mysql {
        /// Whose.
        role: Role,
        /// What MySQL says.
        source: sqlx::Error,
    },
    /// The grants could not be made exact.
    #[error(
        "the user of {role} still has other grants than it should: {differs}; drop the user and run this again"
    )]
    Differs {
        /// Whose.
        role: Role,
        /// What is there and should not be, or the other way round.
        differs: String,
    },
}

/// Name and password of a role's user.
struct User {
    role: Role,
    name: String,
    password: String,
}

/// Creates or updates the users of `urls` and makes their grants exact, in the database of the administrator's URL.
pub async fn apply(admin: &MysqlConfig, urls: &[(Role, String)]) -> Result<(), UsersError> {
    let (mut connection, database) = database::connect(admin).await?;
    for user in distinct_users(admin, urls, &database)? {
        let role = user.role;
        let failed = |source| UsersError::Mysql { role, source };
        set_password(&mut connection, &user).await.map_err(failed)?;
        let expected = expected(role, &database);
        grant_missing(&mut connection, &user, &expected).await.map_err(failed)?;
        revoke_excess(&mut connection, &user, &expected).await.map_err(failed)?;
        let rights = rights(&mut connection, &user).await.map_err(failed)?;
        if rights != expected {
            let differs = format!("{rights:?}");
            return Err(UsersError::Differs { role, differs });
        }
    }
    let _ = connection.close().await;
    Ok(())
}

/// Removes the users of `urls`; whoever is not there is no error.
pub async fn drop_users(admin: &MysqlConfig, urls: &[(Role, String)]) -> Result<(), UsersError> {
    let (mut connection, database) = database::connect(admin).await?;
    for (role, url) in urls {
        let user = User::from_url(*role, url, &database)?;
        let drop = format!("DROP USER IF EXISTS {user}");
        let failed = |source| UsersError::Mysql { role: *role, source };
        connection.execute(drop.as_str()).await.map_err(failed)?;
    }
    let _ = connection.close().await;
    Ok(())
}

/// The users of `urls`, none of whom may be another's or the administrator's: their grants are made exact, which
/// would take everything else from whoever has the name.
fn distinct_users(
    admin: &MysqlConfig,
    urls: &[(Role, String)],
    database: &str,
) -> Result<Vec<User>, UsersError> {
    let admin = url::Url::parse(&admin.mysql_url).map_err(|_| DatabaseError::Name)?;
    let mut users: Vec<User> = Vec::with_capacity(urls.len());
    for (role, url) in urls {
        let user = User::from_url(*role, url, database)?;
        let refuse = |why| Err(UsersError::Url { role: *role, why });
        if [admin.username(), "root"].contains(&user.name.as_str()) {
            return refuse("names the administrator: a service has a user of its own");
        }
        if users.iter().any(|other| other.name == user.name) {
            return refuse("names the user of another service: each has its own");
        }
        users.push(user);
    }
    Ok(users)
}

impl User {
    fn from_url(role: Role, url: &str, database: &str) -> Result<Self, UsersError> {
        let refuse = |why| UsersError::Url { role, why };
        let url = url::Url::parse(url).map_err(|_| refuse("is no URL"))?;
        if url.path().trim_start_matches('/') != database {
            return Err(refuse("names another database than WIRED_MYSQL_URL"));
        }
        let name = url.username().to_owned();
        if !is_plain(&name, 32) {
            return Err(refuse("the user's name must be 1 to 32 letters, digits, `_` or `-`"));
        }
        // As sqlx decodes it when the service connects.
        let password = percent_decoded(url.password().unwrap_or_default())
            .filter(|password| !password.is_empty() && !password.contains(char::is_control))
            .ok_or_else(|| refuse("the password must not be empty nor hold control characters"))?;
        Ok(Self { role, name, password })
    }
}

/// The account as statements name it.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'@'%'", self.name)
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

async fn set_password(connection: &mut MySqlConnection, user: &User) -> Result<(), sqlx::Error> {
    // These statements take no parameters; within a string only these two characters mean something.
    let password = user.password.replace('\\', "\\\\").replace('\'', "''");
    let create = format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}'");
    let created = connection.execute(create.as_str()).await;
    created.map_err(without_statement)?;
    let alter = format!("ALTER USER {user} IDENTIFIED BY '{password}' ACCOUNT UNLOCK");
    connection.execute(alter.as_str()).await.map_err(without_statement)?;
    tracing::debug!(role = user.role.name(), user.name, "user set up");
    Ok(())
}

/// A syntax error (1064) quotes the statement, and this one holds a password.
fn without_statement(error: sqlx::Error) -> sqlx::Error {
    let database_error = error.as_database_error();
    match database_error.and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>()) {
        Some(mysql) if mysql.number() == 1064 => {
            sqlx::Error::Protocol("the statement that sets the password was refused".to_owned())
        }
        _ => error,
    }
}

/// What the role should have, by object.
fn expected(role: Role, database: &str) -> BTreeMap<String, Rights> {
    let column = Role::ALL.iter().position(|each| *each == role).unwrap_or_default();
    GRANTS
        .iter()
        .map(|(table, columns)| (format!("`{database}`.`{table}`"), grants::from_letters(columns[column])))
        .filter(|(_, rights)| !rights.is_empty())
        .collect()
}

async fn read_lines(connection: &mut MySqlConnection, user: &User) -> Result<Vec<Line>, sqlx::Error> {
    let show = format!("SHOW GRANTS FOR {user}");
    let lines: Vec<String> = sqlx::query_scalar(&show).fetch_all(connection).await?;
    Ok(lines.iter().map(|line| Line::parse(line)).collect())
}

/// What the user has, by object; anything that is no plain right on an object stands under the line's own text.
async fn rights(
    connection: &mut MySqlConnection,
    user: &User,
) -> Result<BTreeMap<String, Rights>, sqlx::Error> {
    let lines = read_lines(connection, user).await?;
    let mut rights: BTreeMap<String, Rights> = BTreeMap::new();
    for line in lines {
        if !line.is_usage() {
            rights.entry(line.object).or_default().extend(line.rights);
        }
    }
    Ok(rights)
}

async fn grant_missing(
    connection: &mut MySqlConnection,
    user: &User,
    expected: &BTreeMap<String, Rights>,
) -> Result<(), sqlx::Error> {
    let has = rights(connection, user).await?;
    for (object, rights) in expected {
        let none = BTreeSet::new();
        let missing: Vec<_> =
            rights.difference(has.get(object).unwrap_or(&none)).map(String::as_str).collect();
        if !missing.is_empty() {
            let grant = format!("GRANT {} ON {object} TO {user}", missing.join(", "));
            connection.execute(grant.as_str()).await?;
        }
    }
    Ok(())
}

async fn revoke_excess(
    connection: &mut MySqlConnection,
    user: &User,
    expected: &BTreeMap<String, Rights>,
) -> Result<(), sqlx::Error> {
    for line in read_lines(connection, user).await? {
        let none = BTreeSet::new();
        let kept = expected.get(&line.object).unwrap_or(&none);
        for revoke in line.revoke_all_but(kept) {
            connection.execute(format!("{revoke} FROM {user}").as_str()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_migrations_has_its_row_and_no_other() {
        let created: BTreeSet<String> = crate::ALL
            .iter()
            .flat_map(|migration| migration.sql.lines())
            .filter_map(|line| line.strip_prefix("CREATE TABLE "))
            .map(|rest| rest.split([' ', '(']).next().unwrap_or_default().to_owned())
            .chain(["schema_migrations".to_owned()])
            .collect();
        let listed: BTreeSet<String> = GRANTS.iter().map(|(table, _)| (*table).to_owned()).collect();
        assert_eq!(listed, created);
        assert_eq!(listed.len(), GRANTS.len(), "a table is listed twice");
    }

    #[test]
    fn the_processor_alone_writes_the_ledger_and_nobody_alters_entries() {
        let ledger = crate::ALL[0].sql;
        for (table, columns) in GRANTS {
            for (role, letters) in Role::ALL.iter().zip(columns) {
                let writes = letters.contains(['I', 'U', 'D']);
                if ledger.contains(&format!("CREATE TABLE {table} ")) {
                    assert!(!writes || *role == Role::Processor, "{role} may write {table}");
                    assert!(!letters.contains('D'), "{role} may delete {table}");
                }
                assert!(!writes || *role != Role::Verifier, "the verifier may write {table}");
            }
        }
        for kept in [
            "entries",
            "audit_log",
            "audit_chain",
            "checkpoints",
            "checkpoint_leaves",
            "checkpoint_publications",
        ] {
            let (_, columns) = GRANTS.iter().find(|(table, _)| *table == kept).unwrap();
            assert!(columns.iter().all(|letters| !letters.contains(['U', 'D'])), "{kept}");
        }
    }

    #[test]
    fn a_users_url_is_checked_and_its_password_decoded() {
        let user = User::from_url(Role::Ingest, "mysql://in-gest:p%40%27ss@h:1/wired", "wired").unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("in-gest", "p@'ss"));
        for url in [
            "mysql://i@h/wired",
            "mysql://i:p@h/other",
            "mysql://i'x:p@h/wired",
            "mysql://i:%00@h/wired",
            "x",
        ] {
            assert!(User::from_url(Role::Ingest, url, "wired").is_err(), "{url}");
        }
    }
}
