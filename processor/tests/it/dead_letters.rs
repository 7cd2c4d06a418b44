//! One bad record is set aside; a bad environment stops everything and sets nothing aside.

use domain::command::{BankCommand, PartnerCommand, PartnerEnvelope, RejectDeadLetter};
use domain::topic::{PARTNER_COMMANDS, Source};
use testkit::wait_until;

use crate::bank::{Bank, PATIENCE, item};

fn unfit(bank: &Bank, key: &str) -> PartnerEnvelope {
    let mut payment = bank.payment(key, 100);
    let PartnerCommand::Payment(command) = &mut payment.command else { unreachable!("a payment") };
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
    let behind = bank.follow_up(unfit.root, "behind", PartnerCommand::Refund, None);
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

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_applied_in_order_behind_their_root_once_they_fit() {
    let bank = Bank::new("redrive", 1).await;
    let running = bank.start();
    let unfit = unfit(&bank, "unfit");
    let root = unfit.root.uuid();
    let refund = bank.follow_up(unfit.id, "refund", PartnerCommand::Refund, Some(40));
    bank.pay(&[unfit.clone(), refund.clone()]).await;
    let open = "SELECT COUNT(*) FROM dead_letters WHERE status = 1";
    wait_until("both are set aside", PATIENCE, async || bank.number(open).await == 2).await;

    // While the column is too narrow a redrive says that it failed, and leaves everything as it is.
    let failed = bank.send(BankCommand::RedriveDeadLetters { root }).await;
    bank.decided(failed.id).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM changes WHERE reason = 28").await, 1);
    assert_eq!(bank.number(open).await, 2);

    bank.execute("ALTER TABLE payments MODIFY reference VARCHAR(200) NULL").await;
    bank.apply(BankCommand::RedriveDeadLetters { root }).await;
    assert_eq!(bank.number(open).await, 0);
    let letters = "SELECT COUNT(*) FROM dead_letters d JOIN payments p ON (p.source, p.kafka_partition, \
                   p.kafka_offset) = (d.source, d.kafka_partition, d.kafka_offset) \
                   WHERE d.status = 2 AND p.status = 2 AND p.event_sequence IS NOT NULL";
    assert_eq!(bank.number(letters).await, 2, "both stand at their own places");
    let refunded = "SELECT refunded_minor FROM payments WHERE kind = 1";
    assert_eq!(bank.number(refunded).await, 40);
    // Nothing is left to redrive, and the root is free again.
    let again = bank.send(BankCommand::RedriveDeadLetters { root }).await;
    bank.decided(again.id).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM changes WHERE reason = 32").await, 1);
    let rest = bank.follow_up(unfit.id, "rest", PartnerCommand::Refund, None);
    bank.pay(std::slice::from_ref(&rest)).await;
    bank.decided(rest.id.uuid()).await;
    assert_eq!(bank.number(refunded).await, 100);
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

/// What deals with dead letters is never one because of what it finds, so its own text has to be read first.
#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_fits_no_column_is_set_aside_and_stops_nothing() {
    let bank = Bank::new("long-reason", 1).await;
    let running = bank.start();
    let root = uuid::Uuid::now_v7();
    for command in [
        BankCommand::RedriveDeadLetters { root },
        BankCommand::RejectDeadLetter(RejectDeadLetter {
            source: Source::Partner,
            partition: 0,
            offset: 0,
            root: Some(root),
        }),
    ] {
        let mut envelope = testkit::fixtures::bank(testkit::fixtures::user_id(), command);
        envelope.reason = "ä".repeat(501);
        bank.env.produce_bank(&envelope).await;
        // As long as it may be.
        (envelope.id, envelope.reason) = (uuid::Uuid::now_v7(), "ä".repeat(500));
        bank.env.produce_bank(&envelope).await;
        // Behind a dead letter of its root it still says what it found.
        bank.decided(envelope.id).await;
    }
    assert_eq!(bank.words("SELECT reason FROM dead_letters").await, ["undecodable", "undecodable"]);
    assert_eq!(bank.number("SELECT COUNT(*) FROM changes WHERE CHAR_LENGTH(actor_reason) = 500").await, 2);
    running.says(200, "").await;
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_was_given_up_can_be_asked_for_again() {
    let bank = Bank::new("reject-cancel", 1).await;
    let running = bank.start();
    // Behind what cannot be read of its mandate, the cancel waits; both are given up.
    let mandate = bank.customers[0].1;
    let key = mandate.uuid().as_bytes().to_vec();
    let id = domain::ids::mandate_end_id(bank.partner, mandate, "cancel");
    let cancel = bank.on_mandate(id, PartnerCommand::CancelMandate(crate::money::terms(mandate)));
    let records = [(key.clone(), b"no command".to_vec()), (key.clone(), cancel.encode())];
    bank.env.produce_all(PARTNER_COMMANDS, Some(5), &records).await;
    let open = "SELECT COUNT(*) FROM dead_letters WHERE status = 1";
    wait_until("both are set aside", PATIENCE, async || bank.number(open).await == 2).await;
    for offset in [0, 1] {
        let letter =
            RejectDeadLetter { source: Source::Partner, partition: 5, offset, root: Some(mandate.uuid()) };
        bank.apply(BankCommand::RejectDeadLetter(letter)).await;
    }
    assert_eq!(bank.number("SELECT COUNT(*) FROM mandates WHERE status = 1").await, 1, "it goes on");
    bank.env.produce_all(PARTNER_COMMANDS, Some(5), &[(key, cancel.encode())]).await;
    bank.decided(id.uuid()).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM mandates WHERE status = 3").await, 1, "revoked");
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_processor_redrove_is_announced_by_the_next() {
    let bank = Bank::new("redrive-kill", 1).await;
    let running = bank.start();
    let unfit = unfit(&bank, "unfit");
    bank.pay(std::slice::from_ref(&unfit)).await;
    let open = "SELECT COUNT(*) FROM dead_letters WHERE status = 1";
    wait_until("it is set aside", PATIENCE, async || bank.number(open).await == 1).await;
    bank.execute("ALTER TABLE payments MODIFY reference VARCHAR(200) NULL").await;
    bank.apply(BankCommand::RedriveDeadLetters { root: unfit.root.uuid() }).await;
    running.stop().await;
    // As if the process had died between the commit and the announcement.
    bank.execute(
        "UPDATE positions SET announced_offset = next_offset - 1 WHERE source = 2 AND next_offset > 0",
    )
    .await;
    let running = bank.start();
    let last = bank.payment("last", 100);
    bank.pay(std::slice::from_ref(&last)).await;
    // All events of a partner are on one partition, so what was announced before the last one has been read.
    let told = bank.announced(3).await;
    let redriven = told.values().find(|(event, _)| event.data.get().contains(&unfit.id.to_string()));
    assert_eq!(redriven.map(|(_, times)| *times), Some(2), "told before the kill and after it");
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_given_up_rejects_what_it_asked_for_and_frees_its_root() {
    let bank = Bank::new("reject", 1).await;
    let running = bank.start();
    let unfit = unfit(&bank, "unfit");
    let mut unreadable = (unfit.root.uuid().as_bytes().to_vec(), b"no command".to_vec());
    bank.env
        .produce_all(
            PARTNER_COMMANDS,
            Some(3),
            &[(unfit.root.uuid().as_bytes().to_vec(), unfit.encode()), unreadable.clone()],
        )
        .await;
    unreadable.0 = b"no id".to_vec();
    bank.env.produce_all(PARTNER_COMMANDS, Some(4), &[unreadable]).await;
    let open = "SELECT COUNT(*) FROM dead_letters WHERE status = 1";
    wait_until("all are set aside", PATIENCE, async || bank.number(open).await == 3).await;
    let reject = |partition, offset, root| {
        BankCommand::RejectDeadLetter(RejectDeadLetter { source: Source::Partner, partition, offset, root })
    };
    let root = Some(unfit.root.uuid());
    // A redrive goes no further than what cannot be read, a rejection names one, and a wrong name nothing.
    let wrong = bank.send(reject(3, 0, None)).await;
    bank.decided(wrong.id).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM changes WHERE reason = 32").await, 1);
    for command in [reject(3, 0, root), reject(3, 1, root), reject(4, 0, None)] {
        bank.apply(command).await;
    }
    assert_eq!(bank.number(open).await, 0);
    let rejected = "SELECT COUNT(*) FROM payments WHERE status = 3 AND reason = 28 AND reference IS NULL";
    assert_eq!(bank.number(rejected).await, 1);
    // Whatever is sent again, it stays rejected.
    let mut same = unfit.clone();
    let PartnerCommand::Payment(command) = &mut same.command else { unreachable!("a payment") };
    command.reference = None;
    bank.pay(&[same]).await;
    let last = bank.payment("last", 100);
    bank.pay(std::slice::from_ref(&last)).await;
    bank.decided(last.id.uuid()).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1").await, 2);
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}
