//! Writes other than payments: once per idempotency key, in one transaction with the record of the key.
//!
//! The key's row is written first, so that of two equal requests at once the second waits for the first and then
//! answers what the first answered. A write that is refused or fails leaves no row: the key can be used again. The
//! row holds the answer without what is shown once, so a replay never shows a secret again; after
//! [`KEPT_HOURS`] it is forgotten.
//!
//! Writes of one partner follow one another (on this replica by [`crate::keys::Partner::turn`], on all by the row with
//! the empty key), so that a bound on the number of something holds whatever comes at once.
//!
//! The transaction runs in a task of its own: a client that goes away ends neither it nor, half-way, its connection.
//! Deadlocks and lost connections have it run anew; a lost COMMIT is answered `outcome_unknown`, which the same key
//! resolves. Within it: no network call, and locks in the order idempotency keys, endpoint, what belongs to it.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use domain::command::limits;
use domain::fingerprint::Fingerprint;
use domain::ids::PartnerId;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use runtime::precondition::{self, PreconditionError};
use serde::Serialize;
use serde_json::Value;
use sqlx::{MySqlConnection, MySqlPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::App;
use crate::json;
use crate::metrics;
use crate::problem::{Code, Problem};
use crate::query;
use crate::read;
use crate::signed::Signed;
use crate::store::StoreError;
use crate::store::idempotency::{self as store, Kept, Taken};

/// How long a key is remembered, in hours.
pub const KEPT_HOURS: u32 = 24;
/// How often a transaction is tried when others are in its way.
const TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A write that takes longer is answered `outcome_unknown`. Longer than a lock is waited for.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
const RETRY_AFTER_S: u32 = 1;
/// Between two removals of forgotten keys.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What a write answers.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, as a replay shows it, too; `None` for no body.
    pub body: Option<Value>,
    /// Members that only the first answer has.
    pub once: serde_json::Map<String, Value>,
    /// Where the new thing is.
    pub location: Option<String>,
}

impl Answer {
    /// An answer with a body.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_value(body)
            .map_err(|error| Failure::Store(StoreError::Row { table: "answer", what: error.to_string() }))?;
        Ok(Self { status, body: Some(body), once: serde_json::Map::new(), location: None })
    }

    /// 204.
    pub fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, once: serde_json::Map::new(), location: None }
    }

    /// The answer tells where the new thing is.
    #[must_use]
    pub fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// COMMIT was not answered.
    #[error("COMMIT was not answered: {0}")]
    Uncertain(sqlx::Error),
}

