//! admin-api on real MySQL and Kafka.

mod analytics;
mod approvals;
mod audit;
mod audit_calls;
mod audit_chain;
mod bank;
mod books;
mod command;
mod dead_letters;
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
