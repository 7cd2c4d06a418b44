//! Processors that are killed, doubled or cut off leave every command applied once.

use std::time::Duration;

use testkit::wait_until;

use crate::bank::{Bank, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_it_applies_each_command_once() {
    let bank = Bank::new("killed", 20).await;
    let payments: Vec<_> = (0..3_000).map(|n| bank.payment_of(n, &format!("p{n}"), 10)).collect();
    let mut running = bank.start();
    let mut sent = 0;
    for part in payments.chunks(300) {
        bank.pay(part).await;
        sent += part.len() as i64;
        wait_until("some of it is applied", PATIENCE, async || {
            bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await > sent - 300
        })
        .await;
        running.abort().await;
        running = bank.start();
    }
    bank.settled(3_000).await;
    // Who is stopped leaves what is not announced yet to the next owner.
    wait_until("all is announced", PATIENCE, async || {
        bank.number("SELECT COUNT(*) FROM positions WHERE announced_offset < next_offset").await == 0
    })
    .await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 3_000);
    assert_eq!(bank.announced(3_020).await.len(), 3_020);
    bank.assert_sound().await;
    bank.env.close().await;
}

/// MySQL drops the connection at any moment, during COMMIT too; whether that commit happened, the position tells.
#[tokio::test(flavor = "multi_thread")]
async fn with_its_connections_cut_it_applies_each_command_once() {
    let bank = Bank::new("cut", 20).await;
    let payments: Vec<_> = (0..3_000).map(|n| bank.payment_of(n, &format!("p{n}"), 10)).collect();
    let mut config = bank.config();
    config.batch_max = 50;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(processor::run(config, shutdown.clone()));
    bank.pay(&payments).await;
    let url = bank.env.service_url("processor");
    let mut cuts = 0;
    wait_until("all are decided", PATIENCE, async || {
        let ids: Vec<(u64, runtime::mysql::Text)> =
            sqlx::query_as("SELECT processlist_id, processlist_user FROM performance_schema.threads WHERE processlist_user LIKE 't\\_%\\_processor'")
                .fetch_all(bank.env.pool())
                .await
                .expect("the process list");
        for (id, user) in ids {
            if url.contains(&user.0) && user.0.ends_with("_processor") {
                cuts +=
                    u32::from(sqlx::raw_sql(&format!("KILL {id}")).execute(bank.env.pool()).await.is_ok());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await == 3_000
    })
    .await;
    assert!(cuts > 5, "the test cut {cuts} connections");
    assert_eq!(
        bank.announced(3_020).await.len(),
        3_020,
        "an event of a commit that was answered by nobody is told"
    );
    shutdown.cancel();
    running.await.expect("no panic").expect("a clean end");
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processors_share_the_partitions_and_one_takes_over() {
    let bank = Bank::new("two", 20).await;
    let payments: Vec<_> = (0..2_000).map(|n| bank.payment_of(n, &format!("p{n}"), 10)).collect();
    let (first, second) = (bank.start(), bank.start());
    bank.pay(&payments[..1_000]).await;
    bank.settled(500).await;
    first.abort().await;
    bank.pay(&payments[1_000..]).await;
    bank.settled(2_000).await;
    second.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 2_000);
    assert_eq!(bank.announced(2_020).await.len(), 2_020);
    bank.assert_sound().await;
    bank.env.close().await;
}
