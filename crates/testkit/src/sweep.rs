//! Removes what killed runs left on the servers: databases, users and topics whose names say that they are tests'
//! and older than an hour. Once per process, bounded, and never a reason for a test to fail.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use migrations::topics;
use rdkafka::consumer::{BaseConsumer, Consumer};
use runtime::config::{KafkaConfig, MysqlConfig};
use runtime::kafka::LogContext;
use runtime::mysql::Text;
use sqlx::Executor;
use tokio::sync::OnceCell;

use crate::env::{hex, random};

/// A test that runs for longer than this loses its ground.
const AGE_MINUTES: u64 = 60;
/// How much one process removes of each kind; the rest is for the next.
const REMOVED_MAX: usize = 30;
const TIMEOUT: Duration = Duration::from_secs(10);

static SWEPT: OnceCell<()> = OnceCell::const_new();

/// `<minute>_<random>`: when and which.
pub(crate) struct Stamp {
    minute: u64,
    random: String,
}

impl Stamp {
    pub(crate) fn new() -> Self {
        Self { minute: minute_now(), random: hex(&random::<4>()) }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}_{}", self.minute, self.random)
    }
}

fn minute_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60)
}

/// Whether a name is a test's and its minute long past.
fn is_left_over(name: &str, now: u64) -> bool {
    let parts: Vec<_> = name.split(['_', '-', '.']).collect();
    let is_stamp = |pair: &[&str]| {
        let hexadecimal = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        (hexadecimal(pair[0]) && hexadecimal(pair[1]))
            .then(|| u64::from_str_radix(pair[0], 16).unwrap_or(now))
    };
    let made = parts.windows(2).find_map(is_stamp);
    parts.first() == Some(&"t") && made.is_some_and(|minute| minute + AGE_MINUTES < now)
}

pub(crate) async fn once(server: &str, brokers: &str) {
    SWEPT
        .get_or_init(|| async {
            let work = async { tokio::join!(sweep_mysql(server), sweep_kafka(brokers)) };
            match tokio::time::timeout(TIMEOUT, work).await {
                Ok((mysql, kafka)) => {
                    for error in [mysql.err(), kafka.err()].into_iter().flatten() {
                        eprintln!("sweeping after killed test runs: {error:#}");
                    }
                }
                Err(_) => {
                    eprintln!("sweeping after killed test runs took too long and was left for the next run");
                }
            }
        })
        .await;
}

async fn sweep_mysql(server: &str) -> anyhow::Result<()> {
    let now = minute_now();
    let mut url = url::Url::parse(server)?;
    url.set_path("");
    let mut connection = MysqlConfig { mysql_url: url.to_string() }.connect().await.context("MySQL")?;
    connection.execute("SET SESSION lock_wait_timeout = 2").await?;
    for (list, remove) in [
        (
            "SELECT CAST(SCHEMA_NAME AS CHAR) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 't\\_%'",
            "DROP DATABASE IF EXISTS ",
        ),
        ("SELECT User FROM mysql.user WHERE User LIKE 't\\_%' AND Host = '%'", "DROP USER IF EXISTS "),
    ] {
        let names: Vec<(Text,)> = sqlx::query_as(list).fetch_all(&mut connection).await?;
        for (Text(name),) in names.iter().filter(|(Text(name),)| is_left_over(name, now)).take(REMOVED_MAX) {
            // Another process may be sweeping the same.
            let _ = connection.execute(format!("{remove}`{name}`").as_str()).await;
        }
    }
    Ok(())
}

async fn sweep_kafka(brokers: &str) -> anyhow::Result<()> {
    let now = minute_now();
    let kafka = KafkaConfig::new(brokers, "");
    let client = kafka.client();
    let names = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer<LogContext> = client.create_with_context(LogContext)?;
        let metadata = client.fetch_metadata(None, TIMEOUT)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        anyhow::Ok(names.filter(|name| is_left_over(name, now)).take(REMOVED_MAX).collect::<Vec<_>>())
    })
    .await?
    .context("Kafka")?;
    if !names.is_empty() {
        topics::delete_names(&kafka, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_names_of_tests_are_left_overs() {
        let now = 0x01c8_0000;
        let old = "01c7ff00_0123abcd";
        for name in [
            format!("t_ingest_{old}"),
            format!("t_{old}_verifier"),
            format!("t-a-b-{old}.bank.commands.v1").replace('_', "-"),
        ] {
            assert!(is_left_over(&name, now), "{name}");
        }
        let young = "01c7fff0_0123abcd";
        for name in [
            format!("t_ingest_{young}"),
            format!("wired_{old}"),
            "t_ingest".to_owned(),
            "payments.commands.v1".to_owned(),
            "t_01c7ff00".to_owned(),
        ] {
            assert!(!is_left_over(&name, now), "{name}");
        }
    }

    #[tokio::test]
    async fn old_left_overs_go_and_young_ones_stay() {
        let (server, brokers) =
            (std::env::var("WIRED_MYSQL_URL").unwrap(), std::env::var("WIRED_KAFKA_BROKERS").unwrap());
        let mut mysql = MysqlConfig { mysql_url: server.clone() }.connect().await.unwrap();
        let random = hex(&random::<4>());
        let (old, young) = (Stamp { minute: minute_now() - 61, random }, Stamp::new());
        let kafka = KafkaConfig::new(brokers.clone(), "");
        for stamp in [&old, &young] {
            let create = format!("CREATE DATABASE t_sweep_{stamp}; CREATE USER 't_{stamp}_x'@'%'");
            mysql.execute(create.as_str()).await.unwrap();
            let kafka = KafkaConfig::new(&brokers, format!("t-sweep-{stamp}.").replace('_', "-"));
            topics::apply(&kafka, &[domain::topic::BANK_COMMANDS], 1).await.unwrap();
        }
        sweep_mysql(&server).await.unwrap();
        sweep_kafka(&brokers).await.unwrap();
        let count = format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 't\\_sweep\\_%{0}')
            + (SELECT COUNT(*) FROM mysql.user WHERE User LIKE 't\\_%{0}\\_x')",
            old.random
        );
        let left: i64 = sqlx::query_scalar(&count).fetch_one(&mut mysql).await.unwrap();
        assert_eq!(left, 0);
        // Fails if the young ones were swept.
        let drop = format!("DROP DATABASE t_sweep_{young}; DROP USER 't_{young}_x'@'%'");
        mysql.execute(drop.as_str()).await.unwrap();
        let topic = |stamp: &Stamp| format!("t-sweep-{stamp}.bank.commands.v1").replace('_', "-");
        let names = crate::wait_until("the old topic to go", TIMEOUT, async || {
            let client: BaseConsumer<LogContext> = kafka.client().create_with_context(LogContext).unwrap();
            let metadata = client.fetch_metadata(None, TIMEOUT).unwrap();
            let names: Vec<_> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
            (!names.contains(&topic(&old))).then_some(names)
        });
        assert!(names.await.contains(&topic(&young)));
        topics::delete_names(&kafka, &[&topic(&young)]).await.unwrap();
    }

    #[test]
    fn the_longest_names_fit() {
        let stamp = Stamp::new();
        assert!(format!("t_{stamp}_admin-api").len() <= 32);
        assert!(format!("t_{}_{stamp}", "x".repeat(20)).len() <= 64);
    }
}
