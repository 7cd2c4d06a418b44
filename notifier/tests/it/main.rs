//! The notifier on real MySQL and Kafka, with sinks in this process.

mod delivery;
mod faults;
mod guard;
mod harness;
mod retries;
mod several;
