//! How much slower a backlog is drained into a store that already holds many payments than into an empty one, and what
//! the indexes behind the lists of payments cost there.
//!
//! Two systems on the same servers take turns, one empty but for its warm-up, the other with a past ([`super::fill`])
//! of so many payments spread over the accounts that are drained. Then the filled one loses the indexes, and the
//! empty one, which keeps them, is what both halves are compared with: so the machine's moods cancel out.

use std::time::Instant;

use sqlx::{Connection as _, Executor as _};

use super::Config;
use super::city::{City, Credit, QUICK_SIZE, SIZE};
use super::drain::{self, Drained, median_of};
use super::fill::{Past, fill};
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, System};

/// Secondary indexes of payments that serve lists alone; the processor reads by id and by position.
const DROP_INDEXES: &str = "ALTER TABLE payments DROP KEY payments_of_partner, DROP KEY payments_of_mandate, \
     DROP KEY payments_of_reference";

/// A bank whose processor is measured.
struct Bank {
    system: System,
    city: City,
}

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let (mut empty, mut full) = tokio::try_join!(
        Bank::start(Servers::from_env()?, "store_empty", config),
        Bank::start(servers, "store_full", config)
    )?;
    let commands = config.size(20_000, 1_500);
    // Events of the past look like those of the warm-up.
    full.drain(commands / 2).await?;
    let except = Some(full.city.everybodys_partner());
    let started = Instant::now();
    let stored = fill(&full.system, config.store_payments(), Past::Whole, except).await?;
    eprintln!("  … a store of {stored} payments is there after {:?}", started.elapsed());
    empty.drain(commands / 2).await?;
    full.drain(commands / 2).await?;
    let (empty_beside, with_indexes) = in_turns(&mut empty, &mut full, commands, config.rounds()).await?;
    full.drop_indexes().await?;
    let (empty_again, without_indexes) = in_turns(&mut empty, &mut full, commands, config.rounds()).await?;
    let ratio = with_indexes / empty_beside;
    report.add("drain into an empty store", empty_beside, "payments/s", Goal::None);
    let name = format!("drain into a store of {stored} payments");
    report.add(name, with_indexes, "payments/s", Goal::None);
    report.add(format!("store of {stored} payments / empty"), ratio, "", Goal::AtLeast(0.8));
    let indexes = ratio / (without_indexes / empty_again);
    let name = format!("the three list indexes / none, on {stored} payments");
    report.add(name, indexes, "", Goal::None);
    empty.system.finish().await?;
    full.system.finish().await
}

/// Rates of two banks that take turns.
async fn in_turns(
    one: &mut Bank,
    other: &mut Bank,
    commands: usize,
    rounds: usize,
) -> anyhow::Result<(f64, f64)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ones.push(one.drain(commands).await?);
        others.push(other.drain(commands).await?);
    }
    let rate = |runs: &[Drained]| median_of(runs, |run| run.commands_per_second);
    Ok((rate(&ones), rate(&others)))
}

impl Bank {
    async fn start(servers: Servers, name: &str, config: &Config) -> anyhow::Result<Self> {
        let options = Options { ingests: 0, notifiers: 0, customers: 1, ..Options::new(name) };
        let system = System::start(servers, options).await?;
        let city = City::new(config.size(SIZE, QUICK_SIZE));
        city.build(system.pool(), system.kafka()).await?;
        Ok(Self { system, city })
    }

    async fn drop_indexes(&self) -> anyhow::Result<()> {
        let mut connection = self.system.mysql().connect().await?;
        // The processor has no transaction open; if it had one, to wait for it for ever would tell nobody.
        connection.execute("SET SESSION lock_wait_timeout = 10").await?;
        connection.execute(DROP_INDEXES).await?;
        Ok(connection.close().await?)
    }

    async fn drain(&mut self, count: usize) -> anyhow::Result<Drained> {
        drain::payments(&self.system, &mut self.city, count, Credit::Spread).await
    }
}
