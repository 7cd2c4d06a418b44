//! admin-api on real MySQL and Kafka.

mod command;
mod evidence;
mod frame;
mod guessing;
mod harness;
mod log_in;
mod matrix;
mod people;
mod seed;
mod staff;
