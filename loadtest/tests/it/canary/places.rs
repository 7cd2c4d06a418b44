//! Everything that leaves a process, as text in lower case: what is no text stands in it in hexadecimal as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use loadtest::people::Answer;
use loadtest::system::{Service, System};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use sqlx::{Column as _, Row as _};
use testkit::wait_until;

use super::values::hex;

const PATIENCE: Duration = Duration::from_secs(30);

/// Texts by where they were found.
#[derive(Default)]
pub(super) struct Places(BTreeMap<String, String>);

impl Places {
    /// An answer that must be an error.
    pub(super) fn refused(&mut self, answer: &Answer) {
        assert!(answer.status >= 400 && answer.status != 500, "{} {}", answer.status, answer.body);
        self.add("error answers", answer.body.as_bytes());
        for (name, value) in &answer.headers {
            self.add("error answers", name.as_str().as_bytes());
            self.add("error answers", value.as_bytes());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(place, text)| (place.as_str(), text.as_str()))
    }

    pub(super) fn text_of(&self, place: &str) -> &str {
        self.0.get(place).map_or("", String::as_str)
    }

    fn add(&mut self, place: &str, bytes: &[u8]) {
        let text = self.0.entry(place.to_owned()).or_default();
        text.push_str(&String::from_utf8_lossy(bytes).to_lowercase());
        text.push('\n');
    }

    /// The same of what may be no text.
    fn add_binary(&mut self, place: &str, bytes: &[u8]) {
        self.add(place, bytes);
        self.add(place, hex(bytes).as_bytes());
    }

    /// Collects from a bank that has come to rest.
    pub(super) async fn collect(&mut self, system: &System) {
        let checkpoints = system.folder().join("checkpoints");
        wait_until("a checkpoint", PATIENCE, async || {
            fs::read_dir(&checkpoints).is_ok_and(|mut files| files.next().is_some())
        })
        .await;
        for service in Service::ALL {
            self.add(&format!("log of {}", service.name()), system.log(service, 0).unwrap().as_bytes());
            let metrics = system.metrics(service, 0).await.unwrap();
            self.add(&format!("metrics of {}", service.name()), metrics.as_bytes());
        }
        self.files("checkpoints", &checkpoints);
        self.tables(system).await;
        self.topics(system).await;
        self.mails(&system.folder().join("mails"));
    }

    fn files(&mut self, place: &str, folder: &Path) {
        for file in fs::read_dir(folder).unwrap() {
            self.add_binary(place, &fs::read(file.unwrap().path()).unwrap());
        }
    }

    /// Mails hold the address and the name of who gets them, and nothing else that is planted.
    fn mails(&mut self, folder: &Path) {
        for file in fs::read_dir(folder).unwrap() {
            let mail = fs::read_to_string(file.unwrap().path()).unwrap();
            let address = mail.lines().find_map(|line| line.strip_prefix("To: ")).expect("a receiver");
            let name = mail.lines().find_map(|line| line.strip_prefix("Hello ")).expect("a name");
            // A link is for its reader.
            let rest = mail.replace(address, "").replace(name.trim_end_matches(','), "");
            self.add("mails", rest.as_bytes());
        }
    }

    async fn tables(&mut self, system: &System) {
        let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
        let tables: Vec<runtime::mysql::Text> =
            sqlx::query_scalar(tables).fetch_all(system.pool()).await.unwrap();
        assert!(tables.len() > 20, "{} tables", tables.len());
        for runtime::mysql::Text(table) in tables {
            // In the text protocol every value comes as its bytes.
            let rows = sqlx::raw_sql(&format!("SELECT * FROM `{table}`")).fetch_all(system.pool()).await;
            for row in rows.unwrap() {
                for column in 0..row.len() {
                    let value: Option<Vec<u8>> = row.try_get_unchecked(column).unwrap_or_else(|error| {
                        panic!("{table}.{} cannot be read: {error}", row.column(column).name())
                    });
                    self.add_binary(&format!("table {table}"), &value.unwrap_or_default());
                }
            }
        }
    }

    async fn topics(&mut self, system: &System) {
        let kafka = system.kafka().clone();
        let reading = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = kafka.consumer("canary").create().unwrap();
            let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
            let mut read = Vec::new();
            for topic in metadata.topics().iter().filter(|it| it.name().starts_with(&kafka.topic_prefix)) {
                let name = topic.name().trim_start_matches(&kafka.topic_prefix).to_owned();
                for partition in topic.partitions() {
                    let ends = consumer.fetch_watermarks(topic.name(), partition.id(), PATIENCE).unwrap();
                    let mut list = TopicPartitionList::new();
                    list.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).unwrap();
                    consumer.assign(&list).unwrap();
                    let (mut next, begun) = (ends.0, Instant::now());
                    while next < ends.1 {
                        assert!(begun.elapsed() < PATIENCE, "{name} is read to {next} of {}", ends.1);
                        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
                        let message = message.unwrap();
                        next = message.offset() + 1;
                        read.push((name.clone(), message.key().unwrap_or_default().to_vec()));
                        read.push((name.clone(), message.payload().unwrap_or_default().to_vec()));
                        for header in message.headers().into_iter().flat_map(|it| it.iter()) {
                            read.push((name.clone(), header.value.unwrap_or_default().to_vec()));
                        }
                    }
                }
            }
            read
        });
        for (topic, bytes) in reading.await.unwrap() {
            self.add_binary(&format!("topic {topic}"), &bytes);
        }
    }
}
