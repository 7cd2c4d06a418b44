//! A whole bank for one test or benchmark: the real programs as processes, with a database, topics, users, keys and
//! ports of their own.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loadtest::system::{Options, Servers, Service, System};
//!
//! let system = System::start(Servers::from_env()?, Options::new("example")).await?;
//! let partner = &system.partners()[0];
//! let bank = partner.client(&system.url(0), client::Options::default())?;
//! system.kill(Service::Processor, 0).await?;
//! system.restart(Service::Processor, 0).await?;
//! system.finish().await
//! # }
//! ```
//!
//! Every wait has a bound. Processes are ended through their handles, also when a test panics. Logs and keys stand
//! in a folder that is kept, and whose last lines are printed, when a test fails.

pub mod binaries;
mod env_file;
mod partner;
pub mod ports;
pub mod process;
mod servers;
mod set_up;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use migrations::users::Role;
use runtime::config::{KafkaConfig, MysqlConfig};
use rustix::process::Signal;
use sqlx::MySqlPool;

pub use partner::Partner;
use process::Process;
pub use servers::Servers;

/// How long a service may take from its start until it is ready. A debug build on a busy machine is slow, and a
/// processor that takes over waits for its predecessor's session.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long ingest may take until it knows a new key.
const KEYS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a service may take to end after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to ask whether a service is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// Lines of each log that a failed test prints.
const TAIL_LINES: usize = 15;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Accepts requests of partners.
    Ingest,
    /// Writes the ledger.
    Processor,
    /// Delivers webhooks.
    Notifier,
    /// The bank's own API.
    AdminApi,
}

impl Service {
    /// Every service, in the order in which they are started.
    pub const ALL: [Self; 4] = [Self::Processor, Self::Notifier, Self::Ingest, Self::AdminApi];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        self.role().name()
    }

    /// Its MySQL user.
    pub const fn role(self) -> Role {
        match self {
            Self::Ingest => Role::Ingest,
            Self::Processor => Role::Processor,
            Self::Notifier => Role::Notifier,
            Self::AdminApi => Role::AdminApi,
        }
    }
}

/// What a system is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Part of the names of its database, topics and folder; letters, digits and `_`, at most 20.
    pub name: String,
    /// Processes of ingest.
    pub ingests: usize,
    /// Processes of the processor.
    pub processors: usize,
    /// Processes of the notifier.
    pub notifiers: usize,
    /// Processes of admin-api; seeding needs none.
    pub admin_apis: usize,
    /// Partners, each with an own key and endpoint.
    pub partners: u32,
    /// Customers, each with an account and a mandate for each partner. With 2 or 3 only the first one's mandate is
    /// known to [`Partner::mandates`].
    pub customers: u32,
    /// What each customer has, as a decimal in EUR.
    pub deposit: String,
    /// Requests that each partner may make in a second.
    pub requests_per_second: u32,
    /// A service that reaches MySQL by another address, such as a proxy's.
    pub mysql_via: Vec<(Service, SocketAddr)>,
    /// All services reach Kafka by this address.
    pub kafka_via: Option<String>,
    /// Further environment of a service's processes; wins over what the system sets.
    pub environment: Vec<(Service, String, String)>,
}

impl Options {
    /// One process of each service but admin-api, one partner and ten customers.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ingests: 1,
            processors: 1,
            notifiers: 1,
            admin_apis: 0,
            partners: 1,
            customers: 10,
            deposit: "1000000.00".to_owned(),
            requests_per_second: 1_000_000,
            mysql_via: Vec::new(),
            kafka_via: None,
            environment: Vec::new(),
        }
    }

    /// Adds a variable to the environment of a service's processes.
    #[must_use]
    pub fn with_env(mut self, service: Service, name: &str, value: &str) -> Self {
        self.environment.push((service, name.to_owned(), value.to_owned()));
        self
    }

    const fn count(&self, service: Service) -> usize {
        match service {
            Service::Ingest => self.ingests,
            Service::Processor => self.processors,
            Service::Notifier => self.notifiers,
            Service::AdminApi => self.admin_apis,
        }
    }
}

