//! What the service is told from outside.

use std::path::{Path, PathBuf};

use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys};
use domain::secret::HmacKey;
use ed25519_dalek::SigningKey;
use ipnet::IpNet;
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig, PrivateListenConfig};
use runtime::public::PublicListenConfig;
use zeroize::Zeroizing;

use crate::personal::Keys;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file cannot be read, or holds no key.
    #[error("{variable}={path:?}: {why}")]
    Key {
        /// The variable that names it.
        variable: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A setting cannot serve.
    #[error("{variable}: {why}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it; never shows a password.
        why: String,
    },
    /// A part of the service cannot be made.
    #[error("the service cannot be set up: {0}")]
    SetUp(#[from] crate::problem::Problem),
    /// Checkpoints or the reconciler cannot begin.
    #[error(transparent)]
    Evidence(#[from] crate::evidence::EvidenceError),
    /// The Kafka client cannot be made.
    #[error("the Kafka client cannot be made (WIRED_KAFKA_BROKERS): {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
}

/// The settings of `admin-api serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Where metrics and health are.
    #[command(flatten)]
    pub private: PrivateListenConfig,
    /// Where customers and staff reach the API, and what that bears.
    #[command(flatten)]
    pub public: PublicListenConfig,
    /// Personal data, and links to people.
    #[command(flatten)]
    pub people: PeopleConfig,
    /// File with the key that seals partners' API keys and contacts: base64 of 32 bytes; ingest has the same.
    #[arg(long, env = "WIRED_PARTNER_KEYS_KEK_FILE")]
    pub partner_keys_kek_file: PathBuf,
    /// Access tokens.
    #[command(flatten)]
    pub tokens: TokenConfig,
    /// How mails leave.
    #[command(flatten)]
    pub mail: MailConfig,
    /// Checkpoints and the reconciler.
    #[command(flatten)]
    pub evidence: crate::evidence::EvidenceConfig,
    /// Figures by hour and day.
    #[command(flatten)]
    pub analytics: crate::analytics::AnalyticsConfig,
    /// Where the other services are.
    #[command(flatten)]
    pub system: crate::system::SystemConfig,
    /// What one member of the staff may do alone.
    #[command(flatten)]
    pub thresholds: crate::bank::Thresholds,
    /// Networks of the proxies in front of this service, comma separated, such as 10.0.0.0/8: from them, and from
    /// nobody else, `X-Forwarded-For` is believed. Too many lets clients choose their address.
    #[arg(long, env = "WIRED_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// Requests of one client address in a second, sustained; twice as many at once.
    #[arg(long, env = "WIRED_REQUESTS_PER_SECOND", default_value_t = 50)]
    pub requests_per_second: u32,
    /// Cores that hashing passwords may take in the long run, such as `0.25` or `2`; each one begun takes 19 MiB. More lets
    /// a flood of log-ins take from everything else on the machine, fewer makes log-ins wait while many come.
    #[arg(long, env = "WIRED_PASSWORD_CORES", default_value = "0.25", value_parser = cores)]
    pub password_cores: f64,
    /// Log-ins that wait for their hash; more are answered 503. Each waits for some tens of milliseconds a place.
    #[arg(long, env = "WIRED_PASSWORD_QUEUE_MAX", default_value_t = 32)]
    pub password_queue_max: usize,
}

fn cores(text: &str) -> Result<f64, String> {
    let cores = text.parse().ok().filter(|cores| (0.01..=64.0).contains(cores));
    cores.ok_or_else(|| "a number of cores from 0.01 to 64".to_owned())
}

/// Personal data, and links to people.
#[derive(Debug, Clone, clap::Args)]
pub struct PeopleConfig {
    /// Where people reach this API, such as `https://bank.example`: the issuer of its tokens and the beginning of the
    /// links in mails. The same on every replica.
    #[arg(long, env = "WIRED_PUBLIC_URL")]
    pub public_url: String,
    /// File with the key-encryption key of personal data: base64 of 32 bytes.
    #[arg(long, env = "WIRED_PERSONAL_DATA_KEK_FILE")]
    pub personal_data_kek_file: PathBuf,
    /// Files with earlier ones, comma separated, until all data keys are sealed anew (the log says when).
    #[arg(long, env = "WIRED_PERSONAL_DATA_OLDER_KEK_FILES", value_delimiter = ',')]
    pub personal_data_older_kek_files: Vec<PathBuf>,
    /// File with the key by which people are found by address: base64 of 32 bytes. It cannot be changed: with another
    /// one nobody is found any more.
    #[arg(long, env = "WIRED_PERSONAL_INDEX_KEY_FILE")]
    pub personal_index_key_file: PathBuf,
}

/// Access tokens.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenConfig {
    /// File with the Ed25519 key that signs access tokens: base64 of its 32 bytes.
    #[arg(long, env = "WIRED_TOKEN_KEY_FILE")]
    pub token_key_file: PathBuf,
    /// Files with further ones, comma separated, whose tokens are accepted, too: the next one before it signs, the
    /// last one for ten minutes after.
    #[arg(long, env = "WIRED_TOKEN_OTHER_KEY_FILES", value_delimiter = ',')]
    pub token_other_key_files: Vec<PathBuf>,
}

