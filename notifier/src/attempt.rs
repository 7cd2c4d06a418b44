//! One HTTP request of a delivery, bounded in time and bytes.
//!
//! Success is a 2xx whose body (up to [`ANSWER_BYTES_MAX`]) arrived within [`ATTEMPT_TIMEOUT`]. Redirects are not
//! followed. Nothing of the request or its signature is logged.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use domain::time::Timestamp;
use domain::webhook::{ID_HEADER, SIGNATURE_HEADER, SigningKeys, TIMESTAMP_HEADER};
use http::header::{CONTENT_TYPE, DATE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method};
use reqwest::{Client, Request, Response};

use crate::clock;
use crate::endpoints::Endpoint;
use crate::resolver::{GuardedResolver, Lookup, ResolveError};
use crate::schedule;
use domain::endpoint_url::{Loopback, Refusal};

/// How long a receiver may take for the whole answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long connecting may take, of [`ATTEMPT_TIMEOUT`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer's body is read.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How much of a failure's body is kept.
pub const EXCERPT_BYTES_MAX: usize = 1024;
/// The largest body that is sent.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Below the 5 s after which common servers close idle connections: a request sent into a closing one fails.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("WiredCity-Webhooks/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why an attempt failed: the words of `attempts.error_class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The name has no address.
    Dns,
    /// No connection.
    Connect,
    /// No TLS session, or an untrusted certificate.
    Tls,
    /// No complete answer in time.
    Timeout,
    /// The URL or every address of its name is forbidden.
    RefusedByGuard,
    /// A 3xx, which is not followed.
    Redirect,
    /// Any other status than 2xx.
    Status,
    /// The answer's body broke off.
    Body,
    /// A 2xx with a body beyond [`ANSWER_BYTES_MAX`]: a remark, since the status decides.
    BodyTooLong,
    /// The connection broke before an answer.
    Interrupted,
    /// The body would be larger than [`BODY_BYTES_MAX`].
    TooLarge,
    /// The event is no longer stored.
    EventMissing,
}

impl ErrorClass {
    /// Whether nothing was sent because of what the event is: another attempt would end the same.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::TooLarge | Self::EventMissing)
    }

    /// The word in the database and the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::RefusedByGuard => "refused_by_guard",
            Self::Redirect => "redirect",
            Self::Status => "status",
            Self::Body => "body",
            Self::BodyTooLong => "body_too_long",
            Self::Interrupted => "interrupted",
            Self::TooLarge => "too_large",
            Self::EventMissing => "event_missing",
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The answer, when there was one.
    pub answer: Option<Answer>,
    /// `None` for a success.
    pub failure: Option<Failure>,
}

impl Attempt {
    /// One that was never made.
    pub fn unmade(class: ErrorClass) -> Self {
        Self {
            started_at: clock::now(),
            duration: Duration::ZERO,
            answer: None,
            failure: Some(Failure::of(class)),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> Option<u16> {
        self.answer.map(|answer| answer.status)
    }

    /// What is to be said of it: why it failed, or what was odd about a success.
    pub fn class(&self) -> Option<ErrorClass> {
        match &self.failure {
            Some(failure) => Some(failure.class),
            None => self.answer.filter(|answer| answer.is_too_long).map(|_| ErrorClass::BodyTooLong),
        }
    }
}

/// What an answer says besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// By how much the receiver's clock is ahead of ours, in seconds, by its `Date`.
    pub clock_skew_s: Option<i32>,
    /// More of it came than is read.
    pub is_too_long: bool,
}

/// What is known of a failure.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its class.
    pub class: ErrorClass,
    /// The beginning of the answer's body.
    pub excerpt: Option<Vec<u8>>,
    /// What the receiver asked for.
    pub retry_after: Option<Duration>,
    /// The rule of a [`ErrorClass::RefusedByGuard`].
    pub refused_by: Option<Refusal>,
}

impl Failure {
    /// A failure without an answer.
    pub const fn of(class: ErrorClass) -> Self {
        Self { class, excerpt: None, retry_after: None, refused_by: None }
    }

    /// Nothing was sent.
    fn refused(rule: Refusal) -> Self {
        Self { refused_by: Some(rule), ..Self::of(ErrorClass::RefusedByGuard) }
    }
}

/// The one HTTP client of the process.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
}

impl Sender {
    /// A client that keeps connections, follows nothing, uses no proxy and connects to allowed addresses only.
    pub fn new(lookup: Arc<dyn Lookup>, loopback: Loopback, idle_max: usize) -> Result<Self, reqwest::Error> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .dns_resolver(Arc::new(GuardedResolver::new(lookup, loopback)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle_max)
            .build()?;
        Ok(Self { client })
    }

