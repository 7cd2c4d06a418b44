//! admin-api on real MySQL and Kafka.

mod analytics;
mod audit;
mod audit_calls;
mod audit_chain;
mod books;
mod command;
mod evidence;
mod frame;
mod guessing;
mod harness;
mod log_in;
mod matrix;
mod payments;
mod people;
mod seed;
mod staff;
mod system;
