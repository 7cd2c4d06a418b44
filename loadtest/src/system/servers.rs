//! The MySQL and Kafka that a system runs on: those of the environment, or own ones that may be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use runtime::config::MysqlConfig;
use url::Url;

use super::{binaries, env_file};

/// Starting both from nothing initialises MySQL's folder; replaying a redo log takes its time as well.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(240);

/// Where MySQL listens unless its URL says otherwise.
const MYSQL_PORT: u16 = 3_306;

/// A MySQL and a Kafka.
#[derive(Debug)]
pub struct Servers {
    /// MySQL as the administrator.
    pub mysql: MysqlConfig,
    /// Kafka's brokers.
    pub kafka_brokers: String,
    own: Option<Own>,
}

/// Servers in a folder of their own, which is removed with them.
#[derive(Debug)]
struct Own {
    wired_local: PathBuf,
    folder: tempfile::TempDir,
    /// A Kafka of others that is used instead of an own one.
    kafka_brokers: Option<String>,
}

impl Servers {
    /// The servers of the environment, which everybody shares and nobody may kill.
    pub fn from_env() -> anyhow::Result<Self> {
        let variable = |name| {
            std::env::var(name).with_context(|| {
                format!(
                    "{name} is not set: use `make test`, or start the servers and source .local/servers.env"
                )
            })
        };
        Ok(Self {
            mysql: MysqlConfig { mysql_url: variable("WIRED_MYSQL_URL")? },
            kafka_brokers: variable("WIRED_KAFKA_BROKERS")?,
            own: None,
        })
    }

    /// Own servers with the software of the checkout; ended and removed when dropped.
    pub async fn own() -> anyhow::Result<Self> {
        Self::start_own(None, None).await
    }

    /// An own MySQL in `folder`, and the Kafka of the environment.
    pub async fn own_mysql(folder: &Path) -> anyhow::Result<Self> {
        let shared = Self::from_env()?.kafka_brokers;
        Self::start_own(Some(folder), Some(shared)).await
    }

    async fn start_own(parent: Option<&Path>, kafka_brokers: Option<String>) -> anyhow::Result<Self> {
        let wired_local = binaries::checkout()?.join("deploy/local/wired-local");
        let folder = parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in);
        let folder = folder.context("no temporary folder can be made")?;
        let own = Own { wired_local, folder, kafka_brokers };
        own.run(&["start-servers"]).await?;
        let text = std::fs::read_to_string(own.folder.path().join("servers.env"))?;
        let variables = env_file::parse(&text);
        let variable =
            |name: &str| variables.get(name).cloned().with_context(|| format!("servers.env has no {name}"));
        Ok(Self {
            mysql: MysqlConfig { mysql_url: variable("WIRED_MYSQL_URL")? },
            kafka_brokers: variable("WIRED_KAFKA_BROKERS")?,
            own: Some(own),
        })
    }

    /// Where MySQL listens, for a proxy before it.
    pub fn mysql_address(&self) -> anyhow::Result<SocketAddr> {
        let url = Url::parse(&self.mysql.mysql_url).context("the URL of MySQL")?;
        let found = url.socket_addrs(|| Some(MYSQL_PORT)).context("the host of MySQL is unknown")?;
        found.into_iter().next().context("the host of MySQL has no address")
    }

    /// SIGKILL to `mysql` or `kafka` of own servers.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.killable()?.run(&["kill", name]).await
    }

    /// Brings back what was killed, and waits until both answer.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.killable()?.run(&["start-servers"]).await
    }

    /// The folder of own servers.
    pub fn folder(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.folder.path())
    }

    fn killable(&self) -> anyhow::Result<&Own> {
        self.own.as_ref().context("these servers belong to everybody: a fault test needs own ones")
    }
}

impl Own {
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        // The servers outlive the script and hold what it was given, so a pipe would never end.
        let log = self.folder.path().join("wired-local.log");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.kill_on_drop(true).stdout(output.try_clone()?).stderr(output);
        let status = tokio::time::timeout(COMMAND_TIMEOUT, command.status()).await;
        let status = status
            .with_context(|| format!("wired-local {arguments:?} takes longer than {COMMAND_TIMEOUT:?}"))??;
        if !status.success() {
            bail!("wired-local {arguments:?} failed: {}", super::process::tail(&log, 20));
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.wired_local);
        command.args(arguments).env("WIRED_LOCAL_DIR", self.folder.path()).stdin(Stdio::null());
        command.env_remove("WIRED_MYSQL_URL").env_remove("WIRED_KAFKA_BROKERS");
        if let Some(brokers) = &self.kafka_brokers {
            command.env("WIRED_KAFKA_BROKERS", brokers);
        }
        command
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nobody needs the data: killed, the servers end at once. One that does not run any more is no error.
        for arguments in [&["kill", "mysql"][..], &["kill", "kafka"], &["clean"]] {
            let _ = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
