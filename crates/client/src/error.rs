//! What can go wrong between a partner and the bank.

use std::time::Duration;

use serde::Deserialize;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The base URL is unusable.
    #[error("`{url}` is no base URL such as https://bank.example: {problem}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The key id is no `key_…`.
    #[error("`{0}` is no key id such as key_01h455vb4pex5vsknk084sn02q")]
    KeyId(String),
    /// The secret cannot be read; its text is not shown.
    #[error("the key's secret cannot be read: {0}")]
    Secret(#[from] domain::secret::SecretError),
    /// What should vouch for the bank is no certificate.
    #[error("the file of trusted authorities holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    Authorities,
    /// The TLS set-up of this machine is unusable.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bank answered that something is wrong.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nothing listens there, or the connection could not be made.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Where the request went.
        url: String,
        /// The innermost cause, such as `Connection refused`.
        reason: String,
    },
    /// The connection broke or took too long after the request was sent: the bank may have accepted it. Ask again
    /// with the same idempotency key.
    #[error(
        "no answer from {url}: {reason}; it may have been accepted, so repeat it with the same idempotency key"
    )]
    NoAnswer {
        /// Where the request went.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The answer is not what the API promises.
    #[error("the answer (status {status}) cannot be understood: {reason}")]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be signed or is no HTTP request.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl Error {
    /// The bank's answer, when it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Unexpected { .. } | Self::Request(_) => {
                None
            }
        }
    }

    /// Whether the bank answered with this problem code, such as `rate_limited`.
    pub fn is(&self, code: &str) -> bool {
        self.problem().is_some_and(|problem| problem.code == code)
    }
}

/// An `application/problem+json` document (RFC 9457) with the bank's extensions.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// The stable word for programs, such as `insufficient_scope`.
    #[serde(default)]
    pub code: String,
    /// The kind of problem, for people.
    #[serde(default)]
    pub title: String,
    /// What is wrong with this request and what to change.
    #[serde(default)]
    pub detail: String,
    /// Names this request in the bank's logs.
    #[serde(default)]
    pub request_id: Option<String>,
    /// The fields that are wrong.
    #[serde(default)]
    pub errors: Vec<FieldError>,
    /// From the header field `Retry-After`: after how long to ask again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// What is wrong with one field of the request.
#[derive(Debug, Clone, Deserialize)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) to the field.
    #[serde(default)]
    pub pointer: String,
    /// The stable word for programs.
    #[serde(default)]
    pub code: String,
    /// What to change.
    #[serde(default)]
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "{} {}: {text}", self.status, self.code)?;
        for error in &self.errors {
            write!(f, "; {}: {}", error.pointer, error.detail)?;
        }
        if let Some(after) = self.retry_after {
            write!(f, " (try again after {} s)", after.as_secs())?;
        }
        Ok(())
    }
}
