//! How the other parts of the bank are: asked when somebody wants to know, each within two seconds, and remembered for
//! two, so that a page that many look at asks no more often than that.

use std::sync::Arc;
use std::time::Duration;

use domain::time::Timestamp;
use domain::topic::Source;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use runtime::config::KafkaConfig;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use utoipa::ToSchema;

use crate::config::Error;

/// How long an answer counts.
const AGE_MAX: Duration = Duration::from_secs(2);
/// How long a service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long Kafka may take for one partition, and for all.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(1);
const KAFKA_TIMEOUT_ALL: Duration = Duration::from_secs(4);
/// No readiness is longer.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The services that a bank has.
const SERVICES: [&str; 4] = ["ingest", "processor", "notifier", "admin-api"];

/// Where the other services say how they are.
#[derive(Debug, Clone, clap::Args)]
pub struct SystemConfig {
    /// Readiness of the services, comma separated, as `name=url`: `ingest=http://10.0.0.5:9100/health/ready`. A name may
    /// stand several times, once for each replica; one that does not is shown as unknown.
    #[arg(long, env = "WIRED_SERVICES", value_delimiter = ',')]
    pub services: Vec<String>,
}

impl SystemConfig {
    fn parse(&self) -> Result<Vec<(String, Url)>, Error> {
        let refuse = |text: &String| Error::Setting {
            variable: "WIRED_SERVICES",
            why: format!("{text:?} is no name=url with a name of {} and an http URL", SERVICES.join(", ")),
        };
        let parse = |text: &String| {
            let (name, url) = text.split_once('=').ok_or_else(|| refuse(text))?;
            let url = Url::parse(url).ok().filter(|url| url.scheme().starts_with("http"));
            let known = SERVICES.contains(&name.trim());
            url.filter(|_| known).map(|url| (name.trim().to_owned(), url)).ok_or_else(|| refuse(text))
        };
        self.services.iter().filter(|text| !text.trim().is_empty()).map(parse).collect()
    }
}

/// How a service is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Service {
    /// `ingest`, `processor`, `notifier`, `admin-api`.
    #[schema(example = "processor")]
    pub name: String,
    /// Which replica; nothing when none is configured.
    #[schema(example = "10.0.0.6:9100")]
    pub address: Option<String>,
    /// `ready`, `not_ready`, `unreachable`, or `unknown` when nobody said where it is.
    #[schema(example = "ready")]
    pub status: &'static str,
    /// Its parts, each `up` or what is wrong.
    #[schema(value_type = Object, example = json!({"mysql": "up", "kafka": "up"}))]
    pub components: serde_json::Map<String, Value>,
    /// When the certificate expires that it shows to clients; nothing without TLS.
    #[schema(value_type = Option<String>, example = "2027-01-31T12:00:00.000000Z")]
    pub certificate_expires_at: Option<Timestamp>,
}

/// Where a partition ends on Kafka, or why that is not known.
pub type Ends = Result<Vec<(Source, u16, u64)>, String>;

/// What was found when somebody last asked.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The services.
    pub services: Vec<Service>,
    /// Where the command topics end.
    pub ends: Ends,
}

/// Asks the other parts.
pub struct Watch {
    consumer: Arc<BaseConsumer>,
    topics: Vec<(Source, String)>,
    services: Vec<(String, Url)>,
    http: reqwest::Client,
    last: Mutex<Option<(Instant, Standing)>>,
}

impl Watch {
    /// Connects when it is first asked.
    pub fn new(config: &SystemConfig, kafka: &KafkaConfig) -> Result<Self, Error> {
        let client: ClientConfig = kafka.client();
        // The first one wins, and any is good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Error::Setting { variable: "WIRED_SERVICES", why: error.to_string() })?;
        Ok(Self {
            // A consumer that subscribes to nothing is the lightest client that can ask where topics end.
            consumer: Arc::new(client.create()?),
            topics: Source::ALL.iter().map(|source| (*source, kafka.topic(source.topic().name))).collect(),
            services: config.parse()?,
            http,
            last: Mutex::new(None),
        })
    }

