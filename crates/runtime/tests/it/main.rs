//! What the runtime promises of real servers.

mod kafka;
mod mysql;
mod private;
mod shutdown;
