//! Accounts: opened, frozen, limited, closed, and chosen for settlement.

use domain::account::{AccountStatus, Owner};
use domain::command::{OpenAccount, SetLimits};
use domain::entry::GENESIS;
use domain::ids::{AccountId, PartnerId};
use domain::payment::Reason;

use super::{Account, Fold, Slot, Spent, Told};

impl Fold {
    pub(super) fn open_account(&mut self, open: &OpenAccount) -> Result<Told, Reason> {
        if self.view.accounts.contains_key(&open.account) {
            return Err(Reason::AccountExists);
        }
        let livemode = match open.owner {
            Owner::Partner(partner) => {
                self.view.partners.get(&partner).ok_or(Reason::PartnerUnknown)?.livemode
            }
            Owner::Customer(_) | Owner::Bank => true,
        };
        self.add_account(open, livemode);
        Ok(None)
    }

    /// Adds an account that is not there yet; a partner's first one in a currency is where it is credited.
    pub(super) fn add_account(&mut self, open: &OpenAccount, livemode: bool) {
        if let Owner::Partner(partner) = open.owner {
            let settlement = self.view.settlement_accounts.entry((partner, open.currency));
            settlement.or_insert_with(|| Slot::new(open.account));
        }
        let account = Account {
            id: open.account,
            owner: open.owner,
            currency: open.currency,
            livemode,
            status: AccountStatus::Active,
            balance_minor: 0,
            held_minor: 0,
            overdraft_minor: open.overdraft_minor,
            payment_max_minor: open.payment_max_minor,
            daily_max_minor: open.daily_max_minor,
            spent: Spent::default(),
            version: 0,
            head: GENESIS,
            entered_at: self.decided_at,
        };
        self.view.accounts.insert(open.account, Slot::new(account));
    }

    pub(super) fn freeze(&mut self, id: AccountId) -> Result<Told, Reason> {
        self.set_status(id, AccountStatus::Active, AccountStatus::Frozen)
    }

    pub(super) fn unfreeze(&mut self, id: AccountId) -> Result<Told, Reason> {
        self.set_status(id, AccountStatus::Frozen, AccountStatus::Active)
    }

    fn set_status(&mut self, id: AccountId, from: AccountStatus, to: AccountStatus) -> Result<Told, Reason> {
        let slot = self.changeable(id)?;
        if slot.row.status != from {
            return Err(Reason::StatusUnchanged);
        }
        slot.change().status = to;
        Ok(None)
    }

    pub(super) fn close(&mut self, id: AccountId) -> Result<Told, Reason> {
        let slot = self.changeable(id)?;
        if slot.row.balance_minor != 0 || slot.row.held_minor != 0 {
            return Err(Reason::AccountNotEmpty);
        }
        slot.change().status = AccountStatus::Closed;
        Ok(None)
    }

    pub(super) fn set_limits(&mut self, set: &SetLimits) -> Result<Told, Reason> {
        let slot = self.changeable(set.account)?;
        let changed = Account {
            overdraft_minor: set.overdraft_minor,
            payment_max_minor: set.payment_max_minor,
            daily_max_minor: set.daily_max_minor,
            ..slot.row.clone()
        };
        changed.balance_minor.checked_add(changed.overdraft_minor).ok_or(Reason::AmountOverflow)?;
        // What is overdrawn or held must stay covered.
        if changed.available_minor() < 0 {
            return Err(Reason::InsufficientFunds);
        }
        *slot.change() = changed;
        Ok(None)
    }

    pub(super) fn set_settlement_account(
        &mut self,
        partner: PartnerId,
        id: AccountId,
    ) -> Result<Told, Reason> {
        if !self.view.partners.contains_key(&partner) {
            return Err(Reason::PartnerUnknown);
        }
        let account = self.account(id)?;
        if account.owner != Owner::Partner(partner) {
            return Err(Reason::AccountUnknown);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        let key = (partner, account.currency);
        // A partner with an account in a currency has a settlement account in it: its first one.
        let slot = self.view.settlement_accounts.get_mut(&key).ok_or(Reason::SettlementAccountMissing)?;
        if slot.row == id {
            return Err(Reason::StatusUnchanged);
        }
        *slot.change() = id;
        Ok(None)
    }

    /// An account of a customer or a partner that is not closed.
    fn changeable(&mut self, id: AccountId) -> Result<&mut Slot<Account>, Reason> {
        let slot = self.view.accounts.get_mut(&id).ok_or(Reason::AccountUnknown)?;
        match (slot.row.owner, slot.row.status) {
            (Owner::Bank, _) => Err(Reason::BankAccount),
            (_, AccountStatus::Closed) => Err(Reason::AccountClosed),
            (_, AccountStatus::Active | AccountStatus::Frozen) => Ok(slot),
        }
    }
}
