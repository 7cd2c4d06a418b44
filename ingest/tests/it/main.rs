//! ingest on real MySQL and Kafka.

mod accept;
mod applications;
mod batch;
mod deliveries;
mod documents;
mod endpoints;
mod events;
mod faults;
mod follow_ups;
mod harness;
mod key_uses;
mod ledger;
mod lists;
mod mandates;
mod refuse;
mod secrets;
mod slow;
mod statements;
mod tls;
