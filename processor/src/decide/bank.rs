//! Commands of the bank: deposits, accounts and mandates.

use domain::account::{AccountStatus, Owner};
use domain::command::{BankCommand, BankEnvelope, Deposit, GrantMandate, OpenAccount};
use domain::entry::GENESIS;
use domain::event::{CreditView, EventType, MandateView};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId, bank_account_id};
use domain::mandate::MandateStatus;
use domain::money::{Amount, decimal_text};
use domain::payment::{Metadata, PaymentKind, PaymentStatus, Reason};
use serde::Serialize;
use uuid::Uuid;

use super::effects::{ChangeRow, Origin, PaymentRow};
use super::payment::{check_credit_status, check_debit_status};
use super::posting::Posting;
use super::{Account, Fold, Mandate, Slot, Spent, json, payment_view};
use crate::item::Item;

/// What a change tells its partner.
type Told = Option<(PartnerId, u64)>;

impl Fold {
    pub(super) fn deposit(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        deposit: &Deposit,
    ) {
        let Some(mut row) = self.deposit_row(item, envelope, fingerprint, deposit) else { return };
        match self.check_deposit(deposit, row.amount) {
            Ok(posting) => {
                row.posting = Some(self.post(row.id, &posting));
                row.status = PaymentStatus::Posted;
                row.event_sequence = self.tell_credit(deposit, &row);
            }
            Err(reason) => row.reason = Some(reason),
        }
        self.view.used.insert(envelope.id, fingerprint);
        self.effects.payments.push(row);
    }

    pub(super) fn deposit_conflict(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        deposit: &Deposit,
        conflict: PaymentId,
    ) {
        let Some(mut row) = self.deposit_row(item, envelope, fingerprint, deposit) else { return };
        row.id = conflict;
        row.kind = PaymentKind::Conflict;
        row.status = PaymentStatus::Conflicted;
        // The bank asked, and the bank sees the conflict: the partner is not told.
        row.partner = None;
        let view = payment_view(&row, Metadata::new());
        self.record(row, &view, EventType::PaymentConflicted);
    }

    fn check_deposit(&self, deposit: &Deposit, amount: Amount) -> Result<Posting, Reason> {
        let credit = &self.view.accounts.get(&deposit.account).ok_or(Reason::AccountUnknown)?.row;
        let debit = self.view.accounts.get(&bank_account_id(amount.currency()));
        let debit = &debit.ok_or(Reason::AccountUnknown)?.row;
        if amount.currency() != credit.currency {
            return Err(Reason::CurrencyMismatch);
        }
        if debit.id == credit.id {
            return Err(Reason::SameAccount);
        }
        check_credit_status(credit)?;
        check_debit_status(debit)?;
        Posting::check(debit, credit, amount)
    }

    /// A partner learns of money that came to its account from outside.
    fn tell_credit(&mut self, deposit: &Deposit, row: &PaymentRow) -> Option<u64> {
        #[derive(Serialize)]
        struct Data {
            account: CreditView,
        }
        let partner = row.partner?;
        let account = &self.view.accounts.get(&deposit.account)?.row;
        let view = CreditView {
            id: account.id,
            amount: row.amount.to_string(),
            currency: account.currency,
            balance: decimal_text(account.balance_minor, account.currency),
            reference: deposit.reference.clone(),
        };
        Some(self.tell(partner, EventType::AccountCredited, &Data { account: view }))
    }

    /// The row of a deposit that is not decided yet; `None` cannot be, since decoding checks the amount.
    fn deposit_row(
        &self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        deposit: &Deposit,
    ) -> Option<PaymentRow> {
        let amount = Amount::new(deposit.amount_minor, deposit.currency);
        debug_assert!(amount.is_ok(), "an envelope with an amount out of bounds is undecodable");
        let partner = self.view.accounts.get(&deposit.account).and_then(|slot| partner_of(slot.row.owner));
        let livemode = partner.and_then(|id| self.view.partners.get(&id)).is_none_or(|known| known.livemode);
        Some(PaymentRow {
            position: item.position,
            id: PaymentId::from_uuid(envelope.id),
            root: PaymentId::from_uuid(envelope.id),
            kind: PaymentKind::Deposit,
            status: PaymentStatus::Rejected,
            reason: None,
            partner,
            mandate: None,
            amount: amount.ok()?,
            posting: None,
            event_sequence: None,
            fingerprint,
            livemode,
            reference: deposit.reference.clone(),
            description: None,
            metadata: None,
            origin: origin(envelope),
            idempotency_key: None,
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
        })
    }

    /// A command on an account or a mandate.
    pub(super) fn change(&mut self, item: &Item, envelope: &BankEnvelope, fingerprint: Fingerprint) {
        let outcome = match &envelope.command {
            BankCommand::OpenAccount(open) => self.open_account(open),
            BankCommand::GrantMandate(grant) => self.grant_mandate(grant, item),
            BankCommand::RevokeMandate { mandate } => self.revoke_mandate(*mandate),
            BankCommand::FreezeAccount { account } => {
                self.set_status(*account, AccountStatus::Active, AccountStatus::Frozen)
            }
            BankCommand::UnfreezeAccount { account } => {
                self.set_status(*account, AccountStatus::Frozen, AccountStatus::Active)
            }
            // A deposit is a payment; it is decided above.
            BankCommand::Deposit(_) => return,
        };
        self.record_change(item, envelope, fingerprint, envelope.id, outcome);
    }

