//! Sends bank commands and waits until the processor has decided each of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::{
    command::{BankCommand, BankEnvelope},
    payment::Reason,
    topic::BANK_COMMANDS,
};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use runtime::config::KafkaConfig;
use sqlx::MySqlPool;
use uuid::Uuid;

use super::{
    Error,
    store::{self, LOOKUP_MAX, Outcome},
};

/// Commands in flight to Kafka at once, far below the producer's own queue.
const SEND_MAX: usize = 5_000;
/// How long to wait for the next outcome: a processor that has just taken over needs up to 20 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A command that the ledger refused.
#[derive(Debug, thiserror::Error)]
#[error("the ledger refused {what}: {why}")]
pub struct Refusal {
    what: String,
    why: String,
}

/// Carries out what has not been carried out yet; gives how many commands were sent.
pub(super) async fn carry_out(
    pool: &MySqlPool,
    kafka: &KafkaConfig,
    commands: Vec<BankEnvelope>,
) -> Result<usize, Error> {
    let mut open: HashMap<Uuid, BankEnvelope> = commands.into_iter().map(|it| (it.id, it)).collect();
    settle(pool, &mut open).await?;
    let all = open.len();
    if all == 0 {
        return Ok(0);
    }
    send(kafka, open.values()).await?;
    let mut last_news = Instant::now();
    loop {
        let before = open.len();
        settle(pool, &mut open).await?;
        if open.is_empty() {
            return Ok(all);
        }
        if open.len() < before {
            last_news = Instant::now();
        }
        if last_news.elapsed() >= PATIENCE {
            return Err(Error::Undecided { missing: open.len(), all, waited_s: PATIENCE.as_secs() });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Takes the commands with an outcome out of `open`.
async fn settle(pool: &MySqlPool, open: &mut HashMap<Uuid, BankEnvelope>) -> Result<(), Error> {
    let ids: Vec<Uuid> = open.keys().copied().collect();
    for ids in ids.chunks(LOOKUP_MAX) {
        for (id, outcome) in store::outcomes(pool, ids).await? {
            if let Some(envelope) = open.remove(&id) {
                judge(&envelope, outcome)?;
            }
        }
    }
    Ok(())
}

/// An account or mandate that is there already is what was wanted.
fn judge(envelope: &BankEnvelope, outcome: Outcome) -> Result<(), Refusal> {
    let why = match (&envelope.command, outcome) {
        (_, Outcome::Applied)
        | (BankCommand::OpenAccount(_), Outcome::Rejected(Some(Reason::AccountExists)))
        | (BankCommand::GrantMandate(_), Outcome::Rejected(Some(Reason::MandateExists))) => return Ok(()),
        (_, Outcome::Rejected(Some(reason))) => reason.to_string(),
        (_, Outcome::Rejected(None)) => "for a reason that this version does not know".to_owned(),
        (_, Outcome::DeadLetter(detail)) => format!("it is a dead letter ({detail})"),
    };
    let what = format!("{} of {}", envelope.command.word(), envelope.command.kafka_key());
    Err(Refusal { what, why })
}

/// Returns when the broker has acknowledged all of them.
async fn send(kafka: &KafkaConfig, commands: impl Iterator<Item = &BankEnvelope>) -> Result<(), Error> {
    let config: ClientConfig = kafka.producer();
    let producer: FutureProducer = config.create()?;
    let topic = kafka.topic(BANK_COMMANDS.name);
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let sent = commands.by_ref().take(SEND_MAX).map(|envelope| {
            let (key, value) = (envelope.command.kafka_key(), envelope.encode());
            let (producer, topic) = (&producer, &topic);
            async move {
                let record = FutureRecord::to(topic).key(key.as_bytes()).payload(&value);
                // The producer gives up by itself after its delivery time-out; the queue never waits.
                producer.send(record, Duration::ZERO).await.map_err(|(error, _)| Error::Kafka(error))
            }
        });
        try_join_all(sent).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::{AccountId, UserId};

    fn envelope(command: BankCommand) -> BankEnvelope {
        BankEnvelope {
            schema: 1,
            id: Uuid::nil(),
            actor: UserId::from_uuid(Uuid::nil()),
            reason: String::new(),
            request_id: Uuid::nil(),
            address: None,
            command,
        }
    }

    #[test]
    fn only_a_real_refusal_is_one() {
        let account = AccountId::from_uuid(Uuid::from_u128(1));
        let open = envelope(BankCommand::OpenAccount(domain::command::OpenAccount {
            account,
            owner: domain::account::Owner::Bank,
            currency: domain::money::Currency::EUR,
            overdraft_minor: 0,
            payment_max_minor: None,
            daily_max_minor: None,
        }));
        assert!(judge(&open, Outcome::Applied).is_ok());
        assert!(judge(&open, Outcome::Rejected(Some(Reason::AccountExists))).is_ok());
        let refusal = judge(&open, Outcome::Rejected(Some(Reason::CurrencyMismatch))).unwrap_err();
        assert!(refusal.to_string().ends_with("currency_mismatch"), "{refusal}");
        assert!(judge(&open, Outcome::DeadLetter("x".into())).is_err());
        let freeze = envelope(BankCommand::FreezeAccount { account });
        assert!(judge(&freeze, Outcome::Rejected(Some(Reason::AccountExists))).is_err());
    }
}
