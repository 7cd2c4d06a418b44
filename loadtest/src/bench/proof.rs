//! What it costs that the ledger can be proved: how fast the verifier reads what a benchmark left, and how much of
//! the processor's time the hash chains take.

use std::hint::black_box;
use std::time::Instant;

use anyhow::bail;
use domain::account::Direction;
use domain::entry::{Entry, GENESIS};
use domain::ids::{AccountId, PaymentId, derived_uuid};
use domain::time::Timestamp;
use migrations::users::Role;

use crate::report::{Goal, Report};
use crate::system::System;

/// Links of the chain that is timed: a second at most.
const LINKS: u64 = 500_000;
/// What a posting writes.
const ENTRIES_PER_PAYMENT: f64 = 2.0;

/// Verifies the ledger of `system`, whose processor needs `payment_cpu_us` for a plain payment, and reports.
pub(super) async fn measure(system: &System, payment_cpu_us: f64, report: &mut Report) -> anyhow::Result<()> {
    let pool = system.mysql_of(Role::Verifier).pool("verifier", 2)?;
    let found = verifier::verify(&pool, None).await;
    pool.close().await;
    let found = found?;
    if let Some(finding) = found.findings.first() {
        bail!("the ledger that the benchmark left is not whole: {finding:?}");
    }
    let name = format!("verifier, all {} entries", found.rows.get("entries").copied().unwrap_or_default());
    report.add(name, found.entries_per_second(), "entries/s", Goal::None);
    let link_us = link_us();
    report.add("CPU of one link of a hash chain", link_us, "us", Goal::None);
    let share = ENTRIES_PER_PAYMENT * link_us / payment_cpu_us;
    report.add("hash chains / CPU of the processor per payment", share, "", Goal::None);
    Ok(())
}

/// Microseconds of one link, each of which needs the one before.
fn link_us() -> f64 {
    let mut entry = Entry {
        account: AccountId::from_uuid(derived_uuid("bench:chain")),
        version: 0,
        payment: PaymentId::from_uuid(derived_uuid("bench:chain:payment")),
        direction: Direction::Credit,
        amount_minor: 100,
        balance_minor: 0,
        entered_at: Timestamp::from_micros(1_700_000_000_000_000),
    };
    let mut head = GENESIS;
    let started = Instant::now();
    for _ in 0..LINKS {
        entry.version += 1;
        entry.balance_minor += entry.amount_minor;
        head = black_box(entry).hash_after(&head);
    }
    black_box(head);
    started.elapsed().as_secs_f64() / LINKS as f64 * 1e6
}
