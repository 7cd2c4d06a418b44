//! `admin-api command`: one bank command, from the server's own shell, and what became of it.
//!
//! For what has no page yet and for emergencies: who may log in to this machine and read this service's settings may do
//! whatever the bank can. The command is audited like any other, by its row with actor, reason and request.

use domain::command::{BankCommand, BankEnvelope, SCHEMA};
use domain::ids::{UserId, bank_owner};
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig};
use uuid::Uuid;

use crate::commands::{self, Outcome};

/// Longest `--reason`, as its column has it.
const REASON_CHARS_MAX: usize = 500;

/// The settings of `admin-api command`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// Why, in your words; it stands in the audit.
    #[arg(long)]
    pub reason: String,
    /// Your user id; the bank itself when you have none yet.
    #[arg(long)]
    pub actor: Option<UserId>,
    /// Repeats the command with this id, which is then carried out once however often it is sent.
    #[arg(long)]
    pub id: Option<Uuid>,
    /// The command as JSON, such as '{"redrive_dead_letters":{"root":"0190…"}}'.
    pub command: String,
}

/// Why nothing can be said about the command's outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// It was not sent, or not decided in time.
    #[error("{error}; repeat it with --id {id}")]
    Command {
        /// The id to repeat it with.
        id: Uuid,
        /// What happened.
        error: commands::Error,
    },
}

/// A command and its outcome.
#[derive(Debug)]
pub struct Done {
    /// The payment or change.
    pub id: Uuid,
    /// What the ledger made of it.
    pub outcome: Outcome,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.id, self.outcome)
    }
}

/// Sends the command and waits for its outcome.
pub async fn run(config: &Config) -> Result<Done, Error> {
    let envelope = envelope(config)?;
    let id = envelope.id;
    let pool = config.mysql.pool("command", 1)?;
    let mut decided = None;
    let sent = commands::carry_out(&pool, &config.kafka, vec![envelope], |_, outcome| {
        decided = Some(outcome);
        Ok::<_, commands::Error>(())
    })
    .await;
    pool.close().await;
    match (sent, decided) {
        (Err(error), _) => Err(Error::Command { id, error }),
        (Ok(_), Some(outcome)) => Ok(Done { id, outcome }),
        (Ok(_), None) => Err(Error::Option("no outcome was told".to_owned())),
    }
}

fn envelope(config: &Config) -> Result<BankEnvelope, Error> {
    let command: BankCommand = serde_json::from_str(&config.command)
        .map_err(|error| Error::Option(format!("the command is not one of the bank: {error}")))?;
    if !(1..=REASON_CHARS_MAX).contains(&config.reason.chars().count()) {
        return Err(Error::Option(format!("--reason has 1 to {REASON_CHARS_MAX} characters")));
    }
    let envelope = BankEnvelope {
        schema: SCHEMA,
        id: config.id.unwrap_or_else(Uuid::now_v7),
        actor: config.actor.unwrap_or_else(|| UserId::from_uuid(bank_owner())),
        reason: config.reason.clone(),
        request_id: Uuid::now_v7(),
        address: None,
        command,
    };
    // What the processor would set aside is refused here.
    BankEnvelope::decode(&envelope.encode()).map_err(|error| Error::Option(error.to_string()))
}
