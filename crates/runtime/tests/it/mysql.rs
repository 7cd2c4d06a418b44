//! Sessions and literals on real MySQL.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use runtime::mysql::Text;
use runtime::sql::Sql;
use sqlx::{Connection, Executor, Row};
use testkit::{Env, wait_until};
use tokio_util::sync::CancellationToken;

const TABLE: &str = "CREATE TABLE literals (
    id INT NOT NULL PRIMARY KEY, number BIGINT NULL, large BIGINT UNSIGNED NULL, bytes VARBINARY(255) NULL,
    fixed BINARY(16) NULL, word VARCHAR(100) COLLATE utf8mb4_bin NULL, at DATETIME(6) NULL
) DEFAULT CHARSET = utf8mb4";

#[tokio::test]
async fn every_session_is_strict_in_utc_and_read_committed() {
    let env = Env::new("session").await;
    let pool = env.mysql.pool("test", 2).unwrap();
    let mut single = env.mysql.connect().await.unwrap();
    let mut pooled = pool.acquire().await.unwrap();
    for connection in [&mut single, &mut *pooled] {
        let row = connection
            .fetch_one(
                "SELECT @@time_zone, @@transaction_isolation, @@innodb_lock_wait_timeout, @@wait_timeout, \
                 @@character_set_client, @@character_set_results",
            )
            .await
            .unwrap();
        let text = |index: usize| row.get::<Text, _>(index).0;
        assert_eq!((text(0).as_str(), text(1).as_str()), ("+00:00", "READ-COMMITTED"));
        assert_eq!((row.get::<u64, _>(2), row.get::<u64, _>(3)), (5, 10));
        assert_eq!((text(4).as_str(), text(5).as_str()), ("utf8mb4", "utf8mb4"));
    }
    pooled.execute(TABLE).await.unwrap();
    for (statement, number) in [
        (format!("INSERT INTO literals (id, word) VALUES (1, '{}')", "x".repeat(101)), 1406),
        ("INSERT INTO literals (id, bytes) VALUES (1, REPEAT('x', 256))".to_owned(), 1406),
        ("INSERT INTO literals (id, number) VALUES (1, 9223372036854775808)".to_owned(), 1264),
        ("INSERT INTO literals (id, large) VALUES (1, -1)".to_owned(), 1264),
        ("INSERT INTO literals (id, number) VALUES (1, 'twelve')".to_owned(), 1366),
        ("INSERT INTO literals (id, at) VALUES (1, 20260231000000)".to_owned(), 1292),
        ("INSERT INTO literals (number) VALUES (1)".to_owned(), 1364),
    ] {
        let error = pooled.execute(statement.as_str()).await.unwrap_err();
        let code =
            error.as_database_error().unwrap().downcast_ref::<sqlx::mysql::MySqlDatabaseError>().number();
        assert_eq!(code, number, "{error} for {statement}");
    }
    drop(pooled);
    pool.close().await;
    single.close().await.unwrap();
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_connection_leaves_no_transaction_open() {
    let env = Env::new("release").await;
    let pool = env.mysql.pool("test", 1).unwrap();
    pool.execute(TABLE).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    connection.execute("START TRANSACTION; INSERT INTO literals (id) VALUES (1)").await.unwrap();
    drop(connection);
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM literals").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
    pool.close().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_requests_do_not_poison_the_pool() {
    let env = Env::new("abort").await;
    let pool = env.mysql.pool("test", 4).unwrap();
    pool.execute(TABLE).await.unwrap();
    for round in 0..400_u64 {
        let pool = pool.clone();
        let request = tokio::spawn(async move {
            let mut transaction = pool.begin().await?;
            transaction.execute("INSERT INTO literals (id) VALUES (1)").await?;
            transaction.execute("SELECT SLEEP(0.001)").await?;
            transaction.rollback().await
        });
        tokio::time::sleep(Duration::from_micros(round * 37 % 3_000)).await;
        request.abort();
        let _ = request.await;
    }
    for _ in 0..20 {
        let mut connection = pool.acquire().await.expect("the pool still gives connections");
        let (three,): (i64,) = sqlx::query_as("SELECT 1 + 2").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(three, 3);
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM literals").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(rows, 0, "nothing of an aborted request is left");
    }
    pool.close().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_is_replaced_after_a_pause() {
    let env = Env::new("killed").await;
    let pool = env.mysql.pool("test", 1).unwrap();
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&pool).await.unwrap();
    env.pool().execute(format!("KILL {id}").as_str()).await.unwrap();
    // Idle for less than a second it would be handed out untried, and fail once.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let other: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&pool).await.unwrap();
    assert_ne!(other, id);
    pool.close().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_shows_its_connections() {
    let env = Env::new("observe").await;
    let (pool, shutdown) = (env.mysql.pool("observed", 3).unwrap(), CancellationToken::new());
    let (first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(second);
    wait_until("the second to be idle", Duration::from_secs(10), async || pool.num_idle() == 1).await;
    runtime::recorder::install();
    runtime::mysql::observe(&pool, "observed", shutdown.clone());
    let line =
        |state, count| format!("wired_mysql_pool_connections{{duty=\"observed\",state=\"{state}\"}} {count}");
    wait_until("one in use and one idle", Duration::from_secs(10), async || {
        let text = runtime::recorder::render();
        text.contains(&line("in_use", 1)) && text.contains(&line("idle", 1))
    })
    .await;
    shutdown.cancel();
    drop(first);
    pool.close().await;
    env.close().await;
}

type Literals =
    (Option<i64>, Option<u64>, Option<Vec<u8>>, Option<[u8; 16]>, Option<String>, Option<[i64; 7]>);

fn literals() -> impl Strategy<Value = Literals> {
    let time = (1970..9999_i64, 1..13_i64, 1..29_i64, 0..24_i64, 0..60_i64, 0..60_i64, 0..1_000_000_i64)
        .prop_map(|(year, month, day, hour, minute, second, micro)| {
            [year, month, day, hour, minute, second, micro]
        });
    let word = prop_oneof![
        proptest::collection::vec(any::<char>(), 0..100)
            .prop_map(|characters| characters.into_iter().collect()),
        r#"[ '"\\;\-#/*%_`\x00\n]{0,40}"#,
        Just("x' OR '1'='1'; DROP TABLE literals; -- ".to_owned()),
    ];
    (
        any::<Option<i64>>(),
        any::<Option<u64>>(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..255)),
        any::<Option<[u8; 16]>>(),
        proptest::option::of(word),
        proptest::option::of(time),
    )
}

#[tokio::test]
async fn whatever_is_encoded_comes_back_as_it_was() {
    let env = Env::new("literals").await;
    let mut connection = env.mysql.connect().await.unwrap();
    connection.execute(TABLE).await.unwrap();
    let mut runner = TestRunner::default();
    let mut written: Vec<Literals> =
        (0..500).map(|_| literals().new_tree(&mut runner).unwrap().current()).collect();
    written.push((
        Some(i64::MIN),
        Some(u64::MAX),
        Some(vec![]),
        Some([0xff; 16]),
        Some(String::new()),
        Some([1970, 1, 1, 0, 0, 0, 1]),
    ));
    written.push((None, None, None, None, None, Some([9998, 12, 31, 23, 59, 59, 999_999])));
    let mut sql = Sql::new();
    sql.text("INSERT INTO literals VALUES ").list(written.iter().enumerate(), |sql, (id, row)| {
        sql.text("(").int(id as u32).text(",").opt_int(row.0).text(",").opt_int(row.1).text(",");
        sql.opt_bytes(row.2.as_deref()).text(",").opt_uuid(row.3.map(uuid::Uuid::from_bytes)).text(",");
        sql.opt_string(row.4.as_deref()).text(",").opt_datetime(row.5).text(")");
    });
    connection.execute(sql.as_str()).await.unwrap();
    let rows = connection
        .fetch_all("SELECT number, large, bytes, fixed, word, DATE_FORMAT(at, '%Y %m %d %H %i %s %f') FROM literals ORDER BY id")
        .await
        .unwrap();
    assert_eq!(rows.len(), written.len());
    for (row, expected) in rows.iter().zip(&written) {
        let time = row.get::<Option<Text>, _>(5).map(|Text(text)| {
            let fields: Vec<i64> = text.split(' ').map(|field| field.parse().unwrap()).collect();
            <[i64; 7]>::try_from(fields).unwrap()
        });
        let read: Literals = (
            row.get(0),
            row.get(1),
            row.get(2),
            row.get::<Option<Vec<u8>>, _>(3).map(|bytes| bytes.try_into().unwrap()),
            row.get::<Option<Text>, _>(4).map(String::from),
            time,
        );
        assert_eq!(&read, expected);
    }
    // As conditions, too.
    let mut sql = Sql::new();
    let mut found = 0;
    for row in written.iter().filter(|row| row.4.is_some() && row.5.is_some()) {
        sql.clear();
        sql.text("SELECT COUNT(*) FROM literals WHERE word = ").opt_string(row.4.as_deref());
        sql.text(" AND at = ").opt_datetime(row.5);
        found += connection.fetch_one(sql.as_str()).await.unwrap().get::<i64, _>(0).min(1);
    }
    assert_eq!(found, written.iter().filter(|row| row.4.is_some() && row.5.is_some()).count() as i64);
    connection.close().await.unwrap();
    env.close().await;
}

/// Services run these in spawned tasks.
#[test]
fn connecting_can_be_spawned() {
    fn sendable<T: Send>(_: &T) {}
    let config = runtime::config::MysqlConfig { mysql_url: String::new() };
    sendable(&config.connect());
}
