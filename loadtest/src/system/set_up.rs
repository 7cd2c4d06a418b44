//! Makes what a system needs before its processes start, seeds it, and removes it afterwards.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::topic;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use migrations::users::{self, Role};
use runtime::config::{KafkaConfig, MysqlConfig};
use url::Url;

use super::process::{self, Process};
use super::{Instance, Options, Partner, Servers, Service, System, binaries, ports};

/// How long a command of admin-api may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long seeding may take: each of its commands waits for the processor.
const SEED_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a request to a private listener may take.
const GET_TIMEOUT: Duration = Duration::from_secs(3);
/// Names of databases and topics are short.
const NAME_MAX: usize = 20;

/// When and which, in the form that test environments are swept by: what a killed run left is removed by the tests
/// of an hour later.
fn mark() -> String {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:08x}_{:08x}", since_1970.as_secs() / 60, rand::random::<u32>())
}

impl System {
    pub(super) async fn prepare(servers: Arc<Servers>, options: Options) -> anyhow::Result<Self> {
        if options.name.len() > NAME_MAX
            || !options.name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
        {
            bail!("a system's name has at most {NAME_MAX} letters, digits and `_`");
        }
        let mark = mark();
        let folder = tempfile::Builder::new().prefix(&format!("wired-{}-", options.name)).tempdir()?;
        write_keys(folder.path())?;
        let mysql = with_database(&servers.mysql, &format!("t_{}_{mark}", options.name))?;
        let prefix = format!("t-{}-{mark}.", options.name).replace('_', "-");
        let kafka = KafkaConfig::new(&servers.kafka_brokers, prefix);
        migrations::schema::apply(&mysql).await?;
        let urls = Role::ALL.iter().map(|&role| Ok((role, with_user(&mysql, role, &mark)?)));
        let urls = urls.collect::<anyhow::Result<Vec<_>>>()?;
        users::apply(&mysql, &urls).await?;
        migrations::topics::apply(&kafka, &topic::ALL, 1).await?;
        let pool = mysql.pool("loadtest", 8)?;
        let mut system = Self {
            servers,
            options,
            folder: Some(folder),
            mysql,
            kafka,
            urls,
            pool,
            instances: Vec::new(),
            partners: Vec::new(),
            finished: false,
        };
        for service in Service::ALL {
            for index in 0..system.options.count(service) {
                let instance = instance(&system, service, index)?;
                system.instances.push(instance);
            }
        }
        Ok(system)
    }
}

