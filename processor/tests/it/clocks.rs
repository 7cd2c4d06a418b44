//! Kafka's clock against MySQL's: a record stamped ahead holds its partition up, and nothing else.

use std::time::Duration;

use domain::command::PartnerEnvelope;
use domain::topic::PARTNER_COMMANDS;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig as _;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::bank::Bank;

impl Bank {
    /// Lets producers choose the time of partners' commands, as if each had a broker with a clock of its own.
    async fn let_producers_stamp(&self) {
        let topic = self.env.topic(PARTNER_COMMANDS);
        let admin: AdminClient<DefaultClientContext> =
            AdminClient::from_config(&self.env.kafka.producer()).expect("an admin client");
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&topic));
        change.entries.insert("message.timestamp.type", "CreateTime");
        let altered = admin.alter_configs([&change], &AdminOptions::new()).await.expect("an answer");
        for result in altered {
            result.expect("the topic is altered");
        }
    }

    /// Sends a payment that was accepted at `at_ms` after 1970.
    async fn pay_at(&self, partition: i32, payment: &PartnerEnvelope, at_ms: i64) {
        let producer: FutureProducer = self.env.kafka.producer().create().expect("a producer");
        let (topic, value) = (self.env.topic(PARTNER_COMMANDS), payment.encode());
        let root = payment.root.uuid();
        let record = FutureRecord::to(&topic).key(root.as_bytes()).payload(&value);
        let record = record.partition(partition).timestamp(at_ms);
        producer.send(record, Duration::from_secs(10)).await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_stamped_ahead_waits_for_its_time_and_holds_up_its_partition_alone() {
    const AHEAD_MS: i64 = 12_000;
    let bank = Bank::new("stamped-ahead", 3).await;
    bank.let_producers_stamp().await;
    let mut config = bank.config();
    config.accepted_ahead_max_seconds = 1;
    let running = Bank::start_with(config);
    let now_ms = bank.number("SELECT CAST(UNIX_TIMESTAMP(UTC_TIMESTAMP(3)) * 1000 AS SIGNED)").await;
    let (early, behind, other) = (
        bank.payment_of(0, "early", 100),
        bank.payment_of(1, "behind", 100),
        bank.payment_of(2, "other", 100),
    );
    bank.pay_at(0, &early, now_ms + AHEAD_MS).await;
    bank.pay_at(0, &behind, now_ms).await;
    running.says(503, "payments.commands.v1 partition 0 waits: Kafka stamped the record at offset 0").await;
    bank.pay_at(1, &other, now_ms).await;
    bank.decided(other.id.uuid()).await;
    let applied = "SELECT COUNT(*) FROM payments WHERE kind = 1";
    assert_eq!(bank.number(applied).await, 1, "the partition waits, with all that is behind the record");
    // It is begun again without a restart.
    bank.decided(early.id.uuid()).await;
    bank.decided(behind.id.uuid()).await;
    running.says(200, "").await;
    let too_soon = format!(
        "SELECT COUNT(*) FROM payments WHERE id = 0x{} AND decided_at < accepted_at - INTERVAL 2 SECOND",
        early.id.uuid().simple()
    );
    assert_eq!(bank.number(&too_soon).await, 0);
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}
