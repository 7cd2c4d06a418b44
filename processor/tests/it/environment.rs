//! Positions that do not fit the topic stop the partition, and say what to do.

use domain::topic::PARTNER_COMMANDS;

use crate::bank::Bank;

/// The row of `positions` of the first partition of partner commands.
const POSITION: &str = "source = 1 AND kafka_partition = 0";

/// A bank with three payments applied on the first partition of partner commands.
async fn applied(name: &str) -> Bank {
    let bank = Bank::new(name, 1).await;
    let payments: Vec<_> = (0..3).map(|n| bank.payment(&format!("p{n}"), 100)).collect();
    let records: Vec<_> =
        payments.iter().map(|payment| (payment.root.uuid().as_bytes().to_vec(), payment.encode())).collect();
    bank.env.produce_all(PARTNER_COMMANDS, Some(0), &records).await;
    let running = bank.start();
    bank.settled(3).await;
    running.stop().await;
    bank
}

async fn halts(bank: &Bank, change: &str, words: &str) {
    bank.execute(&format!("{change} WHERE {POSITION}")).await;
    let running = bank.start();
    running.says(503, words).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_position_stops_the_partition() {
    let bank = applied("no-position").await;
    halts(&bank, "DELETE FROM positions", "it must be restored, never made anew").await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_topic_stops_the_partition() {
    let bank = applied("beyond").await;
    halts(&bank, "UPDATE positions SET next_offset = 4", "the topic was made anew").await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_record_before_the_position_stops_the_partition() {
    let bank = applied("other-record").await;
    let change = "UPDATE positions SET record_hash = REPEAT('x', 32)";
    halts(&bank, change, "is not the one that was applied").await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_went_back_applies_nothing_twice() {
    let bank = applied("went-back").await;
    bank.execute(&format!("UPDATE positions SET next_offset = 1, record_hash = NULL WHERE {POSITION}")).await;
    let running = bank.start();
    // The records at 1 and 2 are duplicates of payments that stand at the same positions.
    testkit::wait_until("the position is back", crate::bank::PATIENCE, async || {
        bank.number(&format!("SELECT CAST(next_offset AS SIGNED) FROM positions WHERE {POSITION}")).await == 3
    })
    .await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await, 3);
    bank.assert_sound().await;
    bank.env.close().await;
}
