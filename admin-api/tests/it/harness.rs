//! A bank to talk to: the service in this process, a mailbox, and people with their tokens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use admin_api::{Config, Error, create_admin};
use clap::Parser;
use serde_json::{Value, json};
use testkit::fixtures::{self, Kek};
use testkit::{Env, free_address, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "seven quiet herons";
/// A bound for waiting on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Two looks at what is remembered of a session, with room for a busy machine: the promise of revocation.
pub(crate) const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct ServeCli {
    #[command(flatten)]
    config: Config,
}

#[derive(Parser)]
struct AdminCli {
    #[command(flatten)]
    config: create_admin::Config,
}

/// The key files of one bank.
pub(crate) struct Keys {
    pub(crate) kek: tempfile::NamedTempFile,
    pub(crate) index: tempfile::NamedTempFile,
    pub(crate) token: tempfile::NamedTempFile,
    /// Seals API keys of partners.
    pub(crate) partners: Kek,
}

pub(crate) struct Bank {
    pub(crate) env: Env,
    pub(crate) keys: Keys,
    pub(crate) mails: tempfile::TempDir,
    pub(crate) service: Service,
    clients: AtomicU32,
}

/// One replica.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) private: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The problem's code, or the empty word.
    pub(crate) fn code(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {}", self.head, self.body);
        self
    }

    /// A 2xx is nothing of the problem kind.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{} {}", self.head, self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        self
    }
}

/// A client at an address of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) server: SocketAddr,
    pub(crate) from: String,
    pub(crate) token: Option<String>,
}

impl Client {
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.raw(method, path, "application/json", body.as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(&body)).await
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.raw_with(method, path, &[("content-type", content_type)], body).await
    }

    /// JSON with further header fields.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw_with(method, path, &headers, body.as_bytes()).await
    }

    /// A command under an idempotency key.
    pub(crate) async fn ask(&self, path: &str, key: &str, body: Value) -> Answer {
        self.request("POST", path, &[("idempotency-key", key)], &body).await
    }

    async fn raw_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bank\r\nconnection: close\r\nx-forwarded-for: {}\r\ncontent-length: {}\r\n",
            self.from,
            body.len()
        );
        for (name, value) in headers.iter().filter(|(name, _)| *name != "content-type" || !body.is_empty()) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(token) = &self.token {
            head.extend(["authorization: Bearer ", token, "\r\n"]);
        }
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(self.server).await.unwrap();
            stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
            // The server may refuse by the head alone, and then not read the rest.
            let _ = stream.write_all(body).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        let text = tokio::time::timeout(LONG, exchange).await.expect("an answer in time");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Sends a request and returns the connection, without waiting for the answer.
    pub(crate) async fn begin(&self, method: &str, path: &str, body: &Value) -> tokio::net::TcpStream {
        let (body, token) = (body.to_string(), self.token.as_deref().unwrap_or_default());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(self.server).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    #[must_use]
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) async fn log_in(&self, email: &str, password: &str, code: Option<&str>) -> Answer {
        let mut body = json!({ "email": email, "password": password });
        if let Some(code) = code {
            body["code"] = json!(code);
        }
        self.post("/v1/auth/login", body).await
    }
}

/// Somebody who is logged in.
pub(crate) struct Somebody {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) client: Client,
    pub(crate) refresh_token: String,
    /// Of the second factor.
    pub(crate) secret: String,
    pub(crate) recovery_codes: Vec<String>,
}

