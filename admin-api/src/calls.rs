//! Calls of both APIs: those of this one are reported to the topic `api.calls.v1` as ingest reports its own, and the
//! [`loader`] puts the topic into the table `api_calls`.
//!
//! Reporting costs no SQL and waits for nobody. Calls by nobody (no valid token) are reported up to a rate, and those
//! that only ask whether the process lives are not.

pub mod loader;
mod metrics;
mod store;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request};
use domain::api_call::{Api, ApiCall, NO_ROUTE};
use domain::ids::UserId;
use domain::time::Timestamp;
use domain::topic::API_CALLS;
use http::{Method, StatusCode};
use rdkafka::error::KafkaError;
use runtime::config::KafkaConfig;
use runtime::reporter::Reporter;

use crate::audit::Origin;
use crate::throttle::Throttle;

/// Calls by nobody in a second.
const UNKNOWN_PER_SECOND: u32 = 100;
/// Asked by load balancers all the time.
const HEALTH: &str = "/v1/health";

/// Where calls are reported.
pub struct Calls {
    reporter: Reporter,
    unknown: Throttle<()>,
}

/// The user, once the token of a request was found valid.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<OnceLock<UserId>>);

impl Known {
    /// Who calls.
    pub fn by(&self, user: UserId) {
        // The first one stays: a request has one token.
        let _ = self.0.set(user);
    }
}

/// What is known of a request before it is handled.
pub struct Begun {
    method: Method,
    route: Option<MatchedPath>,
    origin: Origin,
    known: Known,
}

impl Begun {
    /// Remembers what a request is, and gives its handler the means to tell who calls.
    pub fn of(request: &mut Request, origin: Origin) -> Self {
        let known = Known::default();
        request.extensions_mut().insert(known.clone());
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { method: request.method().clone(), route, origin, known }
    }
}

impl Calls {
    /// Reports to this Kafka.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, KafkaError> {
        metrics::describe();
        let reporter = Reporter::new(kafka, kafka.topic(API_CALLS.name), metrics::lost())?;
        let unknown = Throttle::new(UNKNOWN_PER_SECOND, Duration::from_secs(1) / UNKNOWN_PER_SECOND);
        Ok(Self { reporter, unknown })
    }

    /// A call was answered.
    pub fn answered(&self, begun: &Begun, status: StatusCode, took: Duration) {
        let route = begun.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        let user = begun.known.0.get();
        if route == HEALTH || user.is_none() && self.unknown.try_take(()).is_err() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let call = ApiCall {
            at: Timestamp::from_micros(micros(now.saturating_sub(took))),
            api: Api::Bank,
            method: begun.method.as_str().into(),
            route: route.into(),
            status: status.as_u16(),
            duration_us: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            request_id: begun.origin.request_id,
            partner: None,
            actor: user.map(UserId::uuid),
            target: None,
            address: begun.origin.address,
        };
        self.reporter.report(&call.encode());
    }

    /// Waits a few seconds for what is on its way.
    pub async fn flush(&self) {
        self.reporter.clone().flush().await;
    }
}
