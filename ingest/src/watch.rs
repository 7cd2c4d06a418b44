//! Who waits for a partner's next event: one task asks MySQL for all of them, in one statement.
//!
//! Nobody is asked for while nobody waits. Waiters end by their own deadline; a MySQL that is away only lets them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::ids::PartnerId;
use sqlx::MySqlPool;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::store::events;

/// Between two looks. Events are pushed by webhook; who polls can bear a tenth of a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Partners asked for in one statement.
const PARTNERS_MAX: usize = 1_000;
/// A look that takes longer has met a server that hangs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

struct Waiter {
    /// Wakes when the last sequence is above this.
    after: u64,
    wake: oneshot::Sender<()>,
}

/// The waiters.
#[derive(Default)]
pub struct Watch {
    waiters: Mutex<HashMap<PartnerId, Vec<Waiter>>>,
    some: Notify,
}

impl Watch {
    /// `true` when the partner has an event above `after` before `until`.
    pub async fn wait(&self, partner: PartnerId, after: u64, until: Instant) -> bool {
        let (wake, woken) = oneshot::channel();
        self.waiting().entry(partner).or_default().push(Waiter { after, wake });
        self.some.notify_one();
        matches!(tokio::time::timeout_at(until.into(), woken).await, Ok(Ok(())))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<PartnerId, Vec<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets who has gone away; the partners for whom somebody waits.
    fn partners(&self) -> Vec<PartnerId> {
        let mut waiting = self.waiting();
        waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.wake.is_closed());
            !waiters.is_empty()
        });
        metrics::event_waiters(waiting.values().map(Vec::len).sum());
        waiting.keys().copied().collect()
    }

    fn wake(&self, partner: PartnerId, last: u64) {
        let mut waiting = self.waiting();
        let Some(waiters) = waiting.get_mut(&partner) else { return };
        for waiter in waiters.extract_if(.., |waiter| waiter.after < last) {
            // Who has gone away does not mind.
            let _ = waiter.wake.send(());
        }
    }

    /// Looks for all who wait, until `stop`.
    pub async fn run(self: Arc<Self>, pool: MySqlPool, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let partners = self.partners();
            if partners.is_empty() {
                tokio::select! {
                    () = self.some.notified() => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            for chunk in partners.chunks(PARTNERS_MAX) {
                match tokio::time::timeout(LOOK_TIMEOUT, events::last_sequences(&pool, chunk)).await {
                    Ok(Ok(found)) => {
                        for (partner, last) in found {
                            self.wake(partner, last);
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(error = %error, "event waiters not served"),
                    Err(_) => tracing::debug!("event waiters not served in time"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn partner(number: u128) -> PartnerId {
        PartnerId::from_uuid(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn a_waiter_wakes_for_its_own_partners_later_events_alone() {
        let watch = Arc::new(Watch::default());
        let until = Instant::now() + Duration::from_secs(30);
        let waiting = tokio::spawn({
            let watch = watch.clone();
            async move { watch.wait(partner(1), 5, until).await }
        });
        while watch.partners().is_empty() {
            tokio::task::yield_now().await;
        }
        watch.wake(partner(2), 100);
        watch.wake(partner(1), 5);
        assert_eq!(watch.partners(), [partner(1)]);
        watch.wake(partner(1), 6);
        assert!(waiting.await.unwrap());
        assert!(watch.partners().is_empty());
    }

    #[tokio::test]
    async fn who_waited_in_vain_is_forgotten() {
        let watch = Watch::default();
        assert!(!watch.wait(partner(1), 5, Instant::now() + Duration::from_millis(5)).await);
        assert!(watch.partners().is_empty());
    }
}
