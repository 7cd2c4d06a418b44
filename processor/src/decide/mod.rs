//! The heart: folds a batch of commands over the state they refer to, and says what is to be written.
//!
//! Synchronous, total and pure: no database, no clock, no randomness. Every command ends as exactly one of
//! posted, rejected, conflicted, changed, a dead letter, or nothing when it was applied before. The checks of a
//! command stand in one order: duplicate or conflict, existence and ownership, status, authority (the mandate),
//! limits, funds. After the last check nothing may fail.
//!
//! What a rejection leaves behind is its row and its event; money, caps and versions stay as they were.

mod bank;
mod effects;
mod payment;
mod posting;
#[cfg(test)]
mod tests;
mod view;

use domain::command::{BankCommand, PartnerCommand};
use domain::event::EventType;
use domain::fingerprint::Fingerprint;
use domain::ids::{PartnerId, PaymentId, conflict_id};
use domain::money::decimal_text;
use domain::payment::{PaymentStatus, PaymentView, status_path};
use domain::time::Timestamp;
use serde::Serialize;
use uuid::Uuid;

pub use effects::{
    ChangeRow, DeadLetterReason, DeadLetterRow, Effects, EntryRow, EventRow, Origin, PaymentRow,
};
pub use view::{Account, Mandate, Partner, Sequence, Slot, Spent, Touch, View};

use crate::item::{Content, Item};

/// A partner's first epoch.
const FIRST_EPOCH: u16 = 1;

/// Decides `items`, which are sorted in fold order, at `decided_at`.
pub fn decide(items: &[Item], view: View, decided_at: Timestamp) -> (View, Effects) {
    let mut fold = Fold { view, effects: Effects::default(), decided_at };
    for (index, item) in items.iter().enumerate() {
        fold.command(index, item);
    }
    (fold.view, fold.effects)
}

/// The state between two commands of a batch.
struct Fold {
    view: View,
    effects: Effects,
    decided_at: Timestamp,
}

/// Whether an id was used before.
enum Use {
    First,
    Duplicate,
    /// With another request; the id of the conflict.
    Conflict(PaymentId),
}

impl Fold {
    fn command(&mut self, index: usize, item: &Item) {
        let used = match (item.id(), item.fingerprint()) {
            (Some(id), Some(fingerprint)) => self.use_of(id, fingerprint),
            _ => Use::First,
        };
        if matches!(used, Use::Duplicate) {
            self.effects.duplicates += 1;
            return;
        }
        if let Some((reason, detail)) = self.unapplicable(item) {
            self.view.blocked_roots.extend(item.root());
            self.effects.dead_letters.push(DeadLetterRow { item: index, reason, detail });
            return;
        }
        match &item.content {
            Content::Partner(envelope) => match (&envelope.command, used) {
                (PartnerCommand::Payment(command), Use::Conflict(id)) => {
                    self.payment_conflict(item, envelope, command, id);
                }
                (PartnerCommand::Payment(command), _) => self.payment(item, envelope, command),
            },
            Content::Bank(envelope, fingerprint) => match (&envelope.command, used) {
                (BankCommand::Deposit(deposit), Use::Conflict(id)) => {
                    self.deposit_conflict(item, envelope, *fingerprint, deposit, id);
                }
                (BankCommand::Deposit(deposit), _) => self.deposit(item, envelope, *fingerprint, deposit),
                (_, Use::Conflict(id)) => self.change_conflict(item, envelope, *fingerprint, id.uuid()),
                (_, _) => self.change(item, envelope, *fingerprint),
            },
            // Told apart above: what cannot be read cannot be applied.
            Content::Undecodable(_) => {}
        }
    }

    /// Why this command goes to the dead letters instead of being decided.
    fn unapplicable(&self, item: &Item) -> Option<(DeadLetterReason, String)> {
        if let Content::Undecodable(detail) = &item.content {
            return Some((DeadLetterReason::Undecodable, detail.clone()));
        }
        if let Some(detail) = &item.data_error {
            return Some((DeadLetterReason::DataError, detail.clone()));
        }
        let blocked = item.root().is_some_and(|root| self.view.blocked_roots.contains(&root));
        blocked.then(|| {
            let detail = "an earlier command on the same root is a dead letter".to_owned();
            (DeadLetterReason::BehindDeadLetter, detail)
        })
    }

    fn use_of(&self, id: Uuid, fingerprint: Fingerprint) -> Use {
        match self.view.used.get(&id) {
            None => Use::First,
            Some(used) if *used == fingerprint => Use::Duplicate,
            Some(_) => {
                let conflict = conflict_id(PaymentId::from_uuid(id), &fingerprint);
                if self.view.used.contains_key(&conflict.uuid()) {
                    Use::Duplicate
                } else {
                    Use::Conflict(conflict)
                }
            }
        }
    }

    /// Appends an event to the partner's log and says its sequence.
    fn tell(&mut self, partner: PartnerId, event_type: EventType, data: &impl Serialize) -> u64 {
        let slot = self
            .view
            .sequences
            .entry(partner)
            .or_insert_with(|| Slot::new(Sequence { last: 0, epoch: FIRST_EPOCH }));
        let sequence = slot.change();
        sequence.last += 1;
        self.effects.events.push(EventRow {
            partner,
            sequence: sequence.last,
            epoch: sequence.epoch,
            event_type,
            occurred_at: self.decided_at,
            data: json(data),
        });
        sequence.last
    }

    /// Records the outcome of a payment, telling `partner` by `event_type`.
    fn record(&mut self, mut row: PaymentRow, view: &PaymentView, event_type: EventType) {
        #[derive(Serialize)]
        struct Data<'a> {
            payment: &'a PaymentView,
        }
        if let Some(partner) = row.partner {
            row.event_sequence = Some(self.tell(partner, event_type, &Data { payment: view }));
        }
        self.view.used.insert(row.id.uuid(), row.fingerprint);
        self.effects.payments.push(row);
    }
}

/// The payment as its partner sees it.
fn payment_view(row: &PaymentRow, metadata: domain::payment::Metadata) -> PaymentView {
    let currency = row.amount.currency();
    let captured_minor = if row.status == PaymentStatus::Posted { row.amount.minor() } else { 0 };
    PaymentView {
        id: row.id,
        kind: row.kind,
        root: row.root,
        status: row.status,
        under_review: false,
        version: 1,
        amount: row.amount.to_string(),
        currency,
        amount_captured: decimal_text(captured_minor, currency),
        amount_refunded: decimal_text(0, currency),
        mandate: row.mandate,
        reference: row.reference.clone(),
        description: row.description.clone(),
        metadata,
        reason: row.reason,
        livemode: row.livemode,
        created_at: row.accepted_at,
        decided_at: Some(row.decided_at),
        status_url: status_path(row.id),
    }
}

/// JSON of values whose maps have text keys, which cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
