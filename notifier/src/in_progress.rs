//! First tries that are not recorded yet, and the offsets that wait for them.
//!
//! The topic repeats events: what comes again while its first try is under way joins it here, and what comes again
//! later is found in MySQL. An entry goes only after its row is committed, so one of the two always knows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::progress::{Progress, Ticket};
use crate::store::DeliveryKey;

/// The first tries under way.
#[derive(Debug)]
pub struct InProgress {
    progress: Arc<Progress>,
    waiting: Mutex<HashMap<DeliveryKey, Vec<Ticket>>>,
}

impl InProgress {
    /// None yet.
    pub fn new(progress: Arc<Progress>) -> Self {
        Self { progress, waiting: Mutex::default() }
    }

    /// Joins a first try that is under way; `false` when there is none.
    pub fn join(&self, key: DeliveryKey, ticket: Ticket) -> bool {
        self.with(|waiting| match waiting.get_mut(&key) {
            Some(tickets) => {
                self.progress.hold(ticket);
                tickets.push(ticket);
                true
            }
            None => false,
        })
    }

    /// A first try begins; the ticket is held until it is recorded.
    pub fn begin(&self, key: DeliveryKey, ticket: Ticket) {
        self.progress.hold(ticket);
        self.with(|waiting| waiting.entry(key).or_default().push(ticket));
    }

    /// The delivery is recorded.
    pub fn recorded(&self, key: DeliveryKey) {
        let tickets = self.with(|waiting| waiting.remove(&key));
        tickets.into_iter().flatten().for_each(|ticket| self.progress.release(ticket));
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<DeliveryKey, Vec<Ticket>>) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
