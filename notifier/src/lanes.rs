//! Which delivery may start now: one lane per endpoint, with a budget, a circuit and a short queue.
//!
//! Pure: no I/O; time is an argument. What it decides:
//! - An endpoint has at most its **window** of requests under way. The window grows by one with each quick success
//!   and is halved by each failure, so that a stranger cannot take many slots before it is known.
//! - Endpoints that failed or were slow (**suspect**) have together only a share of all slots, and so have those
//!   that have not answered yet (**unproven**): bad endpoints cannot take the slots of good ones.
//! - What a proven endpoint cannot take at once waits here, briefly; anything else is **spilled**: the caller puts it
//!   into the database, from where it comes back as a retry when there is room.
//! - Events of one payment keep their order while they are in their first try: a later one waits for the earlier.
//!
//! Invariant: a lane in which something waits has something under way, whose end takes the next one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::circuit::{PAUSE_MIN, Permit};

mod lane;
#[cfg(test)]
mod tests;

use lane::{Lane, Standing};

/// First tries that may wait in one lane.
const WAITING_MAX: usize = 1_024;
/// Claimed retries that may wait in one lane, under their leases.
const RETRIES_MAX: usize = 256;
/// A lane whose requests have brought nothing back for so long lets nothing wait.
const STALL: Duration = Duration::from_millis(200);
/// The window of an endpoint that has not answered yet, and the most that a suspect one has.
const WINDOW_START: usize = 8;
const WINDOW_MIN: usize = 2;

/// What is delivered, as far as lanes need to know.
pub trait Queued {
    /// First tries with the same key keep their order.
    fn order(&self) -> Option<Uuid>;
    /// Whether it is a first try.
    fn is_first(&self) -> bool;
    /// Since when it waits.
    fn since(&self) -> Instant;
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
    in_flight: usize,
    suspect: usize,
    unproven: usize,
}