impl Keys {
    fn new() -> Self {
        let key = || {
            let mut key = [0; 32];
            getrandom::fill(&mut key).unwrap();
            fixtures::secret_file(&key)
        };
        Self { kek: key(), index: key(), token: key(), partners: fixtures::kek() }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Bank {
    pub(crate) async fn new(name: &str) -> Self {
        let env = Env::new(name).await;
        let (keys, mails) = (Keys::new(), tempfile::tempdir().unwrap());
        let service = start(&env, &keys, mails.path(), &[]).await;
        Self { env, keys, mails, service, clients: AtomicU32::new(1) }
    }

    /// Another replica.
    pub(crate) async fn another(&self, more: &[(&str, String)]) -> Service {
        start(&self.env, &self.keys, self.mails.path(), more).await
    }

    /// Another replica that cannot become ready.
    pub(crate) async fn another_not_ready(&self, more: &[(&str, String)]) -> Service {
        let service = spawn(&self.env, &self.keys, self.mails.path(), more);
        wait_until("the service listens", LONG, async || {
            tokio::net::TcpStream::connect(service.address).await.is_ok()
        })
        .await;
        service
    }

    /// Why another replica does not start.
    pub(crate) async fn another_refused(&self, more: &[(&str, String)]) -> Error {
        let service = spawn(&self.env, &self.keys, self.mails.path(), more);
        tokio::time::timeout(LONG, service.task).await.expect("the service ends").unwrap().unwrap_err()
    }

    /// Somebody at an address where nobody was before.
    pub(crate) fn client(&self) -> Client {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let from = format!("198.{}.{}.{}", 18 + number / 65_536, number / 256 % 256, number % 256);
        Client { server: self.service.address, from, token: None }
    }

    /// Waits for a mail to this address, takes it out of the mailbox and returns its text.
    pub(crate) async fn mail_to(&self, email: &str) -> String {
        let to = format!("To: {email}\r\n");
        wait_until(&format!("a mail to {email}"), LONG, async || self.mail_matching(&to)).await
    }

    fn mail_matching(&self, line: &str) -> Option<String> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.mails.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "eml"))
            .collect();
        // Ids are drawn in the order of time.
        files.sort();
        files.into_iter().find_map(|path| {
            let mail = std::fs::read_to_string(&path).unwrap();
            mail.contains(line).then(|| {
                std::fs::remove_file(&path).unwrap();
                mail
            })
        })
    }

    pub(crate) fn mails_left(&self) -> usize {
        std::fs::read_dir(self.mails.path()).unwrap().count()
    }

    /// Waits until the outbox is empty.
    pub(crate) async fn outbox_is_empty(&self) {
        wait_until("the outbox to be empty", LONG, async || self.count("mails").await == 0).await;
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(&format!("SELECT COUNT(*) FROM {table}")).fetch_one(self.env.pool()).await.unwrap()
    }

    pub(crate) async fn sql(&self, text: &str) {
        sqlx::query(text).execute(self.env.pool()).await.unwrap();
    }

    /// Registers, follows the link in the mail, logs in.
    pub(crate) async fn customer(&self, email: &str) -> Somebody {
        let client = self.client();
        let body = json!({ "email": email, "name": "Anna Bell" });
        client.post("/v1/auth/registrations", body).await.expect(202);
        let token = link_token(&self.mail_to(email).await);
        let body = json!({ "token": token, "password": PASSWORD });
        client.post("/v1/auth/passwords", body).await.expect(204);
        let tokens = client.log_in(email, PASSWORD, None).await.expect(200).json();
        somebody(email, &client, &tokens).await
    }

    /// A member of the staff with a second factor. There is no way yet to make one but `create-admin`, so the role
    /// is set by hand.
    pub(crate) async fn staff(&self, email: &str, role: u8) -> Somebody {
        let mut staff = self.staff_without_second_factor(email, role).await;
        enrol(&mut staff).await;
        staff
    }

    pub(crate) async fn staff_without_second_factor(&self, email: &str, role: u8) -> Somebody {
        let mut somebody = self.customer(email).await;
        sqlx::query("UPDATE users SET role = ? WHERE id = ?")
            .bind(role)
            .bind(uuid_of(&somebody.id))
            .execute(self.env.pool())
            .await
            .unwrap();
        // A new log-in, since a session's role is remembered for two seconds.
        let tokens = somebody.client.log_in(email, PASSWORD, None).await.expect(200).json();
        assert_eq!(tokens["second_factor_missing"], true);
        somebody.client = somebody.client.with_token(tokens["access_token"].as_str().unwrap());
        somebody
    }

    /// Forgets which codes were taken, so that a test need not wait for the next step.
    pub(crate) async fn forget_steps(&self) {
        self.sql("UPDATE users SET totp_step = 0").await;
    }

    pub(crate) fn admin_config(&self, email: &str) -> create_admin::Config {
        let arguments = [
            ("--mysql-url", self.env.service_url("admin-api")),
            ("--public-url", "https://bank.example".to_owned()),
            ("--personal-data-kek-file", text(self.keys.kek.path())),
            ("--personal-index-key-file", text(self.keys.index.path())),
            ("--email", email.to_owned()),
            ("--name", "Ada".to_owned()),
        ];
        let arguments = arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
        AdminCli::parse_from(std::iter::once("create-admin".to_owned()).chain(arguments)).config
    }

    pub(crate) async fn close(self) {
        self.service.stop().await;
        self.env.close().await;
    }
}

