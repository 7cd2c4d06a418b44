//! The city that backlogs are drained in: customers, partners with settlement accounts, and mandates between them.
//!
//! Customer `n` has two standing mandates without caps: one for partner `n`, so that payments spread over all
//! settlement accounts, and one for the single partner whose account all payments may be made to credit.
//!
//! With reserves, every partner has a second, funded account to transfer from.
//!
//! Everything but the partners (configuration) is made by bank commands through the processor.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use domain::account::Owner;
use domain::command::{
    BankCommand, BankEnvelope, Deposit, GrantMandate, OpenAccount, PartnerCommand, PartnerEnvelope,
    PaymentCommand, SCHEMA,
};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, derived_uuid, payment_id};
use domain::mandate::MandateKind;
use domain::money::Currency;
use domain::payment::Metadata;
use domain::topic::{BANK_COMMANDS, PARTNER_COMMANDS};
use runtime::config::KafkaConfig;
use runtime::sql::Sql;
use sqlx::{MySqlPool, Row as _};
use uuid::Uuid;

use super::produce::produce;
use crate::driver::scatter;

/// Customers, and partners besides the one that everybody may pay.
pub(super) const SIZE: usize = 10_000;
/// The same when only whether it works is looked at.
pub(super) const QUICK_SIZE: usize = 100;
pub(super) const CURRENCY: Currency = Currency::EUR;
/// What each customer and each reserve has: more than any run can spend.
const DEPOSIT_MINOR: i64 = 1_000_000_000;
const AMOUNT_MINOR_MAX: u64 = 100;
/// Rows of one statement.
const ROWS: usize = 1_000;
/// How long the processor may stand still before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credit {
    /// The settlement account of one of all partners, drawn evenly.
    Spread,
    /// The settlement account of one partner.
    OneAccount,
}

/// The mandate of a customer, with what a payment under it touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mandate {
    pub(super) id: MandateId,
    pub(super) partner: PartnerId,
    pub(super) debit: AccountId,
    pub(super) credit: AccountId,
}

impl Mandate {
    /// The second account of its partner.
    pub(super) fn reserve(&self) -> AccountId {
        AccountId::from_uuid(derived_uuid(&format!("bench:reserve:{}", self.partner)))
    }
}

/// Ids of everything; all derived.
pub(super) struct City {
    partners: Vec<PartnerId>,
    spread: Vec<Mandate>,
    one_account: Vec<Mandate>,
    /// Payments made so far.
    numbers: u64,
}

impl City {
    /// Plans a city of so many customers; [`Self::build`] makes it.
    pub(super) fn new(size: usize) -> Self {
        let id = |what: &str, number: usize| derived_uuid(&format!("bench:{what}:{number}"));
        let partners: Vec<_> = (0..=size).map(|number| PartnerId::from_uuid(id("partner", number))).collect();
        let mandate = |kind: &str, customer: usize, partner: usize| Mandate {
            id: MandateId::from_uuid(id(kind, customer)),
            partner: partners[partner],
            debit: AccountId::from_uuid(id("customer", customer)),
            credit: AccountId::from_uuid(id("settlement", partner)),
        };
        Self {
            spread: (0..size).map(|number| mandate("mandate", number, number)).collect(),
            one_account: (0..size).map(|number| mandate("mandate-one", number, size)).collect(),
            partners,
            numbers: 0,
        }
    }

