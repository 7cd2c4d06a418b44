//! Carries out commands of the bank for customers and staff.
//!
//! A command is written down first, then published, then its outcome is waited for. Its id is derived from the caller
//! and the idempotency key, so the same request again is the same command on any replica: another command under the id
//! is refused, the same one is sent again and applied once by the ledger. What was written down and not published (a
//! crash, Kafka away) is published by the [dispatcher], in any process.
//!
//! Of staff, one person is enough below the [thresholds](alone); above, the command waits as a request for a second one
//! ([`crate::approvals`]) under the same id. Commands of one member of the staff are written down one after the other,
//! by a lock on the row of the user, so that two at once cannot pass a sum that holds one.

pub mod alone;
pub mod dispatcher;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::command::{BankCommand, BankEnvelope, SCHEMA};
use domain::ids::{AccountId, ApprovalId, UserId};
use domain::money::Amount;
use domain::topic::BANK_COMMANDS;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::config::KafkaConfig;
use runtime::kafka::LogContext;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use alone::Rule;
pub use alone::Thresholds;
pub use view::{CommandStatus, CommandView, Wait, answer, command_id_text};

use crate::access::Caller;
use crate::app::App;
use crate::approvals::{self, Action, Approval};
use crate::commands::{self, Outcome};
use crate::metrics;
use crate::problem::{Code, FieldError, Problem};
use crate::roles::{Role, UserStatus};
use crate::store::commands::{self as store, CommandRow, NewCommand};
use crate::store::{approvals as approval_store, is_duplicate, users};

/// How long an outcome is waited for.
const OUTCOME_WAIT: Duration = Duration::from_secs(5);
/// Between two looks for an outcome: soon at first, since it usually takes some milliseconds.
const LOOK_AFTER: [u64; 6] = [5, 10, 20, 40, 80, 160];
/// When the dispatcher publishes what the request itself did not: longer than a request tries.
const HANDOVER_S: u32 = 10;
/// How long one delivery may take, well below the patience of a client.
const DELIVERY_MS: &str = "4000";

/// What is known of a command that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The ledger has decided it, or it is a dead letter.
    Decided(Outcome),
    /// It is on its way.
    Pending,
}

/// What became of a command that staff asked for.
#[derive(Debug)]
pub enum Done {
    /// It was sent.
    Sent(Sent),
    /// It waits for a second person.
    Asked(Box<Approval>),
}

/// The way to the ledger.
pub struct Bank {
    producer: FutureProducer<LogContext>,
    topic: String,
    thresholds: Thresholds,
    /// Tells the dispatcher of this process that something is due.
    wake: Arc<Notify>,
}

/// A command as it stands in its row.
pub(crate) struct Stored {
    id: Uuid,
    key: Uuid,
    /// The record's value.
    pub(crate) value: Vec<u8>,
    is_repeat: bool,
}

impl Bank {
    /// A producer that has not met a broker yet.
    pub fn new(kafka: &KafkaConfig, thresholds: Thresholds) -> Result<Self, KafkaError> {
        let producer = kafka
            .producer()
            // A record that comes twice is recognised by its id, so nothing is gained by a producer that may fail for
            // good; nor does order count between requests that do not wait for each other.
            .set("enable.idempotence", "false")
            .set("delivery.timeout.ms", DELIVERY_MS)
            .set("request.timeout.ms", DELIVERY_MS)
            .create_with_context(LogContext)?;
        Ok(Self { producer, topic: kafka.topic(BANK_COMMANDS.name), thresholds, wake: Arc::default() })
    }

    /// Carries out what the caller may do alone: what customers ask for. Staff come by [`Self::carry_out_or_ask`].
    pub async fn carry_out(
        &self,
        app: &App,
        caller: &Caller,
        id: Uuid,
        command: BankCommand,
        reason: &str,
        wait: Wait,
    ) -> Result<Sent, Problem> {
        let (envelope, value) = envelope(caller, id, command, reason)?;
        let mut transaction = app.pool.begin().await?;
        let stored = write_down(&mut transaction, &envelope, value).await?;
        transaction.commit().await?;
        self.send(&app.pool, &stored, wait).await
    }

