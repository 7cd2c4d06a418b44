//! The words and rules of the bank that every service shares.
//!
//! Pure: no I/O, no clock and no randomness. Time, nonces and the bank's time zone are arguments, so that
//! everything here can be tested by tables and replayed exactly.

pub mod account;
pub mod api_call;
pub mod audit;
pub mod checkpoint;
pub mod codes;
pub mod command;
pub mod cursor;
pub mod endpoint_headers;
pub mod endpoint_url;
pub mod entry;
pub mod event;
pub mod fingerprint;
pub mod histogram;
pub mod http_signature;
pub mod ids;
pub mod mandate;
pub mod money;
pub mod notice;
pub mod past;
pub mod payment;
pub mod replay;
pub mod return_url;
pub mod schema;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod time;
pub mod topic;
pub mod webhook;
