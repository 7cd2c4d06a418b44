//! A partner debits a customer under a mandate.

use domain::account::AccountStatus;
use domain::command::{PartnerEnvelope, PaymentCommand};
use domain::event::EventType;
use domain::ids::PaymentId;
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentStatus, Reason};

use super::effects::{Origin, PaymentRow};
use super::posting::Posting;
use super::{Account, Fold, Mandate, Slot, Spent, json, payment_view};
use crate::item::Item;

/// A payment that passed every check.
struct Allowed {
    posting: Posting,
    account_spent: Spent,
    mandate_spent: Spent,
}

impl Fold {
    pub(super) fn payment(&mut self, item: &Item, envelope: &PartnerEnvelope, command: &PaymentCommand) {
        let Some(mut row) = self.payment_row(item, envelope, command) else { return };
        match self.check_payment(item, envelope, command, row.amount) {
            Ok(allowed) => {
                row.posting = Some(self.apply_payment(row.id, command, &allowed));
                row.status = PaymentStatus::Posted;
                let view = payment_view(&row, command.metadata.clone());
                self.record(row, &view, EventType::PaymentPosted);
            }
            Err(reason) => {
                row.reason = Some(reason);
                let view = payment_view(&row, command.metadata.clone());
                self.record(row, &view, EventType::PaymentRejected);
            }
        }
    }

    pub(super) fn payment_conflict(
        &mut self,
        item: &Item,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
        conflict: PaymentId,
    ) {
        let Some(mut row) = self.payment_row(item, envelope, command) else { return };
        row.id = conflict;
        row.kind = PaymentKind::Conflict;
        row.status = PaymentStatus::Conflicted;
        let view = payment_view(&row, command.metadata.clone());
        self.record(row, &view, EventType::PaymentConflicted);
    }

    fn check_payment(
        &self,
        item: &Item,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
        amount: Amount,
    ) -> Result<Allowed, Reason> {
        // Existence and ownership: a foreign mandate is unknown.
        let partner = self.view.partners.get(&envelope.partner).ok_or(Reason::PartnerUnknown)?;
        let mandate = self.view.mandates.get(&command.mandate).map(|slot| &slot.row);
        let mandate = mandate.filter(|mandate| mandate.partner == envelope.partner);
        let mandate = mandate.ok_or(Reason::MandateUnknown)?;
        if amount.currency() != mandate.currency {
            return Err(Reason::CurrencyMismatch);
        }
        let settlement = self.view.settlement_accounts.get(&(envelope.partner, amount.currency()));
        let settlement = settlement.ok_or(Reason::SettlementAccountMissing)?;
        let debit = &self.view.accounts.get(&mandate.account).ok_or(Reason::AccountUnknown)?.row;
        let credit = &self.view.accounts.get(settlement).ok_or(Reason::SettlementAccountMissing)?.row;
        if debit.id == credit.id {
            return Err(Reason::SameAccount);
        }
        // Status.
        if !partner.active {
            return Err(Reason::PartnerSuspended);
        }
        check_debit_status(debit)?;
        check_credit_status(credit)?;
        // Authority.
        check_authority(mandate, item)?;
        // Limits, then funds.
        let (mandate_spent, account_spent) = check_limits(mandate, debit, amount, item)?;
        let posting = Posting::check(debit, credit, amount)?;
        Ok(Allowed { posting, account_spent, mandate_spent })
    }

    fn apply_payment(
        &mut self,
        id: PaymentId,
        command: &PaymentCommand,
        allowed: &Allowed,
    ) -> [(domain::ids::AccountId, u64); 2] {
        let posting = self.post(id, &allowed.posting);
        if let Some(account) = self.view.accounts.get_mut(&posting[0].0) {
            account.change().spent = allowed.account_spent;
        }
        // A mandate is written only when it counts something: most never change.
        if let Some(slot) = self.view.mandates.get_mut(&command.mandate) {
            use_mandate(slot, allowed.mandate_spent);
        }
        posting
    }

    /// The row of a payment that is not decided yet; `None` cannot be, since decoding checks the amount.
    fn payment_row(
        &self,
        item: &Item,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
    ) -> Option<PaymentRow> {
        let amount = Amount::new(command.amount_minor, command.currency);
        debug_assert!(amount.is_ok(), "an envelope with an amount out of bounds is undecodable");
        Some(PaymentRow {
            position: item.position,
            id: envelope.id,
            root: envelope.root,
            kind: PaymentKind::Payment,
            status: PaymentStatus::Rejected,
            reason: None,
            partner: Some(envelope.partner),
            mandate: Some(command.mandate),
            amount: amount.ok()?,
            posting: None,
            event_sequence: None,
            fingerprint: envelope.fingerprint,
            livemode: self.view.partners.get(&envelope.partner).is_some_and(|partner| partner.livemode),
            reference: command.reference.clone(),
            description: command.description.clone(),
            metadata: (!command.metadata.is_empty()).then(|| json(&command.metadata)),
            origin: Origin {
                actor: envelope.key.uuid(),
                reason: None,
                request_id: envelope.request_id,
                address: envelope.address,
            },
            idempotency_key: Some(envelope.idempotency_key.clone()),
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
        })
    }
}

pub(super) fn check_debit_status(account: &Account) -> Result<(), Reason> {
    match account.status {
        AccountStatus::Active => Ok(()),
        AccountStatus::Frozen => Err(Reason::AccountFrozen),
        AccountStatus::Closed => Err(Reason::AccountClosed),
    }
}

pub(super) fn check_credit_status(account: &Account) -> Result<(), Reason> {
    match account.status {
        AccountStatus::Active | AccountStatus::Frozen => Ok(()),
        AccountStatus::Closed => Err(Reason::AccountClosed),
    }
}

fn check_authority(mandate: &Mandate, item: &Item) -> Result<(), Reason> {
    match mandate.status {
        MandateStatus::Active => {}
        MandateStatus::Used => return Err(Reason::MandateUsed),
        MandateStatus::Revoked => return Err(Reason::MandateRevoked),
    }
    match mandate.expires_at {
        Some(expires_at) if item.accepted_at >= expires_at => Err(Reason::MandateExpired),
        _ => Ok(()),
    }
}

fn check_limits(
    mandate: &Mandate,
    debit: &Account,
    amount: Amount,
    item: &Item,
) -> Result<(Spent, Spent), Reason> {
    let above = |minor: i64, limit: Option<i64>| limit.is_some_and(|limit| minor > limit);
    if above(amount.minor(), mandate.payment_max_minor) {
        return Err(Reason::MandateLimit);
    }
    if above(amount.minor(), debit.payment_max_minor) {
        return Err(Reason::PaymentLimit);
    }
    let spend = |spent: Spent, limit: Option<i64>| {
        let spent = spent.plus(amount.minor(), item.accepted_day).ok_or(Reason::AmountOverflow)?;
        if above(spent.minor, limit) { Err(Reason::DailyLimit) } else { Ok(spent) }
    };
    let mandate_spent = match mandate.daily_max_minor {
        Some(limit) => spend(mandate.spent, Some(limit))?,
        None => mandate.spent,
    };
    Ok((mandate_spent, spend(debit.spent, debit.daily_max_minor)?))
}

fn use_mandate(slot: &mut Slot<Mandate>, spent: Spent) {
    if slot.row.spent != spent {
        slot.change().spent = spent;
    }
    match slot.row.kind {
        MandateKind::Single => {
            let mandate = slot.change();
            mandate.status = MandateStatus::Used;
            mandate.version += 1;
        }
        MandateKind::Standing => {}
    }
}
