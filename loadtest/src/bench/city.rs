//! The city that backlogs are drained in: customers, partners with settlement accounts, and mandates between them.
//!
//! Customer `n` has two standing mandates without caps: one for partner `n`, so that payments spread over all
//! settlement accounts, and one for the single partner whose account all payments may be made to credit.
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
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, UserId, derived_uuid, payment_id};
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
const CURRENCY: Currency = Currency::EUR;
/// What each customer has: more than any run can spend.
const DEPOSIT_MINOR: i64 = 1_000_000_000;
const AMOUNT_MINOR_MAX: u64 = 100;
/// Rows of one statement.
const ROWS: usize = 1_000;
/// How long the processor may stand still before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credit {
    /// The settlement account of one of [`SIZE`] partners, drawn evenly.
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

/// Ids of everything; all derived.
pub(super) struct City {
    partners: Vec<PartnerId>,
    spread: Vec<Mandate>,
    one_account: Vec<Mandate>,
    /// Payments made so far.
    numbers: u64,
}

impl City {
    /// Plans the city; [`Self::build`] makes it.
    pub(super) fn new() -> Self {
        let id = |what: &str, number: usize| derived_uuid(&format!("bench:{what}:{number}"));
        let partners: Vec<_> = (0..=SIZE).map(|number| PartnerId::from_uuid(id("partner", number))).collect();
        let mandate = |kind: &str, customer: usize, partner: usize| Mandate {
            id: MandateId::from_uuid(id(kind, customer)),
            partner: partners[partner],
            debit: AccountId::from_uuid(id("customer", customer)),
            credit: AccountId::from_uuid(id("settlement", partner)),
        };
        Self {
            spread: (0..SIZE).map(|number| mandate("mandate", number, number)).collect(),
            one_account: (0..SIZE).map(|number| mandate("mandate-one", number, SIZE)).collect(),
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
        let before = applied(pool, 2).await?;
        let customers =
            self.spread.iter().map(|it| (it.debit, Owner::Customer(UserId::from_uuid(it.debit.uuid()))));
        let settlements = self
            .spread
            .iter()
            .chain(self.one_account.first())
            .map(|it| (it.credit, Owner::Partner(it.partner)));
        let openings = customers.chain(settlements).map(|(account, owner)| {
            BankCommand::OpenAccount(OpenAccount {
                account,
                owner,
                currency: CURRENCY,
                overdraft_minor: 0,
                payment_max_minor: None,
                daily_max_minor: None,
            })
        });
        let opened = produce(kafka, BANK_COMMANDS.name, openings.map(bank_record)).await?;
        wait_applied(pool, 2, before + opened).await?;
        let deposits = self.spread.iter().map(|it| {
            BankCommand::Deposit(Deposit {
                account: it.debit,
                amount_minor: DEPOSIT_MINOR,
                currency: CURRENCY,
                reference: None,
            })
        });
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
        let funded = produce(kafka, BANK_COMMANDS.name, deposits.chain(mandates).map(bank_record)).await?;
        wait_applied(pool, 2, before + opened + funded).await?;
        let refused: i64 = sqlx::query("SELECT COUNT(*) FROM changes WHERE reason IS NOT NULL")
            .fetch_one(pool)
            .await?
            .try_get(0)?;
        if refused > 0 {
            bail!("{refused} commands of the benchmark's city were refused by the ledger");
        }
        Ok(())
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

    /// Produces payments as ingest does.
    pub(super) async fn produce(
        kafka: &KafkaConfig,
        payments: Vec<(Mandate, PartnerEnvelope)>,
    ) -> anyhow::Result<u64> {
        let records =
            payments.into_iter().map(|(_, envelope)| (*envelope.root.uuid().as_bytes(), envelope.encode()));
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
    let idempotency_key = format!("bench-{number:010}");
    let id = payment_id(mandate.partner, &idempotency_key);
    PartnerEnvelope {
        schema: SCHEMA,
        id,
        root: id,
        partner: mandate.partner,
        key: KeyId::from_uuid(mandate.partner.uuid()),
        fingerprint: Fingerprint::of(&[b"POST", b"/v1/payments", idempotency_key.as_bytes()]),
        idempotency_key,
        request_id: Uuid::from_u128(u128::from(scatter(number)) << 64 | u128::from(number)),
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        command: PartnerCommand::Payment(PaymentCommand {
            mandate: mandate.id,
            amount_minor,
            currency: CURRENCY,
            expires_in_s: None,
            reference: Some(format!("order-{number:010}")),
            description: None,
            metadata: Metadata::new(),
        }),
    }
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
