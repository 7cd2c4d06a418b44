//! Which delivery may start now: one lane per endpoint, with a budget, a circuit and a short queue.
//!
//! Pure: no I/O; time is an argument. What it decides:
//! - An endpoint has at most its **window** of requests under way. The window grows while its latency holds and is
//!   halved by each failure, so that a stranger cannot take many slots before it is known.
//! - A **partner** holds, over all its endpoints, no more slots than are free (the dynamic threshold of switches'
//!   shared buffers): alone at most half, with n - 1 others that want as much one part in n + 1, so that whoever comes
//!   finds slots free. The same holds for claimed retries that wait in memory.
//! - An endpoint's own **rate** is kept: what is over it is spilled, one interval after the other.
//! - Endpoints that failed or were slow (**suspect**) have together only a share of all slots, and so have those
//!   that have not answered yet (**unproven**): bad endpoints cannot take the slots of good ones.
//! - What a proven endpoint cannot take at once waits here, briefly; anything else is **spilled**: the caller puts it
//!   into the database, from where it comes back as a retry when there is room.
//! - Events of one payment keep their order while they are in their first try (after a replay: in the first one
//!   since): a later one waits for the earlier.
//!
//! Invariant: a lane in which something waits has something under way, whose end takes the next one.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::circuit::{PAUSE_MIN, Permit};

mod lane;
mod slots;
#[cfg(test)]
mod tests;
mod throttle;
mod window;

use lane::{Chained, Lane, Standing};
use slots::Held;
#[cfg(test)]
use window::WINDOW_START;

/// First tries that may wait in one lane.
const WAITING_MAX: usize = 4_096;
/// Claimed retries that may wait in one lane, under their leases.
const RETRIES_MAX: usize = 256;
/// Claimed retries that may wait in all lanes, as a multiple of the slots.
const RETRIES_PER_SLOT: usize = 4;
/// A lane whose requests have brought nothing back for so long lets nothing wait.
const STALL: Duration = Duration::from_millis(200);

/// What is delivered, as far as lanes need to know.
pub trait Queued {
    /// Deliveries with the same key keep their order.
    fn order(&self) -> Option<Uuid>;
    /// Whether it is a first try.
    fn is_first(&self) -> bool;
    /// Since when it waits.
    fn since(&self) -> Instant;
}

/// Whose requests they are, and how many its owner wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The endpoint: one lane each.
    pub endpoint: Uuid,
    /// Whose it is.
    pub partner: Uuid,
    /// Deliveries in a second, at most.
    pub rate: Option<NonZeroU32>,
}

/// How many requests may be under way.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To all endpoints together.
    pub total: usize,
    /// To one endpoint.
    pub endpoint: usize,
    /// To all suspect ones together, and to all unproven ones together.
    pub share: usize,
}

/// What to do with a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<J> {
    /// Start it; [`Lanes::finish`] must follow.
    Start(J),
    /// It waits in the lane.
    Waits,
    /// Store it, due after the wait.
    Spill(J, Duration),
}

/// What follows from the end of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Next<J> {
    /// Start these.
    pub start: Vec<J>,
    /// Store these, due after the wait.
    pub spill: Vec<J>,
    /// How long spilled ones wait.
    pub wait: Duration,
}

impl<J> Next<J> {
    const fn nothing() -> Self {
        Self { start: Vec::new(), spill: Vec::new(), wait: Duration::ZERO }
    }
}

/// How many requests are under way and lanes are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Requests under way.
    pub in_flight: usize,
    /// Of them, to suspect endpoints.
    pub suspect: usize,
    /// Of them, to unproven endpoints.
    pub unproven: usize,
    /// Deliveries waiting in lanes.
    pub waiting: usize,
    /// Circuits that are not closed.
    pub circuits_open: usize,
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes<J> {
    limits: Limits,
    lanes: HashMap<Uuid, Lane<J>>,
    /// Partners that hold something.
    partners: HashMap<Uuid, Held>,
    in_flight: usize,
    suspect: usize,
    unproven: usize,
    /// Claimed retries that wait.
    retries: usize,
}

