//! What each user can do, tried with real statements.

use migrations::users::{self, GRANTS, Role};
use runtime::config::MysqlConfig;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{Connection, Executor, Row};
use testkit::Env;

/// 1142 (table) and 1044 (database): refused for want of a right.
async fn refused(connection: &mut MySqlConnection, statement: &str) -> bool {
    match connection.execute(statement).await {
        Ok(_) => false,
        Err(error) => {
            let error = error.as_database_error().expect("an answer of the server");
            matches!(error.downcast_ref::<MySqlDatabaseError>().number(), 1142 | 1044 | 1143 | 1227)
        }
    }
}

fn user_name(url: &str) -> &str {
    url.strip_prefix("mysql://").and_then(|rest| rest.split(':').next()).unwrap()
}

async fn grants(env: &Env, service: &str) -> Vec<String> {
    let name = user_name(&env.service_url(service)).to_owned();
    let rows = env.pool().fetch_all(format!("SHOW GRANTS FOR '{name}'@'%'").as_str()).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

fn urls(env: &Env) -> Vec<(Role, String)> {
    Role::ALL.map(|role| (role, env.service_url(role.name()))).to_vec()
}

#[tokio::test]
async fn each_user_can_do_what_the_table_says_and_nothing_else() {
    let env = Env::new("users").await;
    for (column, role) in Role::ALL.into_iter().enumerate() {
        let mut connection = env.service_mysql(role.name()).connect().await.unwrap();
        for (table, letters) in GRANTS {
            let columns = connection_columns(&env, table).await;
            let first = &columns[0];
            for (letter, statement) in [
                ('S', format!("SELECT * FROM {table} WHERE 1 = 0")),
                (
                    'I',
                    format!(
                        "INSERT INTO {table} SELECT {} FROM DUAL WHERE 1 = 0",
                        vec!["NULL"; columns.len()].join(", ")
                    ),
                ),
                ('U', format!("UPDATE {table} SET {first} = 0 WHERE 1 = 0")),
                ('D', format!("DELETE FROM {table} WHERE 1 = 0")),
            ] {
                // UPDATE and DELETE with a condition also read; a constant one does not.
                let may = letters[column].contains(letter);
                assert_eq!(refused(&mut connection, &statement).await, !may, "{role}: {statement}");
            }
            assert!(
                refused(&mut connection, &format!("DROP TABLE {table}")).await,
                "{role} may drop {table}"
            );
            assert!(refused(&mut connection, &format!("TRUNCATE {table}")).await, "{role} may empty {table}");
            assert!(
                refused(&mut connection, &format!("ALTER TABLE {table} ADD x INT")).await,
                "{role}: {table}"
            );
        }
        assert!(refused(&mut connection, "CREATE TABLE mine (id INT)").await);
        assert!(refused(&mut connection, "SELECT * FROM mysql.user").await);
        assert!(refused(&mut connection, "SET GLOBAL sync_binlog = 0").await);
        connection.close().await.unwrap();
    }
    env.close().await;
}

async fn connection_columns(env: &Env, table: &str) -> Vec<String> {
    let rows = env.pool().fetch_all(format!("SHOW COLUMNS FROM {table}").as_str()).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

#[tokio::test]
async fn what_the_processor_does_it_may_do() {
    let env = Env::new("users-proc").await;
    let mut connection = env.service_mysql("processor").connect().await.unwrap();
    for table in ["positions", "payments", "mandates", "accounts", "partner_sequences"] {
        connection
            .execute(format!("SELECT * FROM {table} FORCE INDEX (PRIMARY) FOR UPDATE").as_str())
            .await
            .unwrap();
    }
    let upsert = "INSERT INTO positions (source, kafka_partition, next_offset, announced_offset) VALUES (1, 0, 5, 5) \
                  ON DUPLICATE KEY UPDATE next_offset = VALUES(next_offset)";
    assert_eq!(connection.execute(upsert).await.unwrap().rows_affected(), 2);
    connection.close().await.unwrap();
    env.close().await;
}

#[tokio::test]
async fn a_run_makes_grants_exact_whatever_was_there() {
    let env = Env::new("users-exact").await;
    let before = grants(&env, "ingest").await;
    let url = env.service_url("ingest");
    let (user, database) = (user_name(&url), url.rsplit('/').next().unwrap());
    for statement in [
        format!("GRANT INSERT, DELETE ON `{database}`.payments TO '{user}'@'%'"),
        format!("GRANT SELECT (url), UPDATE (url) ON `{database}`.endpoints TO '{user}'@'%'"),
        format!("GRANT ALL PRIVILEGES ON `{database}`.* TO '{user}'@'%' WITH GRANT OPTION"),
        format!("GRANT PROCESS, BACKUP_ADMIN ON *.* TO '{user}'@'%'"),
        format!("REVOKE SELECT ON `{database}`.accounts FROM '{user}'@'%'"),
        format!("CREATE ROLE '{user}_r'@'%'"),
        format!("GRANT '{user}_r'@'%' TO '{user}'@'%'"),
    ] {
        env.pool().execute(statement.as_str()).await.unwrap();
    }
    assert_ne!(grants(&env, "ingest").await, before);
    for _ in 0..2 {
        users::apply(&env.mysql, &urls(&env)).await.unwrap();
        assert_eq!(grants(&env, "ingest").await, before);
    }
    env.pool().execute(format!("DROP ROLE '{user}_r'@'%'").as_str()).await.unwrap();
    env.close().await;
}

#[tokio::test]
async fn a_new_password_takes_effect_and_strange_ones_work() {
    let env = Env::new("users-pw").await;
    let old = env.service_url("verifier");
    let (user, rest) = (user_name(&old), old.split_once('@').unwrap().1);
    for password in ["new", "it's%20%22%5C%40%2F%3Aß;--%20"] {
        let url = format!("mysql://{user}:{password}@{rest}");
        users::apply(&env.mysql, &[(Role::Verifier, url.clone())]).await.unwrap();
        MysqlConfig { mysql_url: url }.connect().await.unwrap().close().await.unwrap();
        assert!(env.service_mysql("verifier").connect().await.is_err(), "the old password still works");
    }
    env.close().await;
}

#[tokio::test]
async fn an_administrator_without_rights_is_told_so() {
    let env = Env::new("users-weak").await;
    let error = users::apply(&env.service_mysql("processor"), &urls(&env)[..1]).await.unwrap_err();
    assert!(error.to_string().contains("CREATE USER"), "{error}");
    env.close().await;
}

#[tokio::test]
async fn the_administrator_and_shared_users_are_refused_and_keep_their_rights() {
    let env = Env::new("users-shared").await;
    let ingest = env.service_url("ingest");
    for (urls, why) in [
        (vec![(Role::Ingest, env.mysql.mysql_url.clone())], "the administrator"),
        (vec![(Role::Ingest, ingest.clone()), (Role::Processor, ingest.clone())], "another service"),
    ] {
        let error = users::apply(&env.mysql, &urls).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(grants(&env, "ingest").await.len() > 10);
    env.close().await;
}
