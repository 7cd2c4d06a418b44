//! Topics that are missing, right and wrong.

use domain::topic::{ALL, BANK_COMMANDS, PARTNER_COMMANDS, Topic};
use migrations::topics::{self, TopicsError};
use testkit::Env;

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_created_and_right_ones_left() {
    let env = Env::new("topics").await;
    assert_eq!(topics::apply(&env.kafka, &ALL, 1).await.unwrap(), Vec::<String>::new());
    topics::delete(&env.kafka, &[BANK_COMMANDS]).await.unwrap();
    // The broker may take a moment to forget the topic.
    let created =
        testkit::wait_until("the topic to be made anew", std::time::Duration::from_secs(20), async || {
            topics::apply(&env.kafka, &ALL, 1).await.ok().filter(|created| !created.is_empty())
        });
    assert_eq!(created.await, [env.topic(BANK_COMMANDS)]);
    topics::delete(&env.kafka, &[Topic { name: "never.was", ..BANK_COMMANDS }]).await.unwrap();
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_differs_is_named_with_what_to_do() {
    let env = Env::new("topics-differ").await;
    let other = Topic { partitions: 9, log_append_time: false, retention_days: -1, ..PARTNER_COMMANDS };
    let error = topics::apply(&env.kafka, &[other], 1).await.unwrap_err();
    let TopicsError::Differ(lines) = &error else { panic!("{error}") };
    let name = env.topic(PARTNER_COMMANDS);
    for part in [
        format!("topic {name} has 8 partitions and must have 9"),
        format!("topic {name}: message.timestamp.type is LogAppendTime and must be CreateTime"),
        format!("retention.ms is {} and must be -1", 60_i64 * 86_400_000),
    ] {
        assert!(lines.iter().any(|line| line.contains(&part)), "{part:?} is missing in\n{error}");
    }
    assert_eq!(lines.len(), 3);
    let error = topics::apply(&env.kafka, &[PARTNER_COMMANDS], 3).await.unwrap_err();
    let TopicsError::Differ(lines) = &error else { panic!("{error}") };
    assert!(lines.iter().any(|line| line.contains("has 1 replicas and must have 3")), "{error}");
    assert!(lines.iter().any(|line| line.contains("min.insync.replicas is 1 and must be 2")), "{error}");
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_brokers_are_refused() {
    let env = Env::new("topics-repl").await;
    let wide = Topic { name: "wide.v1", ..BANK_COMMANDS };
    let error = topics::apply(&env.kafka, &[wide], 7).await.unwrap_err();
    assert!(matches!(&error, TopicsError::Create { topic, .. } if topic.ends_with("wide.v1")), "{error}");
    env.close().await;
}
