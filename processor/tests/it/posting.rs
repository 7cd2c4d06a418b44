//! Commands become rows, entries and events.

use domain::event::EventType;
use domain::money::Currency::EUR;
use domain::payment::Metadata;
use domain::topic::Source;
use testkit::fixtures;

use crate::bank::{Bank, FUNDS_MINOR, PATIENCE, item};

#[tokio::test(flavor = "multi_thread")]
async fn payments_post_and_their_partner_is_told() {
    let bank = Bank::new("posting", 2).await;
    let running = bank.start();
    let mut described = bank.payment("described", 1_250);
    let domain::command::PartnerCommand::Payment(command) = &mut described.command else {
        unreachable!("a payment")
    };
    command.reference = Some("Rechnung Nr. 7 — Käse".to_owned());
    command.metadata = Metadata::from([("table".to_owned(), "12'; DROP TABLE payments; --".to_owned())]);
    let rejected = bank.payment_of(1, "too much", FUNDS_MINOR + 1);
    bank.pay(&[described.clone(), rejected]).await;
    bank.settled(2).await;
    running.says(200, "").await;

    let told = bank.announced(4).await;
    let posted = told.values().find(|(event, _)| event.event_type == EventType::PaymentPosted).unwrap();
    let data: serde_json::Value = serde_json::from_str(posted.0.data.get()).unwrap();
    assert_eq!(data["payment"]["id"], described.id.to_string());
    assert_eq!(data["payment"]["amount"], "12.50");
    assert_eq!(data["payment"]["reference"], "Rechnung Nr. 7 — Käse");
    assert_eq!(data["payment"]["metadata"]["table"], "12'; DROP TABLE payments; --");
    let sequences: std::collections::BTreeSet<_> = told.values().map(|(event, _)| event.sequence).collect();
    assert_eq!(sequences, (1..=4).collect(), "two mandates and two payments, without a gap");
    assert_eq!(
        bank.words("SELECT reference FROM payments WHERE reference IS NOT NULL").await,
        ["Rechnung Nr. 7 — Käse"]
    );
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_a_thousand_times_posts_once() {
    let bank = Bank::new("repeats", 1).await;
    let payment = bank.payment("once", 100);
    let other = bank.payment("once", 200);
    let mut payments = vec![payment; 1_000];
    payments.extend(vec![other; 10]);
    let two = [bank.start(), bank.start()];
    bank.pay(&payments).await;
    bank.settled(2).await;
    testkit::wait_until("all records are passed", PATIENCE, async || {
        bank.number("SELECT CAST(SUM(next_offset) AS SIGNED) FROM positions WHERE source = 1").await == 1_010
    })
    .await;
    for running in two {
        running.stop().await;
    }
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 1);
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 3 AND status = 4").await, 1);
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_partner_and_a_frozen_account_are_seen_at_once() {
    let bank = Bank::new("suspended", 2).await;
    let running = bank.start();
    bank.apply(domain::command::BankCommand::FreezeAccount { account: bank.customers[0].0 }).await;
    bank.pay(&[bank.payment("frozen", 100)]).await;
    bank.settled(1).await;
    bank.apply(domain::command::BankCommand::RevokeMandate { mandate: bank.customers[1].1 }).await;
    bank.pay(&[bank.payment_of(1, "revoked", 100)]).await;
    bank.settled(2).await;
    bank.execute("UPDATE partners SET status = 2").await;
    bank.pay(&[bank.payment("suspended", 100)]).await;
    bank.settled(3).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE reason = 2").await, 1, "account_frozen");
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE reason = 10").await, 1, "mandate_revoked");
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE reason = 6").await, 1, "partner_suspended");
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

/// The account of a mandate is learnt before anything is locked; a mandate that is granted between the two looks
/// must not make a payment fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_mandate_may_be_used_in_the_batch_that_grants_it() {
    let bank = Bank::new("same-batch", 1).await;
    let mandate = fixtures::mandate_id();
    let grant = fixtures::grant_mandate(mandate, bank.partner, bank.customers[0].0, EUR);
    let grant = fixtures::bank(fixtures::user_id(), grant);
    let payment = fixtures::payment(bank.partner, bank.key, "fresh", mandate, 100, EUR);
    let (partition, offset) = bank.env.produce_bank(&grant).await;
    let (mut applier, _) = bank.applier();
    let batch = vec![
        item(Source::Partner, 0, 0, &payment.encode()),
        item(Source::Bank, partition, offset, &grant.encode()),
    ];
    applier.apply(batch).await.unwrap();
    applier.finish().await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 1);
    bank.assert_sound().await;
    bank.env.close().await;
}
