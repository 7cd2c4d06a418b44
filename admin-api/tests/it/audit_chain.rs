//! The sealer: every row of the audit log gets its link, whenever it is committed and however many seal.

use std::time::{Duration, Instant};

use admin_api::audit::{Action, Entry, Origin};
use admin_api::store::audit;
use clap::Parser as _;
use domain::ids::UserId;
use sqlx::{Connection as _, MySqlConnection, Row as _};
use testkit::{Env, wait_until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    config: admin_api::evidence::EvidenceConfig,
}

/// Sealer, checkpoints and reconciler of one process.
struct Sealing {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sealing {
    fn start(env: &Env) -> Self {
        let stop = CancellationToken::new();
        let config = Cli::parse_from(["admin-api", "--reconciliation-rows-per-second", "0"]).config;
        let tasks = config.start(&env.service_mysql("admin-api"), &env.kafka, &stop).unwrap();
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(LONG, task).await.expect("it stops").unwrap();
        }
    }
}

async fn connect(env: &Env) -> MySqlConnection {
    env.service_mysql("admin-api").connect().await.unwrap()
}

fn entry(user: u128) -> Entry {
    let origin = Origin { request_id: Uuid::now_v7(), address: Some([127, 0, 0, 1].into()) };
    Entry::own(UserId::from_uuid(Uuid::from_u128(user)), Action::LogIn, origin)
}

/// The actors of the rows of the chain, in its order.
async fn chain(env: &Env) -> Vec<u128> {
    let sql = "SELECT a.actor_id FROM audit_chain c JOIN audit_log a ON a.id = c.audit_id ORDER BY c.number";
    let rows = sqlx::query(sql).fetch_all(env.pool()).await.unwrap();
    rows.iter().map(|row| Uuid::from_slice(row.get(0)).unwrap().as_u128()).collect()
}

async fn sealed(env: &Env, rows: usize) {
    wait_until("all rows are sealed", LONG, async || {
        let waiting: (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM audit_unsealed").fetch_one(env.pool()).await.unwrap();
        waiting.0 == 0 && chain(env).await.len() == rows
    })
    .await;
    let pool = env.service_mysql("verifier").pool("verify", 2).unwrap();
    let (report, _) = verifier::verify_audit(&pool, None, None, &|_| {}).await.unwrap();
    assert!(report.is_whole(), "{:#?}", report.findings);
    assert_eq!(report.rows["audit_chain"], rows as u64);
    pool.close().await;
}

#[tokio::test]
async fn rows_that_commit_in_another_order_or_minutes_later_are_sealed() {
    let env = Env::new("admin-sealer").await;
    let sealing = Sealing::start(&env);
    let mut connections = [connect(&env).await, connect(&env).await, connect(&env).await];
    let [first, second, third] = &mut connections;
    // The ids are drawn in this order.
    let mut late = first.begin().await.unwrap();
    audit::write(&mut late, &entry(1)).await.unwrap();
    let mut early = second.begin().await.unwrap();
    audit::write(&mut early, &entry(2)).await.unwrap();
    early.commit().await.unwrap();
    let begun = Instant::now();
    sealed(&env, 1).await;
    println!("sealed after {:?}", begun.elapsed());
    audit::write(third, &entry(3)).await.unwrap();
    // Committed on its own, a row is only seen together with its place in the queue.
    sealed(&env, 2).await;
    late.commit().await.unwrap();
    sealed(&env, 3).await;
    assert_eq!(chain(&env).await, [2, 3, 1], "the order of the chain is that of commits");
    // Its id was drawn an hour ago.
    let millis = Uuid::now_v7().as_u128() >> 80;
    let old = Uuid::from_u128((millis - 3_600_000) << 80 | 7 << 76 | 2 << 62 | 5);
    let mut very_late = third.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO audit_log SELECT ?, at, REPEAT('\\0', 16), action, target, outcome, detail, request_id, address \
         FROM audit_log WHERE actor_id = ?",
    )
    .bind(old.as_bytes().as_slice())
    .bind(Uuid::from_u128(1).as_bytes().as_slice())
    .execute(&mut *very_late)
    .await
    .unwrap();
    let queue = "INSERT INTO audit_unsealed VALUES (?)";
    sqlx::query(queue).bind(old.as_bytes().as_slice()).execute(&mut *very_late).await.unwrap();
    very_late.commit().await.unwrap();
    sealed(&env, 4).await;
    assert_eq!(chain(&env).await, [2, 3, 1, 0]);
    // A place in the queue that comes back makes no second link and stops nothing.
    sqlx::query(queue).bind(old.as_bytes().as_slice()).execute(&mut *third).await.unwrap();
    audit::write(third, &entry(4)).await.unwrap();
    sealed(&env, 5).await;
    sealing.stop().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_seal_at_once_make_one_chain() {
    const ROWS: usize = 1_500;
    let env = Env::new("admin-sealers").await;
    let both = [Sealing::start(&env), Sealing::start(&env)];
    let robbed = CancellationToken::new();
    // The lease is taken from whoever has it all the time, so that both work.
    let robbing = tokio::spawn({
        let (pool, stop) = (env.pool().clone(), robbed.clone());
        async move {
            while !stop.is_cancelled() {
                let sql = "UPDATE leases SET expires_at = '2000-01-01' WHERE name = 'audit_sealer'";
                sqlx::query(sql).execute(&pool).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let mut writing = Vec::new();
    for writer in 0..3 {
        let mut connection = connect(&env).await;
        writing.push(tokio::spawn(async move {
            for number in 0..ROWS / 3 {
                let mut transaction = connection.begin().await.unwrap();
                audit::write(&mut transaction, &entry((writer * ROWS + number) as u128)).await.unwrap();
                transaction.commit().await.unwrap();
            }
        }));
    }
    for writer in writing {
        writer.await.unwrap();
    }
    sealed(&env, ROWS).await;
    robbed.cancel();
    robbing.await.unwrap();
    let [one, other] = both;
    one.stop().await;
    other.stop().await;
    env.close().await;
}

#[tokio::test]
async fn nobody_may_alter_or_remove_a_row_or_a_link() {
    let env = Env::new("admin-sealed").await;
    let sealing = Sealing::start(&env);
    let mut connection = connect(&env).await;
    audit::write(&mut connection, &entry(1)).await.unwrap();
    sealed(&env, 1).await;
    for sql in [
        "UPDATE audit_log SET outcome = 2",
        "DELETE FROM audit_log",
        "UPDATE audit_chain SET number = 2",
        "DELETE FROM audit_chain",
        "UPDATE api_calls SET status = 200",
    ] {
        let refused = sqlx::query(sql).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains("command denied"), "{sql}: {refused}");
    }
    sealing.stop().await;
    env.close().await;
}
