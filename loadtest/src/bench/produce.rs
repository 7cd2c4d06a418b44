//! Puts records on Kafka in bulk, each acknowledged.

use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::config::KafkaConfig;
use runtime::kafka::LogContext;

/// Records in flight: below the producer's bounds of 100,000 records and 64 MiB.
const IN_FLIGHT: usize = 20_000;

/// Produces `(key, value)` records to a topic (named without its prefix) and waits for every acknowledgement.
pub(super) async fn produce(
    kafka: &KafkaConfig,
    topic: &str,
    records: impl IntoIterator<Item = ([u8; 16], Vec<u8>)>,
) -> anyhow::Result<u64> {
    let producer: FutureProducer<LogContext> = kafka.producer().create_with_context(LogContext)?;
    let topic = kafka.topic(topic);
    let mut deliveries = Vec::with_capacity(IN_FLIGHT);
    let mut produced = 0;
    for (key, value) in records {
        let record = FutureRecord::to(&topic).key(key.as_slice()).payload(&value);
        deliveries.push(producer.send_result(record).map_err(|(error, _)| error)?);
        produced += 1;
        if deliveries.len() == IN_FLIGHT {
            acknowledged(&mut deliveries).await?;
        }
    }
    acknowledged(&mut deliveries).await?;
    Ok(produced)
}

async fn acknowledged(deliveries: &mut Vec<rdkafka::producer::DeliveryFuture>) -> anyhow::Result<()> {
    for delivery in deliveries.drain(..) {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
