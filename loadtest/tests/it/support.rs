//! What several tests need.

use std::time::Duration;

use domain::command::{PartnerCommand, PartnerEnvelope};
use domain::ids::{KeyId, PartnerId};
use domain::money::Currency;
use domain::topic::PARTNER_COMMANDS;
use loadtest::system::{Partner, System};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// A payment as ingest would put it on Kafka.
pub(crate) fn payment(partner: &Partner, key: &str, minor: i64) -> PartnerEnvelope {
    let api_key: KeyId = partner.key_id.parse().unwrap();
    let id: PartnerId = partner.id;
    testkit::fixtures::payment(id, api_key, key, partner.mandates[0], minor, Currency::EUR)
}

/// The same payment with another reference.
pub(crate) fn with_reference(mut envelope: PartnerEnvelope, reference: &str) -> PartnerEnvelope {
    let PartnerCommand::Payment(payment) = &mut envelope.command else { panic!("no payment: {envelope:?}") };
    payment.reference = Some(reference.to_owned());
    envelope
}

/// The record of a command: its key and its value.
pub(crate) fn record(envelope: &PartnerEnvelope) -> (Vec<u8>, Vec<u8>) {
    (envelope.root.uuid().as_bytes().to_vec(), envelope.encode())
}

/// Writes records to the topic of partners' commands, as nobody but ingest may, and waits until all are there.
pub(crate) async fn produce(system: &System, records: &[(Vec<u8>, Vec<u8>)]) {
    let producer: FutureProducer = system.kafka().producer().create().unwrap();
    let topic = system.kafka().topic(PARTNER_COMMANDS.name);
    let mut deliveries = Vec::new();
    for (key, value) in records {
        deliveries.push(producer.send_result(FutureRecord::to(&topic).key(key).payload(value)).unwrap());
    }
    for delivery in deliveries {
        let acknowledged = tokio::time::timeout(Duration::from_secs(20), delivery).await.unwrap().unwrap();
        acknowledged.map_err(|(error, _)| error).unwrap();
    }
}
