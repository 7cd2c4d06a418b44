//! The processor on real MySQL and Kafka.

mod announcing;
mod bank;
mod clocks;
mod dead_letters;
mod environment;
mod money;
mod posting;
mod sweeping;
mod takeover;
