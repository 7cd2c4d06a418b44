//! Accounts and mandates.

use domain::account::{AccountStatus, Owner};
use domain::command::{
    BankCommand, GrantMandate, MandateTerms, OpenAccount, PartnerEnvelope, SandboxMandate, SandboxState,
    SetLimits,
};
use domain::event::EventType;
use domain::ids::{
    AccountId, MandateId, PartnerId, sandbox_account_id, sandbox_owner, sandbox_settlement_id,
};
use domain::mandate::MandateStatus;
use domain::payment::Reason;
use domain::time::Day;

use super::{Account, Mandate, NaiveBank, When};

type Done = Result<(), Reason>;

impl NaiveBank {
    pub(super) fn bank_change(&mut self, command: &BankCommand, when: When) -> Done {
        match command {
            BankCommand::OpenAccount(open) => self.open(open),
            BankCommand::FreezeAccount { account } => {
                self.set_status(*account, AccountStatus::Active, AccountStatus::Frozen)
            }
            BankCommand::UnfreezeAccount { account } => {
                self.set_status(*account, AccountStatus::Frozen, AccountStatus::Active)
            }
            BankCommand::CloseAccount { account } => self.close(*account),
            BankCommand::SetLimits(set) => self.set_limits(set),
            BankCommand::SetSettlementAccount { partner, account } => self.set_settlement(*partner, *account),
            BankCommand::GrantMandate(grant) => self.grant(grant, when),
            BankCommand::RevokeMandate { mandate } => {
                let partner = self.mandates.get(mandate).ok_or(Reason::MandateUnknown)?.partner;
                self.end_mandate(partner, *mandate, MandateStatus::Revoked, EventType::MandateRevoked)
            }
            BankCommand::DeclineMandate { partner, terms } => {
                if self.mandates.contains_key(&terms.mandate) {
                    return Err(Reason::MandateExists);
                }
                self.known(*partner)?;
                self.end_request(*partner, terms, MandateStatus::Declined, EventType::MandateDeclined);
                Ok(())
            }
            // There are no dead letters here.
            BankCommand::RedriveDeadLetters { .. } | BankCommand::RejectDeadLetter(_) => {
                Err(Reason::DeadLetterUnknown)
            }
            other => unreachable!("{} is a payment", other.word()),
        }
    }

    fn known(&self, partner: PartnerId) -> Done {
        if self.partners.contains_key(&partner) { Ok(()) } else { Err(Reason::PartnerUnknown) }
    }

    fn open(&mut self, open: &OpenAccount) -> Done {
        if self.accounts.contains_key(&open.account) {
            return Err(Reason::AccountExists);
        }
        let mut livemode = true;
        if let Owner::Partner(partner) = open.owner {
            self.known(partner)?;
            livemode = self.partners[&partner].livemode;
            self.settlement.entry((partner, open.currency)).or_insert(open.account);
        }
        let account = Account {
            livemode,
            overdraft: open.overdraft_minor,
            payment_max: open.payment_max_minor,
            daily_max: open.daily_max_minor,
            ..Account::new(open.owner, open.currency)
        };
        self.accounts.insert(open.account, account);
        Ok(())
    }