impl<J: Queued> Lanes<J> {
    /// No lanes yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            partners: HashMap::new(),
            in_flight: 0,
            suspect: 0,
            unproven: 0,
            retries: 0,
        }
    }

    /// A first try.
    pub fn admit(&mut self, terms: Terms, job: J, now: Instant) -> Admission<J> {
        let slots = self.slots_left(terms, now);
        let lane = self.lane(terms, now);
        let circuit = lane.circuit.permit(now);
        if let Permit::Open(until) = circuit {
            return Admission::Spill(job, until.saturating_duration_since(now));
        }
        let may_wait = lane.may_wait(now);
        let job = match lane.chain(job, may_wait) {
            Chained::Free(job) => job,
            Chained::Waits => {
                lane.throttle.take(now);
                return Admission::Waits;
            }
            Chained::Refused(job) => return Admission::Spill(job, Duration::ZERO),
        };
        if let Some(wait) = lane.throttle.plan(now) {
            return Admission::Spill(job, wait);
        }
        if circuit == Permit::Probe {
            if slots == 0 {
                return Admission::Spill(job, PAUSE_MIN);
            }
            lane.circuit.probe();
        } else if slots == 0 || lane.in_flight >= lane.window.size() {
            // What waits must have something under way that will call for it.
            if may_wait && lane.in_flight > 0 {
                lane.enter_chain(&job);
                lane.throttle.take(now);
                lane.waiting.push_back(job);
                return Admission::Waits;
            }
            return Admission::Spill(job, Duration::ZERO);
        }
        lane.enter_chain(&job);
        lane.throttle.take(now);
        self.occupy(terms.endpoint, now);
        Admission::Start(job)
    }

    /// How many retries may be claimed for an endpoint now, or how long to wait before asking again; zero stands for
    /// until something ends.
    pub fn room(&mut self, terms: Terms, now: Instant) -> Result<NonZeroUsize, Duration> {
        let slots = self.slots_left(terms, now);
        let queue = self.retries_left(terms.partner);
        let lane = self.lane(terms, now);
        let wait = match lane.circuit.permit(now) {
            Permit::Open(until) => until.saturating_duration_since(now),
            Permit::Closed | Permit::Probe => lane.throttle.wait(now),
        };
        if wait > Duration::ZERO {
            return Err(wait);
        }
        let free = slots.min(lane.window.size().saturating_sub(lane.in_flight));
        let room = match (lane.circuit.permit(now), lane.standing) {
            (Permit::Open(_), _) => 0,
            (Permit::Probe, _) => slots.min(1),
            (Permit::Closed, Standing::Proven) if free > 0 || lane.may_wait(now) => {
                free + queue.min(RETRIES_MAX.saturating_sub(lane.retries.len()))
            }
            (Permit::Closed, _) => free,
        };
        NonZeroUsize::new(room.min(lane.throttle.room(now))).ok_or(Duration::ZERO)
    }

    /// Claimed retries. What finds no room any more is spilled.
    pub fn admit_retries(&mut self, terms: Terms, jobs: Vec<J>, now: Instant) -> Next<J> {
        let mut next = Next::nothing();
        for job in jobs {
            let slots = self.slots_left(terms, now);
            let queue = self.retries_left(terms.partner);
            let lane = self.lane(terms, now);
            let window = match lane.circuit.permit(now) {
                Permit::Closed => lane.window.size(),
                Permit::Probe => lane.in_flight + 1,
                Permit::Open(until) => {
                    next.wait = until.saturating_duration_since(now);
                    0
                }
            };
            let may_queue = window > 0
                && lane.standing == Standing::Proven
                && lane.in_flight > 0
                && queue > 0
                && lane.retries.len() + lane.chained < RETRIES_MAX;
            let job = match lane.chain(job, may_queue) {
                Chained::Free(job) => job,
                Chained::Waits => {
                    lane.throttle.take(now);
                    continue;
                }
                Chained::Refused(job) => {
                    next.spill.push(job);
                    continue;
                }
            };
            if slots > 0 && lane.in_flight < window {
                lane.circuit.probe();
                lane.enter_chain(&job);
                lane.throttle.take(now);
                self.occupy(terms.endpoint, now);
                next.start.push(job);
            } else if may_queue {
                lane.enter_chain(&job);
                lane.throttle.take(now);
                lane.retries.push_back(job);
                self.retries += 1;
                self.partners.entry(terms.partner).or_default().retries += 1;
            } else {
                next.spill.push(job);
            }
        }
        next
    }

    /// A request has been under way for too long to wait for it: its endpoint is suspect from now on.
    pub fn slow(&mut self, endpoint: Uuid) -> Next<J> {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Next::nothing() };
        lane.slow += 1;
        let spill = self.evict(endpoint);
        self.rank(endpoint, Standing::Suspect);
        Next { start: Vec::new(), spill, wait: Duration::ZERO }
    }

    /// A request ended. `order` is the key of an ordered delivery, so that the one behind it goes next.
    pub fn finish(&mut self, endpoint: Uuid, order: Option<Uuid>, end: End, now: Instant) -> Next<J> {
        let limit = self.limits.endpoint;
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Next::nothing() };
        let in_flight = lane.in_flight;
        lane.last_end = now;
        if end.was_slow {
            lane.slow = lane.slow.saturating_sub(1);
        }
        let mut standing = lane.standing;
        if end.succeeded {
            lane.circuit.succeeded();
            if lane.slow == 0 && !end.was_slow {
                lane.window.succeeded(end.took, in_flight, limit);
                standing = Standing::Proven;
            }
        } else {
            lane.circuit.failed(now);
            lane.window.failed();
            standing = Standing::Suspect;
        }
        if let Some(key) = order {
            lane.leave_chain(key);
        }
        let circuit = lane.circuit.permit(now);
        self.vacate(endpoint);
        self.rank(endpoint, standing);
        let (spill, wait) = match circuit {
            Permit::Open(until) => (self.evict(endpoint), until.saturating_duration_since(now)),
            Permit::Closed | Permit::Probe if standing != Standing::Proven => {
                (self.evict(endpoint), Duration::ZERO)
            }
            Permit::Closed | Permit::Probe => (Vec::new(), Duration::ZERO),
        };
        let start = self.start_waiting(endpoint, now);
        self.without_orphans(endpoint, Next { start, spill, wait })
    }

    /// What was started is not made after all.
    pub fn cancel(&mut self, endpoint: Uuid, order: Option<Uuid>, now: Instant) -> Next<J> {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Next::nothing() };
        if let Some(key) = order {
            lane.leave_chain(key);
        }
        self.vacate(endpoint);
        let start = self.start_waiting(endpoint, now);
        self.without_orphans(endpoint, Next { start, ..Next::nothing() })
    }

    /// Nothing may be left waiting for an end that never comes.
    fn without_orphans(&mut self, endpoint: Uuid, mut next: Next<J>) -> Next<J> {
        if self.lanes.get(&endpoint).is_some_and(|lane| lane.in_flight == 0) {
            next.spill.extend(self.evict(endpoint));
        }
        next
    }

    /// Takes out everything that waits in a lane.
    fn evict(&mut self, endpoint: Uuid) -> Vec<J> {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Vec::new() };
        let (partner, queued) = (lane.partner, lane.retries.len());
        let evicted = lane.evict();
        self.unqueue(partner, queued);
        evicted
    }

    /// Takes out what has waited since before `before`; the caller stores it.
    pub fn expire(&mut self, before: Instant) -> Vec<J> {
        let mut expired = Vec::new();
        for lane in self.lanes.values_mut() {
            if lane.first_since().is_some_and(|since| since < before) {
                expired.extend(lane.evict_first());
            }
        }
        expired
    }

    /// Takes out everything that waits.
    pub fn drain(&mut self) -> Vec<J> {
        let endpoints: Vec<Uuid> = self.lanes.keys().copied().collect();
        endpoints.into_iter().flat_map(|endpoint| self.evict(endpoint)).collect()
    }

    /// Forgets lanes of endpoints that are gone and have nothing under way.
    pub fn retain(&mut self, exists: impl Fn(Uuid) -> bool) {
        self.lanes.retain(|endpoint, lane| lane.in_flight > 0 || exists(*endpoint));
    }

    /// Counts for the metrics.
    pub fn census(&self) -> Census {
        Census {
            in_flight: self.in_flight,
            suspect: self.suspect,
            unproven: self.unproven,
            waiting: self.lanes.values().map(Lane::waits).sum(),
            circuits_open: self.lanes.values().filter(|lane| lane.circuit.is_open()).count(),
        }
    }

    fn start_waiting(&mut self, endpoint: Uuid, now: Instant) -> Vec<J> {
        let mut start = Vec::new();
        loop {
            let Some(lane) = self.lanes.get(&endpoint) else { return start };
            let (partner, idle) = (lane.partner, lane.in_flight == 0);
            // What waits in a lane that has nothing under way is started whatever the total: nobody else would.
            let slots = self.slots_of(lane.standing, partner);
            if lane.in_flight >= lane.window.size() || (slots == 0 && !idle) {
                return start;
            }
            let Some(lane) = self.lanes.get_mut(&endpoint) else { return start };
            let queued = lane.retries.len();
            let Some(job) = lane.pop() else { return start };
            let taken = queued - lane.retries.len();
            self.unqueue(partner, taken);
            self.occupy(endpoint, now);
            start.push(job);
        }
    }

    fn lane(&mut self, terms: Terms, now: Instant) -> &mut Lane<J> {
        let limit = self.limits.endpoint;
        let lane = self.lanes.entry(terms.endpoint).or_insert_with(|| Lane::new(terms.partner, limit, now));
        lane.throttle.set(terms.rate);
        lane
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The receiver accepted the event.
    pub succeeded: bool,
    /// [`Lanes::slow`] was called for it.
    pub was_slow: bool,
    /// How long it took.
    pub took: Duration,
}
