//! One bad record is set aside; a bad environment stops everything and sets nothing aside.

use domain::command::PartnerEnvelope;
use domain::topic::{PARTNER_COMMANDS, Source};
use testkit::wait_until;

use crate::bank::{Bank, PATIENCE, item};

fn unfit(bank: &Bank, key: &str) -> PartnerEnvelope {
    let mut payment = bank.payment(key, 100);
    let domain::command::PartnerCommand::Payment(command) = &mut payment.command else {
        unreachable!("a payment")
    };
    command.reference = Some("x".repeat(101));
    payment
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bad_records_among_500_are_set_aside_and_498_post() {
    let bank = Bank::new("poison", 3).await;
    let mut records: Vec<_> = (0..500)
        .map(|n| bank.payment_of(n, &format!("p{n}"), 100))
        .map(|payment| (payment.root.uuid().as_bytes().to_vec(), payment.encode()))
        .collect();
    records[123].1 = b"{\"schema\":1,\"id\":\"no command".to_vec();
    let unfit = unfit(&bank, "unfit");
    records[321] = (unfit.root.uuid().as_bytes().to_vec(), unfit.encode());
    bank.env.produce_all(PARTNER_COMMANDS, Some(0), &records).await;
    let running = bank.start();
    bank.settled(498).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await, 498);
    let reasons = bank.words("SELECT reason FROM dead_letters ORDER BY kafka_offset").await;
    assert_eq!(reasons, ["undecodable", "data_error"]);
    let details = bank.words("SELECT detail FROM dead_letters ORDER BY kafka_offset").await;
    assert!(details[0].starts_with("not a command"), "{details:?}");
    assert!(details[1].contains("1406"), "{details:?}");
    let id = unfit.id.uuid().simple();
    assert_eq!(bank.number(&format!("SELECT COUNT(*) FROM dead_letters WHERE id = 0x{id}")).await, 1);

    // A later command on the same root waits behind it, in a later batch too.
    let mut behind = bank.payment("behind", 100);
    behind.root = unfit.root;
    bank.pay(&[behind]).await;
    wait_until("the later command joins", PATIENCE, async || {
        bank.number("SELECT COUNT(*) FROM dead_letters WHERE reason = 'behind_dead_letter'").await == 1
    })
    .await;
    running.says(200, "").await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await, 498);
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_three_bad_records_of_a_batch_stop_their_partition_and_no_other() {
    let bank = Bank::new("many-bad", 1).await;
    let (mut applier, health) = bank.applier();
    let mut items: Vec<_> = (0..4).map(|offset| item(Source::Partner, 0, offset, b"no command")).collect();
    items.push(item(Source::Partner, 1, 0, &bank.payment("good", 100).encode()));
    applier.apply(items).await.unwrap();
    let down = health.ready().unwrap_err();
    assert!(down[0].1.contains("payments.commands.v1 partition 0 is halted: more than 3"), "{down:?}");
    // Nothing more is taken from that partition.
    applier.apply(vec![item(Source::Partner, 0, 4, &bank.payment("later", 100).encode())]).await.unwrap();
    applier.finish().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    assert_eq!(bank.words("SELECT idempotency_key FROM payments WHERE kind = 1").await, ["good"]);
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_stops_loudly_and_sets_nothing_aside() {
    let bank = Bank::new("grant", 1).await;
    let user = bank.words("SELECT user FROM mysql.user WHERE user LIKE 't\\_%\\_processor'").await;
    let url = bank.env.service_url("processor");
    let user = user.into_iter().find(|user| url.contains(user.as_str())).expect("the processor's user");
    let host = bank.words(&format!("SELECT host FROM mysql.user WHERE user = '{user}'")).await.remove(0);
    bank.execute(&format!("REVOKE INSERT ON entries FROM '{user}'@'{host}'")).await;
    bank.pay(&[bank.payment("a", 100), bank.payment("b", 100)]).await;
    let running = bank.start();
    running.says(503, "is halted: MySQL error 1142").await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await, 0);

    // With the grant back, a new start goes on where it stopped.
    bank.execute(&format!("GRANT INSERT ON entries TO '{user}'@'{host}'")).await;
    let running = bank.start();
    bank.settled(2).await;
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violated_check_is_our_own_fault_and_stops() {
    let bank = Bank::new("check", 1).await;
    bank.execute("ALTER TABLE entries ADD CONSTRAINT of_the_test CHECK (amount_minor <> 666)").await;
    bank.pay(&[bank.payment("a", 666)]).await;
    let running = bank.start();
    running.says(503, "is halted: MySQL error 3819").await;
    running.stop().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    bank.env.close().await;
}
