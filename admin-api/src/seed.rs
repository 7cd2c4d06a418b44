//! Makes sample partners that can be paid to at once, thousands of mandates in seconds, for load and tests. A bank with
//! an admin refuses it: there, people do this through the APIs, as `wired seed` does.
//!
//! Partners, keys and endpoints are rows of this service's own tables. Accounts, deposits and mandates are bank
//! commands on Kafka, and seeding waits until the processor has decided each: it never writes a ledger table.
//!
//! Everything but secrets is derived from `--name`, so a second run finds what the first one made and adds only what
//! is missing. Secrets live in the file of `--env-file`: while it is there and fits, they are kept; without it a new
//! key and a new endpoint secret are made beside the previous ones. A partner's file is written last, so an
//! interrupted run leaves nothing half done that the next one would not complete.
//!
//! An endpoint is made after the commands, because nobody listens yet and their events would only fail.

mod credentials;
mod env_file;
mod judge;
mod plan;
mod store;

use std::{fmt, net::SocketAddr, path::PathBuf};

use domain::money::{Amount, Currency};
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig};

use crate::commands;
use crate::store::users;
use credentials::Keys;
use env_file::EnvFile;
pub use judge::Refusal;
use plan::Plan;

/// Where a seeded partner may have customers sent after they answered a request for a mandate: a name that nobody has.
const RETURN_URL: &str = "https://shop.example/return";

/// More of either would no longer be a sample.
const CUSTOMERS_MAX: u32 = 200_000;
const PARTNERS_MAX: u32 = 1_000;
/// Mandates are customers × partners, and the plan is held in memory.
const MANDATES_MAX: u64 = 500_000;

/// The settings of `admin-api seed`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// MySQL, with this service's own user.
    #[command(flatten)]
    pub mysql: MysqlConfig,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// File with the key (base64 of 32 bytes) that seals partners' API keys; ingest has the same.
    #[arg(long, env = "WIRED_PARTNER_KEYS_KEK_FILE")]
    pub partner_keys_kek_file: PathBuf,
    /// File with the key (base64 of 32 bytes) that seals webhook secrets; notifier has the same.
    #[arg(long, env = "WIRED_WEBHOOK_SECRETS_KEK_FILE")]
    pub webhook_secrets_kek_file: PathBuf,
    /// Where to keep what the partner needs: address, key, secrets and a mandate. The second partner's file has
    /// `.2` appended, and so on.
    #[arg(long, default_value = ".local/partner.env")]
    pub env_file: PathBuf,
    /// Where partners reach ingest, such as http://127.0.0.1:8080.
    #[arg(long, env = "WIRED_URL")]
    pub base_url: Option<String>,
    /// Where the partner's webhook receiver will listen on this machine.
    #[arg(long, env = "WIRED_WEBHOOK_LISTEN")]
    pub webhook_listen: Option<SocketAddr>,
    /// Which sample: another name makes other partners and customers.
    #[arg(long, default_value = "demo")]
    pub name: String,
    /// Customers, each with an account and a standing mandate for each partner. Above 3, the file of `--env-file`
    /// names in WIRED_MANDATES_FILE a file with one mandate a line.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(CUSTOMERS_MAX)))]
    pub customers: u32,
    /// Partners, each with an own key and endpoint.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTNERS_MAX)))]
    pub partners: u32,
    /// The currency of all their accounts.
    #[arg(long, default_value = "EUR")]
    pub currency: Currency,
    /// What each customer has, as a decimal; another amount than in an earlier run is deposited on top. In a currency
    /// without two digits, say it.
    #[arg(long, default_value = "100000.00")]
    pub deposit: String,
    /// Requests that each partner may make in a second, sustained.
    #[arg(long, default_value_t = 1_000)]
    pub requests_per_second: u32,
}

/// Why seeding failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An option is missing or wrong.
    #[error("{0}")]
    Option(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A key-encryption key is unusable.
    #[error("{path}: {source}")]
    Kek {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its content.
        source: domain::seal::SealError,
    },
    /// Somebody runs this bank.
    #[error("this bank has admins: let them make partners, or see `wired seed`")]
    Staffed,
    /// MySQL refused.
    #[error("MySQL: {0}; is it running, and have the migrations been applied?")]
    Mysql(#[from] sqlx::Error),
    /// Commands have no outcome.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// A command was refused by the ledger.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a run found or made for one partner; its text holds no secret.
#[derive(Debug)]
pub struct Seeded {
    /// The partner's file.
    pub env_file: PathBuf,
    partner: domain::ids::PartnerId,
    key: domain::ids::KeyId,
    key_is_new: bool,
    endpoint_url: String,
    mandates: usize,
    commands: usize,
}

impl fmt::Display for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partner, key, endpoint_url, mandates, commands, .. } = self;
        let how = if self.key_is_new { "new" } else { "kept" };
        write!(
            f,
            "partner {partner}: key {key} ({how}), {mandates} mandates ({commands} commands sent now), \
             webhooks to {endpoint_url}; see {}",
            self.env_file.display()
        )
    }
}

