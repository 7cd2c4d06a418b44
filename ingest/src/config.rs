//! What ingest is told from outside. Each field is a flag and an environment variable.

use std::path::{Path, PathBuf};

use domain::endpoint_url::Loopback;
use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, SealError};
use domain::secret::{HmacKey, SecretError};
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig, PrivateListenConfig};
use runtime::public::PublicListenConfig;
use url::Url;

/// The configuration of ingest.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "ingest", about = "Accepts partners' signed payments and puts them on Kafka")]
pub struct Config {
    /// Where MySQL is.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Where metrics and health are served.
    #[command(flatten)]
    pub private: PrivateListenConfig,
    /// Where partners reach the API, and what that bears.
    #[command(flatten)]
    pub public: PublicListenConfig,
    /// Hosts (with the port, when it is not the scheme's own) that partners address this server by, comma
    /// separated. A request signed for another `@authority` is refused, whatever a proxy forwards.
    #[arg(long, env = "WIRED_AUTHORITIES", value_delimiter = ',', required = true)]
    pub authorities: Vec<String>,
    /// File with the key-encryption key of the partners' API keys: base64 of 32 bytes.
    #[arg(long, env = "WIRED_PARTNER_KEYS_KEK_FILE")]
    pub partner_keys_kek_file: PathBuf,
    /// File with the key-encryption key of endpoint secrets: base64 of 32 bytes, the same as the notifier's.
    #[arg(long, env = "WIRED_WEBHOOK_SECRETS_KEK_FILE")]
    pub webhook_secrets_kek_file: PathBuf,
    /// Allows endpoints on loopback addresses, also with http and at any port. For the local set-up and tests alone,
    /// and to be set like the notifier's.
    #[arg(long, env = "WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP", default_value_t = false, action = clap::ArgAction::Set)]
    pub webhook_allow_loopback_http: bool,
    /// Webhook endpoints of one partner, 1 to 200. Higher costs the notifier a delivery more for each event, and a list
    /// of deliveries a look for each endpoint.
    #[arg(long, env = "WIRED_ENDPOINTS_PER_PARTNER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub endpoints_per_partner: u32,
    /// Applications of new partners in 24 hours, of all addresses together; each makes a test partner. Lower refuses
    /// honest applicants on a busy day, higher lets a flood leave more rows behind.
    #[arg(long, env = "WIRED_APPLICATIONS_PER_DAY", default_value_t = 100)]
    pub applications_per_day: u32,
    /// Applications in an hour per client address. Behind a proxy all clients have its address, so this then bounds
    /// all of them together.
    #[arg(long, env = "WIRED_APPLICATIONS_PER_HOUR", default_value_t = 20)]
    pub applications_per_hour: u32,
    /// File with the key that authenticates status tokens and cursors: base64 of 32 bytes, the same on every replica.
    #[arg(long, env = "WIRED_STATUS_TOKEN_KEY_FILE")]
    pub status_token_key_file: PathBuf,
    /// Milliseconds between two loads of all API keys. Revocation takes effect within twice this time; lower
    /// costs MySQL a scan of the keys each time.
    #[arg(long, env = "WIRED_KEYS_REFRESH_MS", default_value_t = 2_000)]
    pub keys_refresh_ms: u64,
    /// Seconds that loaded keys are used while MySQL is away. Higher keeps accepting for longer, and revoked keys
    /// with it.
    #[arg(long, env = "WIRED_KEYS_AGE_MAX_S", default_value_t = 3_600)]
    pub keys_age_max_s: u64,
    /// Milliseconds between two writes of when keys were last used. Lower shows a use earlier, for a row written for
    /// each key that was used meanwhile.
    #[arg(long, env = "WIRED_KEY_USES_INTERVAL_MS", default_value_t = 60_000)]
    pub key_uses_interval_ms: u64,
    /// Milliseconds that a payment waits to learn whether its idempotency key was used. Lower answers an early
    /// retry with 202 instead of the outcome more often (never with a second payment); higher lets a slow MySQL
    /// hold up payments.
    #[arg(long, env = "WIRED_LOOKUP_BUDGET_MS", default_value_t = 25)]
    pub lookup_budget_ms: u64,
    /// Requests of one partner that may wait (`Prefer: wait`) at once on this replica; more are answered 202
    /// at once. Higher lets one partner hold more connections.
    #[arg(long, env = "WIRED_WAITERS_PER_PARTNER", default_value_t = 64)]
    pub waiters_per_partner: u32,
    /// Seconds for which a payment in two phases holds funds at least, 1 to 604800. Lower lets holds expire before a
    /// capture that was sent at once is applied behind a backlog; higher keeps customers' money from them for longer.
    #[arg(long, env = "WIRED_HOLD_SECONDS_MIN", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub hold_seconds_min: u32,
    /// The bank's page on which customers answer requests for mandates; the id of a request is appended to its path.
    /// Without it partners get no `consent_url`, only the code that customers enter.
    #[arg(long, env = "WIRED_CONSENT_URL")]
    pub consent_url: Option<Url>,
    /// Requests to `/v1/sandbox/echo` in a second per client address, since they need no valid signature.
    #[arg(long, env = "WIRED_ECHO_PER_SECOND", default_value_t = 5)]
    pub echo_per_second: u32,
    /// How payments are put on Kafka.
    #[command(flatten)]
    pub producer: ProducerConfig,
}