    /// Carries out what staff ask for, or asks a second person for it.
    pub async fn carry_out_or_ask(
        &self,
        app: &App,
        caller: &Caller,
        id: Uuid,
        command: BankCommand,
        reason: &str,
        wait: Wait,
    ) -> Result<Done, Problem> {
        let (envelope, value) = envelope(caller, id, command, reason)?;
        let mut transaction = app.pool.begin().await?;
        // The lock by which the commands of one person follow each other.
        let user = users::lock(&mut transaction, caller.user).await?;
        user.filter(|user| user.status == UserStatus::Active && may(user.role))
            .ok_or_else(|| Problem::plain(Code::RoleMissing))?;
        let is_asked = approval_store::by_id(&mut *transaction, ApprovalId::from_uuid(id)).await?.is_some();
        let is_written = store::by_id(&mut *transaction, id).await?.is_some();
        if !is_written
            && (is_asked
                || needs_two(&mut transaction, self.thresholds, caller.user, &envelope.command).await?)
        {
            let action = Action::Bank(envelope.command);
            let approval = approvals::request(&mut transaction, caller, id, action, reason).await?;
            transaction.commit().await?;
            return Ok(Done::Asked(Box::new(approval)));
        }
        let stored = write_down(&mut transaction, &envelope, value).await?;
        transaction.commit().await?;
        self.send(&app.pool, &stored, wait).await.map(Done::Sent)
    }

    /// Publishes a command and waits for its outcome. Whatever fails here, its row brings it to the ledger.
    async fn send(&self, pool: &MySqlPool, stored: &Stored, wait: Wait) -> Result<Sent, Problem> {
        if stored.is_repeat
            && let Some(outcome) = commands::outcome(pool, stored.id).await?
        {
            return Ok(Sent::Decided(outcome));
        }
        if let Err(error) = self.publish(stored.key, &stored.value).await {
            tracing::warn!(command.id = %stored.id, error = %error, "a command is written down and not published");
            metrics::command("unpublished");
            self.wake.notify_one();
            return Err(Problem::plain(Code::QueueUnavailable).retry_after(5));
        }
        let sent = match wait {
            Wait::Not => Sent::Pending,
            Wait::Outcome => wait_for(pool, stored.id).await,
        };
        metrics::command(match &sent {
            Sent::Decided(Outcome::Applied) => "applied",
            Sent::Decided(Outcome::Rejected(_)) => "rejected",
            Sent::Decided(Outcome::DeadLetter(_)) => "under_review",
            Sent::Pending => "pending",
        });
        Ok(sent)
    }

    /// Publishes what was just approved and waits for its outcome, as far as that is possible now.
    pub(crate) async fn send_approved(&self, app: &App, row: &CommandRow, wait: Wait) -> Sent {
        let Some(envelope) = as_asked(row) else { return Sent::Pending };
        let key = envelope.command.kafka_key();
        let stored = Stored { id: row.id, key, value: row.envelope.clone(), is_repeat: true };
        // The dispatcher goes on with what fails here.
        self.send(&app.pool, &stored, wait).await.unwrap_or(Sent::Pending)
    }

    /// Returns when the broker has acknowledged it.
    async fn publish(&self, key: Uuid, value: &[u8]) -> Result<(), KafkaError> {
        let record = FutureRecord::to(&self.topic).key(key.as_bytes().as_slice()).payload(value);
        // The queue never waits, and the producer gives up by itself after its delivery time-out.
        self.producer.send(record, Duration::ZERO).await.map(drop).map_err(|(error, _)| error)
    }
}

/// Whether the command takes a second person. Right only while nobody else can write down for the same actor.
pub(crate) async fn needs_two(
    db: &mut MySqlConnection,
    thresholds: Thresholds,
    actor: UserId,
    command: &BankCommand,
) -> Result<bool, Problem> {
    let (moves, accounts) = facts(db, command).await?;
    Ok(match alone::rule(command, moves) {
        Rule::Alone => false,
        Rule::Never => true,
        Rule::Within(amount) => {
            let moved = store::moved_today(db, actor, amount.currency()).await?;
            !thresholds.allow(amount, moved) || store::owners(db, &accounts).await?.contains(&actor)
        }
    })
}

/// What a command moves at most, and the accounts that it touches.
async fn facts(
    db: &mut MySqlConnection,
    command: &BankCommand,
) -> Result<(Option<Amount>, Vec<AccountId>), sqlx::Error> {
    let (mut moves, mut accounts) = (alone::amount(command), alone::accounts(command));
    if let Some(payment) = alone::payment(command)
        && let Some(moved) = store::moved(db, payment).await?
    {
        moves = moves.or(moved.amount);
        accounts.extend(moved.accounts);
    }
    Ok((moves, accounts))
}

/// The customers who own what a command touches, or will own it.
pub(crate) async fn owners(
    db: &mut MySqlConnection,
    command: &BankCommand,
) -> Result<Vec<UserId>, sqlx::Error> {
    let (_, accounts) = facts(db, command).await?;
    let mut owners = store::owners(db, &accounts).await?;
    if let BankCommand::OpenAccount(open) = command
        && let domain::account::Owner::Customer(user) = open.owner
    {
        owners.push(user);
    }
    Ok(owners)
}

