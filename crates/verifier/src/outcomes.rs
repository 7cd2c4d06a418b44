//! I5 and a part of I12: what became of payments that were accepted.

use std::collections::HashSet;

use domain::{ids::PaymentId, payment::PaymentStatus};
use serde::Serialize;
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::{Error, store};

/// Ids in one look-up.
const LOOKUP_MAX: usize = 1_000;
/// More examples than these help nobody.
const EXAMPLES_MAX: usize = 20;

/// What became of accepted payments. Each stands in exactly one count, since an id is unique in `payments`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Done: money moved, or what was held is released.
    pub posted: u64,
    /// Funds are held.
    pub authorized: u64,
    /// What was held is released.
    pub voided: u64,
    /// What was held is released because nobody captured it in time.
    pub expired: u64,
    /// Refused, with a reason.
    pub rejected: u64,
    /// Recorded as a conflict.
    pub conflicted: u64,
    /// No outcome, but an open dead letter.
    pub under_review: u64,
    /// Neither: in flight, or lost.
    pub missing: u64,
    /// A row in a status that is no outcome.
    pub illegal: u64,
    /// The first of those that are missing or illegal.
    pub examples: Vec<PaymentId>,
}

impl Outcomes {
    /// Whether each has an outcome or stands under review.
    pub const fn is_complete(&self) -> bool {
        self.missing == 0 && self.illegal == 0
    }
}

/// Looks up what became of these distinct ids.
pub async fn outcomes(pool: &MySqlPool, ids: &[PaymentId]) -> Result<Outcomes, Error> {
    let mut outcomes = Outcomes::default();
    for chunk in ids.chunks(LOOKUP_MAX) {
        let uuids: Vec<Uuid> = chunk.iter().map(PaymentId::uuid).collect();
        let mut open: HashSet<Uuid> = uuids.iter().copied().collect();
        for (id, status, _) in store::payment_statuses(pool, &uuids).await? {
            open.remove(&id);
            match PaymentStatus::from_code(status) {
                Some(PaymentStatus::Posted) => outcomes.posted += 1,
                Some(PaymentStatus::Authorized) => outcomes.authorized += 1,
                Some(PaymentStatus::Voided) => outcomes.voided += 1,
                Some(PaymentStatus::Expired) => outcomes.expired += 1,
                Some(PaymentStatus::Rejected) => outcomes.rejected += 1,
                Some(PaymentStatus::Conflicted) => outcomes.conflicted += 1,
                Some(PaymentStatus::Pending) | None => {
                    outcomes.illegal += 1;
                    outcomes.example(id);
                }
            }
        }
        let left: Vec<Uuid> = open.iter().copied().collect();
        for id in store::under_review(pool, &left).await? {
            // Two dead letters may hold one id.
            outcomes.under_review += u64::from(open.remove(&id));
        }
        outcomes.missing += open.len() as u64;
        for id in open {
            outcomes.example(id);
        }
    }
    Ok(outcomes)
}

impl Outcomes {
    fn example(&mut self, id: Uuid) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(PaymentId::from_uuid(id));
        }
    }
}
