//! The presets on a real broker.

use std::time::Duration;

use domain::topic;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::kafka::LogContext;
use testkit::Env;

#[tokio::test(flavor = "multi_thread")]
async fn presets_are_accepted_and_a_new_group_begins_at_the_first_record() {
    let env = Env::new("presets").await;
    let name = env.topic(topic::BANK_COMMANDS);
    let producer: FutureProducer<LogContext> = env.kafka.producer().create_with_context(LogContext).unwrap();
    let value = vec![b'x'; 100_000];
    producer.send(FutureRecord::to(&name).key("k").payload(&value), Duration::from_secs(20)).await.unwrap();

    let consumer: BaseConsumer<LogContext> =
        env.kafka.consumer("group").create_with_context(LogContext).unwrap();
    consumer.subscribe(&[&name]).unwrap();
    let found = tokio::task::spawn_blocking(move || {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                return message.payload().map(<[u8]>::to_vec);
            }
        }
        None
    });
    assert_eq!(found.await.unwrap(), Some(value));
    drop(producer);
    env.close().await;
}
