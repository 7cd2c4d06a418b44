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
    /// How many seconds a command may have been stamped by Kafka ahead of MySQL's clock. A partition with a later one
    /// waits, since that stamp chooses the day of caps and ends holds. Raise it only to let in what a broker with a
    /// wrong clock has stamped already: it counts for that time.
    #[arg(long, env = "WIRED_ACCEPTED_AHEAD_MAX_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub accepted_ahead_max_seconds: u32,
    /// The time zone whose calendar days daily caps count, by its IANA name.
    #[arg(long, env = "WIRED_BANK_TIME_ZONE", default_value = "Europe/Vienna", value_parser = time_zone)]
    pub bank_time_zone: TimeZone,
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("{name} is no IANA time zone such as Europe/Vienna"))
}
