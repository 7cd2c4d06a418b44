//! The heart: folds a batch of commands over the state they refer to, and says what is to be written.
//!
//! Synchronous, total and pure: no database, no clock, no randomness. Every command ends as exactly one of
//! posted, authorised, rejected, conflicted, changed, a dead letter, or nothing when it was applied before or asks to
//! end what has not come to its time. The checks of a command stand in one order: duplicate or conflict, existence and
//! ownership, status, authority (the mandate), limits, funds. After the last check nothing may fail.
//!
//! What a rejection leaves behind is its row and its event; money, caps and versions stay as they were.

mod accounts;
mod asked;
mod bank_money;
mod dead_letters;
mod effects;
mod follow_up;
mod mandates;
mod payment;
mod posting;
mod sandbox;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use domain::command::{BankCommand, BankEnvelope, PartnerCommand, PartnerEnvelope};
use domain::event::EventType;
use domain::fingerprint::Fingerprint;
use domain::ids::{PartnerId, PaymentId, conflict_id};
use domain::payment::{PaymentKind, PaymentStatus, PaymentView, Reason};
use domain::time::Timestamp;
use serde::Serialize;

pub use effects::{
    Asked, ChangeRow, DeadLetterReason, DeadLetterRow, Effects, EntryRow, EventRow, HoldRow, Origin,
};
pub use view::{
    Account, DeadLetter, DeadLetterEnd, Mandate, Partner, Payment, Sequence, Slot, Spent, Touch, View,
};

use crate::item::{Content, Item};

/// A partner's first epoch.
const FIRST_EPOCH: u16 = 1;

/// What a change tells its partner.
type Told = Option<(PartnerId, u64)>;

