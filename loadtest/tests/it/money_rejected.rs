//! A rejected payment can never post later: not when it is asked for again, not when its record is written again, not
//! when everything is replayed after processors were killed, and not when an operator redrives what stood behind it.

use std::time::Duration;

use client::{Client, PartRequest, PaymentRequest, TransferRequest};
use domain::account::Owner;
use domain::command::{BankCommand, RejectDeadLetter};
use domain::ids::{PaymentId, UserId, bank_owner, payment_id};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::topic::Source;
use loadtest::faults::audit;
use loadtest::system::{Options, Servers, Service, System};
use testkit::fixtures;
use testkit::naive_bank::Command;

use crate::money_ledger::{Ledger, PATIENCE, Record, Writer, records, verify};
use crate::support::{payment, with_reference};

const EUR: Currency = Currency::EUR;
const WAIT: Option<Duration> = Some(Duration::from_secs(10));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_payment_never_posts_later() {
    let _turn = crate::turn().await;
    let options =
        Options { ingests: 2, processors: 2, notifiers: 0, customers: 1, ..Options::new("rejected") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let banks: Vec<Client> =
        system.urls().iter().map(|url| partner.client(url, client::Options::default()).unwrap()).collect();
    let writer = Writer::new(&system);
    let bank = |command| Command::Bank(fixtures::bank(UserId::from_uuid(bank_owner()), command));
    let [customer, shop, other_shop] = [(); 3].map(|()| fixtures::account_id());
    let mandate = fixtures::mandate_id();
    let owner = Owner::Customer(fixtures::user_id());
    let open = |account, owner| bank(fixtures::open_account(account, owner, EUR));
    let partner_owner = Owner::Partner(partner.id);
    writer
        .write_all(&[open(customer, owner), open(shop, partner_owner), open(other_shop, partner_owner)])
        .await;
    audit::applied(&system, PATIENCE).await.unwrap();
    writer.write(&bank(fixtures::grant_mandate(mandate, partner.id, customer, EUR))).await;
    audit::applied(&system, PATIENCE).await.unwrap();

    // Each is rejected for want of money.
    let amount = Amount::new(500, EUR).unwrap();
    let asks = async |bank: &Client| {
        let request = PaymentRequest::new(mandate, amount);
        let id = payment_id(partner.id, "payment");
        let part = PartRequest::of(amount);
        let answers = [
            bank.pay(&request, "payment", WAIT).await,
            bank.pay(&request.clone().authorize(None), "authorization", WAIT).await,
            bank.capture(payment_id(partner.id, "authorization"), &part, "capture", WAIT).await,
            bank.void(payment_id(partner.id, "authorization"), "void", WAIT).await,
            bank.refund(id, &part, "refund", WAIT).await,
            bank.transfer(&TransferRequest::new(shop, other_shop, amount), "transfer", WAIT).await,
        ];
        for answer in answers {
            let payment = answer.unwrap().payment;
            assert_eq!(payment.status, PaymentStatus::Rejected, "{payment:?}");
        }
    };
    asks(&banks[0]).await;
    let rejected = records(&system, audit::ends(&system).await.unwrap()).await;
    // Now there would be money for all of them.
    for account in [customer, shop] {
        writer.write(&bank(fixtures::deposit(account, 100_000, EUR))).await;
    }
    let before = Ledger::read(&system).await;

    // Asked for again, of both ingests.
    asks(&banks[0]).await;
    asks(&banks[1]).await;
    // Written again, and replayed from the beginning while processors die.
    let replay = async |records: &[Record]| {
        let commands: Vec<_> = records.iter().map(|record| record.command.clone()).collect();
        writer.write_all(&commands).await;
    };
    replay(&rejected).await;
    let all = records(&system, audit::ends(&system).await.unwrap()).await;
    for processor in 0..2 {
        replay(&all).await;
        system.kill(Service::Processor, processor).await.unwrap();
        system.restart(Service::Processor, processor).await.unwrap();
    }
    let after = Ledger::read(&system).await;
    assert_eq!(before.accounts, after.accounts);
    assert_eq!(before.payments, after.payments);
    assert_eq!(before.events, after.events);
    assert_eq!(before.changes, after.changes);

    // One that could not be processed is given up by an operator; what waited behind it under its id is redriven.
    let long = with_reference(payment(partner, "unfit", 100), &"x".repeat(101));
    writer.write(&Command::Partner(long.clone())).await;
    audit::applied(&system, PATIENCE).await.unwrap();
    writer.write(&Command::Partner(payment(partner, "unfit", 200))).await;
    audit::applied(&system, PATIENCE).await.unwrap();
    let (partition, offset): (u16, u64) = sqlx::query_as(
        "SELECT kafka_partition, kafka_offset FROM dead_letters ORDER BY kafka_offset LIMIT 1",
    )
    .fetch_one(system.pool())
    .await
    .unwrap();
    let root = long.root.uuid();
    let reject = RejectDeadLetter {
        source: Source::Partner,
        partition: partition.into(),
        offset: offset as i64,
        root: Some(root),
    };
    writer.write(&bank(BankCommand::RejectDeadLetter(reject))).await;
    audit::applied(&system, PATIENCE).await.unwrap();
    writer.write(&bank(BankCommand::RedriveDeadLetters { root })).await;
    audit::applied(&system, PATIENCE).await.unwrap();
    writer.write(&Command::Partner(long.clone())).await;
    let ledger = Ledger::read(&system).await;
    assert_eq!(ledger.outcome(long.id), (PaymentStatus::Rejected, Some(Reason::ProcessingFailed)));
    let of_root: Vec<_> = ledger.payments.values().filter(|row| row.root == long.id).collect();
    let conflicts = of_root.iter().filter(|row| row.kind == PaymentKind::Conflict);
    assert_eq!((of_root.len(), conflicts.count()), (2, 1), "{of_root:?}");
    assert_eq!(ledger.accounts, before.accounts, "none of it moved money");
    assert_eq!(outcome_by_api(&banks[1], long.id).await, PaymentStatus::Rejected);
    verify(&system).await;
    system.finish().await.unwrap();
}

async fn outcome_by_api(bank: &Client, id: PaymentId) -> PaymentStatus {
    bank.payment_by_id(id).await.unwrap().status
}
