//! Configuration groups that services flatten into their own: each field is a flag and an environment variable.
//!
//! What the groups build from themselves stands in [`crate::mysql`] and [`crate::kafka`].

use std::fmt;
use std::net::SocketAddr;

use crate::http::CertificateError;

/// Why a configuration cannot work. Names the variable; never shows a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `WIRED_MYSQL_URL` cannot be read.
    #[error(
        "WIRED_MYSQL_URL is no mysql:// URL ({0}); it reads mysql://user:password@host:port/database (the value is not shown: it holds a password)"
    )]
    MysqlUrl(String),
    /// `WIRED_KAFKA_BROKERS` or another setting is not accepted by the Kafka client.
    #[error("the Kafka client does not accept its configuration: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({variable}): {source}")]
    Listen {
        /// Which variable holds the address.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Secrets would travel readable.
    #[error(
        "WIRED_LISTEN={0} can be reached from outside, and there is no TLS: set WIRED_TLS_CERT_FILE and \
         WIRED_TLS_KEY_FILE, or listen on 127.0.0.1 behind a TLS proxy"
    )]
    PublicWithoutTls(SocketAddr),
    /// Plain HTTP was not asked for.
    #[error(
        "there is no TLS on {0}: set WIRED_TLS_CERT_FILE and WIRED_TLS_KEY_FILE, or WIRED_INSECURE_HTTP=true to \
         serve plain HTTP on loopback"
    )]
    InsecureHttpNotAllowed(SocketAddr),
    /// Half of what TLS needs.
    #[error("WIRED_TLS_CERT_FILE and WIRED_TLS_KEY_FILE go together, and {0} is not set")]
    TlsIncomplete(&'static str),
    /// Both TLS and none.
    #[error("WIRED_INSECURE_HTTP=true and WIRED_TLS_CERT_FILE contradict each other: leave one out")]
    TlsAndInsecureHttp,
    /// What there is cannot be shown to clients.
    #[error("WIRED_TLS_CERT_FILE and WIRED_TLS_KEY_FILE cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The TLS library does not take its settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where MySQL is.
#[derive(Clone, clap::Args)]
pub struct MysqlConfig {
    /// MySQL as `mysql://user:password@host:port/database`, with the user of this service alone. Without an
    /// `ssl-mode` parameter the server's certificate and name are checked, except on loopback, where there is no TLS.
    #[arg(long, env = "WIRED_MYSQL_URL", hide_env_values = true)]
    pub mysql_url: String,
}

impl fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MysqlConfig(…)")
    }
}

/// Where Kafka is.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaConfig {
    /// Kafka brokers to begin with, as `host:port`, comma separated. One that lives is enough; all are found from it.
    #[arg(long, env = "WIRED_KAFKA_BROKERS")]
    pub kafka_brokers: String,
    /// What topic names and consumer groups begin with; empty outside tests. Lets several banks share a cluster.
    #[arg(long, env = "WIRED_TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
}

/// Where metrics and health are served.
#[derive(Debug, Clone, clap::Args)]
pub struct PrivateListenConfig {
    /// Address of the private listener with `/metrics` and `/health`, which must not be reachable from outside.
    #[arg(long, env = "WIRED_PRIVATE_LISTEN")]
    pub private_listen: SocketAddr,
}