/// How mails leave.
#[derive(Clone, clap::Args)]
pub struct MailConfig {
    /// Sender of the bank's mails.
    #[arg(long, env = "WIRED_MAIL_FROM", default_value = "Wired City <no-reply@wired.example>")]
    pub mail_from: String,
    /// Mail server, as smtps://user:password@host or smtp://host:587?tls=required.
    #[arg(long, env = "WIRED_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// Folder in which mails are put as .eml files instead of being sent, for set-ups without a mail server.
    #[arg(long, env = "WIRED_MAIL_FOLDER")]
    pub mail_folder: Option<PathBuf>,
}

impl std::fmt::Debug for MailConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailConfig").field("mail_folder", &self.mail_folder).finish_non_exhaustive()
    }
}

impl PeopleConfig {
    /// The keys of personal data.
    pub fn keys(&self) -> Result<Keys, Error> {
        const KEK: &str = "WIRED_PERSONAL_DATA_KEK_FILE";
        const OLDER: &str = "WIRED_PERSONAL_DATA_OLDER_KEK_FILES";
        const INDEX: &str = "WIRED_PERSONAL_INDEX_KEY_FILE";
        let kek = |variable, path| read_key(variable, path).map(KeyEncryptionKey::new);
        let mut keys = KeyEncryptionKeys::new(kek(KEK, &self.personal_data_kek_file)?);
        for path in &self.personal_data_older_kek_files {
            keys = keys.with_older(kek(OLDER, path)?);
        }
        let path = &self.personal_index_key_file;
        let index = HmacKey::new(&read_key(INDEX, path)?);
        let index = index.map_err(|error| Error::Key {
            variable: INDEX,
            path: path.clone(),
            why: error.to_string(),
        })?;
        Ok(Keys::new(keys, index))
    }

    /// The beginning of links, without a slash at its end.
    pub fn base_url(&self) -> Result<String, Error> {
        let refuse = |why: &str| Error::Setting { variable: "WIRED_PUBLIC_URL", why: why.to_owned() };
        let url = url::Url::parse(&self.public_url).map_err(|_| refuse("is no URL"))?;
        if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("is no plain http or https URL such as https://bank.example"));
        }
        Ok(self.public_url.trim_end_matches('/').to_owned())
    }
}

impl TokenConfig {
    /// The key that signs, and those that only verify.
    pub fn keys(&self) -> Result<(SigningKey, Vec<SigningKey>), Error> {
        let read =
            |variable, path: &PathBuf| read_key(variable, path).map(|key| SigningKey::from_bytes(&key));
        let current = read("WIRED_TOKEN_KEY_FILE", &self.token_key_file)?;
        let others = self.token_other_key_files.iter();
        let others =
            others.map(|path| read("WIRED_TOKEN_OTHER_KEY_FILES", path)).collect::<Result<_, _>>()?;
        Ok((current, others))
    }
}

/// The 32 bytes of a key file in base64.
fn read_key(variable: &'static str, path: &Path) -> Result<[u8; 32], Error> {
    use base64::Engine as _;
    let failed = |why: String| Error::Key { variable, path: path.to_path_buf(), why };
    let text =
        std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).map(Zeroizing::new);
    let key = bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    key.ok_or_else(|| failed("holds no base64 of 32 bytes, e.g. from `openssl rand -base64 32`".to_owned()))
}

impl Config {
    /// The key of partners' API keys and contacts.
    pub(crate) fn partner_kek(&self) -> Result<KeyEncryptionKeys, Error> {
        let key = read_key("WIRED_PARTNER_KEYS_KEK_FILE", &self.partner_keys_kek_file)?;
        Ok(KeyEncryptionKeys::new(KeyEncryptionKey::new(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn config() -> Config {
        let arguments = [
            "admin-api",
            "--listen",
            "127.0.0.1:8080",
            "--insecure-http",
            "true",
            "--mysql-url",
            "mysql://u@127.0.0.1/x",
            "--kafka-brokers",
            "127.0.0.1:1",
            "--private-listen",
            "127.0.0.1:0",
            "--public-url",
            "http://127.0.0.1:8081/",
            "--personal-data-kek-file",
            "none",
            "--personal-index-key-file",
            "none",
            "--token-key-file",
            "none",
            "--partner-keys-kek-file",
            "none",
            "--smtp-url",
            "smtps://user:geheim@mail.example",
        ];
        Cli::parse_from(arguments).config
    }

    #[test]
    fn settings_that_cannot_serve_are_named_and_no_password_is_shown() {
        let mut config = config();
        assert!(!format!("{config:?}").contains("geheim"));
        assert_eq!(config.people.base_url().unwrap(), "http://127.0.0.1:8081");
        for url in ["", "bank", "ftp://x", "https://x/?a", "https://x/#a"] {
            config.people.public_url = url.to_owned();
            assert!(config.people.base_url().unwrap_err().to_string().contains("WIRED_PUBLIC_URL"), "{url}");
        }
        let error = config.people.keys().err().unwrap().to_string();
        assert!(error.contains("WIRED_PERSONAL_DATA_KEK_FILE"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "c2hvcnQ=").unwrap();
        config.tokens.token_key_file = file.path().to_owned();
        let error = config.tokens.keys().unwrap_err().to_string();
        assert!(error.contains("WIRED_TOKEN_KEY_FILE") && !error.contains("c2hv"), "{error}");
    }
}
