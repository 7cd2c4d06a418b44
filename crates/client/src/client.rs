//! The client: one signed request after the other over kept connections.
//!
//! Each attempt is signed anew, because `created` must be near the bank's clock; the idempotency key stays. An
//! answer's body is read to at most [`BODY_BYTES_MAX`].

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use domain::{
    http_signature::{self, RequestParts, content_digest},
    ids::{KeyId, PaymentId},
    payment::PaymentView,
    secret::HmacKey,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use url::Url;

use crate::{Accepted, ConfigError, Error, PaymentRequest, Problem, Retries};

/// The largest answer that is read: a full page of any list is far smaller.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Beyond `Prefer: wait`, so that the bank's own time-outs answer first.
const WAIT_SLACK: Duration = Duration::from_secs(5);

/// Where the bank tells how it understood a signature; so often from one address.
const ECHO: &str = "/v1/sandbox/echo";
const READY_INTERVAL: Duration = Duration::from_millis(250);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long an answer may take, beyond what `Prefer: wait` asks for. Default 10 s; too low gives up on requests
    /// that the bank then carries out, too high lets a broken connection hold the caller.
    pub timeout: Duration,
    /// How long making a connection may take. Default 3 s.
    pub connect_timeout: Duration,
    /// How failures are repeated.
    pub retries: Retries,
    /// Certificates in PEM of the authorities that may vouch for the bank, instead of those that this machine trusts.
    /// Default: none, so the machine's.
    pub authorities_pem: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            retries: Retries::default(),
            authorities_pem: None,
        }
    }
}

/// What a single request may set.
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    /// `Idempotency-Key`; a random one is drawn for a method that needs it and has none.
    pub idempotency_key: Option<String>,
    /// `Prefer: wait`: how long the bank may hold the answer until the outcome is known; whole seconds, at most 10.
    pub wait: Option<Duration>,
    /// Further header fields; a field named here wins over the client's own, except for the signature.
    pub headers: HeaderMap,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Reads the body, or the problem when the status is not 2xx.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if !(200..300).contains(&self.status) {
            return Err(self.error());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Unexpected { status: self.status, reason: error.to_string() })
    }

    /// The error that an answer other than 2xx stands for.
    pub fn error(&self) -> Error {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(mut problem) => {
                problem.status = self.status;
                problem.retry_after = self.retry_after();
                Error::Problem(Box::new(problem))
            }
            Err(_) => {
                Error::Unexpected { status: self.status, reason: "its body is no problem document".into() }
            }
        }
    }

    /// `Retry-After` in seconds; the bank never sends a date.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// A partner's connection to the bank; cheap to clone, all clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    identity: Arc<Identity>,
}

#[derive(Debug)]
struct Identity {
    base: Url,
    authority: String,
    key_id: String,
    key: HmacKey,
    options: Options,
}

impl Client {
    /// A client for the bank at `base_url` with a key's id and base64 secret.
    pub fn new(base_url: &str, key_id: &str, secret: &str) -> Result<Self, ConfigError> {
        Self::with_options(base_url, key_id, secret, Options::default())
    }

    /// As [`Self::new`], with other time-outs and retries.
    pub fn with_options(
        base_url: &str,
        key_id: &str,
        secret: &str,
        options: Options,
    ) -> Result<Self, ConfigError> {
        let (base, authority) = parse_base(base_url)?;
        if key_id.parse::<KeyId>().is_err() {
            return Err(ConfigError::KeyId(key_id.to_owned()));
        }
        let key = HmacKey::from_base64(secret)?;
        let http = http_client(options.connect_timeout, options.authorities_pem.as_deref())?;
        let identity = Identity { base, authority, key_id: key_id.to_owned(), key, options };
        Ok(Self { http, identity: Arc::new(identity) })
    }

    /// Where the bank is.
    pub fn base_url(&self) -> &Url {
        &self.identity.base
    }

