//! admin-api on real MySQL and Kafka.

mod analytics;
mod approvals;
mod audit;
mod audit_calls;
mod audit_chain;
mod bank;
mod books;
mod command;
mod customers;
mod dead_letters;
mod email;
mod evidence;
mod frame;
mod guessing;
mod guide;
mod harness;
mod ledger;
mod log_in;
mod matrix;
mod payments;
mod people;
mod seed;
mod staff;
mod system;
mod teller;