    /// Signs with all live keys, now, and posts; waits for the answer.
    pub async fn attempt(&self, endpoint: &Endpoint, id: &str, body: Bytes) -> Attempt {
        // Lanes hold back endpoints whose secrets cannot be opened, so there are keys.
        let Some(keys) = &endpoint.keys else { return Attempt::unmade(ErrorClass::Interrupted) };
        self.attempt_signed(endpoint, id, body, keys, 0).await
    }

    /// Signs with `keys` as of `age_seconds` ago and posts; waits for the answer.
    pub async fn attempt_signed(
        &self,
        endpoint: &Endpoint,
        id: &str,
        body: Bytes,
        keys: &SigningKeys,
        age_seconds: i64,
    ) -> Attempt {
        let started_at = clock::now();
        let started = Instant::now();
        let signed_at = started_at.plus_seconds(-age_seconds);
        let (answer, failure) = match request(endpoint, id, body, keys, signed_at) {
            Ok(request) => tokio::time::timeout(ATTEMPT_TIMEOUT, self.exchange(request))
                .await
                .unwrap_or((None, Some(Failure::of(ErrorClass::Timeout)))),
            Err(failure) => (None, Some(failure)),
        };
        Attempt { started_at, duration: started.elapsed(), answer, failure }
    }

    async fn exchange(&self, request: Request) -> (Option<Answer>, Option<Failure>) {
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return (None, Some(classify(&error))),
        };
        let status = response.status();
        let now = SystemTime::now();
        let retry_after = schedule::retry_after(response.headers(), now);
        let clock_skew_s = clock_skew(response.headers(), now);
        let keep = if status.is_success() { 0 } else { EXCERPT_BYTES_MAX };
        let (excerpt, end) = read_answer(response, keep).await;
        let answer = Answer { status: status.as_u16(), clock_skew_s, is_too_long: end == BodyEnd::TooLong };
        let class = if status.is_redirection() {
            ErrorClass::Redirect
        } else if !status.is_success() {
            ErrorClass::Status
        } else if end == BodyEnd::Broken {
            ErrorClass::Body
        } else {
            return (Some(answer), None);
        };
        let excerpt = (!excerpt.is_empty()).then_some(excerpt);
        (Some(answer), Some(Failure { class, excerpt, retry_after, refused_by: None }))
    }
}

fn request(
    endpoint: &Endpoint,
    id: &str,
    body: Bytes,
    keys: &SigningKeys,
    signed_at: Timestamp,
) -> Result<Request, Failure> {
    let url = endpoint.target.as_ref().map_err(|rule| Failure::refused(*rule))?;
    if body.len() > BODY_BYTES_MAX {
        return Err(Failure::of(ErrorClass::TooLarge));
    }
    let signature = keys.sign(id, signed_at.seconds(), &body);
    let text = |value: &str| HeaderValue::from_str(value).map_err(|_| Failure::of(ErrorClass::Interrupted));
    // Those of the owner first, so that none can stand in for ours.
    let mut headers = endpoint.headers.clone();
    headers.insert(ID_HEADER, text(id)?);
    headers.insert(TIMESTAMP_HEADER, HeaderValue::from(signed_at.seconds()));
    headers.insert(SIGNATURE_HEADER, text(&signature)?);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(USER_AGENT, AGENT);
    let mut request = Request::new(Method::POST, url.clone());
    *request.headers_mut() = headers;
    *request.body_mut() = Some(body.into());
    Ok(request)
}

/// How reading a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Complete,
    /// What is longer than the cap is left unread, which closes the connection.
    TooLong,
    Broken,
}

/// Reads up to the cap, keeping the first `keep` bytes.
async fn read_answer(mut response: Response, keep: usize) -> (Vec<u8>, BodyEnd) {
    let (mut kept, mut read) = (Vec::new(), 0);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                read += chunk.len();
                let room = keep.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
                if read > ANSWER_BYTES_MAX {
                    return (kept, BodyEnd::TooLong);
                }
            }
            Ok(None) => return (kept, BodyEnd::Complete),
            Err(_) => return (kept, BodyEnd::Broken),
        }
    }
}

/// By how much the clock that wrote `Date` is ahead, in seconds.
fn clock_skew(headers: &HeaderMap, now: SystemTime) -> Option<i32> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let seconds = match date.duration_since(now) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok()?,
        Err(behind) => -i64::try_from(behind.duration().as_secs()).ok()?,
    };
    i32::try_from(seconds).ok()
}

fn classify(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<ResolveError>() {
            return match error {
                ResolveError::Lookup(_) => Failure::of(ErrorClass::Dns),
                ResolveError::Refused(rule) => Failure::refused(*rule),
            };
        }
        if current.is::<rustls::Error>() {
            return Failure::of(ErrorClass::Tls);
        }
        // An I/O error's own `source` passes over what it wraps.
        cause = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    Failure::of(if error.is_timeout() {
        ErrorClass::Timeout
    } else if error.is_connect() {
        ErrorClass::Connect
    } else {
        ErrorClass::Interrupted
    })
}