/// Removes database, users and topics; what cannot be removed is an error.
pub(super) async fn remove(system: &System) -> anyhow::Result<()> {
    let names: Vec<_> = topic::ALL.iter().map(|topic| system.kafka.topic(topic.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    migrations::topics::delete_names(&system.kafka, &names).await?;
    for (_, url) in &system.urls {
        let url = Url::parse(url)?;
        sqlx::raw_sql(&format!("DROP USER '{}'@'%'", url.username())).execute(&system.pool).await?;
    }
    let database = Url::parse(&system.mysql.mysql_url)?.path().trim_start_matches('/').to_owned();
    sqlx::raw_sql(&format!("DROP DATABASE `{database}`")).execute(&system.pool).await?;
    system.pool.close().await;
    Ok(())
}

/// Runs `admin-api seed` and reads what it wrote.
pub(super) async fn seed(system: &System) -> anyhow::Result<Vec<Partner>> {
    let (options, folder) = (&system.options, system.folder());
    let file = folder.join("partner.env");
    let mut environment = base_environment(system, Service::AdminApi)?;
    environment.extend(keys_environment(folder));
    let base_url = if options.ingests == 0 { "http://127.0.0.1:1".to_owned() } else { system.url(0) };
    let arguments = [
        "seed".to_owned(),
        format!("--env-file={}", file.display()),
        format!("--base-url={base_url}"),
        format!("--webhook-listen={}", ports::free()?),
        format!("--partners={}", options.partners),
        format!("--customers={}", options.customers),
        format!("--deposit={}", options.deposit),
        format!("--requests-per-second={}", options.requests_per_second),
    ];
    let (program, log) = (binaries::find("admin-api")?, folder.join("seed.log"));
    let mut seeding = Process::start("admin-api seed", &program, &arguments, &environment, &log)?;
    let status = seeding.wait(SEED_TIMEOUT).await?;
    if !status.success() {
        bail!("admin-api seed ended with {}: {}", process::describe(status), process::tail(&log, 10));
    }
    let path = |number| if number == 1 { file.clone() } else { folder.join(format!("partner.env.{number}")) };
    (1..=options.partners).map(|number| Partner::read(&path(number))).collect()
}

/// Runs a command of `admin-api`, such as `create-admin`, as one would on the server; what it printed.
pub(super) async fn admin_command(system: &System, arguments: &[String]) -> anyhow::Result<String> {
    let environment = admin_environment(system)?;
    // What it prints is a secret, and is not kept.
    let log = tempfile::NamedTempFile::new()?;
    let (program, log) = (binaries::find("admin-api")?, log.path().to_owned());
    let mut command = Process::start("admin-api", &program, arguments, &environment, &log)?;
    let status = command.wait(COMMAND_TIMEOUT).await?;
    let printed = process::tail(&log, usize::MAX);
    if !status.success() {
        bail!("admin-api {arguments:?} ended with {}: {printed}", process::describe(status));
    }
    Ok(printed)
}

/// What such a command needs to know.
pub(super) fn admin_environment(system: &System) -> anyhow::Result<Vec<(String, String)>> {
    let mut environment = base_environment(system, Service::AdminApi)?;
    environment.extend(keys_environment(system.folder()));
    environment.push(("WIRED_PUBLIC_URL".to_owned(), system.public_url(Service::AdminApi, 0)));
    Ok(environment)
}

/// `GET path`, on a connection of its own.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let asked = async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender.
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header("host", address.to_string())
            .body(Empty::<bytes::Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(GET_TIMEOUT, asked)
        .await
        .with_context(|| format!("{address}{path} does not answer"))?
}

fn instance(system: &System, service: Service, index: usize) -> anyhow::Result<Instance> {
    let private = ports::free()?;
    let public = match service {
        Service::Ingest | Service::AdminApi => Some(ports::free()?),
        Service::Processor | Service::Notifier => None,
    };
    let mut environment = base_environment(system, service)?;
    environment.extend(keys_environment(system.folder()));
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    set("WIRED_PRIVATE_LISTEN", private.to_string());
    if let Some(public) = public {
        set("WIRED_LISTEN", public.to_string());
        set("WIRED_AUTHORITIES", public.to_string());
        set("WIRED_PUBLIC_URL", format!("http://{public}"));
        set("WIRED_MAIL_FOLDER", system.folder().join("mails").display().to_string());
        set("WIRED_INSECURE_HTTP", "true".to_owned());
    }
    if service == Service::AdminApi {
        // Tests choose the addresses that they come from.
        set("WIRED_TRUSTED_PROXIES", "127.0.0.0/8".to_owned());
        set("WIRED_CHECKPOINT_DIR", system.folder().join("checkpoints").display().to_string());
    }
    // Ingest checks the URLs of new endpoints by the same rules.
    if matches!(service, Service::Ingest | Service::Notifier) {
        set("WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP", "true".to_owned());
    }
    // Later ones win.
    for (of, name, value) in &system.options.environment {
        if *of == service {
            set(name, value.clone());
        }
    }
    Ok(Instance {
        service,
        index,
        program: binaries::find(service.name())?,
        environment,
        public,
        private,
        log: system.folder().join(format!("{}-{index}.log", service.name())),
        process: Mutex::new(None),
    })
}

fn base_environment(system: &System, service: Service) -> anyhow::Result<Vec<(String, String)>> {
    let mut mysql = Url::parse(&system.mysql_of(service.role()).mysql_url)?;
    if let Some((_, address)) = system.options.mysql_via.iter().find(|(of, _)| *of == service) {
        mysql.set_host(Some(&address.ip().to_string()))?;
        if mysql.set_port(Some(address.port())).is_err() {
            bail!("the URL of MySQL takes no port");
        }
    }
    let kafka = system.options.kafka_via.clone().unwrap_or_else(|| system.kafka.kafka_brokers.clone());
    Ok(vec![
        ("WIRED_MYSQL_URL".to_owned(), mysql.to_string()),
        ("WIRED_KAFKA_BROKERS".to_owned(), kafka),
        ("WIRED_TOPIC_PREFIX".to_owned(), system.kafka.topic_prefix.clone()),
    ])
}

const KEYS: [(&str, &str); 7] = [
    ("WIRED_PARTNER_KEYS_KEK_FILE", "partner-keys.kek"),
    ("WIRED_WEBHOOK_SECRETS_KEK_FILE", "webhook-secrets.kek"),
    ("WIRED_STATUS_TOKEN_KEY_FILE", "status-token.key"),
    ("WIRED_PERSONAL_DATA_KEK_FILE", "personal-data.kek"),
    ("WIRED_PERSONAL_INDEX_KEY_FILE", "personal-index.key"),
    ("WIRED_TOKEN_KEY_FILE", "access-token.key"),
    ("WIRED_CHECKPOINT_KEY_FILE", "checkpoint.key"),
];

fn keys_environment(folder: &Path) -> impl Iterator<Item = (String, String)> {
    KEYS.map(|(variable, file)| (variable.to_owned(), folder.join(file).display().to_string())).into_iter()
}

fn write_keys(folder: &Path) -> anyhow::Result<()> {
    for (_, name) in KEYS {
        let path: PathBuf = folder.join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        std::io::Write::write_all(&mut file, STANDARD.encode(rand::random::<[u8; 32]>()).as_bytes())?;
    }
    Ok(())
}

fn with_database(mysql: &MysqlConfig, database: &str) -> anyhow::Result<MysqlConfig> {
    let mut url = Url::parse(&mysql.mysql_url).context("WIRED_MYSQL_URL")?;
    url.set_path(database);
    Ok(MysqlConfig { mysql_url: url.to_string() })
}

fn with_user(mysql: &MysqlConfig, role: Role, mark: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(&mysql.mysql_url)?;
    let name = format!("t_{mark}_{}", role.name());
    let password = format!("{:032x}", rand::random::<u128>());
    if url.set_username(&name).is_err() || url.set_password(Some(&password)).is_err() {
        bail!("the URL of MySQL takes no user");
    }
    Ok(url.to_string())
}
