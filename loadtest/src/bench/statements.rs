//! How long a page of a statement and a balance at a past instant take on an account with many entries, through a real
//! ingest, with signed requests.
//!
//! The account's entries were made by SQL ([`super::fill`]), half a minute apart, each with its payment, which a page
//! reads as well. Pages begin at random instants: the cursor is the one that ingest gave for the entry before. Two
//! readers ask at the same time, each for the next when it has its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use domain::ids::AccountId;
use domain::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::Config;
use super::fill::{Past, fill};
use super::wire::{self, Requests, Signer};
use crate::driver::{now_us, scatter};
use crate::latency::Latencies;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, Service, System};

const READERS: usize = 2;
const DURATION: Duration = Duration::from_secs(15);
const WARM_UP: usize = 100;
/// Seconds between two entries: a year's worth for the default of a million.
const EVERY_S: u64 = 30;
/// Items of a page: ingest's default.
const PAGE: usize = 50;

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let options = Options { notifiers: 0, customers: 1, ..Options::new("statements") };
    let system = System::start(servers, options).await?;
    // Nothing moves while statements are read.
    system.terminate(Service::Processor, 0).await?;
    let entries =
        fill(&system, config.statement_entries(), Past::Credited { every_s: EVERY_S }, None).await?;
    let reads = Reads::of(&system, config, entries).await?;
    let (pages, balances) = (reads.pages().await?, reads.balances().await?);
    for (what, latencies, goal) in [("page of 50", pages, 20.0), ("balance at a past instant", balances, 5.0)]
    {
        let of = format!("{what}, account of {entries} entries");
        report.add(format!("{of}, p50"), latencies.p50_ms(), "ms", Goal::None);
        report.add(format!("{of}, p99"), latencies.p99_ms(), "ms", Goal::AtMost(goal));
    }
    system.finish().await
}

struct Reads<'a> {
    address: SocketAddr,
    signer: Signer<'a>,
    account: AccountId,
    /// Microseconds of the account's past.
    past_us: u64,
    cursors: usize,
    count: usize,
}

impl<'a> Reads<'a> {
    async fn of(system: &'a System, config: &Config, entries: u64) -> anyhow::Result<Self> {
        let partner = &system.partners()[0];
        let account = sqlx::query("SELECT account_id FROM settlement_accounts WHERE partner_id = ?")
            .bind(partner.id.uuid().as_bytes().as_slice())
            .fetch_one(system.pool())
            .await?;
        Ok(Self {
            address: system.url(0).trim_start_matches("http://").parse()?,
            signer: Signer::of(partner),
            account: AccountId::from_uuid(Uuid::from_slice(account.try_get(0)?)?),
            past_us: entries * EVERY_S * 1_000_000,
            cursors: config.size(500, 20),
            count: config.size(6_000, 200),
        })
    }

    /// An instant of the account's past, as it stands in a query.
    fn instant(&self, number: usize) -> String {
        let ago = scatter(number as u64) % self.past_us;
        Timestamp::from_micros(now_us() - ago as i64).to_string()
    }

    async fn pages(&self) -> anyhow::Result<Latencies> {
        let path = format!("/v1/accounts/{}/entries", self.account);
        // A cursor goes with the filters that it was given for.
        let starts: Vec<_> = (0..self.cursors).map(|number| format!("to={}", self.instant(number))).collect();
        let firsts: Vec<_> = starts.iter().map(|to| (path.clone(), format!("{to}&limit=1"))).collect();
        let firsts = Requests::sign_reads(&self.signer, self.address, &firsts)?;
        let mut pages = Vec::with_capacity(self.cursors);
        for (index, to) in starts.iter().enumerate() {
            let page: serde_json::Value =
                serde_json::from_slice(&wire::body(self.address, &firsts, index).await?)?;
            let next = page["next"].as_str();
            // The oldest entry has no next page.
            if let Some(cursor) = next {
                pages.push((path.clone(), format!("{to}&limit={PAGE}&cursor={cursor}")));
            }
        }
        self.measure(&pages).await
    }

    async fn balances(&self) -> anyhow::Result<Latencies> {
        let path = format!("/v1/accounts/{}/balance", self.account);
        let at = (0..self.count).map(|number| (path.clone(), format!("at={}", self.instant(number))));
        self.measure(&at.collect::<Vec<_>>()).await
    }

    /// Reads the targets one after the other and over again, some of them before it counts.
    async fn measure(&self, targets: &[(String, String)]) -> anyhow::Result<Latencies> {
        let targets: Vec<_> = targets.iter().cycle().take(self.count).cloned().collect();
        let warm_up = &targets[..targets.len().min(WARM_UP)];
        self.send(warm_up).await?;
        self.send(&targets).await
    }

    async fn send(&self, targets: &[(String, String)]) -> anyhow::Result<Latencies> {
        let requests = Arc::new(Requests::sign_reads(&self.signer, self.address, targets)?);
        let outcome = wire::send(self.address, &requests, READERS, None, DURATION).await?;
        outcome.only(200)?;
        if outcome.answered.is_empty() {
            bail!("nothing was read");
        }
        Ok(outcome.latencies)
    }
}
