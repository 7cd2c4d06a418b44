//! `admin-api open-cash-accounts`: the bank's own account in each currency, against which deposits and withdrawals are
//! posted. A new bank needs them before its first deposit. They are opened once, however often this is run.

use domain::account::Owner;
use domain::command::{BankCommand, OpenAccount};
use domain::ids::{bank_account_id, derived_uuid};
use domain::money::Currency;
use domain::payment::Reason;
use runtime::config::{KafkaConfig, MysqlConfig};

use crate::bank::Thresholds;
use crate::commands::Outcome;
use crate::operate;

/// The settings of `admin-api open-cash-accounts`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// What one person may do alone, which opening accounts is.
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// Why an account is not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be said about it.
    #[error("the cash account in {currency}: {error}")]
    Operate {
        /// Which.
        currency: Currency,
        /// What happened.
        error: operate::Error,
    },
    /// The ledger refused it.
    #[error("the cash account in {currency} is {outcome}")]
    Refused {
        /// Which.
        currency: Currency,
        /// What the ledger made of it.
        outcome: Outcome,
    },
}

/// What opens the cash account in a currency.
pub(crate) fn opening(currency: Currency) -> BankCommand {
    BankCommand::OpenAccount(OpenAccount {
        account: bank_account_id(currency),
        owner: Owner::Bank,
        currency,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    })
}

/// Opens those that are missing.
pub async fn run(config: &Config) -> Result<(), Error> {
    for &currency in Currency::ALL {
        let command = operate::Config {
            mysql: config.mysql.clone(),
            kafka: config.kafka.clone(),
            thresholds: config.thresholds,
            reason: "the bank opens its cash account".to_owned(),
            id: Some(derived_uuid(&format!("bank:cash:{currency}:open"))),
            // Ids, a word and numbers, so this does not fail.
            command: serde_json::to_string(&opening(currency)).unwrap_or_default(),
        };
        let done = operate::run(&command).await.map_err(|error| Error::Operate { currency, error })?;
        match done.outcome {
            Outcome::Applied | Outcome::Rejected(Some(Reason::AccountExists)) => {}
            outcome => return Err(Error::Refused { currency, outcome }),
        }
    }
    Ok(())
}
