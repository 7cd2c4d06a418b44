//! How many payments a second ingest accepts in batches, compared with one payment in a request: same driver, same
//! connections, in turns.
//!
//! What was accepted is counted on Kafka: an item that was refused in its place is an answer 200 as well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::wire::{self, Requests, Signer};
use super::{Config, median};
use crate::faults::audit;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, Service, System};

const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(3);
/// Items of a request (1 is a payment of its own), and more payments than a run can send in such requests.
const KINDS: [(usize, usize); 3] = [(1, 100_000), (100, 300_000), (500, 300_000)];

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let customers = config.size(1_000, 10) as u32;
    let options = Options { notifiers: 0, customers, ..Options::new("batches") };
    let system = System::start(servers, options).await?;
    // Accepting alone is measured.
    system.terminate(Service::Processor, 0).await?;
    let mut rates = KINDS.map(|_| Vec::new());
    for round in 0..=config.rounds() {
        for ((items, payments), rates) in KINDS.into_iter().zip(&mut rates) {
            let payments = config.size(payments, 2_000);
            let name = format!("batch-{round}-{items}");
            let rate = run(&system, &name, items, payments).await?;
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let [single, hundred, five_hundred] = rates.map(median);
    report.add("payments accepted, one in a request", single, "payments/s", Goal::None);
    for (items, rate) in [(100, hundred), (500, five_hundred)] {
        report.add(format!("payments accepted, {items} in a request"), rate, "payments/s", Goal::None);
        report.add(format!("batches of {items} / single payments"), rate / single, "", Goal::AtLeast(3.0));
    }
    system.finish().await
}

/// Payments accepted in a second.
async fn run(system: &System, name: &str, items: usize, payments: usize) -> anyhow::Result<f64> {
    let address: SocketAddr = system.url(0).trim_start_matches("http://").parse()?;
    let signer = Signer::of(&system.partners()[0]);
    let (requests, status) = match items {
        1 => (Requests::sign(&signer, address, name, payments, None)?, 202),
        _ => (Requests::sign_batches(&signer, address, name, payments / items, items)?, 200),
    };
    let before = stored(system).await?;
    let outcome = wire::send(address, &Arc::new(requests), CONNECTIONS, None, DURATION).await?;
    outcome.only(status)?;
    let accepted = stored(system).await? - before;
    if accepted != (outcome.answered.len() * items) as u64 {
        bail!("of {} requests of {items} only {accepted} payments were accepted", outcome.answered.len());
    }
    Ok(accepted as f64 / outcome.elapsed.as_secs_f64())
}

/// Commands on Kafka.
async fn stored(system: &System) -> anyhow::Result<u64> {
    Ok(audit::ends(system).await?.values().sum())
}
