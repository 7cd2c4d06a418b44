//! `migrate`: the schema, the MySQL users and the Kafka topics. Says on stdout what it did; each error is a line
//! that says what to do, with exit code 1.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use migrations::schema::{self, State};
use migrations::users::{self, Role};
use migrations::{ALL, topics};
use runtime::config::{KafkaConfig, MysqlConfig};

/// Prepares MySQL and Kafka for Wired City.
#[derive(Parser)]
#[command(name = "migrate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the database when it is missing and apply pending migrations.
    Apply(MysqlConfig),
    /// Say which migrations are applied. Exit code 3 when any is pending.
    Status(MysqlConfig),
    /// Create or update the least-privilege users and make their grants exact.
    Users(UsersConfig),
    /// Create missing topics and check the settings of all.
    Topics(TopicsConfig),
}

#[derive(Args)]
struct UsersConfig {
    #[command(flatten)]
    admin: MysqlConfig,
    /// URL of ingest, with the user's name and password.
    #[arg(long, env = Role::Ingest.variable(), hide_env_values = true)]
    ingest_url: String,
    /// URL of the processor.
    #[arg(long, env = Role::Processor.variable(), hide_env_values = true)]
    processor_url: String,
    /// URL of the notifier.
    #[arg(long, env = Role::Notifier.variable(), hide_env_values = true)]
    notifier_url: String,
    /// URL of admin-api.
    #[arg(long, env = Role::AdminApi.variable(), hide_env_values = true)]
    admin_api_url: String,
    /// URL of the verifier.
    #[arg(long, env = Role::Verifier.variable(), hide_env_values = true)]
    verifier_url: String,
}

#[derive(Args)]
struct TopicsConfig {
    #[command(flatten)]
    kafka: KafkaConfig,
    /// Replicas of each partition: 3 in production, 1 where there is one broker. From 3 on, two must have a record
    /// before it counts as written.
    #[arg(long, env = "WIRED_TOPIC_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=7))]
    replication: i32,
}

/// `status` found something pending.
const PENDING: u8 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    runtime::telemetry::init("migrate");
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("migrate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Apply(mysql) => {
            let applied = schema::apply(&mysql).await?;
            for name in &applied {
                println!("applied {name}");
            }
            println!("schema is up to date: {} migrations, {} applied now", ALL.len(), applied.len());
        }
        Command::Status(mysql) => {
            let states = schema::status(&mysql).await?;
            for (migration, state) in &states {
                println!("{:<30} {state}", migration.name);
            }
            if states.iter().any(|(_, state)| !matches!(state, State::Applied(_))) {
                return Ok(ExitCode::from(PENDING));
            }
        }
        Command::Users(config) => {
            let urls = [
                (Role::Ingest, config.ingest_url),
                (Role::Processor, config.processor_url),
                (Role::Notifier, config.notifier_url),
                (Role::AdminApi, config.admin_api_url),
                (Role::Verifier, config.verifier_url),
            ];
            users::apply(&config.admin, &urls).await?;
            println!("{} users have exactly their grants", urls.len());
        }
        Command::Topics(config) => {
            let created = topics::apply(&config.kafka, &domain::topic::ALL, config.replication).await?;
            for name in &created {
                println!("created {name}");
            }
            println!(
                "topics are as they must be: {}, {} created now",
                domain::topic::ALL.len(),
                created.len()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
