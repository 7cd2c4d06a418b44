//! What one command on money adds to the figures. Pure.
//!
//! A command is counted as what was decided on it then. What becomes of a payment later is told by commands of their own
//! (capture, void, expiry, refund), which are counted as themselves: nothing is ever taken back.

use std::collections::{BTreeMap, BTreeSet};

use domain::histogram;
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Grain {
    /// An hour of UTC.
    Hour = 1,
    /// A day of the bank's zone.
    Day = 2,
}

impl Grain {
    /// The bucket of an instant.
    pub fn bucket(self, at: Timestamp, zone: &TimeZone) -> i32 {
        match self {
            Self::Hour => i32::try_from(at.seconds().div_euclid(3_600)).unwrap_or(i32::MAX),
            Self::Day => at.day_in(zone).0,
        }
    }

    /// When a bucket begins.
    pub fn start(self, bucket: i32, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Hour => Timestamp::from_micros(i64::from(bucket) * 3_600_000_000),
            Self::Day => domain::time::Day(bucket).start_in(zone),
        }
    }
}

/// A command on money and what was decided.
#[derive(Debug, Clone)]
pub struct Fact {
    /// What it does.
    pub kind: PaymentKind,
    /// What was decided then.
    pub outcome: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// `false` for test money.
    pub livemode: bool,
    /// Whose it is.
    pub partner: Option<Uuid>,
    /// Its currency.
    pub currency: Option<Currency>,
    /// What it asks for.
    pub amount_minor: i64,
    /// Whether it moved that.
    pub moved: bool,
    /// The customer who owns the debited account.
    pub customer: Option<Uuid>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// Which row of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutcomeKey {
    /// `false` for test money.
    pub livemode: bool,
    /// How long the bucket is.
    pub grain: Grain,
    /// Which bucket.
    pub bucket: i32,
    /// What it does.
    pub kind: PaymentKind,
    /// In which currency.
    pub currency: Option<Currency>,
    /// What was decided.
    pub outcome: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
}

/// Sums of a row of outcomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeSums {
    /// How many.
    pub commands: u64,
    /// What they asked for.
    pub requested_minor: i128,
    /// What they moved.
    pub moved_minor: i128,
}

/// Which row of partners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartnerKey {
    /// `false` for test money.
    pub livemode: bool,
    /// The bank's day.
    pub day: i32,
    /// The partner.
    pub partner: Uuid,
    /// In which currency.
    pub currency: Option<Currency>,
}

/// Sums of a row of partners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartnerSums {
    /// How many commands.
    pub commands: u64,
    /// How many of them were rejected.
    pub rejected: u64,
    /// Moved by payments and captures.
    pub taken_minor: i128,
    /// Moved back by refunds and reversals.
    pub returned_minor: i128,
}

/// What a number of commands adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Increments {
    /// By outcome.
    pub outcomes: BTreeMap<OutcomeKey, OutcomeSums>,
    /// By grain, bucket and step of the histogram.
    pub latency: BTreeMap<(Grain, i32, u16), u64>,
    /// By partner.
    pub partners: BTreeMap<PartnerKey, PartnerSums>,
    /// Customers by day.
    pub customers: BTreeMap<i32, BTreeSet<Uuid>>,
}