    /// Makes the partners and has the processor make the rest.
    pub(super) async fn build(&self, pool: &MySqlPool, kafka: &KafkaConfig) -> anyhow::Result<()> {
        for partners in self.partners.chunks(ROWS) {
            let mut sql = Sql::new();
            sql.text(
                "INSERT INTO partners (id, name, status, livemode, requests_per_second, created_at) VALUES ",
            );
            sql.list(partners, |sql, partner| {
                sql.text("(").uuid(partner.uuid()).text(", 'bench', 1, 1, 1000, UTC_TIMESTAMP(6))");
            });
            sqlx::raw_sql(sql.as_str()).execute(pool).await?;
        }
        let customers =
            self.spread.iter().map(|it| (it.debit, Owner::Customer(UserId::from_uuid(it.debit.uuid()))));
        let settlements = self
            .spread
            .iter()
            .chain(self.one_account.first())
            .map(|it| (it.credit, Owner::Partner(it.partner)));
        command(pool, kafka, customers.chain(settlements).map(opening)).await?;
        let deposits = self.spread.iter().map(|it| deposit(it.debit));
        let mandates = self.spread.iter().chain(&self.one_account).map(|it| {
            BankCommand::GrantMandate(GrantMandate {
                mandate: it.id,
                partner: it.partner,
                account: it.debit,
                kind: MandateKind::Standing,
                currency: CURRENCY,
                payment_max_minor: None,
                daily_max_minor: None,
                expires_at: None,
                reference: None,
            })
        });
        command(pool, kafka, deposits.chain(mandates)).await
    }

    /// Makes the reserves.
    pub(super) async fn build_reserves(&self, pool: &MySqlPool, kafka: &KafkaConfig) -> anyhow::Result<()> {
        let reserves = self.spread.iter().map(|it| (it.reserve(), Owner::Partner(it.partner)));
        command(pool, kafka, reserves.map(opening)).await?;
        command(pool, kafka, self.spread.iter().map(|it| deposit(it.reserve()))).await
    }

    /// The number of the next command.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers - 1
    }

    /// The partner whose account all payments may be made to credit.
    pub(super) fn everybodys_partner(&self) -> PartnerId {
        self.partners[self.spread.len()]
    }

    /// One of the mandates whose payments spread.
    pub(super) fn mandate(&self, draw: u64) -> Mandate {
        self.spread[(draw % self.spread.len() as u64) as usize]
    }

    /// The next `count` payments.
    pub(super) fn payments(&mut self, count: usize, credit: Credit) -> Vec<(Mandate, PartnerEnvelope)> {
        let mandates = match credit {
            Credit::Spread => &self.spread,
            Credit::OneAccount => &self.one_account,
        };
        let first = self.numbers;
        self.numbers += count as u64;
        payments(mandates, first..self.numbers)
    }

    /// Produces commands as ingest does.
    pub(super) async fn produce(
        kafka: &KafkaConfig,
        commands: impl IntoIterator<Item = PartnerEnvelope>,
    ) -> anyhow::Result<u64> {
        let records =
            commands.into_iter().map(|envelope| (*envelope.root.uuid().as_bytes(), envelope.encode()));
        produce(kafka, PARTNER_COMMANDS.name, records).await
    }
}

/// Payments with these numbers under mandates drawn evenly.
pub(super) fn payments(
    mandates: &[Mandate],
    numbers: std::ops::Range<u64>,
) -> Vec<(Mandate, PartnerEnvelope)> {
    let one = |number| {
        let draw = scatter(number);
        let mandate = mandates[(draw % mandates.len() as u64) as usize];
        (mandate, payment(number, 1 + ((draw >> 40) % AMOUNT_MINOR_MAX) as i64, &mandate))
    };
    numbers.map(one).collect()
}

/// All mandates of a bank, with the accounts that payments under them touch.
pub(super) async fn mandates_of(pool: &MySqlPool) -> anyhow::Result<Vec<Mandate>> {
    let rows = sqlx::query(
        "SELECT m.id, m.partner_id, m.account_id, s.account_id FROM mandates m JOIN settlement_accounts s \
         ON s.partner_id = m.partner_id AND s.currency = m.currency ORDER BY m.id",
    );
    let mut mandates = Vec::new();
    for row in rows.fetch_all(pool).await? {
        let id = |column: usize| anyhow::Ok(Uuid::from_slice(row.try_get(column)?)?);
        mandates.push(Mandate {
            id: MandateId::from_uuid(id(0)?),
            partner: PartnerId::from_uuid(id(1)?),
            debit: AccountId::from_uuid(id(2)?),
            credit: AccountId::from_uuid(id(3)?),
        });
    }
    Ok(mandates)
}

