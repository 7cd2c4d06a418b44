//! Money between two accounts, asked for by a partner or by the bank for a customer.

use domain::account::Owner;
use domain::command::{BankEnvelope, BankTransfer, PartnerEnvelope, TransferCommand};
use domain::event::{CreditView, EventType};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, PartnerId};
use domain::money::{Amount, decimal_text};
use domain::payment::{PaymentKind, Reason};
use serde::Serialize;

use super::payment::{check_account_limits, check_credit_status, check_debit_status};
use super::posting::Posting;
use super::{Account, Fold, Payment, Spent, Told};
use crate::item::Item;

/// A transfer that passed every check.
struct Allowed {
    posting: Posting,
    spent: Spent,
}

impl Fold {
    pub(super) fn transfer(&mut self, item: &Item, envelope: &PartnerEnvelope, command: &TransferCommand) {
        let (mut transfer, mut asked) = self.asked_by_partner(item, envelope);
        let event_type = match self.check_partner_transfer(item, envelope.partner, command, &transfer) {
            Ok(allowed) => {
                self.carry_out(&mut transfer, command.from, &allowed);
                let owner = self.partner_that_owns(command.to).filter(|owner| *owner != envelope.partner);
                if owner.is_some() {
                    asked.told = self.tell_credit(command.to, &transfer);
                }
                EventType::TransferPosted
            }
            Err(reason) => {
                transfer.reason = Some(reason);
                EventType::TransferRejected
            }
        };
        self.record(transfer, asked, Some(event_type));
    }

    pub(super) fn bank_transfer(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        command: &BankTransfer,
    ) {
        let (mut transfer, mut asked) = self.asked_by_bank(item, envelope, fingerprint);
        transfer.livemode = self.holds_real_money(command.from);
        let checked = self.account(command.from).and_then(|from| {
            let to = self.account(command.to)?;
            check_transfer(item, from, to, transfer.amount)
        });
        match checked {
            Ok(allowed) => {
                self.carry_out(&mut transfer, command.from, &allowed);
                asked.told = self.tell_credit(command.to, &transfer);
            }
            Err(reason) => transfer.reason = Some(reason),
        }
        self.record(transfer, asked, None);
    }

    fn check_partner_transfer(
        &self,
        item: &Item,
        partner: PartnerId,
        command: &TransferCommand,
        transfer: &Payment,
    ) -> Result<Allowed, Reason> {
        let known = self.view.partners.get(&partner).ok_or(Reason::PartnerUnknown)?;
        let owned = |account: &&Account| account.owner == Owner::Partner(partner);
        // A foreign account is unknown, and without the scope so is whether it exists.
        let from = self.account(command.from).ok().filter(owned).ok_or(Reason::AccountUnknown)?;
        let to = self.account(command.to);
        let to =
            if command.outward { to? } else { to.ok().filter(owned).ok_or(Reason::TransferOutForbidden)? };
        // The status of the partner stands with that of the accounts.
        if !known.active {
            return Err(Reason::PartnerSuspended);
        }
        check_transfer(item, from, to, transfer.amount)
    }

    fn carry_out(&mut self, transfer: &mut Payment, from: AccountId, allowed: &Allowed) {
        self.post(transfer, &allowed.posting);
        if let Some(account) = self.view.accounts.get_mut(&from) {
            account.change().spent = allowed.spent;
        }
    }

    /// A partner learns of money that someone else put into its account.
    pub(super) fn tell_credit(&mut self, account: AccountId, payment: &Payment) -> Told {
        self.tell_account(account, payment.amount, said_to_both(payment), EventType::AccountCredited)
    }

    /// And that the bank moved it back, as `reversal` did with what `root` had moved.
    pub(super) fn tell_debit(&mut self, account: AccountId, reversal: &Payment, root: &Payment) -> Told {
        self.tell_account(account, reversal.amount, said_to_both(root), EventType::AccountDebited)
    }

    fn tell_account(
        &mut self,
        account: AccountId,
        amount: Option<Amount>,
        reference: Option<String>,
        event_type: EventType,
    ) -> Told {
        #[derive(Serialize)]
        struct Data {
            account: CreditView,
        }
        let partner = self.partner_that_owns(account)?;
        let account = self.account(account).ok()?;
        let view = CreditView {
            id: account.id,
            amount: amount?.to_string(),
            currency: account.currency,
            balance: decimal_text(account.balance_minor, account.currency),
            reference,
        };
        Some((partner, self.tell(partner, event_type, &Data { account: view })))
    }

    pub(super) fn partner_that_owns(&self, account: AccountId) -> Option<PartnerId> {
        match self.account(account).ok()?.owner {
            Owner::Partner(partner) => Some(partner),
            Owner::Customer(_) | Owner::Bank => None,
        }
    }

    /// Whether what an account takes part in is real; of an account that nobody knows it is said to be.
    pub(super) fn holds_real_money(&self, account: AccountId) -> bool {
        self.account(account).map_or(true, |account| account.livemode)
    }

    pub(super) fn account(&self, id: AccountId) -> Result<&Account, Reason> {
        self.view.accounts.get(&id).map(|slot| &slot.row).ok_or(Reason::AccountUnknown)
    }
}

/// What the credited side reads. A reference is the sender's own.
fn said_to_both(payment: &Payment) -> Option<String> {
    match payment.kind {
        PaymentKind::Transfer => payment.description.clone(),
        _ => payment.reference.clone(),
    }
}

fn check_transfer(
    item: &Item,
    from: &Account,
    to: &Account,
    amount: Option<Amount>,
) -> Result<Allowed, Reason> {
    let amount = amount.filter(|amount| amount.currency() == from.currency && from.currency == to.currency);
    let amount = amount.ok_or(Reason::CurrencyMismatch)?;
    if from.id == to.id {
        return Err(Reason::SameAccount);
    }
    // Only deposits and withdrawals move the bank's own money.
    if from.owner == Owner::Bank || to.owner == Owner::Bank {
        return Err(Reason::BankAccount);
    }
    check_debit_status(from)?;
    check_credit_status(to)?;
    let spent = check_account_limits(from, amount, item)?;
    Ok(Allowed { posting: Posting::check(from, to, amount)?, spent })
}
