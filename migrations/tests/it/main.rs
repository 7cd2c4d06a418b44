//! Schema, users and topics on real servers.

mod schema;
mod topics;
mod users;
