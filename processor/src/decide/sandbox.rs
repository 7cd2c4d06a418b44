//! Test accounts with money and a mandate on them, so that a merchant's developer can reach every outcome by himself.
//! The money comes from the bank's sandbox account of the currency, which nothing else touches.

use domain::account::{AccountStatus, Owner};
use domain::command::{OpenAccount, PartnerEnvelope, SandboxMandate, SandboxState};
use domain::event::EventType;
use domain::ids::{AccountId, PartnerId, sandbox_account_id, sandbox_owner, sandbox_settlement_id};
use domain::mandate::MandateStatus;
use domain::payment::Reason;

use super::posting::Posting;
use super::{Fold, Mandate};
use crate::item::Item;

impl Fold {
    pub(super) fn sandbox_mandate(
        &mut self,
        item: &Item,
        envelope: &PartnerEnvelope,
        sandbox: &SandboxMandate,
    ) {
        let outcome = self.check_sandbox(envelope, sandbox).and_then(|()| {
            self.fund(item, envelope, sandbox)?;
            Ok(Some(self.add_sandbox_mandate(envelope, sandbox)))
        });
        self.partner_change(item, envelope, envelope.id.uuid(), outcome);
    }

    fn check_sandbox(&self, envelope: &PartnerEnvelope, sandbox: &SandboxMandate) -> Result<(), Reason> {
        let partner = self.view.partners.get(&envelope.partner).ok_or(Reason::PartnerUnknown)?;
        if partner.livemode {
            return Err(Reason::TestPartnersOnly);
        }
        if self.view.accounts.contains_key(&sandbox.account) {
            return Err(Reason::AccountExists);
        }
        if self.view.mandates.contains_key(&sandbox.terms.mandate) {
            return Err(Reason::MandateExists);
        }
        if sandbox.state == SandboxState::AccountClosed && sandbox.balance_minor != 0 {
            return Err(Reason::AccountNotEmpty);
        }
        let Ok(funds) = self.account(sandbox_account_id(sandbox.terms.currency)) else { return Ok(()) };
        if funds.livemode {
            return Err(Reason::LivemodeMismatch);
        }
        // It mirrors money that never was; it only must not overflow.
        funds.balance_minor.checked_sub(sandbox.balance_minor).map(drop).ok_or(Reason::AmountOverflow)
    }

    /// Opens the test account and puts the money in. The checks have passed, so this does not fail.
    fn fund(
        &mut self,
        item: &Item,
        envelope: &PartnerEnvelope,
        sandbox: &SandboxMandate,
    ) -> Result<(), Reason> {
        let currency = sandbox.terms.currency;
        let funds = sandbox_account_id(currency);
        if self.account(funds).is_err() {
            self.add_sandbox_account(funds, Owner::Bank, sandbox);
        }
        // A partner that registered itself has nothing to be credited on yet.
        if !self.view.settlement_accounts.contains_key(&(envelope.partner, currency)) {
            let settlement = sandbox_settlement_id(envelope.partner, currency);
            self.add_sandbox_account(settlement, Owner::Partner(envelope.partner), sandbox);
        }
        self.add_sandbox_account(sandbox.account, Owner::Customer(sandbox_owner()), sandbox);
        let (mut deposit, asked) = self.asked_by_partner(item, envelope);
        if let Some(amount) = deposit.amount {
            let posting = Posting::check(self.account(funds)?, self.account(sandbox.account)?, amount)?;
            deposit.partner = None;
            self.post(&mut deposit, &posting);
            self.record(deposit, asked, None);
        }
        Ok(())
    }

    fn add_sandbox_account(&mut self, account: AccountId, owner: Owner, sandbox: &SandboxMandate) {
        let open = OpenAccount {
            account,
            owner,
            currency: sandbox.terms.currency,
            overdraft_minor: 0,
            payment_max_minor: None,
            daily_max_minor: None,
        };
        self.add_account(&open, false);
    }

    fn add_sandbox_mandate(
        &mut self,
        envelope: &PartnerEnvelope,
        sandbox: &SandboxMandate,
    ) -> (PartnerId, u64) {
        let account_status = match sandbox.state {
            SandboxState::AccountFrozen => AccountStatus::Frozen,
            SandboxState::AccountClosed => AccountStatus::Closed,
            SandboxState::Active | SandboxState::Used | SandboxState::Revoked | SandboxState::Expired => {
                AccountStatus::Active
            }
        };
        if let Some(slot) = self.view.accounts.get_mut(&sandbox.account) {
            slot.change().status = account_status;
        }
        let (status, event_type) = match sandbox.state {
            SandboxState::Used => (MandateStatus::Used, EventType::MandateActive),
            SandboxState::Revoked => (MandateStatus::Revoked, EventType::MandateRevoked),
            SandboxState::Expired => (MandateStatus::Expired, EventType::MandateExpired),
            SandboxState::Active | SandboxState::AccountFrozen | SandboxState::AccountClosed => {
                (MandateStatus::Active, EventType::MandateActive)
            }
        };
        let mandate = Mandate {
            account: Some(sandbox.account),
            status,
            ..self.mandate_of(envelope.partner, &sandbox.terms)
        };
        self.add_mandate(mandate, event_type)
    }
}
