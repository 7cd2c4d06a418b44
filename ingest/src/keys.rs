//! Partners and their API keys, all in memory, loaded anew every two seconds.
//!
//! A request never asks MySQL for its key: an unknown one would cost a query and tell by its time that it is
//! unknown. While MySQL is away the last load counts for an hour; after that, and before the first load, nothing
//! can be verified (`keys_unavailable`). A key that cannot be opened is left out and logged: it harms its partner
//! alone. Rate limits and counts of waiters live with the partner and survive a load, and so does when a key was last
//! used, which [`crate::key_uses`] tells MySQL.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use domain::ids::{KeyId, PartnerId};
pub use domain::scope::Scope;
use domain::seal::{KeyEncryptionKeys, Place};
use domain::secret::HmacKey;
use domain::time::Timestamp;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use runtime::health::Component;
use sqlx::MySqlPool;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics;
use crate::store::keys::{self as store, KeyRow};

/// A load that takes longer has met a server that hangs.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Who signs requests.
pub struct Partner {
    /// The partner.
    pub id: PartnerId,
    /// `false` for a test partner.
    pub livemode: bool,
    active: AtomicBool,
    requests_per_second: u32,
    limiter: DefaultDirectRateLimiter,
    waiters: AtomicU32,
    /// Who writes now: one after the other, so that a partner holds one connection at most.
    turn: Arc<Mutex<()>>,
}

impl Partner {
    /// A partner who may make so many requests in a second, and as many at once.
    pub fn new(id: PartnerId, livemode: bool, requests_per_second: u32) -> Self {
        let rate = NonZeroU32::new(requests_per_second).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::direct(Quota::per_second(rate));
        let (active, waiters) = (AtomicBool::new(true), AtomicU32::new(0));
        Self { id, livemode, active, requests_per_second, limiter, waiters, turn: Arc::default() }
    }

    /// `false` while the partner is suspended, or not active yet. What that means for money the processor decides.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a request; `Err` has the whole seconds after which the next is allowed.
    pub fn allow(&self) -> Result<(), u32> {
        self.limiter
            .check()
            .map_err(|denied| seconds_until(denied.wait_time_from(DefaultClock::default().now())))
    }

    /// The partner's turn to write, once the write before it is done.
    pub fn turn(&self) -> impl Future<Output = OwnedMutexGuard<()>> + use<> {
        self.turn.clone().lock_owned()
    }

    /// A place among the partner's waiters, if there is one; it is given back when dropped.
    pub fn wait(self: &Arc<Self>, waiters_max: u32) -> Option<WaitPlace> {
        let free = |waiters| (waiters < waiters_max).then_some(waiters + 1);
        self.waiters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(WaitPlace(self.clone()))
    }
}