/// How payments are put on Kafka.
#[derive(Debug, Clone, clap::Args)]
pub struct ProducerConfig {
    /// Milliseconds that the producer waits for more messages before it sends. 0 sends a payment alone at once; more
    /// makes each payment later by as much.
    #[arg(long, env = "WIRED_LINGER_MS", default_value_t = 0)]
    pub linger_ms: u32,
    /// Requests to one broker in progress at once, 1 to 5. Payments that come meanwhile travel together in the next,
    /// so fewer make larger batches under load and cost a payment alone nothing; more help when brokers are far away.
    #[arg(long, env = "WIRED_REQUESTS_IN_FLIGHT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub requests_in_flight: u32,
    /// Milliseconds after which an unacknowledged payment is answered `outcome_unknown`. Should be well under the
    /// partners' own patience.
    #[arg(long, env = "WIRED_DELIVERY_TIMEOUT_MS", default_value_t = 5_000)]
    pub delivery_timeout_ms: u32,
}

/// Why ingest cannot start or did not stop cleanly. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shared configuration group.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Kafka client refuses its configuration.
    #[error("the Kafka producer cannot be made: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A list element that no Host header field could equal.
    #[error("WIRED_AUTHORITIES holds {0:?}, which is no host with an optional port")]
    Authority(String),
    /// A key file cannot be read.
    #[error("{variable}={path:?} cannot be read: {source}")]
    KeyFile {
        /// The variable that names it.
        variable: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key-encryption key is none.
    #[error("{variable}={path:?}: {source}")]
    Kek {
        /// The variable that names it.
        variable: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: SealError,
    },
    /// The status token key is none.
    #[error("WIRED_STATUS_TOKEN_KEY_FILE={path:?}: {source}")]
    TokenKey {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: SecretError,
    },
    /// At the end the producer still held payments.
    #[error(
        "{0} payments were not acknowledged by Kafka before the deadline; their partners were not answered 202"
    )]
    Unflushed(i32),
}

impl Config {
    /// Refuses what would serve secrets or money over an open line.
    pub fn check(&self) -> Result<(), Error> {
        self.public.check()?;
        let unusable = |authority: &&String| {
            authority.parse::<http::uri::Authority>().is_err() || authority.contains('@')
        };
        self.authorities.iter().find(unusable).map_or(Ok(()), |found| Err(Error::Authority(found.clone())))
    }

    /// The key that seals partners' API keys and applicants' contacts.
    pub fn kek(&self) -> Result<KeyEncryptionKeys, Error> {
        read_kek("WIRED_PARTNER_KEYS_KEK_FILE", &self.partner_keys_kek_file)
    }

    /// The key that seals endpoint secrets.
    pub fn webhook_kek(&self) -> Result<KeyEncryptionKeys, Error> {
        read_kek("WIRED_WEBHOOK_SECRETS_KEK_FILE", &self.webhook_secrets_kek_file)
    }

    /// Whether endpoints may be on loopback.
    pub const fn loopback(&self) -> Loopback {
        if self.webhook_allow_loopback_http { Loopback::Allowed } else { Loopback::Refused }
    }

    /// The key of status tokens.
    pub fn token_key(&self) -> Result<HmacKey, Error> {
        let path = &self.status_token_key_file;
        let text = read("WIRED_STATUS_TOKEN_KEY_FILE", path)?;
        HmacKey::from_base64(&text).map_err(|source| Error::TokenKey { path: path.clone(), source })
    }
}

fn read_kek(variable: &'static str, path: &Path) -> Result<KeyEncryptionKeys, Error> {
    let text = read(variable, path)?;
    let key = KeyEncryptionKey::from_base64(&text).map_err(|source| Error::Kek {
        variable,
        path: path.to_path_buf(),
        source,
    })?;
    Ok(KeyEncryptionKeys::new(key))
}

fn read(variable: &'static str, path: &Path) -> Result<zeroize::Zeroizing<String>, Error> {
    std::fs::read_to_string(path).map(zeroize::Zeroizing::new).map_err(|source| Error::KeyFile {
        variable,
        path: path.to_path_buf(),
        source,
    })
}
