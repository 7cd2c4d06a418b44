//! Dead letters: applied again in their order, or given up.
//!
//! A dead letter is decided as its record would have been: its rows stand at the record's own place. While one of a
//! root is open, everything later on that root joins it.

use domain::command::{PartnerCommand, RejectDeadLetter};
use domain::event::EventType;
use domain::payment::{Metadata, Reason};
use domain::topic::Position;
use uuid::Uuid;

use super::{DeadLetterEnd, Fold, Payment, Told, Use};
use crate::item::{Content, Item};

impl Fold {
    /// Applies the open dead letters of `root` until one cannot be read.
    pub(super) fn redrive(&mut self, item: &Item, root: Uuid, change: Uuid) -> Result<Told, Reason> {
        let open = self.open_letters(root);
        if open.is_empty() {
            return Err(Reason::DeadLetterUnknown);
        }
        let mut redriven = 0;
        for position in open {
            // A value that did not fit before may still not fit: then nothing of this command is applied.
            if item.data_error.is_some() || !self.redrive_one(position, change) {
                break;
            }
            redriven += 1;
        }
        self.unblock(root);
        if redriven == 0 { Err(Reason::ProcessingFailed) } else { Ok(None) }
    }

    fn redrive_one(&mut self, position: Position, change: Uuid) -> bool {
        let Some(slot) = self.view.dead_letters.get_mut(&position) else { return false };
        if matches!(slot.row.item.content, Content::Undecodable(_)) {
            return false;
        }
        let letter = slot.change();
        letter.end = Some((DeadLetterEnd::Redriven, change));
        let item = letter.item.clone();
        match self.use_of(&item) {
            Use::Duplicate => self.effects.duplicates += 1,
            used => self.apply(&item, &used),
        }
        true
    }

    /// Gives one up: what it asked for is rejected, without the texts that may be what did not fit.
    pub(super) fn reject_dead_letter(
        &mut self,
        item: &Item,
        letter: &RejectDeadLetter,
        change: Uuid,
    ) -> Result<Told, Reason> {
        let position = Position { source: letter.source, partition: letter.partition, offset: letter.offset };
        let slot = self.view.dead_letters.get_mut(&position).filter(|slot| slot.row.end.is_none());
        let slot = slot.filter(|slot| slot.row.root == letter.root).ok_or(Reason::DeadLetterUnknown)?;
        if item.data_error.is_some() {
            return Err(Reason::ProcessingFailed);
        }
        let rejected = slot.change();
        rejected.end = Some((DeadLetterEnd::Rejected, change));
        let rejected = rejected.item.clone();
        if let Use::First = self.use_of(&rejected) {
            self.reject(&rejected);
        }
        letter.root.into_iter().for_each(|root| self.unblock(root));
        Ok(None)
    }

    fn reject(&mut self, item: &Item) {
        let failed = Reason::ProcessingFailed;
        match &item.content {
            Content::Partner(envelope) => {
                let event_type = match &envelope.command {
                    PartnerCommand::Payment(_) => EventType::PaymentRejected,
                    PartnerCommand::Capture(_) => EventType::CaptureRejected,
                    PartnerCommand::Void(_) => EventType::VoidRejected,
                    PartnerCommand::Refund(_) => EventType::RefundRejected,
                    PartnerCommand::Transfer(_) => EventType::TransferRejected,
                    // The processor asks again. So may the partner for its mandate, under the same id: nothing else would
                    // ever end it.
                    PartnerCommand::Expire
                    | PartnerCommand::ExpireMandate(_)
                    | PartnerCommand::CancelMandate(_) => return,
                    PartnerCommand::SandboxMandate(_) => {
                        return self.partner_change(item, envelope, envelope.id.uuid(), Err(failed));
                    }
                };
                let (payment, mut asked) = self.asked_by_partner(item, envelope);
                asked.idempotency_key = None;
                self.record_follow_up(without_texts(payment), asked, Some(event_type));
            }
            Content::Bank(envelope, fingerprint) if envelope.command.moves_money() => {
                let (payment, asked) = self.asked_by_bank(item, envelope, *fingerprint);
                self.record_follow_up(without_texts(payment), asked, None);
            }
            Content::Bank(envelope, fingerprint) => {
                self.bank_change(item, envelope, *fingerprint, envelope.id, Err(failed));
            }
            // Nothing is known of what it asked for.
            Content::Undecodable(_) => {}
        }
    }

    /// Later commands on `root` are applied again once none of its dead letters is open.
    fn unblock(&mut self, root: Uuid) {
        if self.open_letters(root).is_empty() && !self.view.crowded_roots.contains(&root) {
            self.view.blocked_roots.remove(&root);
        }
    }

    fn open_letters(&self, root: Uuid) -> Vec<Position> {
        let of_root = self.view.dead_letters.iter().filter(|(_, slot)| slot.row.root == Some(root));
        of_root.filter(|(_, slot)| slot.row.end.is_none()).map(|(position, _)| *position).collect()
    }
}

fn without_texts(mut payment: Payment) -> Payment {
    payment.reason = Some(Reason::ProcessingFailed);
    (payment.reference, payment.description, payment.metadata) = (None, None, Metadata::new());
    payment
}