/// Whole seconds, rounded up: the form of `Retry-After`.
pub fn seconds_until(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

/// One waiting request of a partner.
pub struct WaitPlace(Arc<Partner>);

impl Drop for WaitPlace {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One API key.
pub struct ApiKey {
    /// The key's id.
    pub id: KeyId,
    /// Whose it is.
    pub partner: Arc<Partner>,
    /// The secret, ready to verify.
    pub hmac: HmacKey,
    scopes: u32,
    revoked_at: Option<Timestamp>,
    sealed: Vec<u8>,
    uses: Arc<Uses>,
}

/// When a key was last used, and what of it MySQL knows; microseconds since 1970.
#[derive(Debug, Default)]
struct Uses {
    last: AtomicI64,
    written: AtomicI64,
}

impl ApiKey {
    /// It signed a request.
    pub fn used(&self, now: Timestamp) {
        self.uses.last.fetch_max(now.micros(), Ordering::Relaxed);
    }

    /// Whether it may be used for this.
    pub const fn allows(&self, scope: Scope) -> bool {
        self.scopes & scope as u32 != 0
    }

    /// Whether it was revoked by `now`.
    pub fn is_revoked(&self, now: Timestamp) -> bool {
        self.revoked_at.is_some_and(|at| at <= now)
    }
}

/// All keys of one load, by the text of their id.
pub struct Keys {
    by_id: HashMap<String, ApiKey>,
    loaded_at: Instant,
}

impl Keys {
    /// The key that a signature names.
    pub fn get(&self, key_id: &str) -> Option<&ApiKey> {
        self.by_id.get(key_id)
    }
}

/// The keys of the last load.
pub struct KeyRing {
    current: ArcSwapOption<Keys>,
    kek: KeyEncryptionKeys,
    age_max: Duration,
}

impl KeyRing {
    /// No keys yet.
    pub fn new(kek: KeyEncryptionKeys, age_max: Duration) -> Self {
        Self { current: ArcSwapOption::empty(), kek, age_max }
    }

    /// The keys, unless there are none or they are too old. No waiting and no copy.
    pub fn load(&self) -> Option<Guard<Option<Arc<Keys>>>> {
        let guard = self.current.load();
        let fresh = guard.as_ref().is_some_and(|keys| keys.loaded_at.elapsed() <= self.age_max);
        fresh.then_some(guard)
    }

    /// Keys that were used since MySQL was told, with when.
    pub fn unwritten_uses(&self) -> Vec<(KeyId, Timestamp)> {
        let current = self.current.load();
        let keys = current.iter().flat_map(|keys| keys.by_id.values());
        keys.filter_map(|key| {
            let last = key.uses.last.load(Ordering::Relaxed);
            let is_new = last > key.uses.written.load(Ordering::Relaxed);
            is_new.then(|| (key.id, Timestamp::from_micros(last)))
        })
        .collect()
    }

    /// MySQL knows of these uses.
    pub fn uses_written(&self, uses: &[(KeyId, Timestamp)]) {
        let current = self.current.load();
        let Some(keys) = current.as_ref() else { return };
        for (key, at) in uses {
            if let Some(key) = keys.by_id.get(&key.to_string()) {
                key.uses.written.fetch_max(at.micros(), Ordering::Relaxed);
            }
        }
    }

    /// Loads all keys until `stop`.
    pub async fn refresh(
        self: Arc<Self>,
        pool: MySqlPool,
        interval: Duration,
        health: Component,
        stop: CancellationToken,
    ) {
        loop {
            let started = Instant::now();
            match tokio::time::timeout(LOAD_TIMEOUT, store::load_keys(&pool)).await {
                Ok(Ok(rows)) => {
                    self.replace(rows, started);
                    health.up();
                }
                failed => {
                    let why = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer from MySQL in time".to_owned(),
                    };
                    if self.load().is_none() {
                        health.down(format!("keys cannot be loaded: {why}"));
                    }
                    tracing::debug!(error = why, "api keys not loaded");
                    metrics::keys_not_loaded();
                }
            }
            if let Some(keys) = self.current.load().as_ref() {
                metrics::keys(keys.by_id.len(), keys.loaded_at.elapsed());
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes over a load. What did not change is not opened again, and a partner keeps its limiter.
    fn replace(&self, rows: Vec<KeyRow>, loaded_at: Instant) {
        let before = self.current.load();
        let before = before.as_ref().map(|keys| &keys.by_id);
        let mut partners: HashMap<PartnerId, Arc<Partner>> = HashMap::new();
        for key in before.into_iter().flat_map(HashMap::values) {
            partners.entry(key.partner.id).or_insert_with(|| key.partner.clone());
        }
        let mut by_id = HashMap::with_capacity(rows.len());
        for row in rows {
            let partner = partners
                .entry(row.partner)
                .and_modify(|partner| {
                    if partner.requests_per_second != row.requests_per_second
                        || partner.livemode != row.livemode
                    {
                        *partner = Arc::new(Partner::new(row.partner, row.livemode, row.requests_per_second));
                    }
                })
                .or_insert_with(|| Arc::new(Partner::new(row.partner, row.livemode, row.requests_per_second)))
                .clone();
            partner.active.store(row.active, Ordering::Relaxed);
            let text = row.id.to_string();
            let known = before.and_then(|keys| keys.get(&text)).filter(|key| key.sealed == row.secret_sealed);
            let uses = known.map(|key| key.uses.clone()).unwrap_or_default();
            let hmac = match known {
                Some(key) => key.hmac.clone(),
                None => match self.open(row.id.uuid(), &row.secret_sealed) {
                    Ok(hmac) => hmac,
                    Err(error) => {
                        tracing::error!(key.id = text, error, "an api key cannot be opened and is left out");
                        continue;
                    }
                },
            };
            let KeyRow { id, scopes, revoked_at, secret_sealed: sealed, .. } = row;
            by_id.insert(text, ApiKey { id, partner, hmac, scopes, revoked_at, sealed, uses });
        }
        self.current.store(Some(Arc::new(Keys { by_id, loaded_at })));
    }

    fn open(&self, id: Uuid, sealed: &[u8]) -> Result<HmacKey, String> {
        let place = Place { table: "api_keys", column: "secret_sealed", row: id.as_bytes() };
        let secret = self.kek.open(sealed, &place).map_err(|error| error.to_string())?;
        HmacKey::new(&secret).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::seal::KeyEncryptionKey;

    fn ring(age_max: Duration) -> (KeyRing, KeyEncryptionKeys) {
        let kek = KeyEncryptionKeys::new(KeyEncryptionKey::new([1; 32]));
        (KeyRing::new(kek.clone(), age_max), kek)
    }

    fn row(kek: &KeyEncryptionKeys, key: u128, requests_per_second: u32) -> KeyRow {
        let id = Uuid::from_u128(key);
        let place = Place { table: "api_keys", column: "secret_sealed", row: id.as_bytes() };
        KeyRow {
            id: KeyId::from_uuid(id),
            partner: PartnerId::from_uuid(Uuid::from_u128(1)),
            secret_sealed: kek.seal(&[key as u8; 32], &place, [key as u8; 12]),
            scopes: Scope::Payments as u32,
            revoked_at: None,
            livemode: true,
            active: true,
            requests_per_second,
        }
    }

    fn text(key: u128) -> String {
        KeyId::from_uuid(Uuid::from_u128(key)).to_string()
    }

    #[test]
    fn a_load_replaces_the_keys_and_keeps_the_partner() {
        let (ring, kek) = ring(Duration::from_secs(60));
        assert!(ring.load().is_none(), "nothing is loaded yet");
        ring.replace(vec![row(&kek, 1, 2), row(&kek, 2, 2)], Instant::now());
        let partner = |key| {
            let guard = ring.load().unwrap();
            guard.as_ref().unwrap().get(&text(key)).map(|key| key.partner.clone())
        };
        assert!(Arc::ptr_eq(&partner(1).unwrap(), &partner(2).unwrap()), "both keys are one partner's");
        partner(1).unwrap().allow().unwrap();
        partner(1).unwrap().allow().unwrap();
        ring.replace(vec![row(&kek, 2, 2)], Instant::now());
        assert!(partner(1).is_none(), "a key that is gone is unknown");
        assert!(partner(2).unwrap().allow().is_err(), "a load does not fill the bucket");
        ring.replace(vec![row(&kek, 2, 5)], Instant::now());
        assert!(partner(2).unwrap().allow().is_ok(), "a new rate begins anew");
    }

    #[test]
    fn a_suspension_is_seen_by_whoever_holds_the_partner() {
        let (ring, kek) = ring(Duration::from_secs(60));
        ring.replace(vec![row(&kek, 1, 2)], Instant::now());
        let partner = ring.load().unwrap().as_ref().unwrap().get(&text(1)).unwrap().partner.clone();
        assert!(partner.is_active());
        ring.replace(vec![KeyRow { active: false, ..row(&kek, 1, 2) }], Instant::now());
        assert!(!partner.is_active(), "with its limiter, the partner is the same");
    }

    #[test]
    fn a_use_is_told_once_and_survives_a_load() {
        let (ring, kek) = ring(Duration::from_secs(60));
        let rows = || vec![row(&kek, 1, 2), row(&kek, 2, 2)];
        ring.replace(rows(), Instant::now());
        let at = Timestamp::from_micros;
        let used = |key, micros| {
            ring.load().unwrap().as_ref().unwrap().get(&text(key)).unwrap().used(at(micros));
        };
        assert_eq!(ring.unwritten_uses(), []);
        used(1, 7);
        used(1, 5);
        ring.replace(rows(), Instant::now());
        let uses = ring.unwritten_uses();
        assert_eq!(uses, [(KeyId::from_uuid(Uuid::from_u128(1)), at(7))], "the clock that is ahead counts");
        // Used while the last use was written.
        used(1, 9);
        ring.uses_written(&uses);
        assert_eq!(ring.unwritten_uses().len(), 1);
        ring.uses_written(&ring.unwritten_uses());
        assert_eq!(ring.unwritten_uses(), []);
    }

    #[test]
    fn a_key_that_cannot_be_opened_harms_no_other() {
        let (ring, kek) = ring(Duration::from_secs(60));
        let mut broken = row(&kek, 1, 1);
        broken.secret_sealed[20] ^= 1;
        ring.replace(vec![broken, row(&kek, 2, 1)], Instant::now());
        let guard = ring.load().unwrap();
        let keys = guard.as_ref().unwrap();
        assert!(keys.get(&text(1)).is_none() && keys.get(&text(2)).is_some());
    }

    #[test]
    fn old_keys_do_not_count() {
        let (ring, kek) = ring(Duration::from_millis(500));
        ring.replace(vec![row(&kek, 1, 1)], Instant::now());
        assert!(ring.load().is_some());
        ring.replace(vec![row(&kek, 1, 1)], Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
        assert!(ring.load().is_none());
    }

    #[test]
    fn waiters_of_a_partner_are_bounded_and_give_their_place_back() {
        let partner = Arc::new(Partner::new(PartnerId::from_uuid(Uuid::from_u128(1)), true, 1));
        let first = partner.wait(2).unwrap();
        let second = partner.wait(2).unwrap();
        assert!(partner.wait(2).is_none());
        drop(first);
        assert!(partner.wait(2).is_some());
        drop(second);
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        assert_eq!(seconds_until(Duration::ZERO), 1);
        assert_eq!(seconds_until(Duration::from_millis(1_001)), 2);
        assert_eq!(seconds_until(Duration::from_secs(3)), 3);
    }
}
