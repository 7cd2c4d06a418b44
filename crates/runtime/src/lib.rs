//! What every process needs and no payment word: configuration groups, telemetry, the private listener with
//! metrics and health, shutdown, a hardened HTTP server with TLS, problem documents, and the MySQL and Kafka client settings.
//!
//! Nothing here knows what a command or an event is, and nothing here retries: each service decides that.

pub mod config;
pub mod health;
pub mod http;
pub mod kafka;
pub mod mysql;
pub mod precondition;
pub mod private;
pub mod problem;
pub mod public;
pub mod recorder;
pub mod reporter;
pub mod shutdown;
pub mod sql;
pub mod telemetry;
