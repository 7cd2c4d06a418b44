//! Staff and customers at the bank's API: requests with a token, and log-ins with the second factor.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};
use url::Url;
use uuid::Uuid;

use crate::settings::Settings;

/// How long an answer may take: passwords are hashed one after the other, and commands wait for the ledger.
const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the ledger may take, beyond what an answer waits for it.
const DECISION_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an authenticator shows a code.
pub(crate) const CODE: Duration = Duration::from_secs(30);

/// Whoever asks, with or without a token.
#[derive(Clone)]
pub(crate) struct BankApi {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// What somebody logs in with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogIn {
    pub(crate) role: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) password: String,
    /// What the authenticator holds, in base32; staff have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) totp_secret: Option<String>,
    /// Whether all of this counts; if not, seeding was interrupted.
    pub(crate) complete: bool,
}

impl BankApi {
    /// The bank at `url`, for nobody yet.
    pub(crate) fn new(settings: &Settings, url: &str) -> anyhow::Result<Self> {
        let base = Url::parse(url).with_context(|| format!("WIRED_ADMIN_API_URL `{url}` is no URL"))?;
        let http = client::http_client(CONNECT_TIMEOUT, settings.authorities()?.as_deref())?;
        Ok(Self { http, base, token: None })
    }

    /// The same bank, as somebody who has logged in.
    pub(crate) fn logged_in(&self, token: String) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        done(path, self.send(Method::GET, path, None, None).await?)
    }

    /// Asks for something that may be asked for again.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        done(path, self.send(Method::POST, path, None, Some(body)).await?)
    }

    /// Has something done once, however often it is asked for under this key, and waits until the ledger has decided it.
    pub(crate) async fn post_once(&self, key: Uuid, path: &str, body: &Value) -> anyhow::Result<Value> {
        let deadline = Instant::now() + DECISION_PATIENCE;
        loop {
            let answer = done(path, self.send(Method::POST, path, Some(key), Some(body)).await?)?;
            // A command, or a request that somebody agreed to with its command.
            let command = if answer["digest"].is_null() { &answer } else { &answer["command"] };
            match command["status"].as_str() {
                Some("pending") if command["kind"].is_string() && Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                Some(status @ ("pending" | "rejected" | "under_review")) if command["kind"].is_string() => {
                    bail!(
                        "{path} is {status} {}: is the processor running (`make status`)?",
                        command["reason"]
                    )
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<Uuid>,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, self.base.join(path)?).timeout(TIMEOUT);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key.to_string());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable =
            || format!("the bank does not answer at {}: is admin-api running (`make status`)?", self.base);
        let answer = request.send().await.with_context(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.with_context(unreachable)?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Logs somebody in: tokens, of which the access token counts for ten minutes; nothing when the bank knows nobody with this
    /// address, password and second factor.
    pub(crate) async fn log_in(&self, who: &LogIn) -> anyhow::Result<Option<Value>> {
        const PATH: &str = "/v1/auth/login";
        let mut body = json!({ "email": who.email, "password": who.password });
        let (mut status, mut answer) = self.send(Method::POST, PATH, None, Some(&body)).await?;
        if let (Some("code_missing"), Some(secret)) = (answer["code"].as_str(), &who.totp_secret) {
            body["code"] = json!(code(secret, SystemTime::now())?);
            (status, answer) = self.send(Method::POST, PATH, None, Some(&body)).await?;
            if status == StatusCode::UNAUTHORIZED {
                // A code counts once: whoever logs in twice within its half minute waits for the next.
                tokio::time::sleep(until_next_code()).await;
                body["code"] = json!(code(secret, SystemTime::now())?);
                (status, answer) = self.send(Method::POST, PATH, None, Some(&body)).await?;
            }
        }
        if status == StatusCode::UNAUTHORIZED { Ok(None) } else { done(PATH, (status, answer)).map(Some) }
    }
}

/// The body of an answer, or what the problem says.
fn done(path: &str, (status, body): (StatusCode, Value)) -> anyhow::Result<Value> {
    if !status.is_success() {
        let detail = body["detail"].as_str().or(body["title"].as_str()).unwrap_or_default();
        let reason = body["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
        bail!("{path} was answered {status}: {detail}{reason}; {}", body["errors"]);
    }
    Ok(body)
}

/// A text of an answer.
pub(crate) fn text(answer: &Value, name: &str) -> anyhow::Result<String> {
    let text = answer[name].as_str().map(str::to_owned);
    text.with_context(|| format!("an answer of the bank has no `{name}`"))
}

/// What an authenticator shows at a time.
pub(crate) fn code(secret: &str, at: SystemTime) -> anyhow::Result<String> {
    let secret = Secret::try_from_base32(secret).context("the secret of an authenticator is no base32")?;
    let totp = Builder::new().with_secret(secret).build()?;
    Ok(totp.generate(at.duration_since(UNIX_EPOCH)?.as_secs()).to_string())
}

fn until_next_code() -> Duration {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(CODE.as_secs() - since_1970.as_secs() % CODE.as_secs())
}
