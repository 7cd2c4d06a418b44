//! One endpoint's lane: its window, rate, circuit and queues.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use super::throttle::Throttle;
use super::window::Window;
use super::{Queued, STALL, WAITING_MAX};
use crate::circuit::Circuit;

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not answered yet.
    Unproven,
    /// Its last answer was a quick success.
    Proven,
    /// It failed or was slow.
    Suspect,
}

/// What [`Lane::chain`] made of a delivery.
pub(super) enum Chained<J> {
    /// No other of its payment is before it.
    Free(J),
    /// It waits.
    Waits,
    /// There is one before it, and it may not wait.
    Refused(J),
}

#[derive(Debug)]
pub(super) struct Lane<J> {
    pub(super) standing: Standing,
    pub(super) circuit: Circuit,
    pub(super) window: Window,
    pub(super) throttle: Throttle,
    pub(super) partner: Uuid,
    pub(super) in_flight: usize,
    /// Requests under way that have been called slow.
    pub(super) slow: usize,
    /// When a request ended last, or the first one began.
    pub(super) last_end: Instant,
    pub(super) waiting: VecDeque<J>,
    pub(super) retries: VecDeque<J>,
    /// Per payment with an ordered delivery under way or waiting: those behind it.
    pub(super) chains: HashMap<Uuid, VecDeque<J>>,
    /// How many stand in `chains`.
    pub(super) chained: usize,
    retry_next: bool,
}

impl<J: Queued> Lane<J> {
    pub(super) fn new(partner: Uuid, limit: usize, now: Instant) -> Self {
        Self {
            standing: Standing::Unproven,
            circuit: Circuit::default(),
            window: Window::new(limit),
            throttle: Throttle::new(now),
            partner,
            in_flight: 0,
            slow: 0,
            last_end: now,
            waiting: VecDeque::new(),
            retries: VecDeque::new(),
            chains: HashMap::new(),
            chained: 0,
            retry_next: false,
        }
    }

    /// Whether one more first try may wait: not for an endpoint that fails, and not for one that has gone silent.
    pub(super) fn may_wait(&self, now: Instant) -> bool {
        self.standing != Standing::Suspect
            && self.waiting.len() + self.chained < WAITING_MAX
            && now.saturating_duration_since(self.last_end) < STALL
    }

    pub(super) fn enter_chain(&mut self, job: &J) {
        if let Some(key) = job.order() {
            self.chains.entry(key).or_default();
        }
    }

    /// Puts a delivery behind the one of the same payment, when there is one and this one may wait.
    pub(super) fn chain(&mut self, job: J, may_wait: bool) -> Chained<J> {
        let Some(behind) = job.order().and_then(|key| self.chains.get_mut(&key)) else {
            return Chained::Free(job);
        };
        if !may_wait {
            return Chained::Refused(job);
        }
        behind.push_back(job);
        self.chained += 1;
        Chained::Waits
    }

    /// An ordered delivery of a payment ended: the one behind it may go, before all others.
    pub(super) fn leave_chain(&mut self, key: Uuid) {
        let Some(behind) = self.chains.get_mut(&key) else { return };
        if let Some(job) = behind.pop_front() {
            self.chained -= 1;
            self.waiting.push_front(job);
        } else {
            self.chains.remove(&key);
        }
    }

    /// The next to start; first tries and retries take turns, so that neither starves.
    pub(super) fn pop(&mut self) -> Option<J> {
        self.retry_next = !self.retry_next;
        if self.retry_next {
            self.retries.pop_front().or_else(|| self.waiting.pop_front())
        } else {
            self.waiting.pop_front().or_else(|| self.retries.pop_front())
        }
    }

    /// Since when the first try waits that waits longest, chains left aside: they are behind it or under way.
    pub(super) fn first_since(&self) -> Option<Instant> {
        let chained = self.chains.values().filter_map(|behind| behind.front());
        self.waiting.front().into_iter().chain(chained).map(Queued::since).min()
    }

    /// Takes out the first tries that wait. Chains of those under way stay open, empty.
    pub(super) fn evict_first(&mut self) -> Vec<J> {
        let mut out: Vec<J> = self.waiting.drain(..).collect();
        // Nobody of these payments is under way any more; of those that remain, the first still is.
        let orphans: Vec<_> =
            out.iter().filter_map(Queued::order).filter_map(|key| self.chains.remove(&key)).collect();
        out.extend(orphans.into_iter().flatten());
        out.extend(self.chains.values_mut().flat_map(|behind| behind.drain(..)));
        self.chained = 0;
        out
    }

    /// Takes out everything that waits.
    pub(super) fn evict(&mut self) -> Vec<J> {
        let mut out = self.evict_first();
        for job in self.retries.drain(..) {
            // What waited has nothing of its payment under way, so nobody would close the chain.
            if let Some(key) = job.order() {
                self.chains.remove(&key);
            }
            out.push(job);
        }
        out
    }

    pub(super) fn waits(&self) -> usize {
        self.waiting.len() + self.retries.len() + self.chained
    }
}