impl Increments {
    /// Counts one more.
    pub fn add(&mut self, fact: &Fact, zone: &TimeZone) {
        let amount = i128::from(fact.amount_minor);
        let moved = if fact.moved { amount } else { 0 };
        let waited = u64::try_from(fact.decided_at.micros() - fact.accepted_at.micros()).unwrap_or(0);
        for grain in [Grain::Hour, Grain::Day] {
            let bucket = grain.bucket(fact.decided_at, zone);
            let key = OutcomeKey {
                livemode: fact.livemode,
                grain,
                bucket,
                kind: fact.kind,
                currency: fact.currency,
                outcome: fact.outcome,
                reason: fact.reason,
            };
            let sums = self.outcomes.entry(key).or_default();
            sums.commands += 1;
            sums.requested_minor += amount;
            sums.moved_minor += moved;
            *self.latency.entry((grain, bucket, histogram::step(waited))).or_default() += 1;
        }
        let day = Grain::Day.bucket(fact.decided_at, zone);
        if let Some(partner) = fact.partner {
            let key = PartnerKey { livemode: fact.livemode, day, partner, currency: fact.currency };
            let sums = self.partners.entry(key).or_default();
            sums.commands += 1;
            sums.rejected += u64::from(fact.outcome == PaymentStatus::Rejected);
            match fact.kind {
                PaymentKind::Payment | PaymentKind::Capture => sums.taken_minor += moved,
                PaymentKind::Refund | PaymentKind::Reversal => sums.returned_minor += moved,
                PaymentKind::Deposit
                | PaymentKind::Conflict
                | PaymentKind::Void
                | PaymentKind::Expire
                | PaymentKind::Transfer
                | PaymentKind::Withdrawal => {}
            }
        }
        let counts =
            fact.livemode && matches!(fact.outcome, PaymentStatus::Posted | PaymentStatus::Authorized);
        if let Some(customer) = fact.customer.filter(|_| counts) {
            self.customers.entry(day).or_default().insert(customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: PaymentKind, outcome: PaymentStatus, moved: bool) -> Fact {
        Fact {
            kind,
            outcome,
            reason: None,
            livemode: true,
            partner: Some(Uuid::from_u128(1)),
            currency: Some(Currency::EUR),
            amount_minor: 100,
            moved,
            customer: Some(Uuid::from_u128(2)),
            accepted_at: "2026-03-01T22:59:59.999Z".parse().unwrap(),
            decided_at: "2026-03-01T23:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn an_authorised_payment_moves_nothing_until_its_capture() {
        let zone = TimeZone::get("Europe/Vienna").unwrap();
        let mut increments = Increments::default();
        increments.add(&fact(PaymentKind::Payment, PaymentStatus::Authorized, false), &zone);
        increments.add(&fact(PaymentKind::Capture, PaymentStatus::Posted, true), &zone);
        increments.add(&fact(PaymentKind::Refund, PaymentStatus::Posted, true), &zone);
        increments.add(&fact(PaymentKind::Payment, PaymentStatus::Rejected, false), &zone);
        let moved: i128 = increments.outcomes.values().map(|sums| sums.moved_minor).sum();
        assert_eq!(moved, 2 * 200, "once by hour and once by day");
        let partner: Vec<_> = increments.partners.into_values().collect();
        let expected = PartnerSums { commands: 4, rejected: 1, taken_minor: 100, returned_minor: 100 };
        assert_eq!(partner, [expected]);
        // By the bank's clock it is the next day already.
        let day = "2026-03-02T12:00:00Z".parse::<Timestamp>().unwrap().day_in(&zone).0;
        assert_eq!(increments.customers.keys().collect::<Vec<_>>(), [&day]);
        assert_eq!(increments.customers[&day].len(), 1);
        assert_eq!(increments.latency.values().sum::<u64>(), 2 * 4);
    }

    #[test]
    fn buckets_begin_where_they_begin() {
        let zone = TimeZone::get("Europe/Vienna").unwrap();
        let at: Timestamp = "2026-10-25T12:34:56.789Z".parse().unwrap();
        for (grain, start) in [(Grain::Hour, "2026-10-25T12:00:00Z"), (Grain::Day, "2026-10-24T22:00:00Z")] {
            let bucket = grain.bucket(at, &zone);
            assert_eq!(grain.start(bucket, &zone), start.parse().unwrap());
            assert_eq!(grain.bucket(grain.start(bucket, &zone), &zone), bucket);
            assert_eq!(grain.bucket(grain.start(bucket + 1, &zone).plus_micros(-1), &zone), bucket);
        }
    }
}