/// Makes what is missing and waits for it.
pub async fn run(config: &Config) -> Result<Vec<Seeded>, Error> {
    let deposit = check(config)?;
    let keys = Keys::read(config)?;
    let pool = config.mysql.pool("seed", 2)?;
    if users::lock_active_admins(&mut *pool.acquire().await?).await? > 0 {
        return Err(Error::Staffed);
    }
    let plan = Plan::new(&config.name, config.partners, config.customers, deposit);
    let mut files = Vec::with_capacity(plan.partners.len());
    for (index, partner) in plan.partners.iter().enumerate() {
        let mut file = EnvFile::read(partner_file(config, index))?;
        complete_addresses(config, &mut file)?;
        store::ensure_partner(&pool, partner.id, &partner.name, config.requests_per_second).await?;
        store::ensure_return_url(&pool, partner.id, RETURN_URL).await?;
        files.push(file);
    }
    let mut sent = 0;
    for phase in [plan.openings(), plan.funding()] {
        sent += commands::carry_out(&pool, &config.kafka, phase, |envelope, outcome| {
            judge::judge(envelope, outcome).map_err(Error::from)
        })
        .await?;
    }
    let mut seeded = Vec::with_capacity(files.len());
    for (index, (partner, mut file)) in plan.partners.iter().zip(files).enumerate() {
        let (key, key_is_new) = credentials::ensure_api_key(&pool, &keys, partner.id, &mut file).await?;
        let path = if index == 0 { "/webhooks".to_owned() } else { format!("/webhooks/{}", index + 1) };
        let endpoint_url = format!("http://{}{path}", file.get("WIRED_WEBHOOK_LISTEN").unwrap_or_default());
        credentials::ensure_endpoint(&pool, &keys, partner, &endpoint_url, &mut file).await?;
        file.set("WIRED_PARTNER", partner.id.to_string());
        file.set("WIRED_MANDATE", partner.mandates[0].to_string());
        if partner.mandates.len() > 3 {
            let mandates = file.write_beside("mandates", &partner.mandates)?;
            file.set("WIRED_MANDATES_FILE", mandates.display().to_string());
        }
        file.write()?;
        seeded.push(Seeded {
            env_file: file.path().to_owned(),
            partner: partner.id,
            key,
            key_is_new,
            endpoint_url,
            mandates: partner.mandates.len(),
            commands: if index == 0 { sent } else { 0 },
        });
    }
    pool.close().await;
    Ok(seeded)
}

fn check(config: &Config) -> Result<Amount, Error> {
    if config.name.is_empty() || config.name.len() > 60 || config.name.chars().any(char::is_control) {
        return Err(Error::Option("--name has 1 to 60 characters, none of them a control character".into()));
    }
    if u64::from(config.customers) * u64::from(config.partners) > MANDATES_MAX {
        let problem =
            format!("--customers times --partners is more than {MANDATES_MAX} mandates: take fewer");
        return Err(Error::Option(problem));
    }
    Amount::parse(&config.deposit, config.currency)
        .map_err(|error| Error::Option(format!("--deposit {}: {error}", config.deposit)))
}

fn partner_file(config: &Config, index: usize) -> PathBuf {
    let mut path = config.env_file.clone().into_os_string();
    if index > 0 {
        path.push(format!(".{}", index + 1));
    }
    path.into()
}

/// What the command line says wins over what an earlier run was told.
fn complete_addresses(config: &Config, file: &mut EnvFile) -> Result<(), Error> {
    if let Some(url) = &config.base_url {
        file.set("WIRED_URL", url.clone());
    }
    if let Some(listen) = config.webhook_listen {
        file.set("WIRED_WEBHOOK_LISTEN", listen.to_string());
    }
    for (variable, option) in [("WIRED_URL", "--base-url"), ("WIRED_WEBHOOK_LISTEN", "--webhook-listen")] {
        if file.get(variable).is_none() {
            return Err(Error::Option(format!(
                "say {option} (or {variable}): {} does not",
                file.path().display()
            )));
        }
    }
    Ok(())
}