    /// How everything is. Whoever comes while somebody asks waits for the same answer.
    pub async fn standing(&self) -> Standing {
        let mut last = self.last.lock().await;
        if let Some((_, standing)) = last.as_ref().filter(|(at, _)| at.elapsed() < AGE_MAX) {
            return standing.clone();
        }
        let (services, ends) = tokio::join!(self.ask_services(), self.ask_kafka());
        let standing = Standing { services, ends };
        *last = Some((Instant::now(), standing.clone()));
        standing
    }

    async fn ask_services(&self) -> Vec<Service> {
        let asked = self.services.iter().map(|(name, url)| self.ask(name, url));
        let mut services = futures_util::future::join_all(asked).await;
        let missing = SERVICES.iter().filter(|name| !self.services.iter().any(|(known, _)| known == *name));
        services.extend(missing.map(|name| Service {
            name: (*name).to_owned(),
            address: None,
            status: "unknown",
            components: serde_json::Map::new(),
            certificate_expires_at: None,
        }));
        services.sort_by_key(|service| SERVICES.iter().position(|name| *name == service.name));
        services
    }

    async fn ask(&self, name: &str, url: &Url) -> Service {
        let address = url.host_str().map(|host| match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
        let (status, said) = match self.read(url).await {
            Ok((true, said)) => ("ready", said),
            Ok((false, said)) => ("not_ready", said),
            Err(error) => {
                tracing::debug!(service.name = name, error = %error, "a service does not say how it is");
                ("unreachable", Value::Null)
            }
        };
        let components = said["components"].as_object().cloned().unwrap_or_default();
        let expires_at = said["certificate_expires_at"].as_i64();
        let expires_at = expires_at.map(|seconds| Timestamp::from_micros(seconds.saturating_mul(1_000_000)));
        Service { name: name.to_owned(), address, status, components, certificate_expires_at: expires_at }
    }

    async fn read(&self, url: &Url) -> Result<(bool, Value), reqwest::Error> {
        let mut response = self.http.get(url.clone()).send().await?;
        let is_ready = response.status().is_success();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if body.len() + piece.len() > BODY_BYTES_MAX {
                break;
            }
            body.extend_from_slice(&piece);
        }
        Ok((is_ready, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn ask_kafka(&self) -> Ends {
        let (consumer, topics) = (self.consumer.clone(), self.topics.clone());
        let asked = tokio::task::spawn_blocking(move || ends(&consumer, &topics));
        match tokio::time::timeout(KAFKA_TIMEOUT_ALL + KAFKA_TIMEOUT, asked).await {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("kafka does not answer in time".to_owned()),
        }
    }
}

fn ends(consumer: &BaseConsumer, topics: &[(Source, String)]) -> Ends {
    let began = std::time::Instant::now();
    let mut ends = Vec::new();
    for (source, topic) in topics {
        for partition in 0..source.topic().partitions {
            if began.elapsed() > KAFKA_TIMEOUT_ALL {
                return Err("kafka does not answer in time".to_owned());
            }
            let (_, end) = consumer
                .fetch_watermarks(topic, partition, KAFKA_TIMEOUT)
                .map_err(|error| error.to_string())?;
            ends.push((*source, partition as u16, u64::try_from(end).unwrap_or_default()));
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_with_their_urls() {
        let parse = |texts: &[&str]| {
            let services = texts.iter().map(|text| (*text).to_owned()).collect();
            SystemConfig { services }
                .parse()
                .map(|services| services.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(parse(&[]), Ok(0));
        assert_eq!(parse(&["", "ingest=http://10.0.0.5:9100/health/ready", "ingest=https://b/"]), Ok(2));
        for wrong in
            ["ingest", "ingest=", "ingest=10.0.0.5", "ingest=ftp://b/", "shop=http://b/", "=http://b/"]
        {
            assert!(parse(&[wrong]).is_err_and(|error| error.contains("WIRED_SERVICES")), "{wrong}");
        }
    }
}