/// One process of a service over all its lives.
#[derive(Debug)]
struct Instance {
    service: Service,
    index: usize,
    program: PathBuf,
    environment: Vec<(String, String)>,
    public: Option<SocketAddr>,
    private: SocketAddr,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

/// A running bank.
#[derive(Debug)]
pub struct System {
    servers: Arc<Servers>,
    options: Options,
    folder: Option<tempfile::TempDir>,
    mysql: MysqlConfig,
    kafka: KafkaConfig,
    /// URLs with the least-privilege users, by role.
    urls: Vec<(Role, String)>,
    pool: MySqlPool,
    instances: Vec<Instance>,
    partners: Vec<Partner>,
    finished: bool,
}

impl System {
    /// Makes database, users, topics and keys, starts every process, waits until each is ready, seeds, and
    /// waits until every ingest knows the partners' keys.
    pub async fn start(servers: impl Into<Arc<Servers>>, options: Options) -> anyhow::Result<Self> {
        let mut system = Self::prepare(servers.into(), options).await?;
        for service in Service::ALL {
            for instance in system.instances.iter().filter(|it| it.service == service) {
                instance.start()?;
            }
        }
        // Those who start at once become ready at once: one assignment of the partitions for all.
        for service in Service::ALL {
            for index in 0..system.options.count(service) {
                system.wait_ready(service, index).await?;
            }
        }
        system.partners = set_up::seed(&system).await?;
        // Keys are loaded all at once, and the last partner's is the youngest.
        if let Some(partner) = system.partners.last() {
            for url in system.urls() {
                let bank = partner.client(&url, client::Options::default())?;
                bank.ready(KEYS_TIMEOUT)
                    .await
                    .with_context(|| format!("{url} does not know the partner's key"))?;
            }
        }
        Ok(system)
    }

    /// SIGKILL to a process; waits until it has ended.
    pub async fn kill(&self, service: Service, index: usize) -> anyhow::Result<()> {
        let process = self.instance(service, index)?.process().take();
        process.with_context(|| format!("{} {index} does not run", service.name()))?.kill().await
    }

    /// SIGTERM to a process; waits until it has ended well.
    pub async fn terminate(&self, service: Service, index: usize) -> anyhow::Result<()> {
        let instance = self.instance(service, index)?;
        let process = instance.process().take();
        let mut process = process.with_context(|| format!("{} {index} does not run", service.name()))?;
        process.signal(Signal::TERM);
        let status = process.wait(TERM_TIMEOUT).await?;
        if !status.success() {
            bail!("{} {index} ended with {} after SIGTERM", service.name(), process::describe(status));
        }
        Ok(())
    }

    /// Stops a process where it stands; [`Self::resume`] lets it go on.
    pub fn pause(&self, service: Service, index: usize) -> anyhow::Result<()> {
        self.signal(service, index, Signal::STOP)
    }

    /// Lets a paused process go on.
    pub fn resume(&self, service: Service, index: usize) -> anyhow::Result<()> {
        self.signal(service, index, Signal::CONT)
    }

    fn signal(&self, service: Service, index: usize, signal: Signal) -> anyhow::Result<()> {
        let instance = self.instance(service, index)?;
        let mut process = instance.process();
        process.as_mut().with_context(|| format!("{} {index} does not run", service.name()))?.signal(signal);
        Ok(())
    }

    /// Starts a process that was killed or terminated, without waiting until it is ready.
    pub fn spawn(&self, service: Service, index: usize) -> anyhow::Result<()> {
        self.instance(service, index)?.start()
    }

    /// Starts a process that was killed or terminated and waits until it is ready.
    pub async fn restart(&self, service: Service, index: usize) -> anyhow::Result<()> {
        self.spawn(service, index)?;
        self.wait_ready(service, index).await
    }

