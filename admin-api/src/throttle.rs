//! Token buckets by key, in bounded memory.
//!
//! A bucket that nobody touched for long is forgotten first; a forgotten bucket is full again. Whoever has so many
//! addresses that buckets are forgotten is slowed down by the bucket of the account, which every attempt touches.
//! Buckets live in this process: with several replicas, each grants its own share.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Keys remembered by one throttle; a key and its bucket take some 150 bytes.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// A rate for each key: `burst` at once, then one each `interval`.
pub struct Throttle<K: Hash + Eq> {
    interval: Duration,
    burst: u32,
    /// When each bucket will be full again.
    full_at: Mutex<LruCache<K, Instant>>,
}

impl<K: Hash + Eq> Throttle<K> {
    /// `burst` at once, then one each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { interval, burst, full_at: Mutex::new(LruCache::new(KEYS_MAX)) }
    }

    /// Takes one if there is one, else tells how long to wait. Of any number at once no more get one than there are.
    pub fn try_take(&self, key: K) -> Result<(), Duration> {
        let now = Instant::now();
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = all.get(&key).copied().unwrap_or(now).max(now) + self.interval;
        let most = now + self.interval * self.burst;
        if full_at > most {
            return Err(full_at - most);
        }
        all.put(key, full_at);
        Ok(())
    }

    /// Gives one back that was taken and not used.
    pub fn give_back(&self, key: &K) {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = all.get_mut(key) {
            *full_at -= self.interval;
        }
    }

    /// Fills the bucket again, after a success.
    pub fn forgive(&self, key: &K) {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).pop(key);
    }
}

/// A wait as `Retry-After` says it.
pub fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval_and_each_key_for_itself() {
        let throttle = Throttle::new(3, Duration::from_millis(80));
        for _ in 0..3 {
            assert_eq!(throttle.try_take(1), Ok(()));
        }
        let wait = throttle.try_take(1).unwrap_err();
        assert!(wait <= Duration::from_millis(80) && wait > Duration::ZERO, "{wait:?}");
        assert_eq!(throttle.try_take(2), Ok(()));
        std::thread::sleep(wait);
        assert_eq!(throttle.try_take(1), Ok(()));
        assert!(throttle.try_take(1).is_err());
        // Trying on and on does not make the wait longer.
        for _ in 0..100 {
            assert!(throttle.try_take(1).unwrap_err() <= Duration::from_millis(80));
        }
        throttle.forgive(&1);
        assert_eq!(throttle.try_take(1), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_at_once_no_more_than_there_are() {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        let taken = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..16).map(|_| scope.spawn(|| throttle.try_take(1).is_ok())).collect();
            takers.into_iter().filter_map(|taker| taker.join().ok()).filter(|taken| *taken).count()
        });
        assert_eq!(taken, 3);
        throttle.give_back(&1);
        assert_eq!((throttle.try_take(1), throttle.try_take(1).is_err()), (Ok(()), true));
        // Nothing was taken here, so there is nothing to give back.
        throttle.give_back(&2);
        assert_eq!((0..4).filter(|_| throttle.try_take(2).is_ok()).count(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        for key in 0..(KEYS_MAX.get() + 10) {
            throttle.try_take(key).unwrap();
        }
        assert_eq!(throttle.full_at.lock().unwrap().len(), KEYS_MAX.get());
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1_001)), 2);
    }
}