    pub(super) fn change_conflict(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        conflict: Uuid,
    ) {
        self.record_change(item, envelope, fingerprint, conflict, Err(Reason::IdempotencyConflict));
    }

    fn record_change(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        id: Uuid,
        outcome: Result<Told, Reason>,
    ) {
        let (kind, target) = named(&envelope.command);
        self.view.used.insert(id, fingerprint);
        self.effects.changes.push(ChangeRow {
            position: item.position,
            id,
            kind,
            reason: outcome.err(),
            target,
            told: outcome.unwrap_or_default(),
            fingerprint,
            command: json(&envelope.command),
            origin: origin(envelope),
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
        });
    }

    fn open_account(&mut self, open: &OpenAccount) -> Result<Told, Reason> {
        if self.view.accounts.contains_key(&open.account) {
            return Err(Reason::AccountExists);
        }
        if let Some(partner) = partner_of(open.owner) {
            if !self.view.partners.contains_key(&partner) {
                return Err(Reason::PartnerUnknown);
            }
            let settlement = (partner, open.currency);
            if let std::collections::hash_map::Entry::Vacant(vacant) =
                self.view.settlement_accounts.entry(settlement)
            {
                vacant.insert(open.account);
                self.effects.settlement_accounts.push((partner, open.currency, open.account));
            }
        }
        let account = Account {
            id: open.account,
            owner: open.owner,
            currency: open.currency,
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
        Ok(None)
    }

    fn set_status(&mut self, id: AccountId, from: AccountStatus, to: AccountStatus) -> Result<Told, Reason> {
        let slot = self.view.accounts.get_mut(&id).ok_or(Reason::AccountUnknown)?;
        match slot.row.status {
            AccountStatus::Closed => Err(Reason::AccountClosed),
            status if status == from => {
                slot.change().status = to;
                Ok(None)
            }
            AccountStatus::Active | AccountStatus::Frozen => Err(Reason::StatusUnchanged),
        }
    }

    fn grant_mandate(&mut self, grant: &GrantMandate, item: &Item) -> Result<Told, Reason> {
        if self.view.mandates.contains_key(&grant.mandate) {
            return Err(Reason::MandateExists);
        }
        if !self.view.partners.contains_key(&grant.partner) {
            return Err(Reason::PartnerUnknown);
        }
        let account = &self.view.accounts.get(&grant.account).ok_or(Reason::AccountUnknown)?.row;
        if account.currency != grant.currency {
            return Err(Reason::CurrencyMismatch);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        if grant.expires_at.is_some_and(|expires_at| item.accepted_at >= expires_at) {
            return Err(Reason::MandateExpired);
        }
        let mandate = Mandate {
            id: grant.mandate,
            partner: grant.partner,
            account: grant.account,
            kind: grant.kind,
            status: MandateStatus::Active,
            version: 1,
            currency: grant.currency,
            payment_max_minor: grant.payment_max_minor,
            daily_max_minor: grant.daily_max_minor,
            spent: Spent::default(),
            expires_at: grant.expires_at,
            reference: grant.reference.clone(),
            granted_at: self.decided_at,
        };
        let told = self.tell_mandate(&mandate, EventType::MandateActive);
        self.view.mandates.insert(grant.mandate, Slot::new(mandate));
        Ok(Some(told))
    }

    fn revoke_mandate(&mut self, id: MandateId) -> Result<Told, Reason> {
        let slot = self.view.mandates.get_mut(&id).ok_or(Reason::MandateUnknown)?;
        match slot.row.status {
            MandateStatus::Active => {}
            MandateStatus::Used | MandateStatus::Revoked => return Err(Reason::MandateNotActive),
        }
        let mandate = slot.change();
        mandate.status = MandateStatus::Revoked;
        mandate.version += 1;
        let mandate = mandate.clone();
        Ok(Some(self.tell_mandate(&mandate, EventType::MandateRevoked)))
    }

    fn tell_mandate(&mut self, mandate: &Mandate, event_type: EventType) -> (PartnerId, u64) {
        #[derive(Serialize)]
        struct Data {
            mandate: MandateView,
        }
        let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, mandate.currency));
        let view = MandateView {
            id: mandate.id,
            kind: mandate.kind,
            status: mandate.status,
            currency: mandate.currency,
            per_payment_max: text(mandate.payment_max_minor),
            daily_cap: text(mandate.daily_max_minor),
            expires_at: mandate.expires_at,
            reference: mandate.reference.clone(),
        };
        let sequence = self.tell(mandate.partner, event_type, &Data { mandate: view });
        (mandate.partner, sequence)
    }
}

fn partner_of(owner: Owner) -> Option<PartnerId> {
    match owner {
        Owner::Partner(partner) => Some(partner),
        Owner::Customer(_) | Owner::Bank => None,
    }
}

fn origin(envelope: &BankEnvelope) -> Origin {
    Origin {
        actor: envelope.actor.uuid(),
        reason: Some(envelope.reason.clone()),
        request_id: envelope.request_id,
        address: envelope.address,
    }
}

/// The word of a command and what it changes.
fn named(command: &BankCommand) -> (&'static str, Uuid) {
    let word = match command {
        BankCommand::OpenAccount(_) => "open_account",
        BankCommand::Deposit(_) => "deposit",
        BankCommand::GrantMandate(_) => "grant_mandate",
        BankCommand::RevokeMandate { .. } => "revoke_mandate",
        BankCommand::FreezeAccount { .. } => "freeze_account",
        BankCommand::UnfreezeAccount { .. } => "unfreeze_account",
    };
    (word, command.kafka_key())
}
