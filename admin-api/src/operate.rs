//! `admin-api command`: one bank command, from the server's own shell, and what became of it.
//!
//! For the first days and for emergencies. As long as there are fewer than two active admins there is nobody to ask, and
//! every command is carried out. From then on only what one person may do alone is, and within the same thresholds, with
//! the shell as one person: whatever needs two is asked for through the API. Who may read this service's settings could
//! write to Kafka all the same; this command is no way around the second person that would be taken by accident.
//!
//! The command is written down like one of the API, so a crash loses none, and audited like any other, by its row with
//! the bank as actor, the reason and the request.

use domain::command::{BankCommand, BankEnvelope, SCHEMA};
use domain::ids::{UserId, bank_owner};
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig};
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::bank::{self, Thresholds};
use crate::commands::{self, Outcome};
use crate::create_admin::ADMINS;
use crate::problem::Problem;
use crate::store::{commands as store, users};

/// Longest `--reason`, as its column has it.
const REASON_CHARS_MAX: usize = domain::command::limits::REASON_MAX;

/// The settings of `admin-api command`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// What one person may do alone.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Who you are and why, in your words; it stands in the audit.
    #[arg(long)]
    pub reason: String,
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
    /// One person is not enough.
    #[error(
        "there are {ADMINS} active admins, and this takes two people: ask for it through the API, where another one agrees"
    )]
    SecondPerson,
    /// It cannot be written down.
    #[error("{0}")]
    NotWritten(#[from] Problem),
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
    let envelope = write_down(&pool, config, &envelope).await?;
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

/// Writes the command down when one person may do it; returns what stands there.
async fn write_down(
    pool: &MySqlPool,
    config: &Config,
    envelope: &BankEnvelope,
) -> Result<BankEnvelope, Error> {
    let mut transaction = pool.begin().await.map_err(Problem::from)?;
    // The lock by which what is asked for at several shells follows each other, too.
    let admins = users::lock_active_admins(&mut transaction).await.map_err(Problem::from)?;
    let is_written = store::by_id(&mut *transaction, envelope.id).await.map_err(Problem::from)?.is_some();
    let (actor, command) = (envelope.actor, &envelope.command);
    if admins >= ADMINS
        && !is_written
        && bank::needs_two(&mut transaction, config.thresholds, actor, command).await?
    {
        return Err(Error::SecondPerson);
    }
    let value = bank::write_down(&mut transaction, envelope, envelope.encode()).await?.value;
    transaction.commit().await.map_err(Problem::from)?;
    BankEnvelope::decode(&value).map_err(|error| Error::Option(error.to_string()))
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
        actor: UserId::from_uuid(bank_owner()),
        reason: config.reason.clone(),
        request_id: Uuid::now_v7(),
        address: None,
        command,
    };
    // What the processor would set aside is refused here.
    BankEnvelope::decode(&envelope.encode()).map_err(|error| Error::Option(error.to_string()))
}