/// Decides `items`, which are sorted in fold order, at `decided_at`.
pub fn decide(items: &[Item], view: View, decided_at: Timestamp) -> (View, Effects) {
    let mut fold = Fold { view, effects: Effects::default(), decided_at };
    for (index, item) in items.iter().enumerate() {
        fold.command(index, item);
    }
    // Everything else that changes counts something.
    fold.view.accounts.values_mut().for_each(Slot::settle);
    fold.view.settlement_accounts.values_mut().for_each(Slot::settle);
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
        let used = self.use_of(item);
        if matches!(used, Use::Duplicate) {
            self.effects.duplicates += 1;
            return;
        }
        if let Some((reason, detail)) = self.unapplicable(item) {
            if reason == DeadLetterReason::BehindDeadLetter && item.comes_again() {
                self.effects.duplicates += 1;
                return;
            }
            self.view.blocked_roots.extend(item.root());
            self.effects.dead_letters.push(DeadLetterRow { item: index, reason, detail });
            return;
        }
        self.apply(item, &used);
    }

    /// Decides a command that can be applied.
    fn apply(&mut self, item: &Item, used: &Use) {
        match (&item.content, used) {
            (Content::Partner(envelope), Use::Conflict(id)) => self.partner_conflict(item, envelope, *id),
            (Content::Partner(envelope), _) => self.partner_command(item, envelope),
            (Content::Bank(envelope, fingerprint), Use::Conflict(id)) => {
                self.bank_conflict(item, envelope, *fingerprint, *id);
            }
            (Content::Bank(envelope, fingerprint), _) => self.bank_command(item, envelope, *fingerprint),
            // Told apart before: what cannot be read cannot be applied.
            (Content::Undecodable(_), _) => {}
        }
    }

    fn partner_command(&mut self, item: &Item, envelope: &PartnerEnvelope) {
        match &envelope.command {
            PartnerCommand::Payment(command) => self.payment(item, envelope, command),
            PartnerCommand::Capture(command) => self.capture(item, envelope, command),
            PartnerCommand::Void(_) => self.void(item, envelope),
            PartnerCommand::Refund(command) => self.refund(item, envelope, command),
            PartnerCommand::Transfer(command) => self.transfer(item, envelope, command),
            PartnerCommand::Expire => self.expire(item, envelope),
            PartnerCommand::CancelMandate(terms) => self.cancel_mandate(item, envelope, terms),
            PartnerCommand::ExpireMandate(terms) => self.expire_mandate(item, envelope, terms),
            PartnerCommand::SandboxMandate(sandbox) => self.sandbox_mandate(item, envelope, sandbox),
        }
    }

    fn bank_command(&mut self, item: &Item, envelope: &BankEnvelope, fingerprint: Fingerprint) {
        let outcome = match &envelope.command {
            BankCommand::Deposit(command) => return self.deposit(item, envelope, fingerprint, command),
            BankCommand::Withdrawal(command) => {
                return self.withdrawal(item, envelope, fingerprint, command);
            }
            BankCommand::Transfer(command) => {
                return self.bank_transfer(item, envelope, fingerprint, command);
            }
            BankCommand::Reversal(command) => return self.reversal(item, envelope, fingerprint, command),
            BankCommand::OpenAccount(open) => self.open_account(open),
            BankCommand::FreezeAccount { account } => self.freeze(*account),
            BankCommand::UnfreezeAccount { account } => self.unfreeze(*account),
            BankCommand::CloseAccount { account } => self.close(*account),
            BankCommand::SetLimits(set) => self.set_limits(set),
            BankCommand::SetSettlementAccount { partner, account } => {
                self.set_settlement_account(*partner, *account)
            }
            BankCommand::GrantMandate(grant) => self.grant_mandate(grant, item),
            BankCommand::RevokeMandate { mandate } => self.revoke_mandate(*mandate),
            BankCommand::DeclineMandate { partner, terms } => self.decline_mandate(*partner, terms),
            BankCommand::RedriveDeadLetters { root } => self.redrive(item, *root, envelope.id),
            BankCommand::RejectDeadLetter(letter) => self.reject_dead_letter(item, letter, envelope.id),
        };
        self.bank_change(item, envelope, fingerprint, envelope.id, outcome);
    }

    fn partner_conflict(&mut self, item: &Item, envelope: &PartnerEnvelope, id: PaymentId) {
        if !envelope.command.moves_money() {
            return self.partner_change(item, envelope, id.uuid(), Err(Reason::IdempotencyConflict));
        }
        let (mut payment, asked) = self.asked_by_partner(item, envelope);
        payment.id = id;
        payment.kind = PaymentKind::Conflict;
        payment.root = envelope.root;
        payment.status = PaymentStatus::Conflicted;
        self.record(payment, asked, Some(EventType::PaymentConflicted));
    }

    fn bank_conflict(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        id: PaymentId,
    ) {
        if !envelope.command.moves_money() {
            let outcome = Err(Reason::IdempotencyConflict);
            return self.bank_change(item, envelope, fingerprint, id.uuid(), outcome);
        }
        let (mut payment, asked) = self.asked_by_bank(item, envelope, fingerprint);
        payment.id = id;
        payment.kind = PaymentKind::Conflict;
        payment.status = PaymentStatus::Conflicted;
        // The bank asked, and the bank sees the conflict: no partner is told.
        payment.partner = None;
        self.record(payment, asked, None);
    }

    /// Why this command goes to the dead letters instead of being decided.
    fn unapplicable(&self, item: &Item) -> Option<(DeadLetterReason, String)> {
        if let Content::Undecodable(detail) = &item.content {
            return Some((DeadLetterReason::Undecodable, detail.clone()));
        }
        if item.deals_with_dead_letters() {
            // What deals with dead letters is never one itself: it says that it failed.
            return None;
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

    fn use_of(&self, item: &Item) -> Use {
        let (Some(id), Some(fingerprint)) = (item.id(), item.fingerprint()) else { return Use::First };
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

    /// Tells a payment's partner of it, when it has one.
    fn tell_payment(&mut self, payment: &Payment, event_type: EventType) -> Option<u64> {
        #[derive(Serialize)]
        struct Data {
            payment: PaymentView,
        }
        Some(self.tell(payment.partner?, event_type, &Data { payment: payment.view() }))
    }

    /// Records the outcome of a payment, telling its partner by `event_type`.
    fn record(&mut self, payment: Payment, mut asked: Asked, event_type: Option<EventType>) {
        if let Some(sequence) = event_type.and_then(|event_type| self.tell_payment(&payment, event_type)) {
            asked.event_sequence = Some(sequence);
        }
        asked.payment = payment.id;
        self.view.used.insert(payment.id.uuid(), asked.fingerprint);
        self.effects.payments.push(asked);
        self.view.payments.insert(payment.id, Slot::new(payment));
    }

    fn record_change(&mut self, row: ChangeRow) {
        self.view.used.insert(row.id, row.fingerprint);
        self.effects.changes.push(row);
    }
}

/// JSON of values whose maps have text keys, which cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