    /// Posts a payment. With `wait` the bank answers when the outcome is known, or after that time.
    ///
    /// The same idempotency key with the same request is the same payment, however often it is sent.
    pub async fn pay(
        &self,
        request: &PaymentRequest,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        self.move_money("/v1/payments", request, idempotency_key, wait).await
    }

    /// A payment as it stands. `status_url` from the answer to [`Self::pay`] is known to the bank from the first
    /// moment; the mere id ([`Self::payment_by_id`]) only once the payment is decided.
    pub async fn payment(&self, status_url: &str) -> Result<PaymentView, Error> {
        self.get(status_url).await
    }

    /// A decided payment.
    pub async fn payment_by_id(&self, id: PaymentId) -> Result<PaymentView, Error> {
        self.get(&format!("/v1/payments/{id}")).await
    }

    /// The partner's own accounts.
    pub async fn balances(&self) -> Result<serde_json::Value, Error> {
        self.get("/v1/balances").await
    }

    /// Asks how the bank understood this client's signature; moves nothing.
    pub async fn echo(&self, body: &serde_json::Value) -> Result<serde_json::Value, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Request(error.to_string()))?;
        let sent = self.request(Method::POST, ECHO, Some(body.into()), SendOptions::default());
        sent.await?.json()
    }

    /// Waits until the bank accepts this key's signatures: a new key is known within 5 s, and a bank that has just
    /// been started may not listen yet. Gives the last error when that takes longer than `patience`.
    pub async fn ready(&self, patience: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let Err(error) = self.try_ready().await else { return Ok(()) };
            let may_pass = error.is("signature_invalid")
                || matches!(error, Error::Unreachable { .. } | Error::NoAnswer { .. })
                || error.problem().is_some_and(|problem| matches!(problem.status, 429 | 503));
            if !may_pass || tokio::time::Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    /// `/v1/sandbox/echo` answers whatever the signature is worth, and says what another route would have said.
    async fn try_ready(&self) -> Result<(), Error> {
        #[derive(serde::Deserialize)]
        struct Echo {
            verified: bool,
            problem: Option<Problem>,
        }
        let body = Bytes::from_static(b"{}");
        let answer = self.request(Method::POST, ECHO, Some(body), SendOptions::default()).await?;
        let echo: Echo = answer.json()?;
        match echo.problem {
            _ if echo.verified => Ok(()),
            Some(problem) => Err(Error::Problem(Box::new(problem))),
            None => Err(Error::Unexpected { status: answer.status, reason: "it says not why".to_owned() }),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.request(Method::GET, path, None, SendOptions::default()).await?.json()
    }

    /// Signs and sends any request. `target` is a path with its query, or a URL of this bank.
    ///
    /// Passing failures are repeated; every other answer, problems included, is given as it came.
    pub async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<Bytes>,
        options: SendOptions,
    ) -> Result<Answer, Error> {
        let url = self.resolve(target)?;
        let headers = Self::headers(&method, body.as_deref(), &options)?;
        let timeout =
            self.identity.options.timeout + options.wait.map_or(Duration::ZERO, |wait| wait + WAIT_SLACK);
        let mut repeated = 0;
        loop {
            let sent = self.attempt(&method, &url, &headers, body.as_ref(), timeout).await;
            let error = match &sent {
                Ok(answer) if matches!(answer.status, 429 | 503) => &answer.error(),
                Ok(_) => return sent,
                Err(error) => error,
            };
            let Some(pause) = self.identity.options.retries.pause_after(error, repeated) else { return sent };
            tokio::time::sleep(pause).await;
            repeated += 1;
        }
    }

    /// A URL of the bank and of nobody else, so that no signature leaves for another host.
    fn resolve(&self, target: &str) -> Result<Url, Error> {
        let base = &self.identity.base;
        let url = base.join(target).map_err(|error| Error::Request(format!("`{target}`: {error}")))?;
        if url.origin() != base.origin() {
            return Err(Error::Request(format!("`{target}` is not at {base}")));
        }
        Ok(url)
    }

    fn headers(method: &Method, body: Option<&[u8]>, options: &SendOptions) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::with_capacity(12);
        if let Some(body) = body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert("content-digest", content_digest::header_value(body));
        }
        if let Some(key) = &options.idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, text("the idempotency key", key)?);
        } else if !method.is_safe() && !options.headers.contains_key(&IDEMPOTENCY_KEY) {
            headers.insert(IDEMPOTENCY_KEY, text("the idempotency key", &random_key())?);
        }
        if let Some(wait) = options.wait {
            headers.insert(PREFER, text("the time to wait", &format!("wait={}", wait.as_secs().max(1)))?);
        }
        for (name, value) in &options.headers {
            headers.insert(name, value.clone());
        }
        Ok(headers)
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&Bytes>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let Identity { authority, key_id, key, .. } = &*self.identity;
        let parts = RequestParts {
            method,
            authority,
            path: url.path(),
            query: url.query(),
            headers,
            has_body: body.is_some_and(|body| !body.is_empty()),
        };
        let signature = http_signature::sign(&parts, key_id, key, now_seconds(), None)
            .map_err(|error| Error::Request(error.to_string()))?;
        let mut request = reqwest::Request::new(method.clone(), url.clone());
        request.headers_mut().clone_from(headers);
        signature.insert_into(request.headers_mut());
        *request.body_mut() = body.map(|body| body.clone().into());
        *request.timeout_mut() = Some(timeout);
        let sent = self.http.execute(request).await.map_err(|error| failure(url, &error))?;
        read(sent).await.map_err(|error| failure(url, &error))
    }
}

