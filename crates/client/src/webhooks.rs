//! The event log, and webhooks as their owner manages them.

use std::time::Duration;

use bytes::Bytes;
use domain::event::EventType;
use domain::ids::{EndpointId, EndpointSecretId, EventId, ReplayId};
use domain::notice::{Flaw, Verdict};
use domain::replay::{ReplayKind, ReplayStatus};
use domain::time::Timestamp;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::{Client, Error, SendOptions};

/// A page of the event log.
#[derive(Debug, Deserialize)]
pub struct EventPage {
    /// The events, oldest first.
    pub data: Vec<LoggedEvent>,
    /// The log was looked through up to here: `after` of the next request.
    pub scanned_through: u64,
    /// The last sequence that there is.
    pub last_sequence: u64,
}

/// An event as the log has it.
#[derive(Debug, Deserialize)]
pub struct LoggedEvent {
    /// `webhook-id`.
    pub id: EventId,
    /// The very bytes that a webhook carries.
    pub body: Box<RawValue>,
}

/// What is set of an endpoint; what is left out has its default.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EndpointRequest {
    /// An https URL on the public internet.
    pub url: String,
    /// Types to receive; all without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_types: Option<Vec<EventType>>,
    /// Your words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether to sign with ed25519 as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ed25519: bool,
}

/// An endpoint, as far as a program needs it; the API's answer has more.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Where it is.
    pub url: String,
    /// `enabled` or `disabled`.
    pub status: String,
    /// After which sequence events may have got no delivery.
    pub missed_after: Option<u64>,
    /// With which `v1a` signatures verify.
    pub public_key: Option<String>,
    /// For `If-Match`.
    pub version: u32,
    /// What it may have missed while it was disabled, in the answer that enabled it.
    #[serde(default)]
    pub replay_offer: Option<ReplayRequest>,
    /// The secret, in the answer that created the endpoint and never again.
    #[serde(default)]
    pub secret: Option<String>,
}

/// A new secret of an endpoint.
#[derive(Debug, Clone, Deserialize)]
pub struct NewSecret {
    /// Its id.
    pub id: EndpointSecretId,
    /// Until when the one before signs along.
    pub previous_expires_at: Timestamp,
    /// The secret, unless the request was a repeated one.
    #[serde(default)]
    pub secret: Option<String>,
}

/// A ping or rehearsal.
#[derive(Debug, Clone, Deserialize)]
pub struct Ping {
    /// Its id.
    pub id: EventId,
    /// What is wrong with it, on purpose.
    pub flaw: Option<Flaw>,
    /// What the receiver made of it; `None` until it was sent.
    pub verdict: Option<Verdict>,
    /// Where to ask again.
    pub status_url: String,
}

/// What to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReplayRequest {
    /// One event.
    Event {
        /// Which.
        event: EventId,
    },
    /// What failed.
    Failed {
        /// Deliveries first recorded then or later.
        since: Timestamp,
    },
    /// Every event of a range.
    Range {
        /// The first sequence.
        from_sequence: u64,
    },
    /// The events of a range that have no delivery.
    Missing {
        /// The first sequence.
        from_sequence: u64,
    },
}

/// What was asked to be sent again, and how it fares.
#[derive(Debug, Clone, Deserialize)]
pub struct Replay {
    /// Its id.
    pub id: ReplayId,
    /// What it covers.
    pub kind: ReplayKind,
    /// Where it stands.
    pub status: ReplayStatus,
    /// Deliveries that it queued.
    pub queued: u64,
    /// Deliveries that it left as they were.
    pub skipped: u64,
    /// Where to ask again.
    pub status_url: String,
}

impl Client {
    /// The events behind `after`, of these types (all when empty), oldest first. With `wait` the bank holds the answer
    /// until there is one, or until that time.
    pub async fn events(
        &self,
        after: u64,
        types: &[EventType],
        wait: Option<Duration>,
    ) -> Result<EventPage, Error> {
        let mut target = format!("/v1/events?after={after}&limit=200");
        if !types.is_empty() {
            let words: Vec<_> = types.iter().map(|event_type| event_type.as_str()).collect();
            target = format!("{target}&types={}", words.join(","));
        }
        let options = SendOptions { wait, ..SendOptions::default() };
        self.request(Method::GET, &target, None, options).await?.json()
    }

