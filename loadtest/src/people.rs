//! Customers and staff of a bank under test, who use admin-api as anybody would: mails with links, log-ins, second
//! factors, requests with a token.
//!
//! Every request has a connection of its own and names the address that it pretends to come from, since a system's
//! admin-api believes loopback as a proxy: so no test meets another one's throttles. Every wait has a bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::system::{Service, System};

/// How long an answer may take: a log-in may wait for others' hashes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a mail may take.
const MAIL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to look for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// What `users.role` says of a member of the staff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs the bank.
    Operator = 2,
    /// Reads everything.
    Auditor = 3,
    /// Runs the bank, its partners and its staff.
    Admin = 4,
}

/// The people of a system, who ask its first admin-api.
#[derive(Debug)]
pub struct People<'a> {
    system: &'a System,
    mails: PathBuf,
    clients: AtomicU32,
}

/// A client of admin-api at an address of its own, with or without a token.
#[derive(Debug, Clone)]
pub struct Client {
    server: SocketAddr,
    from: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

/// Somebody who is logged in, with everything that must never show anywhere.
#[derive(Debug, Clone)]
pub struct Person {
    /// `usr_…`.
    pub id: String,
    /// The address.
    pub email: String,
    /// The password.
    pub password: String,
    /// Asks with the access token.
    pub client: Client,
    /// The access token.
    pub access_token: String,
    /// Continues the session.
    pub refresh_token: String,
    /// The token of the link by which the password was set.
    pub link_token: String,
    /// The secret of the authenticator, base32; empty without a second factor.
    pub totp_secret: String,
    /// Stand in for the authenticator.
    pub recovery_codes: Vec<String>,
}

impl Answer {
    /// The body; null when it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The `code` of a problem; empty for any other body.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer, if it is this status.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        if self.status != status {
            bail!("{} came where {status} was due: {}", self.status, self.body);
        }
        Ok(self)
    }

    /// A text of the body.
    pub fn text(&self, name: &str) -> anyhow::Result<String> {
        let text = self.json()[name].as_str().map(str::to_owned);
        text.with_context(|| format!("an answer has no {name}: {}", self.body))
    }
}

impl Client {
    /// Without a body.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, &[], None).await
    }

    /// With a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send("POST", path, &[], Some(body)).await
    }

    /// With an idempotency key, as everything that moves money wants one.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send("POST", path, &[("idempotency-key", key)], Some(body)).await
    }

    /// Any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.server.to_string())
            .header("x-forwarded-for", &self.from);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let asked = async {
            let stream = tokio::net::TcpStream::connect(self.server).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            connection.abort();
            let (status, body) = (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned());
            anyhow::Ok(Answer { status, headers: head.headers, body })
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        answered.with_context(|| format!("{method} {path} was not answered in time"))?
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client at another address.
    #[must_use]
    pub fn coming_from(&self, address: &str) -> Self {
        Self { from: address.to_owned(), ..self.clone() }
    }

    /// Tries to log in.
    pub async fn log_in(&self, email: &str, password: &str, code: Option<&str>) -> anyhow::Result<Answer> {
        let mut body = json!({ "email": email, "password": password });
        if let Some(code) = code {
            body["code"] = json!(code);
        }
        self.post("/v1/auth/login", &body).await
    }
}

impl<'a> People<'a> {
    /// The people of a system that has an admin-api.
    pub fn of(system: &'a System) -> Self {
        Self { system, mails: system.folder().join("mails"), clients: AtomicU32::new(1) }
    }

    /// Somebody at an address where nobody was before.
    pub fn client(&self) -> anyhow::Result<Client> {
        let url = self.system.public_url(Service::AdminApi, 0);
        let server = url.trim_start_matches("http://").parse().context("the system has no admin-api")?;
        // 198.18.0.0/15 is for benchmarks (RFC 2544): nobody's.
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let from = format!("198.{}.{}.{}", 18 + number / 65_536 % 2, number / 256 % 256, number % 256);
        Ok(Client { server, from, token: None })
    }

    /// Registers, follows the link in the mail, logs in.
    pub async fn customer(&self, email: &str, name: &str, password: &str) -> anyhow::Result<Person> {
        let client = self.client()?;
        let body = json!({ "email": email, "name": name });
        client.post("/v1/auth/registrations", &body).await?.expect(202)?;
        let link_token = self.link_token(email).await?;
        self.with_password(client, email, password, link_token).await
    }

    /// One of the first two admins, made by the command on the server, with a second factor.
    pub async fn first_admin(&self, email: &str, name: &str, password: &str) -> anyhow::Result<Person> {
        let arguments = ["create-admin".to_owned(), format!("--email={email}"), format!("--name={name}")];
        let printed = self.system.admin_command(&arguments).await?;
        let link = printed.split("token=").nth(1).context("create-admin printed no link")?;
        let link_token = link.split_whitespace().next().unwrap_or_default().to_owned();
        let mut admin = self.with_password(self.client()?, email, password, link_token).await?;
        enrol(&mut admin).await?;
        Ok(admin)
    }

