//! Load, benchmarks and faults for the whole system: real processes, real Kafka, real MySQL.
//!
//! `driver` posts payments, `sink` receives their webhooks, `bench` measures and `report` tells. Everything here
//! runs against this machine alone: other addresses are refused.

pub mod bench;
pub mod driver;
pub mod faults;
pub mod latency;
pub mod load;
pub mod loopback;
pub mod people;
mod proc;
pub mod proxy;
pub mod report;
pub mod sink;
pub mod system;
