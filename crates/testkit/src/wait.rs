//! Waiting for a condition, bounded; never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at: less often than the 50 times a second that a service answers one address.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a condition answers: `false` and `None` mean "not yet".
pub trait Outcome {
    /// What is there once the condition holds.
    type Value;

    /// The value, or `None` for "not yet".
    fn value(self) -> Option<Self::Value>;
}

impl Outcome for bool {
    type Value = ();

    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn value(self) -> Self {
        self
    }
}

/// Waits until `condition` holds and returns what it found. Panics with `what` after `timeout`, also when the
/// condition itself hangs.
pub async fn wait_until<O: Outcome>(
    what: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> O,
) -> O::Value {
    let begun = Instant::now();
    let waiting = async {
        loop {
            if let Some(value) = condition().await.value() {
                return value;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let waited = tokio::time::timeout(timeout, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited {:.1} s in vain for: {what}", begun.elapsed().as_secs_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_found_is_returned() {
        let mut looks = 0;
        let found = wait_until("the third look", Duration::from_secs(5), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.await, 3);
        wait_until("at once", Duration::from_secs(5), async || true).await;
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for: a pig to fly")]
    async fn a_condition_that_hangs_is_given_up() {
        wait_until("a pig to fly", Duration::from_millis(50), std::future::pending::<bool>).await;
    }
}
