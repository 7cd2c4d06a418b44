//! The bank's API for customers and staff: who they are and what they may do.
//!
//! Whatever changes money, accounts or mandates leaves here as a command on Kafka: this service never writes a
//! ledger table, and its MySQL user could not. Beyond loopback it listens with TLS only.

pub mod access;
pub mod analytics;
pub mod answer;
pub mod app;
pub mod approvals;
pub mod audit;
pub mod bank;
pub mod body;
pub mod calls;
pub mod cash_accounts;
pub mod client_address;
pub mod commands;
mod config;
pub mod create_admin;
pub mod csv;
pub mod cursor;
pub mod evidence;
pub mod find;
mod health;
pub mod idempotency;
pub mod jwt;
pub mod mail;
mod metrics;
pub mod operate;
pub mod outbox;
pub mod page;
pub mod partners;
pub mod password;
pub mod personal;
pub mod problem;
pub mod random;
pub mod roles;
pub mod routes;
pub mod second_person;
pub mod seed;
pub mod sessions;
pub mod staff;
pub mod store;
pub mod system;
pub mod throttle;
pub mod totp;
pub mod trace;
pub mod trail;
pub mod upkeep;
pub mod verification;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use app::{App, Throttles};
pub use config::{Config, Error, MailConfig, PeopleConfig, TokenConfig};

/// For requests; more would only queue in MySQL.
const CONNECTIONS: u32 = 8;

/// Exports of the audit that run at once: each reads as fast as its client takes it.
const EXPORTS_MAX: usize = 2;

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.public.check()?;
    let base_url = config.people.base_url()?;
    let (signing, verifying) = config.tokens.keys()?;
    let mailer = mail::Mailer::new(&config.mail, base_url.clone())?;
    let health = runtime::health::Health::new();
    // Ends the background tasks after the last request.
    let stop = CancellationToken::new();
    let private = runtime::private::serve(&config.private, health.clone(), stop.clone()).await?;
    metrics::describe();
    let mut tasks = health::watch(&config, &health, &stop)?;

    tasks.extend(config.evidence.start(&config.mysql, &config.kafka, &stop)?);

    tasks.push(config.analytics.start(&config.mysql, &stop)?);

    let pool = config.mysql.pool("requests", CONNECTIONS)?;
    runtime::mysql::observe(&pool, "requests", stop.clone());
    let mail_waits = Arc::new(Notify::new());
    let outbox = outbox::Outbox {
        pool: config.mysql.pool("mails", 2)?,
        personal: config.people.keys()?,
        mailer,
        waits: mail_waits.clone(),
    };
    let openapi = routes::document().to_json().unwrap_or_default();
    let listener = config.public.bind().await?;
    health.shows(listener.certificate());
    let app = Arc::new(App {
        pool,
        bank: bank::Bank::new(&config.kafka, config.thresholds)?,
        personal: config.people.keys()?,
        partner_kek: config.partner_kek()?,
        hasher: password::Hasher::new(config.password_cores, config.password_queue_max)?,
        signer: jwt::Signer::new(base_url, &signing, &verifying)?,
        sessions: sessions::Sessions::default(),
        throttles: Throttles::new(config.requests_per_second),
        trusted_proxies: config.trusted_proxies.clone(),
        mail_waits,
        bank_time_zone: config.analytics.bank_time_zone.clone(),
        system: system::Watch::new(&config.system, &config.kafka)?,
        checkpoints: config.evidence.published()?,
        exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
        calls: calls::Calls::new(&config.kafka)?,
        openapi: Bytes::from(openapi),
    });
    let loader = calls::loader::Loader { pool: config.mysql.pool("calls", 2)?, kafka: config.kafka.clone() };
    tasks.push(tokio::spawn(loader.run(stop.clone())));
    tasks.push(tokio::spawn(outbox.run(stop.clone())));
    let dispatcher = bank::dispatcher::run(app.clone(), config.mysql.pool("dispatcher", 2)?, stop.clone());
    tasks.push(tokio::spawn(dispatcher));
    tasks.push(tokio::spawn(upkeep::run(app.clone(), stop.clone())));

    tracing::info!(listen = %config.public.listen, "serving");
    listener.serve(routes::router(app.clone()), shutdown).await;
    app.calls.flush().await;
    stop.cancel();
    for task in tasks.into_iter().chain([private]) {
        // All end with `stop`; one that panicked has already said so.
        let _ = task.await;
    }
    Ok(())
}
