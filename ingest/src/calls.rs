//! Every call of the partners' API, reported to the topic `api.calls.v1`: who, what, the answer's status, how long it
//! took. No SQL, and nobody waits for Kafka; admin-api loads the topic into a table.
//!
//! Calls by nobody (no valid signature) are reported up to a rate: a flood of rubbish would otherwise be stored. What is
//! above it stands in the metrics of requests like everything else.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use domain::api_call::{Api, ApiCall};
use domain::ids::{KeyId, PartnerId, PaymentId};
use domain::topic::API_CALLS;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Method, StatusCode};
use rdkafka::error::KafkaError;
use runtime::config::KafkaConfig;
use runtime::reporter::Reporter;
use uuid::Uuid;

use crate::metrics::{self, Route};
use crate::signed::now;

/// Calls by nobody in a second.
const UNKNOWN_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Where calls are reported.
pub struct Calls {
    reporter: Reporter,
    unknown: DefaultDirectRateLimiter,
}

/// What a handler finds out about a call on its way, to be reported with the answer.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    by: OnceLock<(PartnerId, KeyId)>,
    target: OnceLock<PaymentId>,
}

impl Known {
    /// Whose signature was found valid.
    pub fn by(&self, partner: PartnerId, key: KeyId) {
        // The first one stays: a request has one signature.
        let _ = self.0.by.set((partner, key));
    }

    /// Which payment is asked for.
    pub fn target(&self, payment: PaymentId) {
        let _ = self.0.target.set(payment);
    }
}

/// What is known of a request before it is handled.
pub struct Begun {
    method: Method,
    route: Route,
    request_id: Uuid,
    address: Option<std::net::IpAddr>,
    known: Known,
}

impl Begun {
    /// Remembers what a request is, and gives its handler the means to tell more.
    pub fn of(request: &mut Request, route: Route, request_id: Uuid) -> Self {
        let known = Known::default();
        request.extensions_mut().insert(known.clone());
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let address = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
        Self { method: request.method().clone(), route, request_id, address, known }
    }
}

impl Calls {
    /// Reports to this Kafka.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, KafkaError> {
        let reporter = Reporter::new(kafka, kafka.topic(API_CALLS.name), metrics::calls_lost())?;
        Ok(Self { reporter, unknown: RateLimiter::direct(Quota::per_second(UNKNOWN_PER_SECOND)) })
    }

    /// A call was answered.
    pub fn answered(&self, begun: &Begun, status: StatusCode, took: Duration) {
        let by = begun.known.0.by.get();
        if by.is_none() && self.unknown.check().is_err() {
            return;
        }
        let micros = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        let call = ApiCall {
            at: now().plus_micros(-micros),
            api: Api::Partner,
            method: begun.method.as_str().into(),
            route: begun.route.as_str().into(),
            status: status.as_u16(),
            duration_us: u32::try_from(micros).unwrap_or(u32::MAX),
            request_id: begun.request_id,
            partner: by.map(|(partner, _)| partner.uuid()),
            actor: by.map(|(_, key)| key.uuid()),
            target: begun.known.0.target.get().map(PaymentId::uuid),
            address: begun.address,
        };
        self.reporter.report(&call.encode());
    }

    /// Waits a few seconds for what is on its way.
    pub async fn flush(&self) {
        self.reporter.clone().flush().await;
    }
}
