//! I1, I4, I6 and I8: each payment against its entries, its mandate, the payment it belongs to, and the events that
//! told of it.
//!
//! Rows that a redrive put at the place of a dead letter appear behind positions that were walked already. So they are
//! passed over here and checked with the change that put them there.

mod authority;
mod roots;
mod row;
mod told;

use std::collections::{HashMap, HashSet};

use domain::{
    ids::{AccountId, MandateId, PaymentId},
    mandate::MandateKind,
    payment::{PaymentKind, PaymentStatus},
};
use uuid::Uuid;

use super::{Run, by_key, distinct, position_key, scratch};
use crate::{
    Error, Invariant, Report,
    report::Row,
    state::{Progress, SINGLE_BYTES},
    store::{self, Account, COMMAND_PAGE, Entry, Event, Mandate, Payment, Root},
};
use row::Shape;

/// What the rows of a page refer to.
pub(super) struct Referred {
    entries: HashMap<(Uuid, u64), Entry>,
    accounts: HashMap<Uuid, Account>,
    mandates: HashMap<Uuid, Mandate>,
    events: HashMap<(Uuid, u64), Event>,
    /// Payments that others may belong to: those of the page, and those that the page's follow-ups belong to.
    roots: HashMap<Uuid, Root>,
    /// Rows of `follow_ups`.
    follow_ups: HashSet<(Uuid, Uuid)>,
    /// Ids that stand in `changes`, too: test accounts are funded by the same command.
    changes: HashMap<Uuid, String>,
}

impl Run<'_> {
    /// Walks the payments of every partition up to its position.
    pub(crate) async fn payments(&mut self) -> Result<(), Error> {
        let bounds: Vec<u64> = self.snapshot.positions.iter().map(|it| it.next_offset).collect();
        for (index, below) in bounds.into_iter().enumerate() {
            let at = (self.after.partitions[index].source, self.after.partitions[index].partition);
            let mut from = self.after.partitions[index].next_offset;
            loop {
                let mut page = store::payments_page(self.pool, at, from, below).await?;
                self.report.read("payments", page.len());
                let (read, last) = (page.len(), page.last().map(|it| it.offset));
                if let Some(last) = last {
                    let dead: HashSet<u64> =
                        store::dead_offsets(self.pool, at, from, last).await?.into_iter().collect();
                    page.retain(|payment| !dead.contains(&payment.offset));
                }
                self.check_payments(&page, index).await?;
                match last {
                    Some(last) if read >= COMMAND_PAGE as usize && !self.report.is_full() => from = last + 1,
                    _ => break,
                }
                self.pace(read).await;
            }
        }
        Ok(())
    }

    /// Checks these rows and counts them for a partition.
    pub(super) async fn check_payments(&mut self, page: &[Payment], index: usize) -> Result<(), Error> {
        let referred = self.refer(page).await?;
        let mut checked = HashSet::new();
        for payment in page {
            let progress = &mut self.after.partitions[index];
            check(&mut self.report, payment, &referred, progress);
            // A follow-up may have changed a payment that was walked long ago.
            for id in [payment.id, payment.root] {
                if let Some(root) = referred.roots.get(&id).filter(|_| checked.insert(id)) {
                    roots::check(&mut self.report, root);
                }
            }
            if let Some(single) = used_single(payment, &referred) {
                let repeated = self.singles.insert(single).map_err(scratch)?;
                self.repeated_singles(&repeated);
            }
        }
        Ok(())
    }

    async fn refer(&mut self, page: &[Payment]) -> Result<Referred, Error> {
        let pool = self.pool;
        let kind = |payment: &Payment| PaymentKind::from_code(payment.kind);
        // Read before the roots: a follow-up that is seen here is seen there.
        let pairs: Vec<_> = page
            .iter()
            .filter(|it| kind(it).is_some_and(row::is_follow_up))
            .map(|it| (it.root, it.id))
            .collect();
        let follow_ups = store::follow_ups_of(pool, &pairs).await?.into_iter().collect();
        let own = page.iter().filter(|it| kind(it).is_some_and(row::is_root)).map(|it| it.id);
        let ids = distinct(own.chain(pairs.iter().map(|(root, _)| *root)));
        let roots = by_key(store::roots(pool, &ids).await?, |it| it.payment.id);
        let entries: Vec<_> = page.iter().flat_map(Payment::entries).collect();
        let events: Vec<_> = page.iter().flat_map(Payment::events).collect();
        let sides = page.iter().flat_map(|it| it.debit.into_iter().chain(it.credit));
        let accounts = store::accounts_by_id(pool, &distinct(sides)).await?;
        let mandates = distinct(page.iter().filter_map(|it| it.mandate));
        let mandates = store::mandates_by_id(pool, &mandates).await?;
        let deposits = page.iter().filter(|it| kind(it) == Some(PaymentKind::Deposit)).map(|it| it.id);
        let changes = store::changes_by_id(pool, &distinct(deposits)).await?;
        Ok(Referred {
            entries: by_key(store::entries_at(pool, &entries).await?, |it| (it.account, it.version)),
            accounts: by_key(accounts, |it| it.id),
            mandates: by_key(mandates, |it| it.id),
            events: by_key(store::events_at(pool, &events).await?, |it| (it.partner, it.sequence)),
            roots,
            follow_ups,
            changes: changes.into_iter().map(|(id, kind, _)| (id, kind)).collect(),
        })
    }

    /// Records of single-use mandates that a second payment used.
    pub(super) fn repeated_singles(&mut self, repeated: &[[u8; SINGLE_BYTES]]) {
        for record in repeated {
            let (mandate, payment) = record.split_at(16);
            let id = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap_or_default();
            let key = || PaymentId::from_uuid(id(payment)).to_string();
            let row = Row { table: "payments", key: &key };
            let mandate = MandateId::from_uuid(id(mandate));
            let say = || {
                let expected = format!("one payment that is not rejected under the single-use {mandate}");
                (expected, "a second one".to_owned())
            };
            self.report.hold(Invariant::I8, &row, false, say);
        }
    }
}

