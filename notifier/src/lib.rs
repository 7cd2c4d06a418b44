//! Delivers events to the partners' webhook endpoints, at least once, signed, in bounded time and memory.
//!
//! ```text
//! consumer thread ──batches──► dispatcher ──jobs──► lanes ──► attempts ──results──► recorder ──► MySQL
//!        ▲ watermarks                                 ▲                                │
//!        └────────────────────────────────────────────┼──── offsets released ◄─────────┤
//!                                claimer ──retries────┘◄──────── due ──────────────────┘
//! ```
//!
//! Invariants: an offset is committed only when every delivery of its event is recorded as done or to be retried; a
//! delivery that is recorded as delivered is never sent again; no transaction spans a request; every queue is bounded
//! (the recorder's by the permits that its records hold).
//!
//! It does not create endpoints or secrets, and does not decide what happened to a payment: it tells what stands in
//! the event.

pub mod attempt;
pub mod catch_up;
pub mod circuit;
pub mod claim;
mod clock;
mod config;
pub mod consumer;
pub mod deliver;
pub mod dispatch;
pub mod due;
pub mod endpoints;
pub mod expire;
pub mod in_progress;
pub mod lanes;
pub mod metrics;
pub mod ping;
pub mod progress;
pub mod recorder;
pub mod replay;
pub mod resolver;
mod run;
pub mod schedule;
pub mod store;

pub use config::Config;
pub use run::{RunError, run, run_with_lookup};
