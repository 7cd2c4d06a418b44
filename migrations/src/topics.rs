//! Creates the topics that are missing and checks those that are there.
//!
//! Never changes a topic: another number of partitions would send the commands of one payment to two partitions,
//! and another clock or a shorter retention would lose what cannot be brought back. A difference is an error that
//! says what to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::topic::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode;
use runtime::config::KafkaConfig;
use runtime::kafka::LogContext;
use tokio::time::Instant;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may take until a new topic has its leaders.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(20);
/// How often to look.
const LEADERS_INTERVAL: Duration = Duration::from_millis(20);
/// The largest record: the largest body of a request with its envelope fits many times over.
const MESSAGE_BYTES_MAX: &str = "1048576";
const DAY_MS: i64 = 86_400_000;

/// Why the topics are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The brokers cannot be reached, or refuse.
    #[error("Kafka at {brokers}: {source}")]
    Kafka {
        /// Where.
        brokers: String,
        /// What the client says.
        source: KafkaError,
    },
    /// A topic cannot be created.
    #[error("topic {topic} cannot be created: {code}")]
    Create {
        /// Its name.
        topic: String,
        /// What the broker says.
        code: RDKafkaErrorCode,
    },
    /// A new topic has no leaders yet.
    #[error("topic {0} has partitions without a leader: check that all brokers run, then run this again")]
    Leaderless(String),
    /// Topics that differ; one line each.
    #[error("{}", .0.join("\n"))]
    Differ(Vec<String>),
    /// The task that asks the brokers ended.
    #[error("asking Kafka failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Creates what is missing of `topics` with this replication, then checks all. Returns the names created now.
pub async fn apply(
    kafka: &KafkaConfig,
    topics: &[Topic],
    replication: i32,
) -> Result<Vec<String>, TopicsError> {
    let failed = |source| TopicsError::Kafka { brokers: kafka.kafka_brokers.clone(), source };
    let admin: AdminClient<LogContext> = kafka.client().create_with_context(LogContext).map_err(failed)?;
    let wanted: Vec<Wanted> = topics.iter().map(|topic| Wanted::new(kafka, topic, replication)).collect();
    let created = create(&admin, &wanted).await.map_err(|error| match error {
        CreateError::Kafka(source) => failed(source),
        CreateError::Topic(topic, code) => TopicsError::Create { topic, code },
    })?;
    let admin = Arc::new(admin);
    let mut differences = Vec::new();
    for topic in &wanted {
        let (partitions, replicas) = with_leaders(&admin, kafka, topic).await?;
        differences.extend(topic.shape_differences(partitions, replicas));
    }
    let names: Vec<_> = wanted.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    let described = admin.describe_configs(&names, &options()).await.map_err(failed)?;
    for (topic, resource) in wanted.iter().zip(described) {
        let resource = resource.map_err(|code| TopicsError::Create { topic: topic.name.clone(), code })?;
        let settings: BTreeMap<&str, &str> = resource
            .entries
            .iter()
            .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
            .collect();
        differences.extend(topic.setting_differences(&settings));
    }
    if differences.is_empty() { Ok(created) } else { Err(TopicsError::Differ(differences)) }
}

