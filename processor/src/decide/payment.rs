//! A partner debits a customer under a mandate, at once or in two phases.

use domain::account::AccountStatus;
use domain::command::{PartnerEnvelope, PaymentCommand};
use domain::event::EventType;
use domain::ids::AccountId;
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Amount;
use domain::payment::{PaymentStatus, Reason};

use super::effects::HoldRow;
use super::posting::Posting;
use super::{Account, Fold, Mandate, Payment, Slot, Spent};
use crate::item::Item;

/// A payment that passed every check.
struct Allowed {
    posting: Posting,
    /// What the debited account holds afterwards.
    held_minor: i64,
    accounts: [AccountId; 2],
    amount: Amount,
    account_spent: Spent,
    mandate_spent: Spent,
}

impl Fold {
    pub(super) fn payment(&mut self, item: &Item, envelope: &PartnerEnvelope, command: &PaymentCommand) {
        let (mut payment, asked) = self.asked_by_partner(item, envelope);
        payment.expires_at = command.expires_at(item.accepted_at);
        let event_type = match self.check_payment(item, envelope, command, &payment) {
            Ok(allowed) => {
                let event_type = if payment.expires_at.is_some() {
                    self.authorize(&mut payment, &allowed);
                    EventType::PaymentAuthorized
                } else {
                    self.post(&mut payment, &allowed.posting);
                    EventType::PaymentPosted
                };
                self.spend(command, &allowed);
                event_type
            }
            Err(reason) => {
                payment.reason = Some(reason);
                EventType::PaymentRejected
            }
        };
        self.record(payment, asked, Some(event_type));
    }

    fn check_payment(
        &self,
        item: &Item,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
        payment: &Payment,
    ) -> Result<Allowed, Reason> {
        // Existence and ownership: a foreign mandate is unknown.
        let partner = self.view.partners.get(&envelope.partner).ok_or(Reason::PartnerUnknown)?;
        let mandate = self.view.mandates.get(&command.mandate).map(|slot| &slot.row);
        let mandate = mandate.filter(|mandate| mandate.partner == envelope.partner);
        let mandate = mandate.ok_or(Reason::MandateUnknown)?;
        let debit = mandate.account.ok_or_else(|| never_granted(mandate))?;
        let amount = payment
            .amount
            .filter(|amount| amount.currency() == mandate.currency)
            .ok_or(Reason::CurrencyMismatch)?;
        let settlement = self.view.settlement_accounts.get(&(envelope.partner, amount.currency()));
        let settlement = settlement.ok_or(Reason::SettlementAccountMissing)?.row;
        let debit = &self.view.accounts.get(&debit).ok_or(Reason::AccountUnknown)?.row;
        let credit = &self.view.accounts.get(&settlement).ok_or(Reason::SettlementAccountMissing)?.row;
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
        let held_minor = match payment.expires_at {
            Some(_) => debit.held_minor.checked_add(amount.minor()).ok_or(Reason::AmountOverflow)?,
            None => debit.held_minor,
        };
        let accounts = [debit.id, credit.id];
        Ok(Allowed { posting, held_minor, accounts, amount, account_spent, mandate_spent })
    }

    /// Counts the payment against the caps of the account and the mandate.
    fn spend(&mut self, command: &PaymentCommand, allowed: &Allowed) {
        if let Some(account) = self.view.accounts.get_mut(&allowed.accounts[0]) {
            account.change().spent = allowed.account_spent;
        }
        // A mandate is written only when it counts something: most never change.
        if let Some(slot) = self.view.mandates.get_mut(&command.mandate) {
            use_mandate(slot, allowed.mandate_spent);
        }
    }

    /// Holds the funds of a payment until it is captured, voided or expires.
    fn authorize(&mut self, payment: &mut Payment, allowed: &Allowed) {
        payment.status = PaymentStatus::Authorized;
        payment.accounts = Some(allowed.accounts);
        if let Some(slot) = self.view.accounts.get_mut(&allowed.accounts[0]) {
            slot.change().held_minor = allowed.held_minor;
        }
        self.effects.holds.push(HoldRow {
            account: allowed.accounts[0],
            payment: payment.id,
            partition: payment.position.partition,
            amount: allowed.amount,
            expires_at: payment.expires_at.unwrap_or(payment.accepted_at),
        });
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

/// The account's own limits, which count what partners and owners debit: what is spent afterwards.
pub(super) fn check_account_limits(debit: &Account, amount: Amount, item: &Item) -> Result<Spent, Reason> {
    if above(amount.minor(), debit.payment_max_minor) {
        return Err(Reason::PaymentLimit);
    }
    spend(debit.spent, amount, item, debit.daily_max_minor)
}

/// Why a mandate that nobody ever granted authorises nothing.
fn never_granted(mandate: &Mandate) -> Reason {
    match mandate.status {
        MandateStatus::Revoked => Reason::MandateRevoked,
        MandateStatus::Expired => Reason::MandateExpired,
        MandateStatus::Active | MandateStatus::Used | MandateStatus::Declined | MandateStatus::Pending => {
            Reason::MandateUnknown
        }
    }
}

fn check_authority(mandate: &Mandate, item: &Item) -> Result<(), Reason> {
    match mandate.status {
        MandateStatus::Active => {}
        MandateStatus::Used => return Err(Reason::MandateUsed),
        MandateStatus::Revoked => return Err(Reason::MandateRevoked),
        MandateStatus::Expired => return Err(Reason::MandateExpired),
        // Neither has an account.
        MandateStatus::Declined | MandateStatus::Pending => return Err(never_granted(mandate)),
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
    if above(amount.minor(), mandate.payment_max_minor) {
        return Err(Reason::MandateLimit);
    }
    let account_spent = check_account_limits(debit, amount, item)?;
    let mandate_spent = match mandate.daily_max_minor {
        Some(limit) => spend(mandate.spent, amount, item, Some(limit))?,
        None => mandate.spent,
    };
    Ok((mandate_spent, account_spent))
}

fn above(minor: i64, limit: Option<i64>) -> bool {
    limit.is_some_and(|limit| minor > limit)
}

fn spend(spent: Spent, amount: Amount, item: &Item, limit: Option<i64>) -> Result<Spent, Reason> {
    let spent = spent.plus(amount.minor(), item.accepted_day).ok_or(Reason::AmountOverflow)?;
    if above(spent.minor, limit) { Err(Reason::DailyLimit) } else { Ok(spent) }
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