fn used_single(payment: &Payment, referred: &Referred) -> Option<[u8; SINGLE_BYTES]> {
    let mandate = referred.mandates.get(&payment.mandate?)?;
    let counts = payment.kind == PaymentKind::Payment.code()
        && mandate.kind == MandateKind::Single.code()
        && payment.status != PaymentStatus::Rejected.code();
    counts.then(|| {
        let mut record = [0; SINGLE_BYTES];
        record[..16].copy_from_slice(mandate.id.as_bytes());
        record[16..].copy_from_slice(payment.id.as_bytes());
        record
    })
}

fn check(report: &mut Report, payment: &Payment, referred: &Referred, progress: &mut Progress) {
    progress.told += u64::from(payment.event_sequence.is_some()) + u64::from(payment.told_sequence.is_some());
    progress.linked += u64::from(referred.follow_ups.contains(&(payment.root, payment.id)));
    let key = || payment_key(payment);
    let row = Row { table: "payments", key: &key };
    let Some(shape) = Shape::of(payment) else {
        let say = || {
            let found = format!("{}, {}, {:?}", payment.kind, payment.status, payment.currency);
            ("a legal kind, status and currency".to_owned(), found)
        };
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    progress.posted += u64::from(shape.moves);
    progress.held += i64::from(shape.holds) - i64::from(shape.ends_hold());
    row::check_status(report, &row, payment, shape);
    row::check_id(report, &row, payment, shape);
    row::check_amounts(report, &row, payment, shape);
    row::check_posting(report, &row, payment, shape, referred);
    roots::check_link(report, &row, payment, shape, referred);
    if shape.moves || shape.holds || shape.ends_hold() {
        authority::check(report, &row, payment, shape, referred);
    }
    told::check(report, &row, payment, shape, referred);
}

fn payment_key(payment: &Payment) -> String {
    format!("{} at {}", PaymentId::from_uuid(payment.id), position_key(payment.position()))
}

fn key_of(account: Uuid) -> String {
    AccountId::from_uuid(account).to_string()
}
