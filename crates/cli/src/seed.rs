//! `wired seed`: staff, a customer and a partner, made as anybody would make them, through the public APIs alone: links in
//! mails, second factors, requests that a second person agrees to, a key that is shown once, a mandate that the customer
//! grants. Only the first two admins need a command on the server, whose links are read from what it prints.
//!
//! What is made is kept in a file at once, and what is asked for again is done once, so a run that was interrupted goes on,
//! and one that finds everything made only says so.

mod sample;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use client::{Client, EndpointRequest, MandateRequest, Options as ClientOptions};
use domain::ids::EndpointId;
use domain::mandate::MandateKind;
use domain::money::Currency;
use domain::scope::Scope;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bank_api::{BankApi, CODE, LogIn, code, text};
use crate::settings::{Settings, explain};
pub(crate) use sample::Sample;
use sample::{ApiKey, Endpoint};

/// A service that was just started needs seconds; a key is known within 5 s.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How long a mail may take.
const MAIL_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long making an admin on the server may take.
const CREATE_ADMIN_PATIENCE: Duration = Duration::from_secs(30);
const PARTNER: &str = "Demo shop";
const CURRENCY: Currency = Currency::EUR;
/// More than one member of the staff may move alone, so that two have to.
const DEPOSIT: &str = "100000.00";

/// Address, name and role of each; the order of the constants below.
const PEOPLE: [(&str, &str, &str); 5] = [
    ("ada@bank.example", "Ada Byron", "admin"),
    ("bea@bank.example", "Bea Novak", "admin"),
    ("otto@bank.example", "Otto Ohm", "operator"),
    ("audrey@bank.example", "Audrey Kim", "auditor"),
    ("anna@example.com", "Anna Bell", "customer"),
];
const ADA: usize = 0;
const BEA: usize = 1;
const OTTO: usize = 2;
const AUDREY: usize = 3;
const ANNA: usize = 4;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where staff and customers reach the bank.
    #[arg(long, env = "WIRED_ADMIN_API_URL")]
    admin_api_url: String,
    /// Where partners reach it.
    #[arg(long, env = "WIRED_INGEST_URL")]
    ingest_url: String,
    /// Where the partner's webhook receiver will listen on this machine.
    #[arg(long, env = "WIRED_WEBHOOK_LISTEN")]
    webhook_listen: SocketAddr,
    /// Where the bank puts mails, as files.
    #[arg(long, env = "WIRED_MAIL_FOLDER")]
    mail_folder: PathBuf,
    /// The command on the server that makes an admin and prints a link; `--email` and `--name` are appended.
    #[arg(long, default_value = "admin-api create-admin")]
    create_admin: String,
    /// Where to keep who was made, with passwords and second factors.
    #[arg(long, default_value = super::log_in::DEFAULT_FILE)]
    log_ins: PathBuf,
    /// Where to keep what the partner needs: address, key, secrets and the mandate.
    #[arg(long, default_value = super::settings::DEFAULT_FILE)]
    partner_env: PathBuf,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let mut seed = Seed {
        settings,
        options,
        bank: BankApi::new(settings, &options.admin_api_url)?,
        sample: Sample::read(&options.log_ins)?,
    };
    seed.wait_until_ready().await?;
    seed.make().await?;
    seed.write_partner_env()?;
    print!("{}", seed.told());
    Ok(ExitCode::SUCCESS)
}

struct Seed<'a> {
    settings: &'a Settings,
    options: &'a Options,
    bank: BankApi,
    sample: Sample,
}

