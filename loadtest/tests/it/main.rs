//! Whole-system tests: the real programs on real Kafka and MySQL.
//!
//! Each starts a bank of its own; they take turns, so that none starves another on a small machine.

mod api_calls;
mod bench;
mod canary;
mod clocks;
mod dead_letters;
mod documents;
mod endpoints;
mod harness;
mod idempotency;
mod interop;
mod killed;
mod login_attack;
mod money;
mod money_ledger;
mod money_model;
mod money_races;
mod money_rejected;
mod outage;
mod receivers;
mod seed;
mod smoke;
mod support;
mod trace;
mod webhook_api;
mod webhooks;

use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for this test's turn; held to its end.
async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no whole number")))
}
