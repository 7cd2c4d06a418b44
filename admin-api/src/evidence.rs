//! Proof that nothing was altered: the chain of the audit log, signed checkpoints of ledger and chain outside the
//! database, and the reconciler, which verifies both all the time.
//!
//! All only read the ledger. None bears on health: a broken ledger is an alarm, and answering customers goes on.

mod checkpoints;
pub(crate) mod lease;
mod metrics;
mod reconciler;
mod sealer;
mod store;

use std::{
    io::Write as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use runtime::config::{ConfigError, KafkaConfig, MysqlConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub(crate) use checkpoints::published_checkpoint;
use checkpoints::{Checkpoints, Publisher};
use reconciler::Reconciler;
use sealer::Sealer;

use crate::verification::Published;

/// Two for the reconciler's two rounds, one for the statements around them.
const RECONCILER_CONNECTIONS: u32 = 4;
/// One in the snapshot, one that writes, one that renews the lease.
const CHECKPOINT_CONNECTIONS: u32 = 3;

/// One that seals, one that renews the lease.
const SEALER_CONNECTIONS: u32 = 2;

/// Why evidence is not gathered.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A setting is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be read, or holds no key.
    #[error("WIRED_CHECKPOINT_KEY_FILE={path:?}: {why}")]
    Key {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// One of the two settings of checkpoints is missing.
    #[error("set both WIRED_CHECKPOINT_KEY_FILE and WIRED_CHECKPOINT_DIR, or neither to take no checkpoints")]
    Half,
    /// The Kafka client cannot be made.
    #[error("the Kafka client cannot be made (WIRED_KAFKA_BROKERS): {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// No temporary folder.
    #[error("no temporary folder for the reconciler: {0}")]
    Scratch(#[from] std::io::Error),
}

/// Checkpoints and the reconciler.
#[derive(Debug, Clone, clap::Args)]
pub struct EvidenceConfig {
    /// File with the ed25519 key that signs checkpoints: base64 of its 32 bytes. The public key is written beside it,
    /// with `.pub` appended. Without it, no checkpoints are taken.
    #[arg(long, env = "WIRED_CHECKPOINT_KEY_FILE")]
    pub checkpoint_key_file: Option<PathBuf>,
    /// Folder in which checkpoints are published; files there are never written again. It should be out of reach of
    /// whoever can write the database.
    #[arg(long, env = "WIRED_CHECKPOINT_DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Seconds between two checkpoints. What is rewritten in between is not noticed, so less is better; each costs a
    /// file, a record and a row for each account that changed.
    #[arg(long, env = "WIRED_CHECKPOINT_INTERVAL_SECONDS", default_value_t = 40.0)]
    pub checkpoint_interval_seconds: f64,
    /// Seconds between two rounds of the reconciler that read what is new. Less notices a broken ledger sooner and reads
    /// all accounts more often.
    #[arg(long, env = "WIRED_RECONCILIATION_INTERVAL_SECONDS", default_value_t = 20.0)]
    pub reconciliation_interval_seconds: f64,
    /// Rows that the reconciler's slow rounds read in a second, over and over through the whole ledger. More finds an
    /// altered old row sooner and takes more of MySQL; 0 turns them off.
    #[arg(long, env = "WIRED_RECONCILIATION_ROWS_PER_SECOND", default_value_t = 20_000)]
    pub reconciliation_rows_per_second: u32,
}

impl EvidenceConfig {
    /// Begins all of it; it ends with `stop`.
    pub fn start(
        &self,
        mysql: &MysqlConfig,
        kafka: &KafkaConfig,
        stop: &CancellationToken,
    ) -> Result<Vec<JoinHandle<()>>, EvidenceError> {
        metrics::describe();
        let sealer = Sealer { pool: mysql.pool("sealer", SEALER_CONNECTIONS)? };
        let mut tasks = vec![tokio::spawn(sealer.run(stop.clone()))];
        match (&self.checkpoint_key_file, &self.checkpoint_dir) {
            (Some(key_file), Some(folder)) => {
                let key = read_key(key_file)?;
                write_public_key(key_file, &key);
                let checkpoints = Checkpoints {
                    pool: mysql.pool("checkpoints", CHECKPOINT_CONNECTIONS)?,
                    key,
                    publisher: Publisher::new(folder.clone(), kafka)?,
                    interval: seconds(self.checkpoint_interval_seconds, 60.0),
                };
                tasks.push(tokio::spawn(checkpoints.run(stop.clone())));
            }
            (None, None) => tracing::warn!("no checkpoints are taken: WIRED_CHECKPOINT_KEY_FILE is not set"),
            (_, _) => return Err(EvidenceError::Half),
        }
        let reconciler = Reconciler::new(
            mysql.pool("reconciler", RECONCILER_CONNECTIONS)?,
            seconds(self.reconciliation_interval_seconds, 3_600.0),
            NonZeroU32::new(self.reconciliation_rows_per_second),
        )?;
        tasks.push(tokio::spawn(reconciler.run(stop.clone())));
        Ok(tasks)
    }
}

impl EvidenceConfig {
    /// Where checkpoints are published and what they are signed with, if any are taken.
    pub fn published(&self) -> Result<Option<Published>, EvidenceError> {
        let (Some(key_file), Some(folder)) = (&self.checkpoint_key_file, &self.checkpoint_dir) else {
            return Ok(None);
        };
        let public_key = read_key(key_file)?.verifying_key().to_bytes();
        Ok(Some(Published { folder: folder.clone(), public_key }))
    }
}

/// A setting in seconds, kept within what makes sense.
fn seconds(value: f64, most: f64) -> Duration {
    Duration::from_secs_f64(if value.is_finite() { value.clamp(0.1, most) } else { most })
}

fn read_key(path: &Path) -> Result<SigningKey, EvidenceError> {
    let failed = |why: String| EvidenceError::Key { path: path.to_owned(), why };
    let text =
        std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))?;
    let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new);
    let key = bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(Zeroizing::new);
    let key = key.ok_or_else(|| {
        failed("holds no base64 of 32 bytes, e.g. from `openssl rand -base64 32`".to_owned())
    })?;
    Ok(SigningKey::from_bytes(&key))
}

/// Writes the public key beside the private one, for whoever verifies; one that is there stays.
fn write_public_key(key_file: &Path, key: &SigningKey) {
    let text = format!("{}\n", STANDARD.encode(key.verifying_key().to_bytes()));
    let mut path = key_file.as_os_str().to_owned();
    path.push(".pub");
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match created.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if std::fs::read_to_string(&path).is_ok_and(|found| found.trim() != text.trim()) {
                tracing::error!(path = ?path, "this is the public key of another checkpoint key");
            }
        }
        // A mounted secret cannot be written beside; whoever set it up has its public key.
        Err(error) => tracing::warn!(error = %error, path = ?path, "the public key is not written"),
    }
    tracing::info!(key.public = text.trim(), "checkpoints are signed");
}
