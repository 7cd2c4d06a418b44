//! How many payments ingest accepts, compared with its own HTTP server answering 202 without verifying or
//! producing: same requests, same driver, same number of connections, in turns.
//!
//! Driver, server and Kafka share the machine's cores, so besides requests a second the CPU that the server process
//! itself uses for a request is compared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::median;
use super::wire::{self, Requests, Signer};
use crate::proc;
use crate::report::{Goal, Report};
use crate::system::process::Process;
use crate::system::{Options, Servers, Service, System, ports};

const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(4);
/// More than a run can send.
const REQUESTS: usize = 100_000;
const WARM_UP: usize = 5_000;
const ROUNDS: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(10);

struct Run {
    per_second: f64,
    cpu_us: f64,
    p99_ms: f64,
}

/// Measures and reports.
pub(super) async fn measure(servers: Servers, report: &mut Report) -> anyhow::Result<()> {
    let options = Options { notifiers: 0, customers: 1_000, ..Options::new("accept") };
    let system = System::start(servers, options).await?;
    // Accepting alone is measured; what was accepted is applied afterwards.
    system.terminate(Service::Processor, 0).await?;
    let bare_address = ports::free()?;
    let bare = start_bare(&system, bare_address).await?;
    let ingest_address: SocketAddr = system.url(0).trim_start_matches("http://").parse()?;
    let ingest_pid = system.pid(Service::Ingest, 0).context("ingest does not run")?;
    let signer = Signer::of(&system.partners()[0]);
    for (address, name) in [(bare_address, "warm-bare"), (ingest_address, "warm")] {
        let requests = Arc::new(Requests::sign(&signer, address, name, WARM_UP, None)?);
        wire::send(address, &requests, CONNECTIONS, None, DURATION).await?.only(202)?;
    }
    let (mut accepted, mut answered) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        answered.push(run(&signer, bare_address, bare.pid(), &format!("bare-{round}")).await?);
        accepted.push(run(&signer, ingest_address, ingest_pid, &format!("accept-{round}")).await?);
    }
    let rate = |runs: &[Run]| median(runs.iter().map(|run| run.per_second));
    let cpu = |runs: &[Run]| median(runs.iter().map(|run| run.cpu_us));
    report.add("ingest: payments accepted, 64 connections", rate(&accepted), "payments/s", Goal::None);
    report.add("bare server: 202 without verifying or producing", rate(&answered), "requests/s", Goal::None);
    report.add("ingest / bare server", rate(&accepted) / rate(&answered), "", Goal::AtLeast(0.5));
    report.add("CPU of ingest for an accepted payment", cpu(&accepted), "us", Goal::None);
    report.add("CPU of the bare server for a request", cpu(&answered), "us", Goal::None);
    report.add("CPU of the bare server / CPU of ingest", cpu(&answered) / cpu(&accepted), "", Goal::None);
    let p99 = median(accepted.iter().map(|run| run.p99_ms));
    report.add("ingest: p99 of an answer with 64 connections busy", p99, "ms", Goal::None);
    stop_bare(bare).await?;
    system.finish().await
}

async fn run(signer: &Signer<'_>, address: SocketAddr, pid: u32, name: &str) -> anyhow::Result<Run> {
    let requests = Arc::new(Requests::sign(signer, address, name, REQUESTS, None)?);
    let cpu = proc::cpu_seconds(pid)?;
    let outcome = wire::send(address, &requests, CONNECTIONS, None, DURATION).await?;
    let cpu = proc::cpu_seconds(pid)? - cpu;
    outcome.only(202)?;
    Ok(Run {
        per_second: outcome.per_second(),
        cpu_us: cpu / outcome.answered.len() as f64 * 1e6,
        p99_ms: outcome.latencies.p99_ms(),
    })
}

/// A process of its own, as ingest is one.
async fn start_bare(system: &System, address: SocketAddr) -> anyhow::Result<Process> {
    let program = std::env::current_exe()?;
    let arguments = ["bare-202".to_owned(), format!("--listen={address}")];
    let log = system.folder().join("bare-202.log");
    let mut process = Process::start("bare-202", &program, &arguments, &[], &log)?;
    let deadline = Instant::now() + START_TIMEOUT;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if process.ended().is_some() || Instant::now() >= deadline {
            bail!("the bare server does not start: {}", crate::system::process::tail(&log, 5));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(process)
}

async fn stop_bare(mut bare: Process) -> anyhow::Result<()> {
    bare.signal(Signal::TERM);
    bare.wait(START_TIMEOUT).await.map(drop)
}
