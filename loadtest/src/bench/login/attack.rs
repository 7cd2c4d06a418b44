//! Ten thousand wrong passwords, each for another user from another network, so that no throttle stops them before the
//! hash: what is left to bound them is the hasher.
//!
//! As many payments without guesses and with them, in turns, are sent as fast as they are accepted; the time counts until
//! the last one is applied. Everything shares the machine, which is harder than any real set-up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{LOGIN_PATH, WRONG_PASSWORD, address, admin_api};
use crate::bench::city::{applied, wait_applied};
use crate::bench::wire::{self, Requests, Signer};
use crate::bench::{Config, median};
use crate::proc;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, Service, System};

/// Guesses of each second while payments are under way.
const GUESSES: usize = 500;
/// Payments of each half; the same when only whether it works is looked at.
const PAYMENTS: [usize; 2] = [40_000, 1_000];
/// How long sending them may take.
const SENDING_MAX: Duration = Duration::from_secs(120);
/// Connections of the guesser, one guess at a time each.
const GUESSERS: usize = 128;
/// Connections of the merchant.
const CONNECTIONS: usize = 64;
const RATIO_MIN: f64 = 0.8;
const MIB_MAX: f64 = 200.0;

/// Measures and reports.
pub(in crate::bench) async fn measure(
    servers: Servers,
    config: &Config,
    report: &mut Report,
) -> anyhow::Result<()> {
    let customers = config.size(1_000, 10) as u32;
    let options = Options { admin_apis: 1, notifiers: 0, customers, ..Options::new("login_attack") };
    let system = System::start(servers, options).await?;
    let mut attack = Attack { system, payments: config.size(PAYMENTS[0], PAYMENTS[1]), runs: 0, guesses: 0 };
    // The first half warms up.
    attack.half(false).await?;
    let (mut alone, mut beside, mut cores) = (Vec::new(), Vec::new(), Vec::new());
    let mut statuses = BTreeMap::new();
    for _ in 0..config.rounds() {
        alone.push(attack.half(false).await?.payments_per_second);
        let measured = attack.half(true).await?;
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
    /// Payments as fast as possible until all are applied, and guesses all that time.
    async fn half(&mut self, guess: bool) -> anyhow::Result<Half> {
        self.runs += 1;
        let ingest: SocketAddr = self.system.url(0).trim_start_matches("http://").parse()?;
        let signer = Signer::of(&self.system.partners()[0]);
        let name = format!("attack-{}", self.runs);
        let payments = Arc::new(Requests::sign(&signer, ingest, &name, self.payments, None)?);
        let pid = self.system.pid(Service::AdminApi, 0).context("admin-api is gone")?;
        let (before, cpu, begun) =
            (applied(self.system.pool(), 1).await?, proc::cpu_seconds(pid)?, Instant::now());
        let all_applied = CancellationToken::new();
        let paying = async {
            // However it ends, the guesses end with it.
            let _end = all_applied.clone().drop_guard();
            wire::send(ingest, &payments, CONNECTIONS, None, SENDING_MAX).await?.only(202)?;
            wait_applied(self.system.pool(), 1, before + self.payments as u64).await?;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        };
        let (admin_api, first) = (admin_api(&self.system)?, self.guesses);
        let guessing = async {
            let (mut seconds, mut guesses) = (JoinSet::new(), 0);
            while guess && !all_applied.is_cancelled() {
                let logins: Vec<_> = (first + guesses..first + guesses + GUESSES).map(login).collect();
                guesses += GUESSES;
                let logins = Arc::new(Requests::plain(admin_api, LOGIN_PATH, &logins)?);
                seconds.spawn(async move {
                    let rate = Some(GUESSES as f64);
                    wire::send(admin_api, &logins, GUESSERS, rate, Duration::from_secs(1)).await
                });
                // The last answers of a second come in the next ones.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let mut statuses = BTreeMap::new();
            while let Some(second) = seconds.join_next().await {
                for (status, count) in second??.statuses() {
                    *statuses.entry(status).or_insert(0) += count;
                }
            }
            anyhow::Ok((statuses, guesses))
        };
        let (elapsed, guessed) = tokio::join!(paying, guessing);
        let (elapsed, (statuses, guesses)) = (elapsed?, guessed?);
        self.guesses += guesses;
        let half = Half {
            payments_per_second: self.payments as f64 / elapsed,
            cores: (proc::cpu_seconds(pid)? - cpu) / begun.elapsed().as_secs_f64(),
            statuses,
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