impl<J: Queued> Lanes<J> {
    /// No lanes yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lanes: HashMap::new(), in_flight: 0, suspect: 0, unproven: 0 }
    }

    /// A first try.
    pub fn admit(&mut self, endpoint: Uuid, job: J, now: Instant) -> Admission<J> {
        let standing = self.lane(endpoint, now).standing;
        let slots = self.slots_left(standing);
        let lane = self.lane(endpoint, now);
        let circuit = lane.circuit.permit(now);
        if let Permit::Open(until) = circuit {
            return Admission::Spill(job, until.saturating_duration_since(now));
        }
        let may_wait = lane.may_wait(now);
        if let Some(key) = job.order()
            && let Some(behind) = lane.chains.get_mut(&key)
        {
            if !may_wait {
                return Admission::Spill(job, Duration::ZERO);
            }
            behind.push_back(job);
            lane.chained += 1;
            return Admission::Waits;
        }
        if circuit == Permit::Probe {
            if slots == 0 {
                return Admission::Spill(job, PAUSE_MIN);
            }
            lane.circuit.probe();
        } else if slots == 0 || lane.in_flight >= lane.window {
            // What waits must have something under way that will call for it.
            if may_wait && lane.in_flight > 0 {
                lane.enter_chain(&job);
                lane.waiting.push_back(job);
                return Admission::Waits;
            }
            return Admission::Spill(job, Duration::ZERO);
        }
        lane.enter_chain(&job);
        self.occupy(endpoint, now);
        Admission::Start(job)
    }

    /// How many retries may be claimed for an endpoint now.
    pub fn room(&mut self, endpoint: Uuid, now: Instant) -> usize {
        let standing = self.lane(endpoint, now).standing;
        let slots = self.slots_left(standing);
        let lane = self.lane(endpoint, now);
        let free = slots.min(lane.window.saturating_sub(lane.in_flight));
        match (lane.circuit.permit(now), standing) {
            (Permit::Open(_), _) => 0,
            (Permit::Probe, _) => slots.min(1),
            (Permit::Closed, Standing::Proven) if free > 0 || lane.may_wait(now) => {
                free + RETRIES_MAX.saturating_sub(lane.retries.len())
            }
            (Permit::Closed, _) => free,
        }
    }

    /// Claimed retries. What finds no room any more is spilled.
    pub fn admit_retries(&mut self, endpoint: Uuid, jobs: Vec<J>, now: Instant) -> Next<J> {
        let mut next = Next::nothing();
        for job in jobs {
            let standing = self.lane(endpoint, now).standing;
            let slots = self.slots_left(standing);
            let lane = self.lane(endpoint, now);
            let window = match lane.circuit.permit(now) {
                Permit::Closed => lane.window,
                Permit::Probe => lane.in_flight + 1,
                Permit::Open(until) => {
                    next.wait = until.saturating_duration_since(now);
                    0
                }
            };
            if slots > 0 && lane.in_flight < window {
                lane.circuit.probe();
                self.occupy(endpoint, now);
                next.start.push(job);
            } else if window > 0
                && standing == Standing::Proven
                && lane.in_flight > 0
                && lane.retries.len() < RETRIES_MAX
            {
                lane.retries.push_back(job);
            } else {
                next.spill.push(job);
            }
        }
        next
    }

    /// A request has been under way for too long to wait for it: its endpoint is suspect from now on.
    pub fn slow(&mut self, endpoint: Uuid, now: Instant) -> Next<J> {
        let lane = self.lane(endpoint, now);
        lane.slow += 1;
        let spill = lane.evict();
        self.rank(endpoint, Standing::Suspect, now);
        Next { start: Vec::new(), spill, wait: Duration::ZERO }
    }

    /// A request ended. `order` is the key of a first try, so that the one behind it goes next.
    pub fn finish(&mut self, endpoint: Uuid, order: Option<Uuid>, end: End, now: Instant) -> Next<J> {
        let limit = self.limits.endpoint;
        self.vacate(endpoint, now);
        let lane = self.lane(endpoint, now);
        lane.last_end = now;
        if end.was_slow {
            lane.slow = lane.slow.saturating_sub(1);
        }
        if end.succeeded {
            lane.circuit.succeeded();
            if lane.slow == 0 && !end.was_slow {
                lane.window = (lane.window + 1).min(limit);
                self.rank(endpoint, Standing::Proven, now);
            }
        } else {
            lane.circuit.failed(now);
            lane.window = (lane.window / 2).max(WINDOW_MIN);
            self.rank(endpoint, Standing::Suspect, now);
        }
        let lane = self.lane(endpoint, now);
        if let Some(key) = order {
            lane.leave_chain(key);
        }
        let (spill, wait) = match lane.circuit.permit(now) {
            Permit::Open(until) => (lane.evict(), until.saturating_duration_since(now)),
            Permit::Closed | Permit::Probe if lane.standing != Standing::Proven => {
                (lane.evict(), Duration::ZERO)
            }
            Permit::Closed | Permit::Probe => (Vec::new(), Duration::ZERO),
        };
        let start = self.start_waiting(endpoint, now);
        // Nothing may be left waiting for an end that never comes.
        let lane = self.lane(endpoint, now);
        let mut next = Next { start, spill, wait };
        if lane.in_flight == 0 {
            next.spill.extend(lane.evict());
        }
        next
    }

    /// What was started is not made after all.
    pub fn cancel(&mut self, endpoint: Uuid, now: Instant) -> Next<J> {
        self.vacate(endpoint, now);
        let start = self.start_waiting(endpoint, now);
        Next { start, ..Next::nothing() }
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
        self.lanes.values_mut().flat_map(Lane::evict).collect()
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
            let standing = self.lane(endpoint, now).standing;
            // What waits in a lane that has nothing under way is started whatever the total: nobody else would.
            let slots = self.slots_left(standing);
            let lane = self.lane(endpoint, now);
            if lane.in_flight >= lane.window || (slots == 0 && lane.in_flight > 0) {
                return start;
            }
            let Some(job) = lane.pop() else { return start };
            self.occupy(endpoint, now);
            start.push(job);
        }
    }

    fn lane(&mut self, endpoint: Uuid, now: Instant) -> &mut Lane<J> {
        let window = WINDOW_START.min(self.limits.endpoint);
        self.lanes.entry(endpoint).or_insert_with(|| Lane::new(window, now))
    }

    fn slots_left(&self, standing: Standing) -> usize {
        let total = self.limits.total.saturating_sub(self.in_flight);
        match standing {
            Standing::Proven => total,
            Standing::Suspect => total.min(self.limits.share.saturating_sub(self.suspect)),
            Standing::Unproven => {
                // What was unproven and turned out slow counts as suspect and still holds its slots, so both shares
                // together bound how many more strangers are let in.
                let both = (2 * self.limits.share).saturating_sub(self.unproven + self.suspect);
                total.min(both).min(self.limits.share.saturating_sub(self.unproven))
            }
        }
    }

    fn occupy(&mut self, endpoint: Uuid, now: Instant) {
        let lane = self.lane(endpoint, now);
        if lane.in_flight == 0 {
            lane.last_end = now;
        }
        lane.in_flight += 1;
        let standing = lane.standing;
        self.in_flight += 1;
        if let Some(group) = self.group(standing) {
            *group += 1;
        }
    }

    fn vacate(&mut self, endpoint: Uuid, now: Instant) {
        let lane = self.lane(endpoint, now);
        lane.in_flight = lane.in_flight.saturating_sub(1);
        let standing = lane.standing;
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(group) = self.group(standing) {
            *group = group.saturating_sub(1);
        }
    }

    /// Changes a lane's standing and moves what it has under way to the other group.
    fn rank(&mut self, endpoint: Uuid, standing: Standing, now: Instant) {
        let lane = self.lane(endpoint, now);
        let (before, moved) = (lane.standing, lane.in_flight);
        lane.standing = standing;
        if standing == Standing::Suspect {
            lane.window = lane.window.min(WINDOW_START);
        }
        if let Some(group) = self.group(before) {
            *group = group.saturating_sub(moved);
        }
        if let Some(group) = self.group(standing) {
            *group += moved;
        }
    }

    fn group(&mut self, standing: Standing) -> Option<&mut usize> {
        match standing {
            Standing::Proven => None,
            Standing::Suspect => Some(&mut self.suspect),
            Standing::Unproven => Some(&mut self.unproven),
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The receiver accepted the event.
    pub succeeded: bool,
    /// [`Lanes::slow`] was called for it.
    pub was_slow: bool,
}