    /// Waits until a process says that it is ready.
    pub async fn wait_ready(&self, service: Service, index: usize) -> anyhow::Result<()> {
        let instance = self.instance(service, index)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let why = match self.readiness(service, index).await {
                Ok((200, _)) => return Ok(()),
                Ok((_, body)) => body,
                Err(error) => error.to_string(),
            };
            if let Some(status) = instance.process().as_mut().and_then(Process::ended) {
                let (end, log) = (process::describe(status), process::tail(&instance.log, TAIL_LINES));
                bail!("{} {index} ended with {end}:\n{log}", service.name());
            }
            if Instant::now() >= deadline {
                bail!("{} {index} is not ready after {READY_TIMEOUT:?}: {why}", service.name());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Runs a command of `admin-api`, such as `create-admin`, as one would on the server, and says what it printed.
    pub async fn admin_command(&self, arguments: &[String]) -> anyhow::Result<String> {
        set_up::admin_command(self, arguments).await
    }

    /// The beginning of a shell's line that runs a command of `admin-api` on the server.
    pub fn admin_command_line(&self) -> anyhow::Result<String> {
        let environment = set_up::admin_environment(self)?.into_iter();
        let mut words = vec!["env".to_owned()];
        words.extend(environment.map(|(name, value)| format!("{name}={value}")));
        words.push(binaries::find("admin-api")?.display().to_string());
        Ok(words.join(" "))
    }

    /// Status and body of `/health/ready`.
    pub async fn readiness(&self, service: Service, index: usize) -> anyhow::Result<(u16, String)> {
        set_up::get(self.instance(service, index)?.private, "/health/ready").await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self, service: Service, index: usize) -> anyhow::Result<String> {
        set_up::get(self.instance(service, index)?.private, "/metrics").await.map(|(_, body)| body)
    }

    /// How many processes a service has.
    pub const fn count(&self, service: Service) -> usize {
        self.options.count(service)
    }

    /// The pid of a running process.
    pub fn pid(&self, service: Service, index: usize) -> Option<u32> {
        self.instance(service, index).ok()?.process().as_ref().map(Process::pid)
    }

    /// Most memory that a running process has had resident, in bytes.
    pub fn memory_max_bytes(&self, service: Service, index: usize) -> anyhow::Result<f64> {
        let pid =
            self.pid(service, index).with_context(|| format!("{} {index} does not run", service.name()))?;
        crate::proc::rss_max_bytes(pid)
    }

    /// The base URL of an ingest.
    pub fn url(&self, ingest: usize) -> String {
        self.public_url(Service::Ingest, ingest)
    }

    /// The base URLs of all ingests.
    pub fn urls(&self) -> Vec<String> {
        (0..self.options.ingests).map(|index| self.url(index)).collect()
    }

    /// The base URL of an ingest or an admin-api.
    pub fn public_url(&self, service: Service, index: usize) -> String {
        let public = self.instance(service, index).ok().and_then(|instance| instance.public);
        public.map_or_else(String::new, |address| format!("http://{address}"))
    }

    /// The partners, in the order in which they were seeded.
    pub fn partners(&self) -> &[Partner] {
        &self.partners
    }

    /// The database, as the administrator.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The database, as the administrator.
    pub fn mysql(&self) -> &MysqlConfig {
        &self.mysql
    }

    /// The database, as the least-privilege user of a role.
    pub fn mysql_of(&self, role: Role) -> MysqlConfig {
        let url = self.urls.iter().find(|(of, _)| *of == role).map(|(_, url)| url.clone());
        MysqlConfig { mysql_url: url.unwrap_or_default() }
    }

    /// Kafka, with this system's prefix of topics.
    pub fn kafka(&self) -> &KafkaConfig {
        &self.kafka
    }

    /// The servers below.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The folder with logs and key files.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("."), tempfile::TempDir::path)
    }

    /// The log of a process, over all its lives.
    pub fn log(&self, service: Service, index: usize) -> anyhow::Result<String> {
        Ok(process::tail(&self.instance(service, index)?.log, usize::MAX))
    }

    /// Ends every process and removes database, users and topics. A process that does not end well is an error.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for service in [Service::Ingest, Service::AdminApi, Service::Processor, Service::Notifier] {
            for index in 0..self.options.count(service) {
                if self.pid(service, index).is_some()
                    && let Err(error) = self.terminate(service, index).await
                {
                    failed.push(error.to_string());
                }
            }
        }
        set_up::remove(&self).await?;
        if !failed.is_empty() {
            bail!("{}", failed.join("; "));
        }
        self.finished = true;
        Ok(())
    }

    fn instance(&self, service: Service, index: usize) -> anyhow::Result<&Instance> {
        let found = self.instances.iter().find(|it| it.service == service && it.index == index);
        found.with_context(|| format!("there is no {} {index}", service.name()))
    }
}

impl Instance {
    fn start(&self) -> anyhow::Result<()> {
        let mut process = self.process();
        if process.as_mut().is_some_and(|process| process.ended().is_none()) {
            bail!("{} {} runs already", self.service.name(), self.index);
        }
        let name = format!("{} {}", self.service.name(), self.index);
        *process = Some(Process::start(&name, &self.program, &[], &self.environment, &self.log)?);
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for instance in &self.instances {
            drop(instance.process().take());
        }
        if self.finished {
            return;
        }
        let Some(folder) = self.folder.take() else { return };
        for instance in &self.instances {
            let tail = process::tail(&instance.log, TAIL_LINES);
            eprintln!("--- the last lines of {} {}\n{tail}", instance.service.name(), instance.index);
        }
        let database = self.mysql.mysql_url.rsplit('/').next().unwrap_or_default().to_owned();
        eprintln!("--- logs are kept in {}, the database is {database}", folder.keep().display());
    }
}