/// Deletes topics of this prefix; those that are not there are no error. For tests.
pub async fn delete(kafka: &KafkaConfig, topics: &[Topic]) -> Result<(), TopicsError> {
    let names: Vec<_> = topics.iter().map(|topic| kafka.topic(topic.name)).collect();
    delete_names(kafka, &names.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Deletes topics by their full names; those that are not there are no error. For tests.
pub async fn delete_names(kafka: &KafkaConfig, names: &[&str]) -> Result<(), TopicsError> {
    let failed = |source| TopicsError::Kafka { brokers: kafka.kafka_brokers.clone(), source };
    let admin: AdminClient<LogContext> = kafka.client().create_with_context(LogContext).map_err(failed)?;
    for result in admin.delete_topics(names, &options()).await.map_err(failed)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// A topic as it must be.
struct Wanted {
    name: String,
    partitions: i32,
    replication: i32,
    settings: Vec<(&'static str, String)>,
}

impl Wanted {
    fn new(kafka: &KafkaConfig, topic: &Topic, replication: i32) -> Self {
        let retention_ms = if topic.retention_days < 0 { -1 } else { topic.retention_days * DAY_MS };
        let clock = if topic.log_append_time { "LogAppendTime" } else { "CreateTime" };
        // With one replica fewer than all, a broker may fail without a write being lost or refused.
        let replicas_in_sync = if replication >= 3 { 2 } else { 1 };
        let settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("message.timestamp.type", clock.to_owned()),
            ("retention.ms", retention_ms.to_string()),
            ("retention.bytes", "-1".to_owned()),
            ("min.insync.replicas", replicas_in_sync.to_string()),
            ("max.message.bytes", MESSAGE_BYTES_MAX.to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
        ];
        Self { name: kafka.topic(topic.name), partitions: topic.partitions, replication, settings }
    }

    fn shape_differences(&self, partitions: usize, replicas: usize) -> Vec<String> {
        let Self { name, partitions: wanted, replication, .. } = self;
        let mut differences = Vec::new();
        if partitions != *wanted as usize {
            differences.push(format!(
                "topic {name} has {partitions} partitions and must have {wanted}, which never changes: if it is empty, delete it and run this again; else drain it and begin a new generation of the topic"
            ));
        }
        if replicas != *replication as usize {
            differences.push(format!(
                "topic {name} has {replicas} replicas and must have {replication}: reassign its partitions (kafka-reassign-partitions.sh), or correct WIRED_TOPIC_REPLICATION"
            ));
        }
        differences
    }

    fn setting_differences(&self, settings: &BTreeMap<&str, &str>) -> Vec<String> {
        let name = &self.name;
        let differing = self.settings.iter().filter_map(|(setting, wanted)| {
            let value = settings.get(setting).copied().unwrap_or("unset");
            (value != wanted).then(|| format!(
                "topic {name}: {setting} is {value} and must be {wanted}: kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={wanted}"
            ))
        });
        differing.collect()
    }
}

enum CreateError {
    Kafka(KafkaError),
    Topic(String, RDKafkaErrorCode),
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

async fn create(admin: &AdminClient<LogContext>, wanted: &[Wanted]) -> Result<Vec<String>, CreateError> {
    let topics: Vec<_> = wanted
        .iter()
        .map(|topic| {
            let new =
                NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
            topic.settings.iter().fold(new, |new, (setting, value)| new.set(setting, value))
        })
        .collect();
    let results = admin.create_topics(&topics, &options()).await.map_err(CreateError::Kafka)?;
    let mut created = Vec::new();
    for result in results {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(CreateError::Topic(name, code)),
        }
    }
    Ok(created)
}

/// Waits until every partition has a leader; returns how many partitions and replicas there are.
async fn with_leaders(
    admin: &Arc<AdminClient<LogContext>>,
    kafka: &KafkaConfig,
    topic: &Wanted,
) -> Result<(usize, usize), TopicsError> {
    let deadline = Instant::now() + LEADERS_TIMEOUT;
    loop {
        let (admin, name) = (admin.clone(), topic.name.clone());
        let shape = tokio::task::spawn_blocking(move || shape(&admin, &name)).await?;
        let failed = |source| TopicsError::Kafka { brokers: kafka.kafka_brokers.clone(), source };
        match shape.map_err(failed)? {
            Some(shape) => return Ok(shape),
            None if Instant::now() >= deadline => return Err(TopicsError::Leaderless(topic.name.clone())),
            None => tokio::time::sleep(LEADERS_INTERVAL).await,
        }
    }
}

/// How many partitions and replicas a topic has, or `None` while a partition has no leader. Blocks.
fn shape(admin: &AdminClient<LogContext>, name: &str) -> Result<Option<(usize, usize)>, KafkaError> {
    let metadata = admin.inner().fetch_metadata(Some(name), REQUEST_TIMEOUT)?;
    let partitions = metadata.topics().first().map(MetadataTopic::partitions).unwrap_or_default();
    let led = !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0);
    let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
    Ok(led.then_some((partitions.len(), replicas.unwrap_or_default())))
}