    /// The bank's own accounts and closed ones do not change.
    fn changeable(&mut self, id: AccountId) -> Result<&mut Account, Reason> {
        let account = self.accounts.get_mut(&id).ok_or(Reason::AccountUnknown)?;
        if account.owner == Owner::Bank {
            return Err(Reason::BankAccount);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        Ok(account)
    }

    fn set_status(&mut self, id: AccountId, from: AccountStatus, to: AccountStatus) -> Done {
        let account = self.changeable(id)?;
        if account.status != from {
            return Err(Reason::StatusUnchanged);
        }
        account.status = to;
        Ok(())
    }

    fn close(&mut self, id: AccountId) -> Done {
        let account = self.changeable(id)?;
        if account.balance != 0 || !account.holds.is_empty() {
            return Err(Reason::AccountNotEmpty);
        }
        account.status = AccountStatus::Closed;
        Ok(())
    }

    fn set_limits(&mut self, set: &SetLimits) -> Done {
        let account = self.changeable(set.account)?;
        let reach = account.balance + i128::from(set.overdraft_minor);
        if reach > i64::MAX.into() {
            return Err(Reason::AmountOverflow);
        }
        if reach < account.held().into() {
            return Err(Reason::InsufficientFunds);
        }
        account.overdraft = set.overdraft_minor;
        account.payment_max = set.payment_max_minor;
        account.daily_max = set.daily_max_minor;
        Ok(())
    }

    fn set_settlement(&mut self, partner: PartnerId, id: AccountId) -> Done {
        self.known(partner)?;
        let account = self.account(id)?;
        if account.owner != Owner::Partner(partner) {
            return Err(Reason::AccountUnknown);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        if self.settlement.insert((partner, account.currency), id) == Some(id) {
            return Err(Reason::StatusUnchanged);
        }
        Ok(())
    }

    fn grant(&mut self, grant: &GrantMandate, when: When) -> Done {
        if self.mandates.contains_key(&grant.mandate) {
            return Err(Reason::MandateExists);
        }
        self.known(grant.partner)?;
        let account = self.account(grant.account)?;
        if account.owner == Owner::Bank {
            return Err(Reason::BankAccount);
        }
        if account.currency != grant.currency {
            return Err(Reason::CurrencyMismatch);
        }
        if account.livemode != self.partners[&grant.partner].livemode {
            return Err(Reason::LivemodeMismatch);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        if grant.expires_at.is_some_and(|expires_at| when.at >= expires_at) {
            return Err(Reason::MandateExpired);
        }
        let mandate = Mandate {
            partner: grant.partner,
            account: Some(grant.account),
            kind: grant.kind,
            status: MandateStatus::Active,
            version: 1,
            currency: grant.currency,
            payment_max: grant.payment_max_minor,
            daily_max: grant.daily_max_minor,
            spent: (Day::default(), 0),
            expires_at: grant.expires_at,
        };
        self.mandates.insert(grant.mandate, mandate);
        self.tell_mandate(grant.mandate, EventType::MandateActive);
        Ok(())
    }

    pub(super) fn cancel_mandate(&mut self, partner: PartnerId, terms: &MandateTerms) -> Done {
        let (status, event_type) = (MandateStatus::Revoked, EventType::MandateRevoked);
        if self.mandates.contains_key(&terms.mandate) {
            return self.end_mandate(partner, terms.mandate, status, event_type);
        }
        self.end_request(partner, terms, status, event_type);
        Ok(())
    }

    /// `None` when nothing has come to its time.
    pub(super) fn expire_mandate(
        &mut self,
        partner: PartnerId,
        terms: &MandateTerms,
        when: When,
    ) -> Option<Done> {
        let (status, event_type) = (MandateStatus::Expired, EventType::MandateExpired);
        match self.mandates.get(&terms.mandate) {
            Some(mandate) => {
                let due = mandate.status == MandateStatus::Active && when.at >= mandate.expires_at?;
                due.then(|| self.end_mandate(partner, terms.mandate, status, event_type))
            }
            None if when.at >= terms.answer_by? => {
                self.end_request(partner, terms, status, event_type);
                Some(Ok(()))
            }
            None => None,
        }
    }

    fn end_mandate(
        &mut self,
        partner: PartnerId,
        id: MandateId,
        status: MandateStatus,
        event_type: EventType,
    ) -> Done {
        let mandate = self.mandates.get_mut(&id).ok_or(Reason::MandateUnknown)?;
        if mandate.partner != partner {
            return Err(Reason::MandateUnknown);
        }
        if mandate.status != MandateStatus::Active {
            return Err(Reason::MandateNotActive);
        }
        mandate.status = status;
        mandate.version += 1;
        self.tell_mandate(id, event_type);
        Ok(())
    }

    /// A request that ends without a grant is a mandate that never authorised anything.
    fn end_request(
        &mut self,
        partner: PartnerId,
        terms: &MandateTerms,
        status: MandateStatus,
        event_type: EventType,
    ) {
        self.mandates.insert(terms.mandate, Mandate { status, ..Mandate::on(partner, terms) });
        self.tell_mandate(terms.mandate, event_type);
    }

    pub(super) fn sandbox_mandate(&mut self, envelope: &PartnerEnvelope, sandbox: &SandboxMandate) -> Done {
        let (partner, terms, state) = (envelope.partner, &sandbox.terms, sandbox.state);
        self.known(partner)?;
        if self.partners[&partner].livemode {
            return Err(Reason::TestPartnersOnly);
        }
        if self.accounts.contains_key(&sandbox.account) {
            return Err(Reason::AccountExists);
        }
        if self.mandates.contains_key(&terms.mandate) {
            return Err(Reason::MandateExists);
        }
        if state == SandboxState::AccountClosed && sandbox.balance_minor != 0 {
            return Err(Reason::AccountNotEmpty);
        }
        let test = |owner| Account { livemode: false, ..Account::new(owner, terms.currency) };
        let bank = sandbox_account_id(terms.currency);
        self.accounts.entry(bank).or_insert_with(|| test(Owner::Bank));
        if !self.settlement.contains_key(&(partner, terms.currency)) {
            let settlement = sandbox_settlement_id(partner, terms.currency);
            self.accounts.insert(settlement, test(Owner::Partner(partner)));
            self.settlement.insert((partner, terms.currency), settlement);
        }
        self.accounts.insert(sandbox.account, test(Owner::Customer(sandbox_owner())));
        if sandbox.balance_minor > 0 {
            let mut deposit = self.asked_by(envelope);
            deposit.partner = None;
            self.post(&mut deposit, bank, sandbox.account);
            self.payments.insert(envelope.id, deposit);
        }
        self.accounts.get_mut(&sandbox.account).unwrap().status = match state {
            SandboxState::AccountFrozen => AccountStatus::Frozen,
            SandboxState::AccountClosed => AccountStatus::Closed,
            _ => AccountStatus::Active,
        };
        let (status, event_type) = match state {
            SandboxState::Used => (MandateStatus::Used, EventType::MandateActive),
            SandboxState::Revoked => (MandateStatus::Revoked, EventType::MandateRevoked),
            SandboxState::Expired => (MandateStatus::Expired, EventType::MandateExpired),
            _ => (MandateStatus::Active, EventType::MandateActive),
        };
        let mandate = Mandate { account: Some(sandbox.account), status, ..Mandate::on(partner, terms) };
        self.mandates.insert(terms.mandate, mandate);
        self.tell_mandate(terms.mandate, event_type);
        Ok(())
    }
}

impl Mandate {
    /// On these terms, without an account.
    fn on(partner: PartnerId, terms: &MandateTerms) -> Self {
        Self {
            partner,
            account: None,
            kind: terms.kind,
            status: MandateStatus::Active,
            version: 1,
            currency: terms.currency,
            payment_max: terms.payment_max_minor,
            daily_max: terms.daily_max_minor,
            spent: (Day::default(), 0),
            expires_at: terms.expires_at,
        }
    }
}