async fn read(mut response: reqwest::Response) -> reqwest::Result<Answer> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let first = response.chunk().await?.unwrap_or_default();
    let Some(second) = response.chunk().await? else { return Ok(Answer { status, headers, body: first }) };
    let mut body = BytesMut::from(first);
    body.extend_from_slice(&second);
    while body.len() < BODY_BYTES_MAX
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

fn parse_base(text: &str) -> Result<(Url, String), ConfigError> {
    let refused = |problem: &str| ConfigError::BaseUrl { url: text.to_owned(), problem: problem.to_owned() };
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("the scheme must be http or https"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it must have no path, query or fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it must hold no user and no password"));
    }
    let host = url.host_str().ok_or_else(|| refused("it names no host"))?;
    // `Url` drops a scheme's default port, as RFC 9421 (2.2.3) wants it for `@authority`.
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok((url, authority))
}

/// What speaks HTTP with the bank: with nobody between, without following it elsewhere, believing the authorities of
/// these certificates in PEM or, without them, those that this machine trusts.
pub fn http_client(
    connect_timeout: Duration,
    authorities_pem: Option<&[u8]>,
) -> Result<reqwest::Client, ConfigError> {
    // An error means that the program has chosen a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(1024);
    if let Some(pem) = authorities_pem {
        http = http.tls_certs_only(authorities(pem)?);
    }
    http.build().map_err(ConfigError::Http)
}

fn authorities(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, ConfigError> {
    let authorities = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
    if authorities.is_empty() { Err(ConfigError::Authorities) } else { Ok(authorities) }
}

fn text(what: &str, value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(value).map_err(|_| Error::Request(format!("{what} must be visible ASCII")))
}

fn failure(url: &Url, error: &reqwest::Error) -> Error {
    let url = url.origin().ascii_serialization();
    if error.is_timeout() && !error.is_connect() {
        return Error::NoAnswer { url, reason: "it took too long".to_owned() };
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let reason = innermost.to_string();
    if error.is_connect() { Error::Unreachable { url, reason } } else { Error::NoAnswer { url, reason } }
}

fn now_seconds() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |elapsed| elapsed.as_secs() as i64)
}

/// An idempotency key that nobody else draws.
fn random_key() -> String {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => URL_SAFE_NO_PAD.encode(bytes),
        // Without randomness a clock in nanoseconds and the process still make a key of its own.
        Err(_) => format!("{:?}-{}", std::time::SystemTime::now(), std::process::id()).replace(' ', ""),
    }
}

#[cfg(test)]
mod tests;
