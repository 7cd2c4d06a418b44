//! What the service is told from outside.

use std::net::SocketAddr;

use runtime::config::{ConfigError, KafkaConfig, MysqlConfig, PrivateListenConfig};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Plain HTTP is only for loopback, and only when somebody says so.
    #[error("{0}")]
    Insecure(String),
    /// The address is taken or not ours.
    #[error("{address} (WIRED_LISTEN) cannot be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The Kafka client cannot be made.
    #[error("the Kafka client cannot be made (WIRED_KAFKA_BROKERS): {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
}

/// The settings of `admin-api serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address that customers and staff reach. Loopback only: this service has no TLS of its own yet.
    #[arg(long, env = "WIRED_LISTEN")]
    pub listen: SocketAddr,
    /// Serve plain HTTP although tokens would travel readable; accepted on loopback only.
    #[arg(long, env = "WIRED_INSECURE_HTTP", default_value_t = false, action = clap::ArgAction::Set)]
    pub insecure_http: bool,
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Where metrics and health are.
    #[command(flatten)]
    pub private: PrivateListenConfig,
    /// What the public listener bears.
    #[command(flatten)]
    pub http: runtime::http::HttpLimits,
}

impl Config {
    /// Refuses to carry secrets over a network without TLS.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.listen.ip().is_loopback() {
            return Err(Error::Insecure(format!(
                "WIRED_LISTEN={} is not loopback, and without TLS this service listens on loopback only: \
                 use 127.0.0.1 and put a TLS proxy in front of it",
                self.listen
            )));
        }
        if !self.insecure_http {
            return Err(Error::Insecure(format!(
                "there is no TLS on {}: set WIRED_INSECURE_HTTP=true to serve plain HTTP on loopback",
                self.listen
            )));
        }
        Ok(())
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

    fn config(listen: &str, insecure: &str) -> Config {
        let arguments = [
            "admin-api",
            "--listen",
            listen,
            "--insecure-http",
            insecure,
            "--mysql-url",
            "mysql://u@127.0.0.1/x",
            "--kafka-brokers",
            "127.0.0.1:1",
            "--private-listen",
            "127.0.0.1:0",
        ];
        Cli::parse_from(arguments).config
    }

    #[test]
    fn plain_http_stays_on_loopback_and_is_asked_for() {
        assert!(config("127.0.0.1:8080", "true").check().is_ok());
        assert!(config("[::1]:8080", "true").check().is_ok());
        for (listen, insecure) in
            [("127.0.0.1:8080", "false"), ("0.0.0.0:8080", "true"), ("10.0.0.1:1", "true")]
        {
            let refused = config(listen, insecure).check().unwrap_err();
            assert!(matches!(refused, Error::Insecure(_)), "{listen} {insecure}");
        }
    }
}
