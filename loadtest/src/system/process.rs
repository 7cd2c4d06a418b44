//! One process that this program started, and signals to it.
//!
//! A process is only ever addressed through its handle, which has not been waited for: its pid cannot have become
//! somebody else's.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// How often to look whether a process has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A process survives SIGKILL only while the kernel holds it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` with exactly the `WIRED_` variables of `environment`; its output is appended to `log`.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("WIRED_") {
                command.env_remove(variable);
            }
        }
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal; one to a process that has just ended does nothing.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = Pid::from_raw(self.child.id() as i32)
        {
            // It can only have ended meanwhile, and its pid is ours until it is waited for.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.wait(KILL_TIMEOUT).await.map(drop)
    }

    /// Waits for the end, at most so long.
    pub async fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                anyhow::bail!("{} (pid {}) did not end within {patience:?}", self.name, self.pid());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // A stopped process is killed all the same.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a process ended, for people.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

/// The last `lines` lines of a log.
pub fn tail(log: &PathBuf, lines: usize) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
