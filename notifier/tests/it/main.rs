//! The notifier on real MySQL and Kafka, with sinks in this process.

mod asks;
mod delivery;
mod expiry;
mod faults;
mod guard;
mod harness;
mod hostile;
mod notices;
mod replays;
mod retries;
mod settings;
mod several;
