//! All SQL of the processor.
//!
//! A batch is one transaction of three round trips on one connection: the reads ([`load`]), the writes
//! ([`write()`](write::write)) and COMMIT. Each of the first two travels as one text of several statements; a failing
//! statement stops the rest of its text. Locks are taken in one order everywhere: positions, payments that
//! others belong to, mandates, accounts, partner sequences, each sorted by id. Holds, follow-ups and dead letters are
//! written under the lock of their account, payment and partition.

pub mod dead_letters;
pub mod due;
pub mod error;
pub mod facts;
pub mod load;
pub mod positions;
pub mod references;
pub mod row;
pub mod session;
pub mod unannounced;
pub mod write;
