//! When each endpoint's next delivery in MySQL is due, as far as this process knows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::time::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

/// What the recorder and the discovery tell the claimer.
#[derive(Debug, Default)]
pub struct DueBoard {
    due: Mutex<HashMap<Uuid, Timestamp>>,
    earlier: Notify,
}

impl DueBoard {
    /// A delivery of the endpoint is due at `at`.
    pub fn add(&self, endpoint: Uuid, at: Timestamp) {
        self.put_back(endpoint, at);
        self.earlier.notify_one();
    }

    /// What was taken is looked at again at `at`; nobody is woken for it.
    pub fn put_back(&self, endpoint: Uuid, at: Timestamp) {
        self.with(|due| {
            due.entry(endpoint).and_modify(|known| *known = at.min(*known)).or_insert(at);
        });
    }

    /// Takes what is due by `now`.
    pub fn take_due(&self, now: Timestamp) -> Vec<(Uuid, Timestamp)> {
        self.with(|due| due.extract_if(|_, at| *at <= now).collect())
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.with(|due| due.values().min().copied())
    }

    /// Waits until something was added.
    pub async fn added(&self) {
        self.earlier.notified().await;
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Uuid, Timestamp>) -> T) -> T {
        change(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