impl Seed<'_> {
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        while let Err(error) = self.bank.get("/v1/health").await {
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Makes what is missing.
    async fn make(&mut self) -> anyhow::Result<()> {
        if self.sample.partner.mandate.is_some() {
            return self.point_endpoint().await;
        }
        let ada = self.person(ADA, None).await?;
        let bea = self.person(BEA, None).await?;
        let staff = Staff { ada: &ada, bea: &bea };
        let otto = self.person(OTTO, Some(&staff)).await?;
        self.person(AUDREY, Some(&staff)).await?;
        let anna = self.person(ANNA, None).await?;
        self.partner(&otto, &staff).await?;
        self.customer_account(&anna, &otto, &staff).await?;
        self.point_endpoint().await?;
        self.mandate(&anna).await
    }

    /// One of [`PEOPLE`], logged in; made when there is none yet, or completed.
    async fn person(&mut self, index: usize, invited_by: Option<&Staff<'_>>) -> anyhow::Result<BankApi> {
        let (email, name, role) = PEOPLE[index];
        let known = self.sample.person(email).cloned();
        let mut person = known.unwrap_or_else(|| LogIn {
            role: role.to_owned(),
            name: name.to_owned(),
            email: email.to_owned(),
            password: Uuid::new_v4().simple().to_string(),
            totp_secret: None,
            complete: false,
        });
        let tokens = match self.bank.log_in(&person).await? {
            Some(tokens) => tokens,
            None if person.complete => {
                bail!("{email} cannot log in as {} says", self.options.log_ins.display())
            }
            None => {
                eprintln!("making {role} {email}");
                let link = self.link(email, name, role, invited_by).await?;
                // Before it counts: whoever is interrupted in between still knows it.
                self.sample.keep(person.clone())?;
                let body = json!({ "token": link, "password": person.password });
                self.bank.post("/v1/auth/passwords", &body).await?;
                self.bank.log_in(&person).await?.context("the new password does not count")?
            }
        };
        let session = self.bank.logged_in(text(&tokens, "access_token")?);
        if tokens["second_factor_missing"] == true {
            let secret = text(&session.post("/v1/me/second-factor", &Value::Null).await?, "secret")?;
            person.totp_secret = Some(secret.clone());
            self.sample.keep(person.clone())?;
            confirm(&session, &secret).await?;
        }
        if !person.complete {
            person.complete = true;
            self.sample.keep(person)?;
        }
        Ok(session)
    }

    /// The token of the link by which somebody sets a password.
    async fn link(
        &self,
        email: &str,
        name: &str,
        role: &str,
        invited_by: Option<&Staff<'_>>,
    ) -> anyhow::Result<String> {
        if role == "customer" {
            // Each registration mails a new link, and the ones before are worthless.
            let before = Mails::now(&self.options.mail_folder);
            self.bank.post("/v1/auth/registrations", &json!({ "email": email, "name": name })).await?;
            return before.link_to(email).await;
        }
        let Some(staff) = invited_by else {
            return create_admin(&self.options.create_admin, email, name).await;
        };
        let reason = "staff of the sample";
        let body = json!({ "email": email, "name": name, "role": role, "reason": reason });
        self.both(staff, "/v1/users/invitations", &body).await?;
        // Invited once, however often this is run: the mail may be there since the last time.
        Mails::none(&self.options.mail_folder).link_to(email).await
    }

    /// One asks, the other one agrees; what was asked for.
    async fn both(&self, staff: &Staff<'_>, path: &str, body: &Value) -> anyhow::Result<Value> {
        let asked = self.once(staff.ada, path, body).await?;
        self.agree(staff.bea, &asked).await?;
        Ok(asked)
    }

    /// A second person agrees to what was asked for.
    async fn agree(&self, by: &BankApi, asked: &Value) -> anyhow::Result<()> {
        let path = format!("/v1/approvals/{}/approve", text(asked, "id")?);
        self.once(by, &path, &json!({ "digest": asked["digest"], "reason": "looked at it" })).await?;
        Ok(())
    }

    async fn once(&self, by: &BankApi, path: &str, body: &Value) -> anyhow::Result<Value> {
        by.post_once(self.sample.key_of(path, body), path, body).await
    }

    /// A live partner with an account and a key.
    async fn partner(&mut self, otto: &BankApi, staff: &Staff<'_>) -> anyhow::Result<()> {
        let reason = "contract of the sample";
        let id = if let Some(id) = self.sample.partner.id.clone() {
            id
        } else {
            eprintln!("making partner {PARTNER}");
            let contact = json!({ "email": "it@shop.example" });
            let body = json!({
                "name": PARTNER, "contact": contact, "requests_per_second": 1_000, "reason": reason
            });
            let id = text(&self.once(otto, "/v1/partners", &body).await?, "id")?;
            self.sample.partner.id = Some(id.clone());
            self.sample.write()?;
            id
        };
        if !self.sample.partner.active {
            self.both(staff, &format!("/v1/partners/{id}/activation"), &json!({ "reason": reason })).await?;
            self.sample.partner.active = true;
            self.sample.write()?;
        }
        if self.sample.partner.account.is_none() {
            let body = json!({ "owner": id, "currency": CURRENCY, "reason": reason });
            let opened = self.once(otto, "/v1/accounts", &body).await?;
            self.sample.partner.account = Some(text(&opened, "target")?);
            self.sample.write()?;
        }
        if self.sample.partner.key.is_none() {
            self.sample.partner.keys_asked += 1;
            self.sample.write()?;
            let reason = format!("key {} of the sample", self.sample.partner.keys_asked);
            let body = json!({ "scopes": Scope::ALL.map(Scope::as_str), "reason": reason });
            let asked = self.both(staff, &format!("/v1/partners/{id}/keys"), &body).await?;
            let key = text(&asked["action"]["partner"]["issue_key"], "key")?;
            let shown = format!("/v1/partners/{id}/keys/{key}/secret");
            let secret = text(&staff.ada.post(&shown, &json!({ "reason": reason })).await?, "secret")?;
            self.sample.partner.key = Some(ApiKey { id: key, secret });
            self.sample.write()?;
        }
        Ok(())
    }

    /// An account with money on it.
    async fn customer_account(
        &mut self,
        anna: &BankApi,
        otto: &BankApi,
        staff: &Staff<'_>,
    ) -> anyhow::Result<()> {
        let account = if let Some(account) = self.sample.partner.customer_account.clone() {
            account
        } else {
            let opened = self.once(anna, "/v1/me/accounts", &json!({ "currency": CURRENCY })).await?;
            let account = text(&opened, "id")?;
            self.sample.partner.customer_account = Some(account.clone());
            self.sample.write()?;
            account
        };
        if !self.sample.partner.funded {
            let reason = "cash desk, receipt 1";
            let body =
                json!({ "account": account, "amount": DEPOSIT, "currency": CURRENCY, "reason": reason });
            let asked = self.once(otto, "/v1/deposits", &body).await?;
            self.agree(staff.ada, &asked).await?;
            self.sample.partner.funded = true;
            self.sample.write()?;
        }
        Ok(())
    }

    fn client(&self) -> anyhow::Result<Client> {
        let key = self.sample.partner.key.as_ref().context("the partner has no key")?;
        let options =
            ClientOptions { authorities_pem: self.settings.authorities()?, ..ClientOptions::default() };
        Ok(Client::with_options(&self.options.ingest_url, &key.id, &key.secret, options)?)
    }

    /// The partner's endpoint: enabled, and at where its receiver listens.
    async fn point_endpoint(&mut self) -> anyhow::Result<()> {
        let (client, url) = (self.client()?, format!("http://{}/webhooks", self.options.webhook_listen));
        client.ready(READY_PATIENCE).await.map_err(explain)?;
        let endpoint = if let Some(endpoint) = self.sample.partner.endpoint.clone() {
            let now = client.endpoint(endpoint.id).await.map_err(explain)?;
            if now.url != url {
                let change = json!({ "url": url });
                client.change_endpoint(endpoint.id, now.version, &change).await.map_err(explain)?;
            }
            if now.status == "disabled" {
                // Nobody listens between two demos, and who does not listen for days is sent nothing more.
                client.enable_endpoint(endpoint.id).await.map_err(explain)?;
            }
            endpoint
        } else {
            let request = EndpointRequest { url, event_types: None, description: None, ed25519: false };
            let key = self.sample.key_of("/v1/endpoints", &Value::Null).to_string();
            let made = client.create_endpoint(&request, &key).await.map_err(explain)?;
            let secret = match made.secret {
                Some(secret) => secret,
                // It was shown to the run that was interrupted.
                None => new_secret(&client, made.id).await?,
            };
            Endpoint { id: made.id, secret }
        };
        self.sample.partner.endpoint = Some(endpoint);
        self.sample.write()
    }

    /// A mandate that the partner asks for and the customer grants.
    async fn mandate(&mut self, anna: &BankApi) -> anyhow::Result<()> {
        let request = MandateRequest::new(MandateKind::Standing, CURRENCY);
        let asked =
            self.client()?.request_mandate(&request, &Uuid::new_v4().to_string()).await.map_err(explain)?;
        let code = asked.code.context("the bank did not tell the code of the request")?;
        let body = json!({ "account": self.sample.partner.customer_account });
        self.once(anna, &format!("/v1/me/mandate-requests/{code}/grant"), &body).await?;
        self.sample.partner.mandate = Some(asked.view.id);
        self.sample.write()
    }

    fn write_partner_env(&self) -> anyhow::Result<()> {
        let partner = &self.sample.partner;
        let (Some(id), Some(key), Some(endpoint), Some(mandate)) =
            (&partner.id, &partner.key, &partner.endpoint, &partner.mandate)
        else {
            bail!("the partner is not complete: run `wired seed` again");
        };
        let mut lines = String::from("# The sample partner; written by `wired seed`.\n");
        for (name, value) in [
            ("WIRED_URL", &self.options.ingest_url),
            ("WIRED_PARTNER", id),
            ("WIRED_KEY_ID", &key.id),
            ("WIRED_KEY_SECRET", &key.secret),
            ("WIRED_MANDATE", &mandate.to_string()),
            ("WIRED_WEBHOOK_LISTEN", &self.options.webhook_listen.to_string()),
            ("WIRED_WEBHOOK_SECRET", &endpoint.secret),
        ] {
            if value.contains(['\'', '\n']) {
                bail!("{name} has a character that no shell reads back");
            }
            let _ = writeln!(lines, "{name}='{value}'");
        }
        sample::write_private(&self.options.partner_env, lines.as_bytes())
    }

    fn told(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "log-ins at {} (kept in {}):",
            self.options.admin_api_url,
            from_here(&self.options.log_ins).display()
        );
        for LogIn { role, email, password, totp_secret, .. } in &self.sample.people {
            let factor = totp_secret.as_ref().map(|it| format!("  authenticator {it}")).unwrap_or_default();
            let _ = writeln!(text, "  {role:<9} {email:<20} password {password}{factor}");
        }
        let id = self.sample.partner.id.as_deref().unwrap_or_default();
        let _ = writeln!(text, "partner {id}, see {}\n", from_here(&self.options.partner_env).display());
        text
    }
}

