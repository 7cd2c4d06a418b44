//! Looks every two seconds whether MySQL and Kafka answer, so that readiness says why not.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use runtime::health::{Component, Health};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, store};

/// Between two looks: long enough to cost nothing, short enough for a load balancer.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long Kafka may take to answer.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches both until `shutdown`.
pub(crate) fn watch(
    config: &Config,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let pool = config.mysql.pool("health", 1)?;
    let (mysql, stop) = (health.component("mysql"), shutdown.clone());
    let watch_mysql = tokio::spawn(async move {
        while !stop.is_cancelled() {
            report(&mysql, store::ping(&pool).await.map_err(|error| error.to_string()));
            pause(&stop).await;
        }
    });
    let client: ClientConfig = config.kafka.client();
    // A consumer that subscribes to nothing is the lightest client that can ask for metadata.
    let consumer: std::sync::Arc<BaseConsumer> = std::sync::Arc::new(client.create()?);
    let topic = config.kafka.topic(domain::topic::BANK_COMMANDS.name);
    let (kafka, stop) = (health.component("kafka"), shutdown.clone());
    let watch_kafka = tokio::spawn(async move {
        while !stop.is_cancelled() {
            let (consumer, topic) = (consumer.clone(), topic.clone());
            let asked = tokio::task::spawn_blocking(move || ask_kafka(&consumer, &topic)).await;
            report(&kafka, asked.unwrap_or_else(|error| Err(error.to_string())));
            pause(&stop).await;
        }
    });
    Ok(vec![watch_mysql, watch_kafka])
}

fn ask_kafka(consumer: &BaseConsumer, topic: &str) -> Result<(), String> {
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT).map_err(|error| error.to_string())?;
    match metadata.topics().iter().find(|found| found.name() == topic) {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => Ok(()),
        Some(_) | None => Err(format!("the topic {topic} is not there")),
    }
}

fn report(component: &Component, looked: Result<(), String>) {
    match looked {
        Ok(()) => component.up(),
        Err(why) => component.down(why),
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(INTERVAL) => {}
        () = stop.cancelled() => {}
    }
}