/// Who may ask staff's commands of the bank, and agree to them.
pub(crate) const fn may(role: Role) -> bool {
    match role {
        Role::Operator | Role::Admin => true,
        Role::Customer | Role::Auditor => false,
    }
}

/// The envelope and its bytes. What the processor would set aside is refused here.
fn envelope(
    caller: &Caller,
    id: Uuid,
    command: BankCommand,
    reason: &str,
) -> Result<(BankEnvelope, Vec<u8>), Problem> {
    let envelope = BankEnvelope {
        schema: SCHEMA,
        id,
        actor: caller.user,
        reason: reason.to_owned(),
        request_id: caller.origin.request_id,
        address: caller.origin.address,
        command,
    };
    let value = envelope.encode();
    BankEnvelope::decode(&value).map_err(|error| {
        let detail = error.to_string().into();
        Problem::fields(vec![FieldError { pointer: String::new(), code: "invalid_command".into(), detail }])
    })?;
    Ok((envelope, value))
}

/// Writes a command down, or finds it.
pub(crate) async fn write_down(
    db: &mut MySqlConnection,
    envelope: &BankEnvelope,
    value: Vec<u8>,
) -> Result<Stored, Problem> {
    let fingerprint = envelope.fingerprint();
    let key = envelope.command.kafka_key();
    let new = NewCommand {
        envelope,
        value: &value,
        fingerprint: &fingerprint,
        amount: facts(db, &envelope.command).await?.0,
        approved: false,
        due_in_s: HANDOVER_S,
    };
    let found = match store::by_id(&mut *db, envelope.id).await? {
        Some(found) => found,
        None => match store::insert(db, &new).await {
            Ok(()) => return Ok(Stored { id: envelope.id, key, value, is_repeat: false }),
            // The same request at the same moment; its row is committed, since the insert waited for it.
            Err(error) if is_duplicate(&error) => {
                let found = store::by_id(&mut *db, envelope.id).await?;
                found.ok_or_else(|| Problem::plain(Code::Unavailable).retry_after(1))?
            }
            Err(error) => return Err(error.into()),
        },
    };
    if found.actor != envelope.actor || found.fingerprint != fingerprint.as_bytes() {
        return Err(Problem::plain(Code::IdempotencyConflict));
    }
    as_asked(&found).ok_or_else(|| Problem::plain(Code::Internal))?;
    Ok(Stored { id: envelope.id, key, value: found.envelope, is_repeat: true })
}

/// What a row says to publish, if that is still what was asked for; otherwise somebody altered it by hand, and nobody
/// publishes it.
fn as_asked(row: &CommandRow) -> Option<BankEnvelope> {
    let envelope = BankEnvelope::decode(&row.envelope).ok();
    let envelope = envelope.filter(|it| it.id == row.id && it.actor == row.actor);
    let envelope = envelope.filter(|it| it.fingerprint().as_bytes()[..] == row.fingerprint);
    if envelope.is_none() {
        tracing::error!(command.id = %row.id, "a command is not the one that was asked for");
    }
    envelope
}

/// Writes down what a second person agreed to, due at once. `false`: it stands there already, or another one does.
pub(crate) async fn write_down_approved(
    db: &mut MySqlConnection,
    envelope: &BankEnvelope,
) -> Result<bool, sqlx::Error> {
    let (value, fingerprint) = (envelope.encode(), envelope.fingerprint());
    let amount = facts(db, &envelope.command).await?.0;
    let (value, fingerprint) = (&value[..], &fingerprint);
    let new = NewCommand { envelope, value, fingerprint, amount, approved: true, due_in_s: 0 };
    match store::insert(db, &new).await {
        Ok(()) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks for the outcome until it is there or nobody has patience left.
async fn wait_for(pool: &MySqlPool, id: Uuid) -> Sent {
    let deadline = Instant::now() + OUTCOME_WAIT;
    let mut pauses = LOOK_AFTER.into_iter();
    let mut pause = 0;
    while Instant::now() < deadline {
        pause = pauses.next().unwrap_or(pause);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match commands::outcome(pool, id).await {
            Ok(Some(outcome)) => return Sent::Decided(outcome),
            Ok(None) => {}
            // It is on Kafka: that nobody can look now does not change that.
            Err(error) => tracing::warn!(error = %error, "the outcome of a command cannot be read"),
        }
    }
    Sent::Pending
}
