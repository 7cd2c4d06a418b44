//! What all requests share.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::endpoint_url::Loopback;
use domain::seal::KeyEncryptionKeys;
use domain::secret::HmacKey;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sqlx::MySqlPool;
use tokio::sync::Semaphore;
use url::Url;

use crate::calls::Calls;
use crate::keys::{KeyRing, seconds_until};
use crate::lag::Lag;
use crate::lookup::Lookup;
use crate::queue::Queue;
use crate::watch::Watch;

/// Addresses remembered by a limit before the quiet ones are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// The state of the partner API.
pub struct App {
    /// Accepted `@authority` values, as [`normal_authority`] makes them.
    pub authorities: Vec<String>,
    /// All API keys.
    pub keys: Arc<KeyRing>,
    /// What became of payments.
    pub lookup: Lookup,
    /// The commands topic.
    pub queue: Arc<Queue>,
    /// Where calls are reported.
    pub calls: Arc<Calls>,
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
    /// Who waits for events.
    pub watch: Arc<Watch>,
    /// Bounds requests that wait for the verdict of a ping.
    pub ping_waiters: Semaphore,
    /// Bounds the echo.
    pub echo_limit: AddressLimit,
    /// Bounds applications of partners.
    pub application_limit: AddressLimit,
    /// Applications in 24 hours.
    pub applications_per_day: u32,
    /// Endpoints of one partner.
    pub endpoints_per_partner: u32,
    /// The shortest time for which a payment in two phases may hold funds.
    pub hold_seconds_min: u32,
    /// The bank's page on which customers answer requests for mandates.
    pub consent_url: Option<Url>,
    /// Whether endpoints may be on loopback.
    pub loopback: Loopback,
    /// Seals API keys and contacts.
    pub partner_kek: KeyEncryptionKeys,
    /// Seals endpoint secrets.
    pub webhook_kek: KeyEncryptionKeys,
    /// The OpenAPI document.
    pub openapi: Bytes,
}

/// A rate limit per client address.
pub struct AddressLimit(DefaultKeyedRateLimiter<IpAddr>);

impl AddressLimit {
    /// So many requests in a second per address.
    pub fn per_second(requests: u32) -> Self {
        Self(RateLimiter::keyed(Quota::per_second(NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN))))
    }

    /// So many requests in an hour per address.
    pub fn per_hour(requests: u32) -> Self {
        Self(RateLimiter::keyed(Quota::per_hour(NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN))))
    }

    /// Counts a request; `Err` has the whole seconds after which the next is allowed.
    pub fn allow(&self, address: IpAddr) -> Result<(), u32> {
        if self.0.len() >= ADDRESSES_MAX {
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

/// In lower case, and without the port that a scheme does not write (RFC 9421, section 2.2.3). Which scheme that is
/// only the client knows when a proxy speaks TLS for this server, so both ports are taken off.
pub fn normal_authority(authority: &str) -> String {
    let lower = authority.trim().to_ascii_lowercase();
    let without = lower.strip_suffix(":443").or_else(|| lower.strip_suffix(":80"));
    without.map_or(lower.clone(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::normal_authority;

    #[test]
    fn an_authority_is_compared_without_what_a_scheme_does_not_write() {
        for (written, normal) in [
            ("API.Bank.example", "api.bank.example"),
            ("api.bank.example:443", "api.bank.example"),
            ("api.bank.example:80", "api.bank.example"),
            ("api.bank.example:8443", "api.bank.example:8443"),
            ("api.bank.example:4430", "api.bank.example:4430"),
            ("[::1]:443", "[::1]"),
            (" api.bank.example ", "api.bank.example"),
        ] {
            assert_eq!(normal_authority(written), normal);
        }
    }
}
