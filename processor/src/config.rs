//! Configuration.

use jiff::tz::TimeZone;
use runtime::config::{KafkaConfig, MysqlConfig, PrivateListenConfig};

/// How the processor is set up.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "processor", about = "Applies commands to the ledger, in one MySQL transaction a batch")]
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
    /// The most commands in one transaction. Lower ones cost more per command; higher ones hold locks longer and
    /// gain little beyond 1,000.
    #[arg(long, env = "WIRED_BATCH_MAX", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    pub batch_max: u16,
    /// The time zone whose calendar days daily caps count, by its IANA name.
    #[arg(long, env = "WIRED_BANK_TIME_ZONE", default_value = "Europe/Vienna", value_parser = time_zone)]
    pub bank_time_zone: TimeZone,
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("{name} is no IANA time zone such as Europe/Vienna"))
}
