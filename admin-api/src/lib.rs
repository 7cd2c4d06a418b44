//! The bank's API for customers and staff. Today it answers health and seeds sample partners; what people do with
//! it comes with its own issue.
//!
//! Whatever changes money, accounts or mandates leaves here as a command on Kafka: this service never writes a
//! ledger table, and its MySQL user could not. It serves plain HTTP, so only on loopback and only when told so.

mod config;
mod health;
mod metrics;
mod public;
pub mod seed;
mod store;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Error};

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    let health = runtime::health::Health::new();
    let private = runtime::private::serve(&config.private, health.clone(), shutdown.clone()).await?;
    metrics::describe();
    let probes = health::watch(&config, &health, &shutdown)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| Error::Listen { address: config.listen, source })?;
    tracing::info!(listen = %config.listen, "serving");
    runtime::http::serve(listener, public::router(), config.http.clone(), shutdown).await;
    for task in probes.into_iter().chain([private]) {
        // Both end with `shutdown`; one that panicked has already said so.
        let _ = task.await;
    }
    Ok(())
}
