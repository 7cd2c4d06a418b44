//! What happens to a payment later.

use domain::command::{FollowUp, Part, PartnerEnvelope, Reversal};
use domain::event::EventType;
use domain::ids::{AccountId, PartnerId, PaymentId};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentStatus, Reason};

use super::{NaiveBank, Outcome, Payment, When};

impl NaiveBank {
    /// A partner sees its own payments only, and a conflict is none.
    fn own_root(&self, partner: PartnerId, root: PaymentId) -> Result<&Payment, Reason> {
        if !self.partners.contains_key(&partner) {
            return Err(Reason::PartnerUnknown);
        }
        let root = self.payments.get(&root).ok_or(Reason::PaymentUnknown)?;
        if root.partner != Some(partner) || root.kind == PaymentKind::Conflict {
            return Err(Reason::PaymentUnknown);
        }
        Ok(root)
    }

    pub(super) fn capture(&mut self, envelope: &PartnerEnvelope, command: &FollowUp, when: When) -> Outcome {
        let mut capture = self.asked_by(envelope);
        let event_type = match self.may_capture(envelope, command.part, when, &mut capture) {
            Err(reason) => {
                capture.reason = Some(reason);
                EventType::CaptureRejected
            }
            Ok([debit, credit]) => {
                self.post(&mut capture, debit, credit);
                self.end_hold(envelope.root, PaymentStatus::Posted);
                self.payments.get_mut(&envelope.root).unwrap().captured = capture.captured;
                EventType::CapturePosted
            }
        };
        self.tell_payment(envelope.id, &capture, event_type);
        self.keep_follow_up(envelope.id, capture)
    }

    fn may_capture(
        &self,
        envelope: &PartnerEnvelope,
        part: Option<Part>,
        when: When,
        capture: &mut Payment,
    ) -> Result<[AccountId; 2], Reason> {
        let root = self.own_root(envelope.partner, envelope.root)?;
        let authorized = root.amount.ok_or(Reason::PaymentNotCapturable)?;
        let amount = part.map_or(authorized, amount_of);
        capture.amount = Some(amount);
        if amount.currency() != authorized.currency() {
            return Err(Reason::CurrencyMismatch);
        }
        if root.status != PaymentStatus::Authorized || Some(when.at) > root.expires_at {
            return Err(Reason::PaymentNotCapturable);
        }
        if amount.minor() > authorized.minor() {
            return Err(Reason::AmountExceedsAuthorized);
        }
        if !self.partners[&envelope.partner].active {
            return Err(Reason::PartnerSuspended);
        }
        let [debit, credit] = root.accounts.unwrap();
        self.may_debit(debit)?;
        self.may_credit(credit)?;
        self.has_funds(debit, credit, amount.minor(), authorized.minor())?;
        Ok([debit, credit])
    }

    pub(super) fn void(&mut self, envelope: &PartnerEnvelope) -> Outcome {
        let mut void = self.asked_by(envelope);
        let root = self.own_root(envelope.partner, envelope.root).cloned();
        match root {
            Ok(root) if root.status == PaymentStatus::Authorized => {
                (void.amount, void.status) = (root.amount, PaymentStatus::Posted);
                let root = self.end_hold(envelope.root, PaymentStatus::Voided);
                self.tell_payment(envelope.root, &root, EventType::PaymentVoided);
            }
            other => {
                void.amount = other.as_ref().ok().and_then(|root| root.amount);
                void.reason = Some(other.err().unwrap_or(Reason::PaymentNotVoidable));
                self.tell_payment(envelope.id, &void, EventType::VoidRejected);
            }
        }
        self.keep_follow_up(envelope.id, void)
    }

    pub(super) fn expire(&mut self, envelope: &PartnerEnvelope, when: When) -> Outcome {
        let mut expiry = self.asked_by(envelope);
        let Ok(root) = self.own_root(envelope.partner, envelope.root) else { return Outcome::Nothing };
        if root.status != PaymentStatus::Authorized || Some(when.at) <= root.expires_at {
            return Outcome::Nothing;
        }
        (expiry.amount, expiry.livemode, expiry.status) = (root.amount, root.livemode, PaymentStatus::Posted);
        let root = self.end_hold(envelope.root, PaymentStatus::Expired);
        self.tell_payment(envelope.root, &root, EventType::PaymentExpired);
        self.keep_follow_up(envelope.id, expiry)
    }

