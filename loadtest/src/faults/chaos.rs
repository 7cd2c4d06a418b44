//! Kills, stops and cuts at seeded random moments, while a load runs.
//!
//! The same seed draws the same faults, targets and waits. Where in a transaction they strike differs from run to
//! run, which is wanted: each run looks at other moments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::audit;
use crate::proxy::{Moment, Proxy};
use crate::system::{Service, System};

/// How long a process lives at most after it was ready, before it is killed.
const LIFE_MAX: Duration = Duration::from_millis(2_500);
/// How long it then stays dead at most.
const DEATH_MAX: Duration = Duration::from_millis(1_200);
/// Some are killed again while they start.
const KILLED_STARTING: f64 = 0.25;
/// How long MySQL or Kafka stays dead.
const SERVER_DEATH: Duration = Duration::from_secs(3);
/// How long a stopped processor stands still.
pub const STOP: Duration = Duration::from_secs(30);
/// A second processor has everything that was accepted before the stop applied by then: the session's end at 10 s,
/// MySQL's end of the stopped one's connection at 10 s, and the work itself on a busy machine.
pub const TAKEOVER_MAX: Duration = Duration::from_secs(27);
/// How long to wait until a trap for COMMIT has sprung.
const TRAP_TIMEOUT: Duration = Duration::from_secs(60);

/// What was done to the bank.
#[derive(Debug, Default, Clone)]
pub struct Inflicted {
    /// SIGKILLs to services.
    pub kills: u32,
    /// Connections cut at a COMMIT.
    pub cuts: u64,
    /// SIGKILLs to MySQL and Kafka.
    pub server_kills: u32,
    /// How long it took until a second processor had applied what was accepted before the first one was stopped.
    pub takeover: Option<Duration>,
}

/// Kills processes of one service, each after a random life, and starts them again.
pub async fn kill_service(
    system: &System,
    service: Service,
    processes: usize,
    kills: u32,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed ^ (service as u64 + 1));
    for _ in 0..kills {
        let index = random.random_range(0..processes);
        if !random.random_bool(KILLED_STARTING) {
            system.wait_ready(service, index).await?;
        }
        tokio::time::sleep(LIFE_MAX.mul_f64(random.random())).await;
        system.kill(service, index).await?;
        tokio::time::sleep(DEATH_MAX.mul_f64(random.random())).await;
        system.spawn(service, index)?;
    }
    for index in 0..processes {
        system.wait_ready(service, index).await?;
    }
    Ok(())
}

/// Cuts connections to MySQL at the moment of a COMMIT, every second one after the server has got it.
pub async fn cut_commits(proxy: &Proxy, cuts: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0c11);
    for number in 0..cuts {
        let before = proxy.sprung();
        let moment = if number % 2 == 0 { Moment::AfterForwarding } else { Moment::BeforeForwarding };
        proxy.cut_at(b"COMMIT", moment);
        let deadline = Instant::now() + TRAP_TIMEOUT;
        while proxy.sprung() == before {
            ensure!(Instant::now() < deadline, "no COMMIT passed the proxy for {TRAP_TIMEOUT:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(LIFE_MAX.mul_f64(random.random())).await;
    }
    Ok(())
}

/// Kills MySQL or Kafka, and a service while it is away; brings both back.
pub async fn kill_server(system: &System, server: &str, meanwhile: Service) -> anyhow::Result<()> {
    system.servers().kill(server).await?;
    tokio::time::sleep(SERVER_DEATH / 2).await;
    system.kill(meanwhile, 0).await?;
    system.spawn(meanwhile, 0)?;
    tokio::time::sleep(SERVER_DEATH / 2).await;
    system.servers().start().await?;
    for service in Service::ALL {
        for index in 0..system.count(service) {
            system.wait_ready(service, index).await.with_context(|| format!("after {server} was killed"))?;
        }
    }
    Ok(())
}

/// Stops processor 0 where it stands for [`STOP`]; the others must apply what was accepted before, while it stands.
/// Gives how long they took.
pub async fn stop_processor(system: &Arc<System>) -> anyhow::Result<Duration> {
    system.pause(Service::Processor, 0)?;
    let stopped = Instant::now();
    let takeover = async {
        let ends = audit::ends(system).await?;
        loop {
            let behind = audit::not_applied(system, &ends).await?;
            if behind.is_empty() {
                return Ok(stopped.elapsed());
            }
            ensure!(
                stopped.elapsed() < TAKEOVER_MAX,
                "no takeover within {TAKEOVER_MAX:?}: {}",
                behind.join("; ")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let taken_over: anyhow::Result<Duration> = takeover.await;
    tokio::time::sleep(STOP.saturating_sub(stopped.elapsed())).await;
    system.resume(Service::Processor, 0)?;
    taken_over
}