/// A path as it is shown: without the folder in which the caller stands.
fn from_here(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}

/// The two without whom nothing important happens.
struct Staff<'a> {
    ada: &'a BankApi,
    bea: &'a BankApi,
}

/// Confirms a second factor by the code of the half minute before, which still counts: a code counts once, and so the first
/// log-in need not wait for the next one.
async fn confirm(session: &BankApi, secret: &str) -> anyhow::Result<()> {
    const PATH: &str = "/v1/me/second-factor/confirmation";
    let at = |time: SystemTime| anyhow::Ok(json!({ "code": code(secret, time)? }));
    let now = SystemTime::now();
    if session.post(PATH, &at(now - CODE)?).await.is_err() {
        // The half minute ended meanwhile.
        session.post(PATH, &at(SystemTime::now())?).await?;
    }
    Ok(())
}

async fn new_secret(client: &Client, endpoint: EndpointId) -> anyhow::Result<String> {
    let key = Uuid::new_v4().to_string();
    let made = client.rotate_secret(endpoint, Duration::ZERO, &key).await.map_err(explain)?;
    made.secret.context("the bank did not tell the endpoint's secret")
}

/// The token of the link that the command on the server prints.
async fn create_admin(command: &str, email: &str, name: &str) -> anyhow::Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("--create-admin names no command")?;
    let running = tokio::process::Command::new(program)
        .args(words)
        .args(["--email", email, "--name", name])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(CREATE_ADMIN_PATIENCE, running).await;
    let output =
        ended.context("making an admin took too long")?.with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        bail!(
            "`{command} --email {email}` failed: {}; where admins exist, let them make others",
            output.status
        );
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    token(&printed).with_context(|| format!("`{command}` printed no link"))
}

fn token(text: &str) -> Option<String> {
    let rest = text.split("/set-password?token=").nth(1)?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// The mails that are there, to know those that come.
struct Mails<'a> {
    folder: &'a Path,
    known: HashSet<PathBuf>,
}

impl<'a> Mails<'a> {
    /// All count as new.
    fn none(folder: &'a Path) -> Self {
        Self { folder, known: HashSet::new() }
    }

    fn now(folder: &'a Path) -> Self {
        Self { folder, known: files(folder).collect() }
    }

    /// Waits for a new mail to this address; the token of its link.
    async fn link_to(&self, email: &str) -> anyhow::Result<String> {
        let (to, deadline) = (format!("To: {email}\r\n"), Instant::now() + MAIL_PATIENCE);
        loop {
            let new = files(self.folder).filter(|path| !self.known.contains(path));
            let mails = new.filter_map(|path| fs::read_to_string(path).ok());
            if let Some(token) = mails.filter(|mail| mail.contains(&to)).find_map(|mail| token(&mail)) {
                return Ok(token);
            }
            if Instant::now() >= deadline {
                bail!("no mail to {email} came into {}", self.folder.display());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// The mails of a folder; none before the first one.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "eml"))
}
