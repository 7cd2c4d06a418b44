//! ingest on real MySQL and Kafka.

mod accept;
mod documents;
mod faults;
mod harness;
mod refuse;
mod slow;