impl Service {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.expect("the service stops").unwrap().unwrap();
    }
}

async fn start(env: &Env, keys: &Keys, mails: &Path, more: &[(&str, String)]) -> Service {
    let service = spawn(env, keys, mails, more);
    let ready = Client { server: service.private, from: String::new(), token: None };
    wait_until("the service is ready", LONG, async || {
        assert!(!service.task.is_finished(), "the service ended");
        tokio::net::TcpStream::connect(service.private).await.is_ok()
            && ready.get("/health/ready").await.status == 200
            && tokio::net::TcpStream::connect(service.address).await.is_ok()
    })
    .await;
    service
}

fn spawn(env: &Env, keys: &Keys, mails: &Path, more: &[(&str, String)]) -> Service {
    let (listen, private) = (free_address(), free_address());
    let listen =
        more.iter().find(|(name, _)| *name == "--listen").map_or(listen, |(_, it)| it.parse().unwrap());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port()));
    let mut arguments = vec![
        ("--listen", listen.to_string()),
        ("--insecure-http", "true".to_owned()),
        ("--mysql-url", env.service_url("admin-api")),
        ("--kafka-brokers", env.kafka.kafka_brokers.clone()),
        ("--topic-prefix", env.kafka.topic_prefix.clone()),
        ("--private-listen", private.to_string()),
        ("--public-url", "https://bank.example".to_owned()),
        ("--personal-data-kek-file", text(keys.kek.path())),
        ("--personal-index-key-file", text(keys.index.path())),
        ("--token-key-file", text(keys.token.path())),
        ("--partner-keys-kek-file", text(keys.partners.path())),
        ("--mail-folder", text(mails)),
        ("--trusted-proxies", "127.0.0.0/8".to_owned()),
    ];
    arguments.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    arguments.extend(more.iter().cloned());
    let arguments = arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
    let config = ServeCli::parse_from(std::iter::once("serve".to_owned()).chain(arguments)).config;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(admin_api::run(config, shutdown.clone()));
    Service { address, private, shutdown, task }
}

async fn somebody(email: &str, client: &Client, tokens: &Value) -> Somebody {
    let client = client.with_token(tokens["access_token"].as_str().unwrap());
    let id = client.get("/v1/me").await.expect(200).json()["id"].as_str().unwrap().to_owned();
    Somebody {
        id,
        email: email.to_owned(),
        client,
        refresh_token: tokens["refresh_token"].as_str().unwrap().to_owned(),
        secret: String::new(),
        recovery_codes: Vec::new(),
    }
}

/// Sets up the second factor.
pub(crate) async fn enrol(somebody: &mut Somebody) {
    let begun = somebody.client.post("/v1/me/second-factor", Value::Null).await.expect(200).json();
    begun["secret"].as_str().unwrap().clone_into(&mut somebody.secret);
    let body = json!({ "code": code_at(&somebody.secret, 0) });
    let codes = somebody.client.post("/v1/me/second-factor/confirmation", body).await.expect(200).json();
    let codes = codes["recovery_codes"].as_array().unwrap();
    somebody.recovery_codes = codes.iter().map(|it| it.as_str().unwrap().to_owned()).collect();
}

/// What an authenticator shows so many seconds from now: an implementation of its own (RFC 4226, section 5.3).
pub(crate) fn code_at(secret: &str, seconds: i64) -> String {
    use hmac::{Hmac, Mac};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let step = now.checked_add_signed(seconds).unwrap() / 30;
    let value = |character| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(character).unwrap();
    let bits: Vec<_> = secret.chars().map(|character| format!("{:05b}", value(character))).collect();
    let bits = bits.concat();
    let key: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 2).unwrap())
        .collect();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// The token of the link in a mail.
pub(crate) fn link_token(mail: &str) -> String {
    let link = mail.split("https://bank.example/set-password?token=").nth(1).expect("a link");
    link.split_whitespace().next().unwrap().to_owned()
}

/// The 16 bytes of a TypeID.
pub(crate) fn uuid_of(id: &str) -> Vec<u8> {
    let id: domain::ids::UserId = id.parse().unwrap();
    id.uuid().as_bytes().to_vec()
}

/// The service once more, after it was stopped.
pub(crate) async fn start_again(env: &Env, keys: &Keys, mails: &Path) -> Service {
    start(env, keys, mails, &[]).await
}
