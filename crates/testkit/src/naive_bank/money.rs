//! Payments under a mandate, transfers, deposits and withdrawals.

use domain::account::{AccountStatus, Owner};
use domain::command::{
    BankTransfer, Deposit, FollowUp, PartnerCommand, PartnerEnvelope, PaymentCommand, TransferCommand,
};
use domain::event::EventType;
use domain::ids::{AccountId, PartnerId, PaymentId, bank_account_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Day;

use super::{NaiveBank, Outcome, Payment, When};

impl Payment {
    /// A payment of the bank that is rejected until it is decided.
    pub(super) fn of_bank(kind: PaymentKind, root: PaymentId) -> Self {
        Self {
            kind,
            root,
            status: PaymentStatus::Rejected,
            reason: None,
            version: 1,
            partner: None,
            livemode: true,
            mandate: None,
            amount: None,
            captured: 0,
            refunded: 0,
            accounts: None,
            versions: None,
            expires_at: None,
        }
    }
}

impl NaiveBank {
    /// What a partner asked for, as rejected until it is decided.
    pub(super) fn asked_by(&self, envelope: &PartnerEnvelope) -> Payment {
        let part = |follow_up: &FollowUp| follow_up.part.map(|part| (part.amount_minor, part.currency));
        let (kind, asked) = match &envelope.command {
            PartnerCommand::Payment(command) => {
                (PaymentKind::Payment, Some((command.amount_minor, command.currency)))
            }
            PartnerCommand::Transfer(command) => {
                (PaymentKind::Transfer, Some((command.amount_minor, command.currency)))
            }
            PartnerCommand::Capture(command) => (PaymentKind::Capture, part(command)),
            PartnerCommand::Void(command) => (PaymentKind::Void, part(command)),
            PartnerCommand::Refund(command) => (PaymentKind::Refund, part(command)),
            PartnerCommand::Expire => (PaymentKind::Expire, None),
            PartnerCommand::SandboxMandate(sandbox) => {
                (PaymentKind::Deposit, Some((sandbox.balance_minor, sandbox.terms.currency)))
            }
            other => unreachable!("{} is no payment", other.word()),
        };
        let mut payment = Payment::of_bank(kind, envelope.root);
        payment.partner = Some(envelope.partner);
        payment.livemode = self.partners.get(&envelope.partner).is_some_and(|partner| partner.livemode);
        payment.amount = asked.and_then(|(minor, currency)| Amount::new(minor, currency).ok());
        if let PartnerCommand::Payment(command) = &envelope.command {
            payment.mandate = Some(command.mandate);
        }
        if let PartnerCommand::Transfer(command) = &envelope.command {
            payment.accounts = Some([command.from, command.to]);
        }
        payment
    }

    pub(super) fn pay(
        &mut self,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
        when: When,
    ) -> Outcome {
        let mut payment = self.asked_by(envelope);
        payment.expires_at = command.expires_in_s.map(|seconds| when.at.plus_seconds(seconds.into()));
        let (id, minor) = (envelope.id, command.amount_minor);
        let event_type = match self.may_pay(envelope, command, when) {
            Err(reason) => {
                payment.reason = Some(reason);
                EventType::PaymentRejected
            }
            Ok([debit, credit]) => {
                self.spend(debit, minor, when.day);
                if let Some(mandate) = self.mandates.get_mut(&command.mandate) {
                    if mandate.daily_max.is_some() {
                        mandate.spent =
                            (mandate.spent.0.max(when.day), spent(mandate.spent, minor, when.day) as i64);
                    }
                    if mandate.kind == MandateKind::Single {
                        mandate.status = MandateStatus::Used;
                        mandate.version += 1;
                    }
                }
                if payment.expires_at.is_some() {
                    payment.status = PaymentStatus::Authorized;
                    payment.accounts = Some([debit, credit]);
                    self.accounts.get_mut(&debit).unwrap().holds.insert(id, minor);
                    EventType::PaymentAuthorized
                } else {
                    self.post(&mut payment, debit, credit);
                    EventType::PaymentPosted
                }
            }
        };
        self.tell_payment(id, &payment, event_type);
        self.keep(id, payment)
    }

    /// Which accounts a payment debits and credits, or why it does not.
    fn may_pay(
        &self,
        envelope: &PartnerEnvelope,
        command: &PaymentCommand,
        when: When,
    ) -> Result<[AccountId; 2], Reason> {
        let minor = command.amount_minor;
        let partner = self.partners.get(&envelope.partner).ok_or(Reason::PartnerUnknown)?;
        let mandate = self.mandates.get(&command.mandate).ok_or(Reason::MandateUnknown)?;
        if mandate.partner != envelope.partner {
            return Err(Reason::MandateUnknown);
        }
        let debit = mandate.account.ok_or(match mandate.status {
            MandateStatus::Revoked => Reason::MandateRevoked,
            MandateStatus::Expired => Reason::MandateExpired,
            _ => Reason::MandateUnknown,
        })?;
        if mandate.currency != command.currency {
            return Err(Reason::CurrencyMismatch);
        }
        let credit = self.settlement.get(&(envelope.partner, command.currency));
        let credit = *credit.ok_or(Reason::SettlementAccountMissing)?;
        if debit == credit {
            return Err(Reason::SameAccount);
        }
        if !partner.active {
            return Err(Reason::PartnerSuspended);
        }
        self.may_debit(debit)?;
        self.may_credit(credit)?;
        match mandate.status {
            MandateStatus::Active => {}
            MandateStatus::Used => return Err(Reason::MandateUsed),
            MandateStatus::Revoked => return Err(Reason::MandateRevoked),
            MandateStatus::Expired => return Err(Reason::MandateExpired),
            MandateStatus::Declined | MandateStatus::Pending => return Err(Reason::MandateUnknown),
        }
        if mandate.expires_at.is_some_and(|expires_at| when.at >= expires_at) {
            return Err(Reason::MandateExpired);
        }
        if mandate.payment_max.is_some_and(|max| minor > max) {
            return Err(Reason::MandateLimit);
        }
        self.within_limits(debit, minor, when.day)?;
        if mandate.daily_max.is_some_and(|max| spent(mandate.spent, minor, when.day) > max.into()) {
            return Err(Reason::DailyLimit);
        }
        self.has_funds(debit, credit, minor, 0)?;
        Ok([debit, credit])
    }

    pub(super) fn transfer(
        &mut self,
        envelope: &PartnerEnvelope,
        command: &TransferCommand,
        when: When,
    ) -> Outcome {
        let mut transfer = self.asked_by(envelope);
        let event_type = if let Err(reason) = self.may_transfer(envelope.partner, command, when) {
            transfer.reason = Some(reason);
            EventType::TransferRejected
        } else {
            self.spend(command.from, command.amount_minor, when.day);
            let amount = self.post(&mut transfer, command.from, command.to);
            if self.owning_partner(command.to) != Some(envelope.partner) {
                self.tell_credit(command.to, amount);
            }
            EventType::TransferPosted
        };
        self.tell_payment(envelope.id, &transfer, event_type);
        self.keep(envelope.id, transfer)
    }

    fn may_transfer(&self, id: PartnerId, command: &TransferCommand, when: When) -> Result<(), Reason> {
        let partner = self.partners.get(&id).ok_or(Reason::PartnerUnknown)?;
        if self.owning_partner(command.from) != Some(id) {
            return Err(Reason::AccountUnknown);
        }
        if command.outward {
            self.account(command.to)?;
        } else if self.owning_partner(command.to) != Some(id) {
            return Err(Reason::TransferOutForbidden);
        }
        if !partner.active {
            return Err(Reason::PartnerSuspended);
        }
        let amount =
            Amount::new(command.amount_minor, command.currency).map_err(|_| Reason::CurrencyMismatch)?;
        self.may_move(command.from, command.to, amount, when)
    }

    pub(super) fn bank_transfer(&mut self, id: PaymentId, command: &BankTransfer, when: When) -> Outcome {
        let mut transfer = Payment::of_bank(PaymentKind::Transfer, id);
        transfer.accounts = Some([command.from, command.to]);
        transfer.amount = Amount::new(command.amount_minor, command.currency).ok();
        if let Ok(from) = self.account(command.from) {
            transfer.livemode = from.livemode;
        }
        let amount = transfer.amount.unwrap();
        if let Err(reason) = self.may_move(command.from, command.to, amount, when) {
            transfer.reason = Some(reason);
        } else {
            self.spend(command.from, command.amount_minor, when.day);
            self.post(&mut transfer, command.from, command.to);
            self.tell_credit(command.to, amount);
        }
        self.keep(id, transfer)
    }

    /// What every transfer must keep to.
    fn may_move(&self, from: AccountId, to: AccountId, amount: Amount, when: When) -> Result<(), Reason> {
        let (debit, credit) = (self.account(from)?, self.account(to)?);
        if debit.currency != amount.currency() || credit.currency != amount.currency() {
            return Err(Reason::CurrencyMismatch);
        }
        if from == to {
            return Err(Reason::SameAccount);
        }
        if debit.owner == Owner::Bank || credit.owner == Owner::Bank {
            return Err(Reason::BankAccount);
        }
        self.may_debit(from)?;
        self.may_credit(to)?;
        self.within_limits(from, amount.minor(), when.day)?;
        self.has_funds(from, to, amount.minor(), 0)
    }

    pub(super) fn deposit(&mut self, id: PaymentId, command: &Deposit) -> Outcome {
        let mut deposit = self.asked_of_cash(PaymentKind::Deposit, id, command);
        let cash = bank_account_id(command.currency);
        if let Err(reason) = self.may_use_cash(command, cash, command.account) {
            deposit.reason = Some(reason);
        } else {
            let amount = self.post(&mut deposit, cash, command.account);
            self.tell_credit(command.account, amount);
        }
        self.keep(id, deposit)
    }

    pub(super) fn withdraw(&mut self, id: PaymentId, command: &Deposit) -> Outcome {
        let mut withdrawal = self.asked_of_cash(PaymentKind::Withdrawal, id, command);
        let cash = bank_account_id(command.currency);
        if let Err(reason) = self.may_use_cash(command, command.account, cash) {
            withdrawal.reason = Some(reason);
        } else {
            self.post(&mut withdrawal, command.account, cash);
        }
        self.keep(id, withdrawal)
    }

    /// A partner sees what is done to its account.
    fn asked_of_cash(&self, kind: PaymentKind, id: PaymentId, command: &Deposit) -> Payment {
        let mut payment = Payment::of_bank(kind, id);
        payment.amount = Amount::new(command.amount_minor, command.currency).ok();
        payment.partner = self.owning_partner(command.account);
        if let Ok(account) = self.account(command.account) {
            payment.livemode = account.livemode;
        }
        payment
    }

    fn may_use_cash(&self, command: &Deposit, from: AccountId, to: AccountId) -> Result<(), Reason> {
        let account = self.account(command.account)?;
        self.account(from)?;
        self.account(to)?;
        if account.currency != command.currency {
            return Err(Reason::CurrencyMismatch);
        }
        if from == to {
            return Err(Reason::SameAccount);
        }
        self.may_debit(from)?;
        self.may_credit(to)?;
        self.has_funds(from, to, command.amount_minor, 0)
    }

    pub(super) fn may_debit(&self, id: AccountId) -> Result<(), Reason> {
        match self.account(id)?.status {
            AccountStatus::Active => Ok(()),
            AccountStatus::Frozen => Err(Reason::AccountFrozen),
            AccountStatus::Closed => Err(Reason::AccountClosed),
        }
    }

    pub(super) fn may_credit(&self, id: AccountId) -> Result<(), Reason> {
        match self.account(id)?.status {
            AccountStatus::Active | AccountStatus::Frozen => Ok(()),
            AccountStatus::Closed => Err(Reason::AccountClosed),
        }
    }

    /// The limits of the account itself.
    fn within_limits(&self, id: AccountId, minor: i64, day: Day) -> Result<(), Reason> {
        let account = self.account(id)?;
        if account.payment_max.is_some_and(|max| minor > max) {
            return Err(Reason::PaymentLimit);
        }
        let spent = spent(account.spent, minor, day);
        if spent > i64::MAX.into() {
            return Err(Reason::AmountOverflow);
        }
        if account.daily_max.is_some_and(|max| spent > max.into()) {
            return Err(Reason::DailyLimit);
        }
        Ok(())
    }

    /// The last check; `held` is what is held for this very movement.
    pub(super) fn has_funds(
        &self,
        from: AccountId,
        to: AccountId,
        minor: i64,
        held: i64,
    ) -> Result<(), Reason> {
        let (from, to, minor) = (self.account(from)?, self.account(to)?, i128::from(minor));
        if from.livemode != to.livemode {
            return Err(Reason::LivemodeMismatch);
        }
        if from.owner != Owner::Bank && from.available() + i128::from(held) < minor {
            return Err(Reason::InsufficientFunds);
        }
        let credited = to.balance + minor + i128::from(to.overdraft);
        if from.balance - minor < i64::MIN.into() || credited > i64::MAX.into() {
            return Err(Reason::AmountOverflow);
        }
        Ok(())
    }

    fn spend(&mut self, id: AccountId, minor: i64, day: Day) {
        let account = self.accounts.get_mut(&id).unwrap();
        account.spent = (account.spent.0.max(day), spent(account.spent, minor, day) as i64);
    }

    /// Moves the payment's amount.
    pub(super) fn post(&mut self, payment: &mut Payment, from: AccountId, to: AccountId) -> Amount {
        let amount = payment.amount.unwrap();
        let debited = self.accounts.get_mut(&from).unwrap();
        debited.balance -= i128::from(amount.minor());
        debited.version += 1;
        let debited = debited.version;
        let credited = self.accounts.get_mut(&to).unwrap();
        credited.balance += i128::from(amount.minor());
        credited.version += 1;
        payment.status = PaymentStatus::Posted;
        payment.captured = amount.minor();
        payment.accounts = Some([from, to]);
        payment.versions = Some([debited, credited.version]);
        amount
    }

    pub(super) fn owning_partner(&self, id: AccountId) -> Option<PartnerId> {
        match self.accounts.get(&id)?.owner {
            Owner::Partner(partner) => Some(partner),
            Owner::Customer(_) | Owner::Bank => None,
        }
    }
}

/// What is spent in the day once `minor` more is spent on `day`, which counts for the later day when it comes late.
fn spent((stored_day, stored): (Day, i64), minor: i64, day: Day) -> i128 {
    let before = if day > stored_day { 0 } else { stored };
    i128::from(before) + i128::from(minor)
}
