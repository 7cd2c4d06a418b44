//! Movements that the bank and partners ask for beside the driver's, written to Kafka while everything is killed:
//! deposits, withdrawals, transfers of customers and of a partner, reversals, frozen and limited accounts.
//!
//! Each has its id before it is first written and is written until Kafka has acknowledged it, so that a repetition is
//! the same movement.

use std::time::Duration;

use anyhow::Context as _;
use domain::account::{Owner, OwnerKind};
use domain::command::{
    BankCommand, BankTransfer, Deposit, PartnerCommand, PartnerEnvelope, Reversal, SetLimits, TransferCommand,
};
use domain::fingerprint::Fingerprint;
use domain::ids::{PaymentId, UserId, bank_owner, payment_id};
use domain::money::Currency;
use domain::payment::Metadata;
use domain::topic::{BANK_COMMANDS, PARTNER_COMMANDS};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use testkit::fixtures;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;
use crate::system::System;

/// Between two movements.
const PAUSE: Duration = Duration::from_millis(60);
/// How often a record is written until Kafka takes it, and how long between two tries: longer than Kafka is away.
const TRIES: u32 = 300;
const TRY_PAUSE: Duration = Duration::from_millis(300);
const EUR: Currency = Currency::EUR;

/// Moves money until `stop`; gives the movements. `load` is the name of the driver's load, whose payments are reversed.
pub async fn run(
    system: &System,
    seed: u64,
    load: &str,
    stop: CancellationToken,
) -> anyhow::Result<Vec<PaymentId>> {
    let mut random = StdRng::seed_from_u64(seed ^ 0xba2c);
    let partner = system.partners().first().context("the system has no partner")?.clone();
    let customers = store::accounts(system.pool(), OwnerKind::Customer.code()).await?;
    let shops = store::accounts(system.pool(), OwnerKind::Partner.code()).await?;
    let shop = *shops.first().context("the partner has no account")?;
    let kafka = Kafka {
        producer: system.kafka().producer().create()?,
        partner_topic: system.kafka().topic(PARTNER_COMMANDS.name),
        bank_topic: system.kafka().topic(BANK_COMMANDS.name),
    };
    let second = fixtures::account_id();
    kafka.bank(fixtures::open_account(second, Owner::Partner(partner.id), EUR)).await?;
    let mut moved = Vec::new();
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        number += 1;
        let mut customer = || customers[random.random_range(0..customers.len())];
        let (account, other) = (customer(), customer());
        let amount_minor = random.random_range(1..200);
        let cash = Deposit { account, amount_minor, currency: EUR, reference: None };
        let command = match number % 8 {
            0 => BankCommand::Deposit(cash),
            1 => BankCommand::Withdrawal(cash),
            2 | 3 => {
                let (from, to) = (account, other);
                BankCommand::Transfer(BankTransfer {
                    from,
                    to,
                    amount_minor,
                    currency: EUR,
                    description: None,
                })
            }
            4 | 5 => {
                let payment =
                    payment_id(partner.id, &format!("{load}-{}", random.random_range(0..number * 4)));
                BankCommand::Reversal(Reversal { payment, part: None })
            }
            6 => {
                let limits = SetLimits {
                    account,
                    overdraft_minor: random.random_range(0..2),
                    payment_max_minor: None,
                    daily_max_minor: None,
                };
                kafka.bank(BankCommand::SetLimits(limits)).await?;
                kafka.bank(BankCommand::FreezeAccount { account: other }).await?;
                BankCommand::UnfreezeAccount { account: other }
            }
            _ => {
                let (from, to) = if random.random() { (shop, second) } else { (second, shop) };
                let key = format!("{load}-transfer-{number}");
                let id = payment_id(partner.id, &key);
                let command = PartnerCommand::Transfer(TransferCommand {
                    from,
                    to,
                    amount_minor,
                    currency: EUR,
                    outward: false,
                    reference: None,
                    description: None,
                    metadata: Metadata::new(),
                });
                let envelope = fixtures::payment(
                    partner.id,
                    partner.key_id.parse()?,
                    &key,
                    partner.mandates[0],
                    amount_minor,
                    EUR,
                );
                let fingerprint = Fingerprint::of(&[format!("{command:?}").as_bytes()]);
                kafka.partner(&PartnerEnvelope { command, fingerprint, ..envelope }).await?;
                moved.push(id);
                continue;
            }
        };
        let moves_money = command.moves_money();
        let id = kafka.bank(command).await?;
        if moves_money {
            moved.push(PaymentId::from_uuid(id));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(moved)
}

struct Kafka {
    producer: FutureProducer,
    partner_topic: String,
    bank_topic: String,
}

impl Kafka {
    async fn bank(&self, command: BankCommand) -> anyhow::Result<Uuid> {
        let envelope = fixtures::bank(UserId::from_uuid(bank_owner()), command);
        self.write(&self.bank_topic, envelope.command.kafka_key(), &envelope.encode()).await?;
        Ok(envelope.id)
    }

    async fn partner(&self, envelope: &PartnerEnvelope) -> anyhow::Result<()> {
        self.write(&self.partner_topic, envelope.root.uuid(), &envelope.encode()).await
    }

    async fn write(&self, topic: &str, key: Uuid, value: &[u8]) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let record = FutureRecord::to(topic).key(key.as_bytes()).payload(value);
            if self.producer.send(record, Duration::ZERO).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        anyhow::bail!("Kafka takes no record for {:?}", TRY_PAUSE * TRIES)
    }
}
