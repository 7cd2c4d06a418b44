//! Applies commands to the ledger: the only writer of money, accounts, mandates and sequenced events.
//!
//! A record travels `consumer` (reads and decodes, on a thread of its own) → `apply` (one transaction a batch:
//! `store` loads, `decide` decides, `store` writes) → `announce` (events to the event topic). The three overlap:
//! while one batch is in MySQL, the next is being decoded and the previous announced. `sweep` asks for the end of what
//! has come to its time, by commands like any other.

pub mod announce;
pub mod apply;
mod clock;
pub mod config;
pub mod consumer;
pub mod decide;
pub mod item;
mod metrics;
pub mod store;
mod sweep;

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use runtime::health::Health;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::apply::{Applier, Components, Stop};
pub use crate::config::Config;
use crate::consumer::{Consumer, Input, Shared, Standing};
use crate::item::Item;
use crate::store::positions::PartitionKey;
use crate::store::session::Session;
use crate::sweep::Sweeper;

/// How many batches may wait decoded. More only costs memory.
const BATCHES_AHEAD: usize = 4;
/// How often an idle processor keeps its connection and stores what it announced. Below the session's
/// `wait_timeout` of 10 s.
const IDLE_INTERVAL: Duration = Duration::from_secs(3);
/// How long the consumer may take to leave its group; correctness does not depend on it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `shutdown`. Fails when it cannot start, or when its consumer ends by itself.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let health = Health::new();
    let private = runtime::private::serve(&config.private, health.clone(), shutdown.clone())
        .await
        .context("the private listener cannot start")?;
    metrics::describe();
    let batch_max = usize::from(config.batch_max);
    let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD * batch_max);
    let shared = Shared::default();
    let consumer = Consumer::new(
        &config.kafka,
        Session::new(config.mysql.clone()),
        sender,
        shared.clone(),
        config.bank_time_zone.clone(),
        health.component("kafka"),
        shutdown.clone(),
    )?;
    let announcer = Announcer::start(
        &config.kafka,
        Session::new(config.mysql.clone()),
        health.component("events"),
        shutdown.clone(),
    )?;
    let mut applier = Applier::new(
        Session::new(config.mysql.clone()),
        announcer,
        config.bank_time_zone.clone(),
        config.accepted_ahead_max_seconds,
        Components::of(&health),
        shutdown.clone(),
    );
    let (left, has_left) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("consumer".to_owned())
        .spawn(move || {
            consumer.run();
            // Nobody waits any more when the process is already gone.
            let _ = left.send(());
        })
        .context("the consumer thread cannot start")?;

    let sweeper =
        Sweeper::new(&config.kafka, Session::new(config.mysql.clone()), shared.clone(), shutdown.clone())?;
    let mut sweeping = tokio::spawn(sweeper.run());

    applier.idle().await;
    let mut inputs = Vec::with_capacity(batch_max);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            // Neither ends by itself but by a panic: then a new start is better than to go on without.
            _ = &mut sweeping => break,
            received = receiver.recv_many(&mut inputs, batch_max) => if received == 0 || !applier.announces() { break },
            () = tokio::time::sleep(IDLE_INTERVAL) => {}
        }
        if inputs.is_empty() {
            applier.idle().await;
        } else if let Err(Stop::Shutdown) = apply(&mut applier, &shared, &mut inputs).await {
            break;
        }
    }
    let (asked, swept) = (shutdown.is_cancelled(), !sweeping.is_finished());
    shutdown.cancel();
    receiver.close();
    let announced = applier.finish().await;
    if tokio::time::timeout(LEAVE_TIMEOUT, has_left).await.is_err() {
        tracing::warn!("the consumer did not leave its group in time");
    }
    anyhow::ensure!(announced, "announcing panicked; the log has its panic");
    anyhow::ensure!(asked || swept, "the sweeper ended by itself; the log has its panic");
    private.await.context("the private listener panicked")?;
    anyhow::ensure!(asked, "the consumer thread ended by itself; the log has its panic");
    Ok(())
}

async fn apply(applier: &mut Applier, shared: &Shared, inputs: &mut Vec<Input>) -> Result<(), Stop> {
    let mut items: Vec<Item> = Vec::with_capacity(inputs.len());
    for input in inputs.drain(..) {
        match input {
            Input::Item(item) => items.push(*item),
            Input::Assigned(position) => {
                // What was read of it before comes again.
                items.retain(|item| PartitionKey::of(item.position) != position.key);
                applier.take_over(&position);
            }
            Input::Halt(partition, why) => applier.halt(partition, why),
            Input::Left(partition) => applier.leave(partition),
        }
    }
    applier.apply(items).await?;
    shared.progress.lock().unwrap_or_else(PoisonError::into_inner).extend(applier.positions());
    let standing = Standing { halted: applier.halted().collect(), waiting: applier.waiting().collect() };
    *shared.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    Ok(())
}
