//! What happens to a payment later: capture, void, expiry, refund and reversal.
//!
//! Each is decided on its root under the root's lock, so of two that exclude each other one is rejected. A foreign
//! root is unknown. What a void, an expiry or a refund gives back is given back in money only: caps count what was
//! authorised, and a used mandate stays used.

use domain::command::{BankEnvelope, FollowUp, Part, PartnerEnvelope, Reversal};
use domain::event::EventType;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, PartnerId};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentStatus, Reason};

use super::asked::amount_of;
use super::effects::Asked;
use super::payment::{check_credit_status, check_debit_status};
use super::posting::Posting;
use super::{Account, Fold, Payment};
use crate::item::Item;

/// What the bank can move back.
const REVERSIBLE: &[PaymentKind] =
    &[PaymentKind::Payment, PaymentKind::Transfer, PaymentKind::Deposit, PaymentKind::Withdrawal];

impl Fold {
    pub(super) fn capture(&mut self, item: &Item, envelope: &PartnerEnvelope, command: &FollowUp) {
        let (mut capture, asked) = self.asked_by_partner(item, envelope);
        let checked = self.own_root(envelope).and_then(|root| {
            let posting = self.check_capture(item, envelope.partner, &root, command.part, &mut capture)?;
            Ok((root, posting))
        });
        let event_type = match checked {
            Ok((mut root, posting)) => {
                self.post(&mut capture, &posting);
                self.release(&root);
                root.status = PaymentStatus::Posted;
                root.captured_minor = capture.captured_minor;
                self.change_root(root);
                EventType::CapturePosted
            }
            Err(reason) => {
                capture.reason = Some(reason);
                EventType::CaptureRejected
            }
        };
        self.record_follow_up(capture, asked, Some(event_type));
    }

    fn check_capture(
        &self,
        item: &Item,
        partner: PartnerId,
        root: &Payment,
        part: Option<Part>,
        capture: &mut Payment,
    ) -> Result<Posting, Reason> {
        let authorized = root.amount.ok_or(Reason::PaymentNotCapturable)?;
        let amount = part.and_then(amount_of).unwrap_or(authorized);
        capture.amount = Some(amount);
        if amount.currency() != authorized.currency() {
            return Err(Reason::CurrencyMismatch);
        }
        let in_time = root.expires_at.is_some_and(|expires_at| item.accepted_at <= expires_at);
        if root.status != PaymentStatus::Authorized || !in_time {
            return Err(Reason::PaymentNotCapturable);
        }
        if amount.minor() > authorized.minor() {
            return Err(Reason::AmountExceedsAuthorized);
        }
        if !self.view.partners.get(&partner).is_some_and(|partner| partner.active) {
            return Err(Reason::PartnerSuspended);
        }
        let [debit, credit] = self.accounts_of(root)?;
        check_debit_status(debit)?;
        check_credit_status(credit)?;
        Posting::check_with_held(debit, credit, amount, authorized.minor())
    }

    pub(super) fn void(&mut self, item: &Item, envelope: &PartnerEnvelope) {
        let (mut void, mut asked) = self.asked_by_partner(item, envelope);
        let root = self.own_root(envelope);
        void.amount = root.as_ref().ok().and_then(|root| root.amount);
        let authorized = root.and_then(|root| match root.status {
            PaymentStatus::Authorized => Ok(root),
            _ => Err(Reason::PaymentNotVoidable),
        });
        match authorized {
            Ok(root) => {
                void.status = PaymentStatus::Posted;
                asked.event_sequence = self.end_hold(root, PaymentStatus::Voided, EventType::PaymentVoided);
                self.record_follow_up(void, asked, None);
            }
            Err(reason) => {
                void.reason = Some(reason);
                self.record_follow_up(void, asked, Some(EventType::VoidRejected));
            }
        }
    }

    /// An expiry that finds nothing to expire leaves nothing: it is asked for by a clock that may be wrong, and must be
    /// able to come again.
    pub(super) fn expire(&mut self, item: &Item, envelope: &PartnerEnvelope) {
        let due = |root: &Payment| {
            root.status == PaymentStatus::Authorized
                && root.expires_at.is_some_and(|expires_at| item.accepted_at > expires_at)
        };
        let Some(root) = self.own_root(envelope).ok().filter(due) else {
            self.effects.duplicates += 1;
            return;
        };
        let (mut expiry, mut asked) = self.asked_by_partner(item, envelope);
        expiry.status = PaymentStatus::Posted;
        expiry.amount = root.amount;
        expiry.livemode = root.livemode;
        asked.event_sequence = self.end_hold(root, PaymentStatus::Expired, EventType::PaymentExpired);
        self.record_follow_up(expiry, asked, None);
    }

    pub(super) fn refund(&mut self, item: &Item, envelope: &PartnerEnvelope, command: &FollowUp) {
        let (mut refund, asked) = self.asked_by_partner(item, envelope);
        let checked = self.own_root(envelope).and_then(|root| {
            let not = Reason::PaymentNotRefundable;
            let posting =
                self.check_giving_back(&root, &[PaymentKind::Payment], not, command.part, &mut refund)?;
            Ok((root, posting))
        });
        let event_type = match checked {
            Ok((root, posting)) => {
                self.give_back(root, &mut refund, &posting);
                EventType::RefundPosted
            }
            Err(reason) => {
                refund.reason = Some(reason);
                EventType::RefundRejected
            }
        };
        self.record_follow_up(refund, asked, Some(event_type));
    }

