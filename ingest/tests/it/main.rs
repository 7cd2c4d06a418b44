//! ingest on real MySQL and Kafka.

mod accept;
mod documents;
mod endpoints;
mod faults;
mod harness;
mod refuse;
mod slow;
