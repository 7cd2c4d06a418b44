//! Ten thousand wrong passwords, each for another user from another network, so that no throttle stops them before the
//! hash: what is left to bound them is the hasher.
//!
//! Payments are sent as fast as they are accepted and counted when they are applied, for a few seconds without guesses
//! and as many with them, in turns. Everything shares the machine, which is harder than any real set-up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{LOGIN_PATH, WRONG_PASSWORD, address, admin_api};
use crate::bench::city::{applied, wait_applied};
use crate::bench::wire::{self, Requests, Signer};
use crate::bench::{Config, median};
use crate::proc;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, Service, System};

/// Guesses in all; the same when only whether it works is looked at.
const GUESSES: [usize; 2] = [10_000, 300];
/// Seconds of each half of a round.
const HALF_S: [usize; 2] = [6, 2];
/// Connections of the guesser, one guess at a time each.
const GUESSERS: usize = 128;
/// Connections of the merchant.
const CONNECTIONS: usize = 64;
/// More payments than are accepted in a half.
const PAYMENTS: [usize; 2] = [200_000, 2_000];
const RATIO_MIN: f64 = 0.8;
const MIB_MAX: f64 = 200.0;

/// Measures and reports.
pub(in crate::bench) async fn measure(
    servers: Servers,
    config: &Config,
    report: &mut Report,
) -> anyhow::Result<()> {
    let size = |[measured, quick]: [usize; 2]| config.size(measured, quick);
    let customers = config.size(1_000, 10) as u32;
    let options = Options { admin_apis: 1, notifiers: 0, customers, ..Options::new("login_attack") };
    let system = System::start(servers, options).await?;
    let half = Duration::from_secs(size(HALF_S) as u64);
    let mut attack = Attack { system, half, payments: size(PAYMENTS), runs: 0, guesses: 0 };
    let guesses = size(GUESSES) / config.rounds();
    // The first half warms up.
    attack.half(0).await?;
    let (mut alone, mut beside, mut cores) = (Vec::new(), Vec::new(), Vec::new());
    let mut statuses = BTreeMap::new();
    for _ in 0..config.rounds() {
        alone.push(attack.half(0).await?.payments_per_second);
        let measured = attack.half(guesses).await?;
        beside.push(measured.payments_per_second);
        cores.push(measured.cores);
        for (status, count) in measured.statuses {
            *statuses.entry(status).or_insert(0) += count;
        }
    }
    if statuses.keys().any(|status| ![401, 429, 503].contains(status)) {
        bail!("guesses were answered otherwise than by 401, 429 and 503: {statuses:?}");
    }
    let guessed: usize = statuses.values().sum();
    eprintln!("  … {guessed} guesses, answers by status: {statuses:?}");
    let (alone, beside) = (median(alone), median(beside));
    report.add("payments applied, nobody guesses passwords", alone, "payments/s", Goal::None);
    report.add("payments applied beside guesses", beside, "payments/s", Goal::None);
    report.add("payments beside guesses / alone", beside / alone, "", Goal::AtLeast(RATIO_MIN));
    report.add("guessed passwords", guessed as f64, "", Goal::None);
    let hashed = statuses.get(&401).copied().unwrap_or_default() as f64 / guessed.max(1) as f64;
    report.add("of them hashed, the others sent away", hashed, "", Goal::None);
    report.add("CPU of admin-api meanwhile", median(cores), "cores", Goal::None);
    let pid = attack.system.pid(Service::AdminApi, 0).context("admin-api is gone")?;
    let mib = proc::rss_max_bytes(pid)? / 1_048_576.0;
    report.add("memory of admin-api under guesses, at most", mib, "MiB", Goal::AtMost(MIB_MAX));
    attack.system.finish().await
}

struct Attack {
    system: System,
    half: Duration,
    payments: usize,
    runs: usize,
    guesses: usize,
}

struct Half {
    payments_per_second: f64,
    cores: f64,
    statuses: BTreeMap<u16, usize>,
}

impl Attack {
    /// Payments as fast as possible, and so many guesses spread over the same time.
    async fn half(&mut self, guesses: usize) -> anyhow::Result<Half> {
        self.runs += 1;
        let ingest: SocketAddr = self.system.url(0).trim_start_matches("http://").parse()?;
        let signer = Signer::of(&self.system.partners()[0]);
        let name = format!("attack-{}", self.runs);
        let payments = Arc::new(Requests::sign(&signer, ingest, &name, self.payments, None)?);
        let logins: Vec<_> = (self.guesses..self.guesses + guesses).map(login).collect();
        self.guesses += guesses;
        let admin_api = admin_api(&self.system)?;
        let logins = Arc::new(Requests::plain(admin_api, LOGIN_PATH, &logins)?);
        let pid = self.system.pid(Service::AdminApi, 0).context("admin-api is gone")?;
        let (before, cpu, begun) =
            (applied(self.system.pool(), 1).await?, proc::cpu_seconds(pid)?, Instant::now());
        let paying = wire::send(ingest, &payments, CONNECTIONS, None, self.half);
        let guessing = async {
            if guesses == 0 {
                return Ok(BTreeMap::new());
            }
            let rate = guesses as f64 / self.half.as_secs_f64();
            // The last are answered when the queue of hashes has moved on.
            let outcome = wire::send(admin_api, &logins, GUESSERS, Some(rate), self.half).await?;
            anyhow::Ok(outcome.statuses())
        };
        let measuring = async {
            tokio::time::sleep(self.half).await;
            anyhow::Ok((applied(self.system.pool(), 1).await?, begun.elapsed(), proc::cpu_seconds(pid)?))
        };
        let (paid, statuses, measured) = tokio::join!(paying, guessing, measuring);
        let ((after, elapsed, cpu_after), paid) = (measured?, paid?);
        paid.only(202)?;
        // Nothing is left over for the next half.
        wait_applied(self.system.pool(), 1, before + paid.answered.len() as u64).await?;
        let elapsed = elapsed.as_secs_f64();
        let half = Half {
            payments_per_second: (after - before) as f64 / elapsed,
            cores: (cpu_after - cpu) / elapsed,
            statuses: statuses?,
        };
        eprintln!(
            "  … {:.0} payments/s, {:.2} cores of admin-api, answers to guesses {:?}",
            half.payments_per_second, half.cores, half.statuses
        );
        Ok(half)
    }
}

fn login(number: usize) -> (String, serde_json::Value) {
    let email = format!("guessed{number}@example.com");
    (address(number), serde_json::json!({ "email": email, "password": WRONG_PASSWORD }))
}
