//! Publishes checkpoints outside the database: files that are written once, and a topic that never expires.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{checkpoint::Checkpoint, topic};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::{config::KafkaConfig, kafka::LogContext};
use sqlx::MySqlPool;

use super::{CheckpointError, store};

/// How long Kafka may take to acknowledge one.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// Where checkpoints go.
pub(in crate::evidence) struct Publisher {
    folder: PathBuf,
    topic: String,
    producer: FutureProducer<LogContext>,
}

impl Publisher {
    pub(in crate::evidence) fn new(
        folder: PathBuf,
        kafka: &KafkaConfig,
    ) -> Result<Self, rdkafka::error::KafkaError> {
        Ok(Self {
            folder,
            topic: kafka.topic(topic::CHECKPOINTS.name),
            producer: kafka.producer().create_with_context(LogContext)?,
        })
    }

    /// Publishes, in their order, those that are not known to be published.
    pub(super) async fn publish(&self, pool: &MySqlPool) -> Result<(), CheckpointError> {
        for checkpoint in store::unpublished(pool).await? {
            let number = checkpoint.statement.number;
            // Hashes and numbers only, so this does not fail.
            let text = serde_json::to_string(&checkpoint).unwrap_or_default();
            let (folder, line) = (self.folder.clone(), format!("{text}\n"));
            let written = tokio::task::spawn_blocking(move || write_once(&folder, number, &line)).await;
            written.unwrap_or_else(|_| Err(CheckpointError::Stored(number)))?;
            let key = number.to_string();
            let record = FutureRecord::to(&self.topic).key(&key).payload(&text);
            self.producer.send(record, ACKNOWLEDGED_WITHIN).await.map_err(|(error, _)| error)?;
            store::published(pool, number).await?;
        }
        Ok(())
    }
}

/// Makes the file of a checkpoint, whole or not at all. One that is there must hold the same.
fn write_once(folder: &Path, number: u64, text: &str) -> Result<(), CheckpointError> {
    let path = folder.join(Checkpoint::file_name(number));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Folder { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let draft = folder.join(format!(".{number}.{}", uuid::Uuid::new_v4().simple()));
    let linked = write_draft(&draft, text).and_then(|()| fs::hard_link(&draft, &path));
    // A draft that stays behind harms nobody.
    let _ = fs::remove_file(&draft);
    match linked {
        Ok(()) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::read_to_string(&path).map_err(failed(&path))?;
            if found == text { Ok(()) } else { Err(CheckpointError::Differs(path)) }
        }
        Err(error) => Err(failed(&path)(error)),
    }
}

fn write_draft(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_never_again() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("checkpoints");
        write_once(&below, 7, "one\n").unwrap();
        write_once(&below, 7, "one\n").unwrap();
        assert!(matches!(write_once(&below, 7, "two\n"), Err(CheckpointError::Differs(_))));
        let path = below.join("checkpoint-000000000007.json");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 1, "no draft stays behind");
    }
}
