//! What stands before any service starts: the schema, the least-privilege MySQL users and the Kafka topics.
//!
//! Each part can be run again at any time, also by several at once, and changes only what is missing. None of them
//! removes data: what cannot be put right without a human is an error that says what differs and what to do.

pub mod schema;
pub mod split;
pub mod topics;
pub mod users;

mod database;
mod files;

pub use files::{ALL, Migration};
