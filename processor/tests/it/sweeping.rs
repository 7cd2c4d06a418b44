//! What cannot be ended costs little and hides nothing that can.

use std::time::Duration;

use domain::command::PartnerCommand;
use domain::topic::{PARTNER_COMMANDS, Source};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::Executor as _;
use testkit::wait_until;

use crate::bank::{Bank, PATIENCE};

/// As many as one sweep reads.
const PAGE: i64 = 2_000;

impl Bank {
    /// How many records a partition of partners' commands has.
    async fn records(&self, partition: i32) -> i64 {
        let (kafka, topic) = (self.env.kafka.clone(), self.env.topic(PARTNER_COMMANDS));
        let asking = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = kafka.consumer("watermarks").create().expect("a consumer");
            consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10)).expect("watermarks").1
        });
        asking.await.expect("asking ends")
    }

    async fn authorize(&self, partition: i32, customer: usize, expires_in_s: u32) -> domain::ids::PaymentId {
        let mut payment = self.payment_of(customer, &format!("hold-{partition}-{expires_in_s}"), 100);
        let PartnerCommand::Payment(command) = &mut payment.command else { unreachable!("a payment") };
        command.expires_in_s = Some(expires_in_s);
        let record = (payment.root.uuid().as_bytes().to_vec(), payment.encode());
        self.env.produce_all(PARTNER_COMMANDS, Some(partition), &[record]).await;
        self.decided(payment.id.uuid()).await;
        payment.id
    }

    async fn expired(&self, id: domain::ids::PaymentId) {
        let expired =
            format!("SELECT COUNT(*) FROM payments WHERE status = 7 AND id = 0x{}", id.uuid().simple());
        wait_until("the hold expires", PATIENCE, async || self.number(&expired).await == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_a_partition_that_halted_after_it_was_assigned() {
    let bank = Bank::new("sweep-halted", 2).await;
    let running = bank.start();
    bank.authorize(0, 0, 3_600).await;
    bank.execute("ALTER TABLE entries ADD CONSTRAINT of_the_test CHECK (amount_minor <> 666)").await;
    let bad = bank.payment("bad", 666);
    let record = (bad.root.uuid().as_bytes().to_vec(), bad.encode());
    bank.env.produce_all(PARTNER_COMMANDS, Some(0), &[record]).await;
    running.says(503, "payments.commands.v1 partition 0 is halted").await;
    // When this one has expired, a sweep has met the other one before it.
    bank.execute("UPDATE holds SET expires_at = '2026-01-01'").await;
    let later = bank.authorize(1, 1, 1).await;
    bank.expired(later).await;
    assert_eq!(bank.records(0).await, 2, "the hold and what halted the partition");
    running.stop().await;
    bank.env.close().await;
}

/// Holds of payments that are not authorised any more, which no command of ours leaves: nothing ends them.
#[tokio::test(flavor = "multi_thread")]
async fn holds_that_cannot_be_ended_hide_none_that_can() {
    let bank = Bank::new("sweep-stuck", 1).await;
    let partner = bank.partner.uuid().simple();
    let digits = "SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                  SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9";
    // Two thirds of them at one and the same instant.
    bank.execute(&format!(
        "CREATE TABLE stuck (n INT PRIMARY KEY); \
         INSERT INTO stuck SELECT 1000 * a.d + 100 * b.d + 10 * c.d + e.d FROM ({digits}) a, ({digits}) b, ({digits}) c, \
         ({digits}) e WHERE 1000 * a.d + 100 * b.d + 10 * c.d + e.d < {n}; \
         INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, version, amount_minor, \
         captured_minor, refunded_minor, fingerprint, livemode, actor_id, request_id, partner_id, accepted_at, decided_at) \
         SELECT {source}, 1000, n, UNHEX(LEFT(SHA2(n, 256), 32)), UNHEX(LEFT(SHA2(n, 256), 32)), 1, 2, 1, 1, 1, 0, REPEAT('x', 33), 1, UNHEX(LEFT(SHA2(n, 256), 32)), \
         UNHEX(LEFT(SHA2(n, 256), 32)), 0x{partner}, '2026-01-01', '2026-01-01' FROM stuck; \
         INSERT INTO holds (account_id, payment_id, kafka_partition, amount_minor, expires_at) \
         SELECT UNHEX(LEFT(SHA2(n, 256), 32)), UNHEX(LEFT(SHA2(n, 256), 32)), 0, 1, '2026-01-01' + INTERVAL GREATEST(0, n - 2000) SECOND FROM stuck; \
         DROP TABLE stuck",
        n = 3 * PAGE / 2,
        source = Source::Partner.code(),
    ))
    .await;
    let running = bank.start();
    let hold = bank.authorize(0, 0, 1).await;
    bank.expired(hold).await;
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_end_without_a_look_at_those_of_others() {
    let bank = Bank::new("holds-others", 3).await;
    let running = bank.start();
    let mut holds = Vec::new();
    for customer in 0..3 {
        let mut payment = bank.payment_of(customer, &format!("hold{customer}"), 100);
        let PartnerCommand::Payment(command) = &mut payment.command else { unreachable!("a payment") };
        command.expires_in_s = Some(3_600);
        bank.pay(std::slice::from_ref(&payment)).await;
        bank.decided(payment.id.uuid()).await;
        holds.push(payment.id);
    }
    // Somebody has locked the third.
    let mut other = bank.env.mysql.connect().await.unwrap();
    let (account, payment) = (bank.customers[2].0.uuid().simple(), holds[2].uuid().simple());
    let third =
        format!("SELECT 1 FROM holds WHERE account_id = 0x{account} AND payment_id = 0x{payment} FOR UPDATE");
    other.execute("START TRANSACTION").await.unwrap();
    other.execute(third.as_str()).await.unwrap();
    let voids: Vec<_> =
        (0..2).map(|n| bank.follow_up(holds[n], &format!("void{n}"), PartnerCommand::Void, None)).collect();
    bank.pay(&voids).await;
    for void in &voids {
        bank.decided(void.id.uuid()).await;
    }
    other.execute("ROLLBACK").await.unwrap();
    running.stop().await;
    bank.env.close().await;
}
