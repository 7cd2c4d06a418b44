//! Every stored event reaches the event topic, whoever was killed in between.

use crate::bank::Bank;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_announces_what_the_last_one_left() {
    let bank = Bank::new("left-over", 1).await;
    let payments: Vec<_> = (0..50).map(|n| bank.payment(&format!("p{n}"), 100)).collect();
    bank.pay(&payments).await;
    let running = bank.start();
    bank.settled(50).await;
    running.stop().await;
    let before = bank.announced(51).await;
    assert!(before.values().all(|(_, times)| *times == 1), "nothing is told twice without a cause");

    // As if it had been killed before it announced anything.
    bank.execute("UPDATE positions SET announced_offset = 0").await;
    bank.pay(&(50..60).map(|n| bank.payment_of(n, &format!("p{n}"), 100)).collect::<Vec<_>>()).await;
    let running = bank.start();
    bank.settled(60).await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM positions WHERE announced_offset <> next_offset").await, 0);
    let after = bank.announced(61).await;
    for (id, (event, _)) in &before {
        assert_eq!(after[id].0.data.get(), event.data.get(), "the same bytes under the same id");
    }
    let stored = bank.number("SELECT COUNT(*) FROM events").await;
    assert_eq!(stored, 61);
    bank.env.close().await;
}
