//! Applying again, at once, half and edited.

use std::process::Command;
use std::time::Duration;

use migrations::schema::{SchemaError, State, apply, apply_list, status};
use migrations::{ALL, Migration};
use runtime::config::MysqlConfig;
use sqlx::{Executor, Row};
use testkit::{Env, wait_until};

/// A database beside the environment's, gone with [`drop_database`].
fn beside(env: &Env, name: &str) -> MysqlConfig {
    MysqlConfig { mysql_url: format!("{}_{name}", env.mysql.mysql_url) }
}

async fn drop_database(env: &Env, config: &MysqlConfig) {
    let name = config.mysql_url.rsplit('/').next().unwrap();
    env.pool().execute(format!("DROP DATABASE `{name}`").as_str()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_and_repeated_runs_apply_everything_once() {
    let env = Env::new("mig-par").await;
    let config = beside(&env, "a");
    assert!(status(&config).await.unwrap().iter().all(|(_, state)| *state == State::Pending));
    let runs: Vec<_> = (0..6)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { apply(&config).await })
        })
        .collect();
    let mut applied = Vec::new();
    for run in runs {
        applied.extend(run.await.unwrap().expect("no run fails"));
    }
    let names: Vec<_> = ALL.iter().map(|migration| migration.name).collect();
    applied.sort_unstable();
    assert_eq!(applied, names, "each file was applied by exactly one run");
    assert_eq!(apply(&config).await.unwrap(), Vec::<&str>::new());
    assert!(status(&config).await.unwrap().iter().all(|(_, state)| matches!(state, State::Applied(_))));
    let mut connection = config.connect().await.unwrap();
    let rows = connection.fetch_one("SELECT COUNT(*) FROM positions").await.unwrap().get::<i64, _>(0);
    assert_eq!(rows, 12, "every partition has its position once");
    drop_database(&env, &config).await;
    env.close().await;
}

const GOOD: Migration =
    Migration { version: 1, name: "0001_good.sql", sql: "CREATE TABLE a (id INT PRIMARY KEY);" };

const HALF: &str = "CREATE TABLE b (id INT PRIMARY KEY); -- a; comment\nINSERT INTO missing VALUES (1);\nCREATE TABLE c (id INT PRIMARY KEY);";

#[tokio::test]
async fn a_file_that_failed_half_way_says_so_and_is_continued() {
    let env = Env::new("mig-half").await;
    let config = beside(&env, "h");
    let list = [GOOD, Migration { version: 2, name: "0002_half.sql", sql: HALF }];
    for _ in 0..2 {
        let error = apply_list(&config, &list, 60).await.unwrap_err();
        let SchemaError::Statement { number: 2, of: 3, .. } = error else { panic!("{error}") };
        let text = error.to_string();
        for part in
            ["0002_half.sql: statement 2 of 3 failed", "missing' doesn't exist", "goes on with statement 2"]
        {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
    let mut connection = config.connect().await.unwrap();
    connection.execute("CREATE TABLE missing (id INT PRIMARY KEY)").await.unwrap();
    assert_eq!(apply_list(&config, &list, 60).await.unwrap(), ["0002_half.sql"]);
    let tables = connection.fetch_all("SELECT * FROM b, c WHERE b.id = c.id").await.unwrap();
    assert!(tables.is_empty());
    assert_eq!(connection.fetch_all("SELECT id FROM missing").await.unwrap().len(), 1, "done once");
    drop_database(&env, &config).await;
    env.close().await;
}

#[tokio::test]
async fn an_edited_file_and_a_newer_database_are_refused() {
    let env = Env::new("mig-edit").await;
    let config = beside(&env, "e");
    apply_list(&config, &[GOOD], 60).await.unwrap();
    let edited = Migration { sql: "CREATE TABLE a (id BIGINT PRIMARY KEY);", ..GOOD };
    let error = apply_list(&config, &[edited], 60).await.unwrap_err();
    assert!(matches!(error, SchemaError::Edited { name: "0001_good.sql", done: None }), "{error}");
    let two = Migration { version: 2, name: "0002_two.sql", sql: "CREATE TABLE b (id INT)" };
    apply_list(&config, &[GOOD, two], 60).await.unwrap();
    let error = apply_list(&config, &[GOOD], 60).await.unwrap_err();
    assert!(matches!(error, SchemaError::Ahead { version: 2, .. }), "{error}");
    let broken = Migration { version: 3, name: "0003_broken.sql", sql: "CREATE TABLE d (id INT); SELECT 'x" };
    let error = apply_list(&config, &[GOOD, two, broken], 60).await.unwrap_err();
    assert!(matches!(error, SchemaError::Malformed { .. }), "{error}");
    drop_database(&env, &config).await;
    env.close().await;
}

#[tokio::test]
async fn a_url_without_a_plain_database_is_refused() {
    for url in ["mysql://u:p@127.0.0.1:1", "mysql://u:p@127.0.0.1:1/", "mysql://u:p@127.0.0.1:1/a%60b"] {
        let error = apply(&MysqlConfig { mysql_url: url.to_owned() }).await.unwrap_err();
        assert!(error.to_string().contains("must name a database"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_end_is_not_waited_for_for_ever() {
    let env = Env::new("mig-lock").await;
    let config = beside(&env, "l");
    let endless = Migration { version: 1, name: "0001_endless.sql", sql: "SELECT SLEEP(600)" };
    let other = tokio::spawn({
        let config = config.clone();
        async move { apply_list(&config, &[endless], 60).await }
    });
    let name = config.mysql_url.rsplit('/').next().unwrap().to_owned();
    let sleeping = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{name}' AND INFO = '{}'",
        endless.sql
    );
    let id = wait_until("the other run to be at work", Duration::from_secs(20), async || {
        env.pool().fetch_optional(sleeping.as_str()).await.unwrap().map(|row| row.get::<u64, _>(0))
    })
    .await;
    let error = apply_list(&config, &[endless], 1).await.unwrap_err();
    assert!(matches!(error, SchemaError::Locked(1)), "{error}");
    // Killed, it leaves no lock.
    env.pool().execute(format!("KILL {id}").as_str()).await.unwrap();
    assert!(other.await.unwrap().is_err());
    let error = apply_list(&config, &[], 20).await.unwrap_err();
    assert!(matches!(error, SchemaError::Ahead { version: 1, .. }), "{error}");
    drop_database(&env, &config).await;
    env.close().await;
}

fn migrate(command: &str, config: &MysqlConfig) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .arg(command)
        .env("WIRED_MYSQL_URL", &config.mysql_url)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_program_tells_by_its_exit_code() {
    let env = Env::new("mig-cli").await;
    let config = beside(&env, "c");
    let (code, out, _) = migrate("status", &config);
    assert_eq!((code, out.matches("pending").count()), (Some(3), ALL.len()), "{out}");
    let (code, out, error) = migrate("apply", &config);
    assert_eq!((code, out.matches("applied 0").count()), (Some(0), ALL.len()), "{out}{error}");
    let (code, out, _) = migrate("status", &config);
    assert_eq!((code, out.matches(" UTC").count()), (Some(0), ALL.len()), "{out}");
    let nowhere = MysqlConfig { mysql_url: "mysql://u:geheim@127.0.0.1:1/d".to_owned() };
    let (code, _, error) = migrate("apply", &nowhere);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("migrate: MySQL: ") && !error.contains("geheim"), "{error}");
    drop_database(&env, &config).await;
    env.close().await;
}