    pub(super) fn refund(&mut self, envelope: &PartnerEnvelope, command: &FollowUp) -> Outcome {
        let mut refund = self.asked_by(envelope);
        let root = self.own_root(envelope.partner, envelope.root).cloned();
        let not = Reason::PaymentNotRefundable;
        let accounts = root.and_then(|root| {
            self.may_give_back(&root, root.kind == PaymentKind::Payment, not, command.part, &mut refund)
        });
        let event_type = match accounts {
            Err(reason) => {
                refund.reason = Some(reason);
                EventType::RefundRejected
            }
            Ok(accounts) => {
                self.give_back(envelope.root, &mut refund, accounts);
                EventType::RefundPosted
            }
        };
        self.tell_payment(envelope.id, &refund, event_type);
        self.keep_follow_up(envelope.id, refund)
    }

    pub(super) fn reverse(&mut self, id: PaymentId, command: &Reversal) -> Outcome {
        let mut reversal = Payment::of_bank(PaymentKind::Reversal, command.payment);
        reversal.amount = command.part.map(amount_of);
        let root = self.payments.get(&command.payment).cloned().ok_or(Reason::PaymentUnknown);
        let accounts = root.clone().and_then(|root| {
            reversal.livemode = root.livemode;
            let moved_money = matches!(
                root.kind,
                PaymentKind::Payment | PaymentKind::Transfer | PaymentKind::Deposit | PaymentKind::Withdrawal
            );
            self.may_give_back(&root, moved_money, Reason::PaymentNotReversible, command.part, &mut reversal)
        });
        match accounts {
            Err(reason) => reversal.reason = Some(reason),
            Ok(accounts) => {
                reversal.partner = root.ok().and_then(|root| root.partner);
                let root = self.give_back(command.payment, &mut reversal, accounts);
                if self.owning_partner(accounts[0]) != root.partner {
                    self.tell_debit(accounts[0], reversal.amount.unwrap());
                }
                self.tell_payment(command.payment, &root, EventType::PaymentReversed);
            }
        }
        self.keep_follow_up(id, reversal)
    }

    /// Which accounts giving back debits and credits, or why it does not.
    fn may_give_back(
        &self,
        root: &Payment,
        right_kind: bool,
        not_possible: Reason,
        part: Option<Part>,
        giving: &mut Payment,
    ) -> Result<[AccountId; 2], Reason> {
        let currency = root.amount.ok_or(not_possible)?.currency();
        let left = root.captured - root.refunded;
        giving.amount = part.map(amount_of).or(Amount::new(left, currency).ok());
        if giving.amount.is_some_and(|amount| amount.currency() != currency) {
            return Err(Reason::CurrencyMismatch);
        }
        if !right_kind || root.status != PaymentStatus::Posted || left == 0 {
            return Err(not_possible);
        }
        let minor = giving.amount.unwrap().minor();
        if minor > left {
            return Err(Reason::AmountExceedsCaptured);
        }
        let [debited, credited] = root.accounts.unwrap();
        self.may_debit(credited)?;
        self.may_credit(debited)?;
        self.has_funds(credited, debited, minor, 0)?;
        Ok([credited, debited])
    }

    fn give_back(&mut self, id: PaymentId, giving: &mut Payment, [from, to]: [AccountId; 2]) -> Payment {
        let amount = self.post(giving, from, to);
        let root = self.payments.get_mut(&id).unwrap();
        root.refunded += amount.minor();
        root.version += 1;
        root.clone()
    }

    fn end_hold(&mut self, id: PaymentId, status: PaymentStatus) -> Payment {
        let root = self.payments.get_mut(&id).unwrap();
        root.status = status;
        root.version += 1;
        let [debit, _] = root.accounts.unwrap();
        let held = self.accounts.get_mut(&debit).unwrap().holds.remove(&id);
        assert!(held.is_some(), "{id} holds nothing");
        root.clone()
    }

    /// A partner's command on a foreign payment does not belong to it.
    fn keep_follow_up(&mut self, id: PaymentId, payment: Payment) -> Outcome {
        if let Some(root) = self.payments.get(&payment.root)
            && (payment.kind == PaymentKind::Reversal || root.partner == payment.partner)
        {
            self.follow_ups.insert((payment.root, id));
        }
        self.keep(id, payment)
    }
}

fn amount_of(part: Part) -> Amount {
    Amount::new(part.amount_minor, part.currency).unwrap()
}