    pub(super) fn reversal(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        command: &Reversal,
    ) {
        let (mut reversal, mut asked) = self.asked_by_bank(item, envelope, fingerprint);
        let root = self.view.payments.get(&command.payment).map(|slot| slot.row.clone());
        let checked = root.ok_or(Reason::PaymentUnknown).and_then(|root| {
            reversal.livemode = root.livemode;
            let not = Reason::PaymentNotReversible;
            let posting = self.check_giving_back(&root, REVERSIBLE, not, command.part, &mut reversal)?;
            Ok((root, posting))
        });
        match checked {
            Ok((root, posting)) => {
                reversal.partner = root.partner;
                let root = self.give_back(root, &mut reversal, &posting);
                // Who had been told of the money is told that it is gone; whose payment it was reads more.
                let debited = reversal.accounts.map(|[debited, _]| debited);
                let owner = debited.and_then(|account| self.partner_that_owns(account));
                if owner != root.partner {
                    asked.told = debited.and_then(|account| self.tell_debit(account, &reversal, &root));
                }
                asked.event_sequence = self.tell_payment(&root, EventType::PaymentReversed);
            }
            Err(reason) => reversal.reason = Some(reason),
        }
        self.record_follow_up(reversal, asked, None);
    }

    /// Whether `part` of what `root` moved, or all that is left, can be moved back.
    fn check_giving_back(
        &self,
        root: &Payment,
        kinds: &[PaymentKind],
        not_possible: Reason,
        part: Option<Part>,
        follow_up: &mut Payment,
    ) -> Result<Posting, Reason> {
        let currency = root.amount.ok_or(not_possible)?.currency();
        let left = Amount::new(root.left_minor(), currency).map_err(|_| not_possible);
        let amount = part.and_then(amount_of).or(left.ok());
        follow_up.amount = amount;
        if amount.is_some_and(|amount| amount.currency() != currency) {
            return Err(Reason::CurrencyMismatch);
        }
        if !kinds.contains(&root.kind) || root.status != PaymentStatus::Posted {
            return Err(not_possible);
        }
        let (amount, left) = (amount.ok_or(not_possible)?, left?);
        if amount.minor() > left.minor() {
            return Err(Reason::AmountExceedsCaptured);
        }
        let [debited, credited] = self.accounts_of(root)?;
        check_debit_status(credited)?;
        check_credit_status(debited)?;
        Posting::check(credited, debited, amount)
    }

    /// Moves money of `root` back, and says what `root` has become.
    fn give_back(&mut self, mut root: Payment, follow_up: &mut Payment, posting: &Posting) -> Payment {
        self.post(follow_up, posting);
        // At most what is left was given back, so it fits.
        root.refunded_minor += follow_up.captured_minor;
        self.change_root(root)
    }

    /// Releases what `root` holds, and tells its partner.
    fn end_hold(&mut self, mut root: Payment, status: PaymentStatus, event_type: EventType) -> Option<u64> {
        self.release(&root);
        root.status = status;
        let root = self.change_root(root);
        self.tell_payment(&root, event_type)
    }

    fn release(&mut self, root: &Payment) {
        let (Some([debit, _]), Some(amount)) = (root.accounts, root.amount) else { return };
        if let Some(slot) = self.view.accounts.get_mut(&debit) {
            let account = slot.change();
            account.held_minor -= amount.minor();
            assert!(account.held_minor >= 0, "{debit} holds less than the hold of {}", root.id);
        }
        self.effects.released.push((debit, root.id));
    }

    fn change_root(&mut self, mut root: Payment) -> Payment {
        root.version += 1;
        if let Some(slot) = self.view.payments.get_mut(&root.id) {
            slot.change().clone_from(&root);
        }
        root
    }

    pub(super) fn record_follow_up(&mut self, payment: Payment, asked: Asked, event_type: Option<EventType>) {
        let root = self.view.payments.get(&payment.root).map(|slot| &slot.row);
        // To its partner a foreign root is unknown, and stays so in the lists.
        let visible =
            root.is_some_and(|root| payment.kind == PaymentKind::Reversal || root.partner == payment.partner);
        if visible {
            self.effects.follow_ups.push((payment.root, payment.id));
        }
        self.record(payment, asked, event_type);
    }

    /// The payment that a partner's command belongs to, when it is the partner's own.
    fn own_root(&self, envelope: &PartnerEnvelope) -> Result<Payment, Reason> {
        if !self.view.partners.contains_key(&envelope.partner) {
            return Err(Reason::PartnerUnknown);
        }
        let root = &self.view.payments.get(&envelope.root).ok_or(Reason::PaymentUnknown)?.row;
        let own = root.partner == Some(envelope.partner) && root.kind != PaymentKind::Conflict;
        if own { Ok(root.clone()) } else { Err(Reason::PaymentUnknown) }
    }

    fn accounts_of(&self, root: &Payment) -> Result<[&Account; 2], Reason> {
        let account = |id: &AccountId| self.view.accounts.get(id).map(|slot| &slot.row);
        match &root.accounts {
            Some([debit, credit]) => {
                let both = account(debit).zip(account(credit));
                both.map(|(debit, credit)| [debit, credit]).ok_or(Reason::AccountUnknown)
            }
            None => Err(Reason::AccountUnknown),
        }
    }
}
