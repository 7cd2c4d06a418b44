//! ingest: the partner API. It verifies signed requests and puts payments on Kafka; it moves no money.
//!
//! A payment is accepted (202) when Kafka has acknowledged it, with all in-sync replicas. MySQL is read for keys (kept
//! in memory) and for what became of payments, and written for what a partner sets up himself. While it is away,
//! payments are accepted all the same; while Kafka is away, none is.
//!
//! What it deliberately does not do: decide anything about money (the processor does), or keep a record of payment
//! requests.

pub mod accept;
pub mod answer;
pub mod app;
pub mod calls;
pub mod config;
pub mod fields;
pub mod json;
pub mod key_uses;
pub mod keys;
pub mod lag;
pub mod lookup;
pub mod metrics;
pub mod page;
pub mod prefer;
pub mod problem;
pub mod query;
pub mod queue;
pub mod read;
pub mod requests;
pub mod routes;
pub mod seal;
pub mod signed;
pub mod store;
pub mod token;
pub mod watch;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub use config::{Config, Error};
use runtime::health::Health;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::{AddressLimit, App, normal_authority};
use crate::calls::Calls;
use crate::keys::KeyRing;
use crate::lag::Lag;
use crate::lookup::Lookup;
use crate::queue::Queue;
use crate::watch::Watch;

/// For cold reads and the loading of keys; more would only queue in MySQL.
const READ_CONNECTIONS: u32 = 4;
/// For changes of endpoints and the like, which are rare.
const WRITE_CONNECTIONS: u32 = 4;

/// Requests that wait for the verdict of a ping, each of which asks MySQL by itself.
const PING_WAITERS_MAX: usize = 16;

/// Serves until `shutdown`, then drains: no new requests, those in progress finish, the producer is flushed.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    let (partner_kek, webhook_kek) = (config.kek()?, config.webhook_kek()?);
    let keys = Arc::new(KeyRing::new(partner_kek.clone(), Duration::from_secs(config.keys_age_max_s)));
    let token_key = config.token_key()?;
    let health = Health::new();
    // Ends the background tasks after the last request.
    let stop = CancellationToken::new();
    let private = runtime::private::serve(&config.private, health.clone(), stop.clone()).await?;
    metrics::describe();

    let lag = Arc::new(Lag::default());
    let queue =
        Arc::new(Queue::new(&config.kafka, &config.producer, lag.clone(), health.component("kafka"))?);
    let calls = Arc::new(Calls::new(&config.kafka)?);
    // MySQL is no part of being ready: payments are accepted without it once keys are loaded.
    let mysql_health = Health::new().component("mysql");
    let (lookup, lookup_task) = Lookup::new(config.mysql.clone(), lag.clone(), mysql_health);
    let reads = config.mysql.pool("reads", READ_CONNECTIONS)?;
    runtime::mysql::observe(&reads, "reads", stop.clone());
    let writes = config.mysql.pool("writes", WRITE_CONNECTIONS)?;
    runtime::mysql::observe(&writes, "writes", stop.clone());
    let watch = Arc::new(Watch::default());
    let tasks = [
        tokio::spawn(write::sweep(writes.clone(), stop.clone())),
        tokio::spawn(watch.clone().run(reads.clone(), stop.clone())),
        tokio::spawn(lookup_task.run(stop.clone())),
        tokio::spawn(key_uses::run(
            keys.clone(),
            writes.clone(),
            Duration::from_millis(config.key_uses_interval_ms),
            stop.clone(),
        )),
        tokio::spawn(queue.clone().supervise(stop.clone())),
        tokio::spawn(keys.clone().refresh(
            reads.clone(),
            Duration::from_millis(config.keys_refresh_ms),
            health.component("keys"),
            stop.clone(),
        )),
    ];

    let listener = config.public.bind().await?;
    health.shows(listener.certificate());
    let openapi = routes::document().to_json().unwrap_or_default();
    let app = Arc::new(App {
        authorities: config.authorities.iter().map(|authority| normal_authority(authority)).collect(),
        keys,
        lookup,
        queue: queue.clone(),
        calls: calls.clone(),
        lag,
        reads: reads.clone(),
        writes: writes.clone(),
        token_key,
        lookup_budget: Duration::from_millis(config.lookup_budget_ms),
        waiters_per_partner: config.waiters_per_partner,
        echo_limit: AddressLimit::per_second(config.echo_per_second),
        watch,
        ping_waiters: Semaphore::new(PING_WAITERS_MAX),
        application_limit: AddressLimit::per_hour(config.applications_per_hour),
        applications_per_day: config.applications_per_day,
        endpoints_per_partner: config.endpoints_per_partner,
        hold_seconds_min: config.hold_seconds_min,
        consent_url: config.consent_url.clone(),
        loopback: config.loopback(),
        partner_kek,
        webhook_kek,
        openapi: Bytes::from(openapi),
    });
    tracing::info!(listen.address = %config.public.listen, "ingest serves");
    listener.serve(routes::router(app), shutdown).await;

    let flushed = queue.flush().await;
    calls.flush().await;
    stop.cancel();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(error = %error, "a background task failed");
        }
    }
    reads.close().await;
    writes.close().await;
    drop(private.await);
    flushed.map_err(Error::Unflushed)
}