    /// The body of one event: the very bytes that a webhook carries.
    pub async fn event(&self, id: EventId) -> Result<Bytes, Error> {
        let target = format!("/v1/events/{id}");
        let answer = self.request(Method::GET, &target, None, SendOptions::default()).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.error()) }
    }

    /// Creates an endpoint. Its secret is in this answer alone; a repeated key is answered without it.
    pub async fn create_endpoint(
        &self,
        request: &EndpointRequest,
        idempotency_key: &str,
    ) -> Result<Endpoint, Error> {
        self.post("/v1/endpoints", request, Some(idempotency_key), None).await
    }

    /// An endpoint.
    pub async fn endpoint(&self, id: EndpointId) -> Result<Endpoint, Error> {
        let target = format!("/v1/endpoints/{id}");
        self.request(Method::GET, &target, None, SendOptions::default()).await?.json()
    }

    /// Changes an endpoint of this version: what `change` leaves out stays, `null` means none.
    pub async fn change_endpoint(
        &self,
        id: EndpointId,
        version: u32,
        change: &Value,
    ) -> Result<Endpoint, Error> {
        let target = format!("/v1/endpoints/{id}");
        let options = SendOptions { headers: if_match(version)?, ..SendOptions::default() };
        self.request(Method::PATCH, &target, Some(change.to_string().into()), options).await?.json()
    }

    /// Deletes an endpoint of this version.
    pub async fn delete_endpoint(&self, id: EndpointId, version: u32) -> Result<(), Error> {
        let target = format!("/v1/endpoints/{id}");
        let options = SendOptions { headers: if_match(version)?, ..SendOptions::default() };
        let answer = self.request(Method::DELETE, &target, None, options).await?;
        if answer.status == 204 { Ok(()) } else { Err(answer.error()) }
    }

    /// Enables an endpoint. The answer offers the replay of what it may have missed.
    pub async fn enable_endpoint(&self, id: EndpointId) -> Result<Endpoint, Error> {
        self.post(&format!("/v1/endpoints/{id}/enable"), &json!({}), None, None).await
    }

    /// Makes a new secret; the one before signs along for `overlap`.
    pub async fn rotate_secret(
        &self,
        id: EndpointId,
        overlap: Duration,
        idempotency_key: &str,
    ) -> Result<NewSecret, Error> {
        let body = json!({ "overlap_s": overlap.as_secs() });
        self.post(&format!("/v1/endpoints/{id}/secrets"), &body, Some(idempotency_key), None).await
    }

    /// Sends a ping, or rehearses a flaw; with `wait` the answer may have the verdict.
    pub async fn ping(
        &self,
        id: EndpointId,
        flaw: Option<Flaw>,
        wait: Option<Duration>,
    ) -> Result<Ping, Error> {
        match flaw {
            None => self.post(&format!("/v1/endpoints/{id}/ping"), &json!({}), None, wait).await,
            Some(flaw) => {
                let body = json!({ "flaw": flaw });
                self.post(&format!("/v1/endpoints/{id}/rehearsals"), &body, None, wait).await
            }
        }
    }

    /// Asks for something to be sent again.
    pub async fn replay(
        &self,
        id: EndpointId,
        request: &ReplayRequest,
        idempotency_key: &str,
    ) -> Result<Replay, Error> {
        self.post(&format!("/v1/endpoints/{id}/replays"), request, Some(idempotency_key), None).await
    }

    /// How a replay fares, by its `status_url`.
    pub async fn replay_status(&self, status_url: &str) -> Result<Replay, Error> {
        self.request(Method::GET, status_url, None, SendOptions::default()).await?.json()
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        idempotency_key: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Request(error.to_string()))?;
        let options = SendOptions {
            idempotency_key: idempotency_key.map(ToOwned::to_owned),
            wait,
            headers: HeaderMap::new(),
        };
        self.request(Method::POST, target, Some(body.into()), options).await?.json()
    }
}

fn if_match(version: u32) -> Result<HeaderMap, Error> {
    let tag = HeaderValue::try_from(format!("\"{version}\""));
    let tag = tag.map_err(|error| Error::Request(error.to_string()))?;
    Ok([(header::IF_MATCH, tag)].into_iter().collect())
}