    /// A member of the staff with a second factor. The role is set by hand: making staff takes two admins.
    pub async fn staff(&self, role: Role, email: &str, password: &str) -> anyhow::Result<Person> {
        let customer = self.customer(email, "Ada Byron", password).await?;
        let id: domain::ids::UserId = customer.id.parse().context("the id of a user")?;
        sqlx::query("UPDATE users SET role = ? WHERE id = ?")
            .bind(role as u8)
            .bind(id.uuid().as_bytes().as_slice())
            .execute(self.system.pool())
            .await?;
        // A session's role is remembered for two seconds, so another session.
        let mut staff = logged_in(customer.client.clone(), email, password, None).await?;
        staff.link_token = customer.link_token;
        enrol(&mut staff).await?;
        Ok(staff)
    }

    /// Waits for a mail to this address and takes it out of the mailbox.
    pub async fn mail_to(&self, email: &str) -> anyhow::Result<String> {
        let (to, deadline) = (format!("To: {email}\r\n"), Instant::now() + MAIL_TIMEOUT);
        loop {
            if let Some(mail) = self.take_mail(&to) {
                return Ok(mail);
            }
            if Instant::now() >= deadline {
                bail!("no mail to {email} within {MAIL_TIMEOUT:?}");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn take_mail(&self, line: &str) -> Option<String> {
        // Before the first mail there is no folder.
        let files = std::fs::read_dir(&self.mails).ok()?;
        let mut files: Vec<_> = files.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|it| it == "eml"));
        // Ids are drawn in the order of time.
        files.sort();
        files.into_iter().find_map(|path| {
            let mail = std::fs::read_to_string(&path).ok()?;
            (mail.contains(line) && std::fs::remove_file(&path).is_ok()).then_some(mail)
        })
    }

    async fn link_token(&self, email: &str) -> anyhow::Result<String> {
        let mail = self.mail_to(email).await?;
        let link = mail.split("/set-password?token=").nth(1).context("a mail without a link")?;
        Ok(link.split_whitespace().next().unwrap_or_default().to_owned())
    }

    async fn with_password(
        &self,
        client: Client,
        email: &str,
        password: &str,
        link_token: String,
    ) -> anyhow::Result<Person> {
        let body = json!({ "token": link_token, "password": password });
        client.post("/v1/auth/passwords", &body).await?.expect(204)?;
        let mut person = logged_in(client, email, password, None).await?;
        person.link_token = link_token;
        Ok(person)
    }
}

impl Person {
    /// Logs in once more, staff with a code that was not used yet.
    pub async fn again(&mut self) -> anyhow::Result<()> {
        let mut code = None;
        if !self.totp_secret.is_empty() {
            code = Some(self.recovery_codes.pop().context("no recovery code is left")?);
        }
        let again = logged_in(self.client.clone(), &self.email, &self.password, code.as_deref()).await?;
        self.client = again.client;
        (self.access_token, self.refresh_token) = (again.access_token, again.refresh_token);
        Ok(())
    }
}

async fn logged_in(
    client: Client,
    email: &str,
    password: &str,
    code: Option<&str>,
) -> anyhow::Result<Person> {
    let tokens = client.log_in(email, password, code).await?.expect(200)?;
    let access_token = tokens.text("access_token")?;
    let client = client.with_token(&access_token);
    let id = client.get("/v1/me").await?.expect(200)?.text("id")?;
    Ok(Person {
        id,
        email: email.to_owned(),
        password: password.to_owned(),
        client,
        access_token,
        refresh_token: tokens.text("refresh_token")?,
        link_token: String::new(),
        totp_secret: String::new(),
        recovery_codes: Vec::new(),
    })
}

/// Sets up the second factor.
async fn enrol(person: &mut Person) -> anyhow::Result<()> {
    let begun = person.client.post("/v1/me/second-factor", &Value::Null).await?.expect(200)?;
    person.totp_secret = begun.text("secret")?;
    let body = json!({ "code": totp_code(&person.totp_secret, SystemTime::now())? });
    let confirmed = person.client.post("/v1/me/second-factor/confirmation", &body).await?.expect(200)?;
    let codes = confirmed.json()["recovery_codes"].as_array().cloned().unwrap_or_default();
    person.recovery_codes = codes.iter().filter_map(|code| code.as_str().map(str::to_owned)).collect();
    Ok(())
}

/// What an authenticator shows at a time, from its secret in base32.
fn totp_code(secret: &str, at: SystemTime) -> anyhow::Result<String> {
    let secret = Secret::try_from_base32(secret).context("a secret is no base32")?;
    let totp = Builder::new().with_secret(secret).build()?;
    Ok(totp.generate(at.duration_since(UNIX_EPOCH)?.as_secs()).to_string())
}