impl From<PreconditionError> for Failure {
    fn from(error: PreconditionError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What became of a write.
pub struct Done {
    /// The answer.
    pub answer: Answer,
    /// Whether it was given before.
    pub replayed: bool,
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let Answer { status, body, once, location } = self.answer;
        let version = body.as_ref().and_then(|body| u32::try_from(body.get("version")?.as_u64()?).ok());
        let mut response = match body {
            Some(Value::Object(mut members)) => {
                members.extend(once);
                (status, Json(members)).into_response()
            }
            Some(body) => (status, Json(body)).into_response(),
            None => status.into_response(),
        };
        let headers = response.headers_mut();
        if let Some(version) = version {
            headers.insert(header::ETAG, precondition::etag(version));
        }
        if let Some(location) = location.and_then(|path| HeaderValue::try_from(path).ok()) {
            headers.insert(header::LOCATION, location);
        }
        if self.replayed {
            headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// A write's transaction, which may run more than once.
pub trait Work:
    for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<Answer, Failure>> + Send + Sync + 'static
{
}

impl<F> Work for F where
    F: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<Answer, Failure>> + Send + Sync + 'static
{
}

/// Who writes, under which key, and what was asked.
#[derive(Debug, Clone)]
struct Key {
    partner: PartnerId,
    text: String,
    fingerprint: Fingerprint,
}

/// Does the work of a signed request once.
pub async fn run<P>(app: &App, signed: &Signed<P>, work: impl Work) -> Result<Done, Problem> {
    query::none(signed.parts.uri.query())?;
    let key = Key {
        partner: signed.caller.partner.id,
        text: idempotency_key(&signed.parts.headers)?.to_owned(),
        fingerprint: fingerprint(signed)?,
    };
    if !app.lookup.is_up() {
        return Err(read::unavailable());
    }
    let pool = app.writes.clone();
    let turn = signed.caller.partner.turn();
    let turn = tokio::time::timeout(WRITE_TIMEOUT, turn).await.map_err(|_| read::unavailable())?;
    let task = tokio::spawn(async move {
        let ended = repeat(&pool, &key, &work).await;
        drop(turn);
        ended
    });
    let failure = match tokio::time::timeout(WRITE_TIMEOUT, task).await {
        Ok(Ok(Ok(done))) => {
            if done.replayed {
                metrics::replay("replay");
            }
            return Ok(done);
        }
        Ok(Ok(Err(failure))) => failure,
        Ok(Err(_)) => return Err(Problem::plain(Code::Internal)),
        Err(_) => return Err(unknown()),
    };
    Err(problem(failure, signed.caller.request_id))
}

/// What a failed write is answered.
pub fn problem(failure: Failure, request_id: Uuid) -> Problem {
    match failure {
        Failure::Refused(problem) => {
            if problem.code == Code::IdempotencyConflict {
                metrics::replay("conflict");
            }
            problem
        }
        Failure::Uncertain(error) => {
            tracing::warn!(error = %error, request.id = %request_id, "a commit was not answered");
            unknown()
        }
        Failure::Store(error) if error.is_passing() => {
            tracing::warn!(error = %error, request.id = %request_id, "not written");
            read::unavailable()
        }
        Failure::Store(error) => {
            tracing::error!(error = %error, request.id = %request_id, "cannot be written");
            Problem::plain(Code::Internal)
        }
    }
}

fn unknown() -> Problem {
    Problem::plain(Code::OutcomeUnknown).retry_after(RETRY_AFTER_S)
}

async fn repeat(pool: &MySqlPool, key: &Key, work: &impl Work) -> Result<Done, Failure> {
    let mut tries = 1;
    loop {
        match attempt(pool, key, work).await {
            Err(Failure::Store(error)) if error.is_passing() && tries < TRIES => {
                tracing::debug!(error = %error, tries, "a write is tried again");
                tokio::time::sleep(RETRY_PAUSE * tries * tries).await;
                tries += 1;
            }
            ended => return ended,
        }
    }
}

async fn attempt(pool: &MySqlPool, key: &Key, work: &impl Work) -> Result<Done, Failure> {
    let mut transaction = pool.begin().await?;
    let taken = store::take(&mut transaction, key.partner, &key.text, &key.fingerprint, KEPT_HOURS).await?;
    if let Taken::Used(kept) = taken {
        transaction.rollback().await?;
        return replay(key, kept);
    }
    let answer = work(&mut transaction).await?;
    let kept = Kept {
        fingerprint: key.fingerprint,
        status: answer.status.as_u16(),
        body: answer.body.clone(),
        location: answer.location.clone(),
    };
    store::keep(&mut transaction, key.partner, &key.text, &kept).await?;
    match transaction.commit().await {
        Ok(()) => Ok(Done { answer, replayed: false }),
        // The server says that it did not.
        Err(error @ sqlx::Error::Database(_)) => Err(error.into()),
        Err(error) => Err(Failure::Uncertain(error)),
    }
}

fn replay(key: &Key, kept: Kept) -> Result<Done, Failure> {
    if kept.fingerprint != key.fingerprint {
        return Err(Problem::plain(Code::IdempotencyConflict).into());
    }
    let answer = Answer {
        status: StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK),
        body: kept.body,
        once: serde_json::Map::new(),
        location: kept.location,
    };
    Ok(Done { answer, replayed: true })
}

/// What the request said, independent of white space and of the order of members.
fn fingerprint<P>(signed: &Signed<P>) -> Result<Fingerprint, Problem> {
    let parts = &signed.parts;
    let mut canonical = Vec::new();
    if !signed.body.is_empty() {
        json::parse(&signed.body)?.write_canonical(&mut canonical);
    }
    let if_match: Vec<u8> =
        parts.headers.get_all(header::IF_MATCH).iter().flat_map(|value| value.as_bytes().to_vec()).collect();
    let path = parts.uri.path().as_bytes();
    Ok(Fingerprint::of(&[parts.method.as_str().as_bytes(), path, &if_match, &canonical]))
}

/// The key of a write, which the signature covers.
pub fn idempotency_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let value = values.next().ok_or_else(|| Problem::plain(Code::IdempotencyKeyMissing))?;
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text)
            if visible
                && (1..=limits::IDEMPOTENCY_KEY_MAX).contains(&text.len())
                && values.next().is_none() =>
        {
            Ok(text)
        }
        _ => Err(Problem::plain(Code::IdempotencyKeyInvalid)),
    }
}

/// Removes forgotten keys until `stop`.
pub async fn sweep(pool: MySqlPool, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        // In a task of its own, since a statement is not to be dropped half-way.
        let pool = pool.clone();
        let removed = tokio::spawn(async move { store::forget(&pool, KEPT_HOURS).await }).await;
        if let Ok(Err(error)) = removed {
            tracing::debug!(error = %error, "forgotten idempotency keys not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_idempotency_key_is_visible_ascii_and_stands_once() {
        let longest = "k".repeat(255);
        for good in ["k", "order-4711", "\"quoted\"", &longest] {
            assert_eq!(idempotency_key(&keys(&[good])).unwrap(), good);
        }
        let too_long = "k".repeat(256);
        for bad in ["", "two words", "ü", &too_long] {
            assert_eq!(
                idempotency_key(&keys(&[bad])).unwrap_err().code,
                Code::IdempotencyKeyInvalid,
                "{bad:?}"
            );
        }
        assert_eq!(idempotency_key(&keys(&["a", "b"])).unwrap_err().code, Code::IdempotencyKeyInvalid);
        assert_eq!(idempotency_key(&keys(&[])).unwrap_err().code, Code::IdempotencyKeyMissing);
    }
}