fn payment(number: u64, amount_minor: i64, mandate: &Mandate) -> PartnerEnvelope {
    let command = PaymentCommand {
        mandate: mandate.id,
        amount_minor,
        currency: CURRENCY,
        expires_in_s: None,
        reference: Some(reference(number)),
        description: None,
        metadata: Metadata::new(),
    };
    envelope(number, mandate.partner, None, PartnerCommand::Payment(command))
}

/// The partner's own reference of a command.
pub(super) fn reference(number: u64) -> String {
    format!("order-{number:010}")
}

/// A command as ingest would put it on Kafka; its own root when there is no other.
pub(super) fn envelope(
    number: u64,
    partner: PartnerId,
    root: Option<PaymentId>,
    command: PartnerCommand,
) -> PartnerEnvelope {
    let idempotency_key = format!("bench-{number:010}");
    let id = payment_id(partner, &idempotency_key);
    PartnerEnvelope {
        schema: SCHEMA,
        id,
        root: root.unwrap_or(id),
        partner,
        key: KeyId::from_uuid(partner.uuid()),
        fingerprint: Fingerprint::of(&[b"POST", b"/v1/payments", idempotency_key.as_bytes()]),
        idempotency_key,
        request_id: Uuid::from_u128(u128::from(scatter(number)) << 64 | u128::from(number)),
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        command,
    }
}

fn opening((account, owner): (AccountId, Owner)) -> BankCommand {
    BankCommand::OpenAccount(OpenAccount {
        account,
        owner,
        currency: CURRENCY,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    })
}

fn deposit(account: AccountId) -> BankCommand {
    BankCommand::Deposit(Deposit {
        account,
        amount_minor: DEPOSIT_MINOR,
        currency: CURRENCY,
        reference: None,
    })
}

/// Has the processor apply commands of the bank, none of which may be refused.
async fn command(
    pool: &MySqlPool,
    kafka: &KafkaConfig,
    commands: impl Iterator<Item = BankCommand>,
) -> anyhow::Result<()> {
    let before = applied(pool, 2).await?;
    let produced = produce(kafka, BANK_COMMANDS.name, commands.map(bank_record)).await?;
    wait_applied(pool, 2, before + produced).await?;
    let refused: i64 = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM changes WHERE reason IS NOT NULL) + \
         (SELECT COUNT(*) FROM payments WHERE source = 2 AND reason IS NOT NULL)",
    )
    .fetch_one(pool)
    .await?
    .try_get(0)?;
    if refused > 0 {
        bail!("{refused} commands of the benchmark's city were refused by the ledger");
    }
    Ok(())
}

fn bank_record(command: BankCommand) -> ([u8; 16], Vec<u8>) {
    let mut envelope = BankEnvelope {
        schema: SCHEMA,
        id: Uuid::nil(),
        actor: UserId::from_uuid(derived_uuid("bench")),
        reason: "benchmark".to_owned(),
        request_id: Uuid::nil(),
        address: None,
        command,
    };
    envelope.id = derived_uuid(&format!("bench:{:?}", envelope.fingerprint()));
    (*envelope.command.kafka_key().as_bytes(), envelope.encode())
}

/// How many records of a source (1 partners, 2 bank) are applied.
pub(super) async fn applied(pool: &MySqlPool, source: u8) -> anyhow::Result<u64> {
    let row = sqlx::query("SELECT CAST(SUM(next_offset) AS UNSIGNED) FROM positions WHERE source = ?")
        .bind(source)
        .fetch_one(pool)
        .await?;
    Ok(row.try_get(0)?)
}

/// Waits until so many are, as long as the processor gets on.
pub(super) async fn wait_applied(pool: &MySqlPool, source: u8, count: u64) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = applied(pool, source).await.context("positions cannot be read")?;
        if now >= count {
            return Ok(());
        }
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            bail!("the processor stands still at {now} of {count} records");
        }
        // Seldom enough not to be felt.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
