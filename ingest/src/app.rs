//! What all requests share.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::secret::HmacKey;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sqlx::MySqlPool;

use crate::keys::{KeyRing, seconds_until};
use crate::lag::Lag;
use crate::lookup::Lookup;
use crate::queue::Queue;

/// Addresses remembered by the echo's limit before the quiet ones are forgotten.
const ECHO_ADDRESSES_MAX: usize = 10_000;

/// The state of the partner API.
pub struct App {
    /// Accepted `@authority` values, lower case, without the scheme's own port.
    pub authorities: Vec<String>,
    /// All API keys.
    pub keys: Arc<KeyRing>,
    /// What became of payments.
    pub lookup: Lookup,
    /// The commands topic.
    pub queue: Arc<Queue>,
    /// How far the processor is behind.
    pub lag: Arc<Lag>,
    /// For cold reads.
    pub reads: MySqlPool,
    /// For writes other than payments.
    pub writes: MySqlPool,
    /// Authenticates status tokens.
    pub token_key: HmacKey,
    /// How long a payment waits for the look-up of its key.
    pub lookup_budget: Duration,
    /// Waiting requests per partner.
    pub waiters_per_partner: u32,
    /// Bounds unsigned requests.
    pub echo_limit: EchoLimit,
    /// The OpenAPI document.
    pub openapi: Bytes,
}

/// A rate limit per client address.
pub struct EchoLimit(DefaultKeyedRateLimiter<IpAddr>);

impl EchoLimit {
    /// So many requests in a second per address.
    pub fn new(per_second: u32) -> Self {
        Self(RateLimiter::keyed(Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))))
    }

    /// Counts a request; `Err` has the whole seconds after which the next is allowed.
    pub fn allow(&self, address: IpAddr) -> Result<(), u32> {
        if self.0.len() >= ECHO_ADDRESSES_MAX {
            self.0.retain_recent();
        }
        // A client owns a whole /64 of IPv6.
        let key = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        };
        self.0
            .check_key(&key)
            .map_err(|denied| seconds_until(denied.wait_time_from(DefaultClock::default().now())))
    }
}

/// The port that a scheme does not write, removed (RFC 9421, section 2.2.3), in lower case.
pub fn normal_authority(authority: &str) -> String {
    let lower = authority.trim().to_ascii_lowercase();
    lower.strip_suffix(":80").map_or(lower.clone(), ToOwned::to_owned)
}
