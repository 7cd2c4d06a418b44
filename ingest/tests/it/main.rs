//! ingest on real MySQL and Kafka.

mod accept;
mod applications;
mod deliveries;
mod documents;
mod endpoints;
mod events;
mod faults;
mod harness;
mod refuse;
mod secrets;
mod slow;
