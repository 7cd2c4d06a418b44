//! Puts the parts together, and takes them apart in order.

use std::sync::Arc;
use std::time::Duration;

use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, SealError};
use runtime::config::ConfigError;
use runtime::health::Health;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::Sender;
use crate::catch_up::CatchUp;
use crate::claim::Claimer;
use crate::config::Config;
use crate::consumer;
use crate::deliver::Deliverer;
use crate::dispatch::Dispatcher;
use crate::due::DueBoard;
use crate::endpoints::Endpoints;
use crate::expire;
use crate::in_progress::InProgress;
use crate::metrics;
use crate::ping::Pinger;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::replay::Replayer;
use crate::resolver::{Lookup, SystemLookup};

/// The consumer group.
const GROUP: &str = "notifier";
/// Memory for first tries that are not recorded, and for claimed retries, in KiB.
const FIRST_TRIES_KIB: usize = 48 * 1024;
const RETRIES_KIB: usize = 24 * 1024;
/// How long a stop waits for attempts under way, for results to be recorded, and for the consumer to end.
const DRAIN_ATTEMPTS: Duration = Duration::from_secs(5);
const DRAIN_RECORDS: Duration = Duration::from_secs(5);
const DRAIN_CONSUMER: Duration = Duration::from_secs(5);

/// Why the notifier does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be read.
    #[error("WIRED_WEBHOOK_SECRETS_KEK_FILE ({path}) cannot be read: {source}")]
    KeyFile {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key file holds no key.
    #[error("WIRED_WEBHOOK_SECRETS_KEK_FILE: {0}")]
    Key(#[from] SealError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    /// No thread for the consumer.
    #[error("no thread for the consumer: {0}")]
    Thread(#[source] std::io::Error),
}

/// Runs until `shutdown`, then drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    run_with_lookup(config, Arc::new(SystemLookup::default()), shutdown).await
}

/// [`run`] with another resolver of names.
pub async fn run_with_lookup(
    config: Config,
    lookup: Arc<dyn Lookup>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let keys = read_keys(&config)?;
    let health = Health::new();
    let owner = Uuid::new_v4();
    let end = CancellationToken::new();
    let _private = runtime::private::serve(&config.private, health.clone(), end.clone()).await?;
    metrics::describe();

    let limits = config.limits();
    // Many endpoints may live on one host: each connection that is kept saves making a new one.
    let sender = Sender::new(lookup, config.loopback(), limits.total)?;
    let look_up = config.mysql.pool("look-up", 3)?;
    let record = config.mysql.pool("record", 2)?;
    let retry = config.mysql.pool("retry", 4)?;
    runtime::mysql::observe(&record, "record", end.clone());
    let progress = Arc::new(Progress::default());
    let in_progress = Arc::new(InProgress::new(Arc::clone(&progress)));
    let due = Arc::new(DueBoard::default());
    let endpoints =
        Arc::new(Endpoints::new(look_up.clone(), keys, config.loopback(), health.component("endpoints")));
    let mysql = health.component("mysql");
    let (records, recorded) = mpsc::unbounded_channel();
    let pinger = Pinger { pool: retry.clone(), endpoints: Arc::clone(&endpoints), sender: sender.clone() };
    let deliverer = Arc::new(Deliverer::new(sender, Arc::clone(&endpoints), limits, records));
    let (batches, dispatched) = mpsc::channel(consumer::BATCHES_MAX);
    let (gaps, asked) = mpsc::unbounded_channel();
    let (filled, filled_receiver) = std::sync::mpsc::channel();

    // Dropping the set ends the tasks with the caller.
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&endpoints).keep_fresh(shutdown.clone()));
    tasks.spawn(Arc::clone(&deliverer).sweep(shutdown.clone()));
    tasks.spawn(
        CatchUp { pool: retry.clone(), endpoints: Arc::clone(&endpoints), due: Arc::clone(&due) }
            .run(asked, filled),
    );
    tasks.spawn(expire::run(retry.clone(), shutdown.clone()));
    let dispatcher = Dispatcher {
        pool: look_up,
        endpoints: Arc::clone(&endpoints),
        progress: Arc::clone(&progress),
        in_progress: Arc::clone(&in_progress),
        deliverer: Arc::clone(&deliverer),
        memory: Arc::new(Semaphore::new(FIRST_TRIES_KIB)),
        health: mysql.clone(),
    };
    let mut working = JoinSet::new();
    working.spawn(
        Replayer { pool: retry.clone(), endpoints: Arc::clone(&endpoints), due: Arc::clone(&due) }
            .run(shutdown.clone()),
    );
    working.spawn(pinger.run(shutdown.clone()));
    working.spawn(dispatcher.run(dispatched, shutdown.clone()));
    let claimer = Claimer {
        pool: retry,
        owner,
        due: Arc::clone(&due),
        endpoints: Arc::clone(&endpoints),
        deliverer: Arc::clone(&deliverer),
        memory: Arc::new(Semaphore::new(RETRIES_KIB)),
    };
    working.spawn(claimer.run(shutdown.clone()));
    let recorder = Recorder::new(record, owner, in_progress, due, endpoints, mysql);
    let mut recording = JoinSet::new();
    recording.spawn(recorder.run(recorded));

    let settings = consumer::Settings {
        config: config.kafka.consumer(GROUP),
        topic: config.kafka.topic(domain::topic::EVENTS.name),
        progress,
        batches,
        gaps,
        filled: filled_receiver,
        health: health.component("kafka"),
        stop: shutdown.clone(),
        end: end.clone(),
    };
    let (ended, consumer_ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("consumer".to_owned());
    thread
        .spawn(move || {
            consumer::run(&settings);
            drop(ended);
        })
        .map_err(RunError::Thread)?;

    shutdown.cancelled().await;
    tracing::info!("notifier draining");
    join(working, DRAIN_ATTEMPTS).await;
    deliverer.drain(DRAIN_ATTEMPTS).await;
    // The last sender of results goes, so the recorder ends when all are written.
    drop(deliverer);
    tasks.shutdown().await;
    join(recording, DRAIN_RECORDS).await;
    end.cancel();
    if tokio::time::timeout(DRAIN_CONSUMER, consumer_ended).await.is_err() {
        tracing::warn!("consumer did not end in time");
    }
    tracing::info!("notifier stopped");
    Ok(())
}

async fn join(mut tasks: JoinSet<()>, deadline: Duration) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(deadline, all).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
}

fn read_keys(config: &Config) -> Result<KeyEncryptionKeys, RunError> {
    let path = &config.webhook_secrets_kek_file;
    let text =
        std::fs::read_to_string(path).map_err(|source| RunError::KeyFile { path: path.clone(), source })?;
    Ok(KeyEncryptionKeys::new(KeyEncryptionKey::from_base64(&text)?))
}
