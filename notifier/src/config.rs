//! Configuration.

use std::path::PathBuf;

use runtime::config::{KafkaConfig, MysqlConfig, PrivateListenConfig};

use crate::lanes::Limits;
use domain::endpoint_url::Loopback;

/// How the notifier is configured.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "notifier", version, about = "Delivers events to the partners' webhook endpoints")]
pub struct Config {
    /// MySQL.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Metrics and health.
    #[command(flatten)]
    pub private: PrivateListenConfig,
    /// File with the key (base64 of 32 bytes) under which endpoint secrets are sealed.
    #[arg(long, env = "WIRED_WEBHOOK_SECRETS_KEK_FILE")]
    pub webhook_secrets_kek_file: PathBuf,
    /// Allows endpoints on this machine's loopback addresses, also with http and at any port. For the local set-up
    /// and tests alone: elsewhere it lets partners reach what listens beside the notifier.
    #[arg(long, env = "WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP", default_value = "false", action = clap::ArgAction::Set)]
    pub webhook_allow_loopback_http: bool,
    /// HTTP requests under way to all endpoints together. Too low: a busy minute waits in MySQL; too high: memory
    /// and sockets (each may hold a body of 64 KiB).
    #[arg(long, env = "WIRED_WEBHOOK_IN_FLIGHT_MAX", default_value_t = 1_024, value_parser = clap::value_parser!(u16).range(4..=16_384))]
    pub webhook_in_flight_max: u16,
    /// HTTP requests under way to one endpoint. Too low: a fast receiver is not kept busy; too high: a slow one is
    /// overrun.
    #[arg(long, env = "WIRED_WEBHOOK_ENDPOINT_IN_FLIGHT_MAX", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub webhook_endpoint_in_flight_max: u16,
    /// Percent of all requests under way that failing and slow endpoints together may hold, and as much again those
    /// that have not answered yet. Too low: they recover slowly; too high: they crowd out healthy ones.
    #[arg(long, env = "WIRED_WEBHOOK_SUSPECT_PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub webhook_suspect_percent: u16,
}

impl Config {
    /// Whether loopback addresses may be sent to.
    pub const fn loopback(&self) -> Loopback {
        if self.webhook_allow_loopback_http { Loopback::Allowed } else { Loopback::Refused }
    }

    /// The bounds on requests under way.
    pub fn limits(&self) -> Limits {
        let total = usize::from(self.webhook_in_flight_max);
        Limits {
            total,
            endpoint: usize::from(self.webhook_endpoint_in_flight_max),
            share: (total * usize::from(self.webhook_suspect_percent) / 100).max(1),
        }
    }
}
