//! What tests on real MySQL and Kafka share: a database, users and topics of their own, fixtures, and waiting.
//!
//! Tests run in parallel and in many processes, so nothing is shared but the two servers; whatever a killed run
//! left behind is swept an hour later. Only tests and benchmarks use this crate: it panics where they should fail.

pub mod certificates;
mod env;
pub mod fixtures;
pub mod naive_bank;
pub mod openapi;
mod ports;
pub mod schema;
mod sweep;
mod wait;

pub use env::Env;
pub use ports::{free_address, free_port};
pub use wait::{Outcome, wait_until};
