//! Who holds how many of the slots: endpoints of each standing, and partners.

use std::time::Instant;

use uuid::Uuid;

use super::lane::Standing;
use super::{Lanes, Queued, RETRIES_PER_SLOT, Terms};

/// What a partner holds over all its endpoints.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) in_flight: usize,
    pub(super) retries: usize,
}

impl<J: Queued> Lanes<J> {
    pub(super) fn slots_left(&mut self, terms: Terms, now: Instant) -> usize {
        let standing = self.lane(terms, now).standing;
        self.slots_of(standing, terms.partner)
    }

    pub(super) fn slots_of(&self, standing: Standing, partner: Uuid) -> usize {
        let held = self.partners.get(&partner).map_or(0, |held| held.in_flight);
        let total = allowance(self.limits.total.saturating_sub(self.in_flight), held);
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

    pub(super) fn retries_left(&self, partner: Uuid) -> usize {
        let held = self.partners.get(&partner).map_or(0, |held| held.retries);
        allowance((self.limits.total * RETRIES_PER_SLOT).saturating_sub(self.retries), held)
    }

    pub(super) fn occupy(&mut self, endpoint: Uuid, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if lane.in_flight == 0 {
            lane.last_end = now;
        }
        lane.in_flight += 1;
        let (standing, partner) = (lane.standing, lane.partner);
        self.in_flight += 1;
        self.partners.entry(partner).or_default().in_flight += 1;
        if let Some(group) = self.group(standing) {
            *group += 1;
        }
    }

    pub(super) fn vacate(&mut self, endpoint: Uuid) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        let (standing, partner) = (lane.standing, lane.partner);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.give_back(partner, |held| held.in_flight = held.in_flight.saturating_sub(1));
        if let Some(group) = self.group(standing) {
            *group = group.saturating_sub(1);
        }
    }

    pub(super) fn unqueue(&mut self, partner: Uuid, retries: usize) {
        self.retries = self.retries.saturating_sub(retries);
        self.give_back(partner, |held| held.retries = held.retries.saturating_sub(retries));
    }

    pub(super) fn give_back(&mut self, partner: Uuid, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.partners.get_mut(&partner) {
            change(held);
            if held.in_flight == 0 && held.retries == 0 {
                self.partners.remove(&partner);
            }
        }
    }

    /// Changes a lane's standing and moves what it has under way to the other group.
    pub(super) fn rank(&mut self, endpoint: Uuid, standing: Standing) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let (before, moved) = (lane.standing, lane.in_flight);
        lane.standing = standing;
        if standing == Standing::Suspect {
            lane.window.suspect();
        }
        if let Some(group) = self.group(before) {
            *group = group.saturating_sub(moved);
        }
        if let Some(group) = self.group(standing) {
            *group += moved;
        }
    }

    pub(super) fn group(&mut self, standing: Standing) -> Option<&mut usize> {
        match standing {
            Standing::Proven => None,
            Standing::Suspect => Some(&mut self.suspect),
            Standing::Unproven => Some(&mut self.unproven),
        }
    }
}

/// How many more a partner that holds `held` may take of those that are free, so that it never holds more than are
/// left free.
const fn allowance(free: usize, held: usize) -> usize {
    free.saturating_sub(held).div_ceil(2)
}
