//! What a batch refers to, known before anything is locked.

use std::collections::BTreeSet;

use domain::account::Owner;
use domain::command::{BankCommand, PartnerCommand, PartnerEnvelope};
use domain::ids::{
    AccountId, MandateId, PartnerId, PaymentId, bank_account_id, sandbox_account_id, sandbox_settlement_id,
};
use uuid::Uuid;

use super::dead_letters::Named;
use super::error::StoreError;
use super::facts::{Facts, Wanted};
use super::positions::PartitionKey;
use super::session::Session;
use crate::decide::{Account, View};
use crate::item::{Content, Item};

/// What a batch refers to, sorted.
#[derive(Debug, Default)]
pub struct References {
    pub(super) partitions: BTreeSet<PartitionKey>,
    /// Ids of commands that leave payments.
    pub(super) payment_ids: BTreeSet<Uuid>,
    /// Ids of commands that leave changes.
    pub(super) change_ids: BTreeSet<Uuid>,
    /// What records are keyed by.
    pub(super) keys: BTreeSet<Uuid>,
    /// Dead letters that are dealt with.
    pub(super) dead_letters: Named,
    pub(super) partners: BTreeSet<PartnerId>,
    /// Payments that others belong to.
    pub(super) roots: BTreeSet<PaymentId>,
    pub(super) mandates: BTreeSet<MandateId>,
    pub(super) accounts: BTreeSet<AccountId>,
    pub(super) sequences: BTreeSet<PartnerId>,
    /// Partners whose settlement accounts matter.
    pub(super) settled: BTreeSet<PartnerId>,
}

impl References {
    /// What `items`, and the dead letters that they deal with, refer to.
    pub async fn of(
        items: &[Item],
        letters: &[Item],
        facts: &mut Facts,
        session: &mut Session,
    ) -> Result<Self, StoreError> {
        let mut references = Self { dead_letters: Named::of(items), ..Self::default() };
        references.partitions.extend(items.iter().map(|item| PartitionKey::of(item.position)));
        references.keys.extend(items.iter().filter_map(Item::root));
        let mut wanted = Wanted::default();
        for item in items.iter().chain(letters) {
            references.item(item, &mut wanted);
            wanted.owners.extend(debited_by(item, facts));
        }
        facts.learn(session, &wanted).await?;
        references.know(&wanted, facts);
        Ok(references)
    }

    /// Adds what facts tell of what the commands name.
    fn know(&mut self, wanted: &Wanted, facts: &mut Facts) {
        for (partner, account) in wanted.mandates.iter().filter_map(|id| facts.mandate(*id)) {
            self.accounts.extend(account);
            self.sequences.insert(partner);
        }
        for root in wanted.payments.iter().filter_map(|id| facts.payment(*id)) {
            self.accounts.extend(root.accounts.iter().flatten());
            self.sequences.extend(root.partner);
        }
        for (partner, currency) in &wanted.settlement {
            self.accounts.extend(facts.settlement(*partner, *currency));
            self.settled.insert(*partner);
        }
        let owners: Vec<_> = wanted.owners.iter().filter_map(|account| facts.owner(*account)).collect();
        self.sequences.extend(&owners);
        self.partners.extend(owners);
    }

    fn item(&mut self, item: &Item, wanted: &mut Wanted) {
        match &item.content {
            Content::Partner(envelope) => {
                self.partners.insert(envelope.partner);
                self.sequences.insert(envelope.partner);
                self.partner(envelope, wanted);
            }
            Content::Bank(envelope, _) => {
                if envelope.command.moves_money() {
                    self.payment_ids.insert(envelope.id);
                } else {
                    self.change_ids.insert(envelope.id);
                }
                self.bank(&envelope.command, wanted);
            }
            Content::Undecodable(_) => {}
        }
    }

    fn partner(&mut self, envelope: &PartnerEnvelope, wanted: &mut Wanted) {
        let id = envelope.id.uuid();
        if envelope.command.moves_money() {
            self.payment_ids.insert(id);
        } else {
            self.change_ids.insert(id);
        }
        match &envelope.command {
            PartnerCommand::Payment(payment) => {
                self.mandates.insert(payment.mandate);
                wanted.mandates.push(payment.mandate);
                wanted.settlement.push((envelope.partner, payment.currency));
            }
            PartnerCommand::Capture(_)
            | PartnerCommand::Void(_)
            | PartnerCommand::Refund(_)
            | PartnerCommand::Expire => self.root(envelope.root, wanted),
            PartnerCommand::Transfer(transfer) => {
                self.accounts.extend([transfer.from, transfer.to]);
                wanted.owners.push(transfer.to);
            }
            PartnerCommand::CancelMandate(terms) | PartnerCommand::ExpireMandate(terms) => {
                self.mandates.insert(terms.mandate);
            }
            PartnerCommand::SandboxMandate(sandbox) => {
                self.payment_ids.insert(id);
                self.mandates.insert(sandbox.terms.mandate);
                let currency = sandbox.terms.currency;
                let settlement = sandbox_settlement_id(envelope.partner, currency);
                self.accounts.extend([sandbox.account, settlement, sandbox_account_id(currency)]);
                self.settled.insert(envelope.partner);
            }
        }
    }

    fn bank(&mut self, command: &BankCommand, wanted: &mut Wanted) {
        match command {
            BankCommand::OpenAccount(open) => {
                self.accounts.insert(open.account);
                if let Owner::Partner(partner) = open.owner {
                    self.partners.insert(partner);
                    self.settled.insert(partner);
                    // A later command of the batch may tell the partner of this account.
                    self.sequences.insert(partner);
                }
            }
            BankCommand::Deposit(command) | BankCommand::Withdrawal(command) => {
                self.accounts.extend([command.account, bank_account_id(command.currency)]);
                wanted.owners.push(command.account);
            }
            BankCommand::Transfer(transfer) => {
                self.accounts.extend([transfer.from, transfer.to]);
                wanted.owners.push(transfer.to);
            }
            BankCommand::Reversal(reversal) => self.root(reversal.payment, wanted),
            BankCommand::GrantMandate(grant) => {
                self.accounts.insert(grant.account);
                self.mandates.insert(grant.mandate);
                self.partners.insert(grant.partner);
                self.sequences.insert(grant.partner);
            }
            BankCommand::RevokeMandate { mandate } => {
                self.mandates.insert(*mandate);
                wanted.mandates.push(*mandate);
            }
            BankCommand::DeclineMandate { partner, terms } => {
                self.mandates.insert(terms.mandate);
                self.partners.insert(*partner);
                self.sequences.insert(*partner);
            }
            BankCommand::FreezeAccount { account }
            | BankCommand::UnfreezeAccount { account }
            | BankCommand::CloseAccount { account } => {
                self.accounts.insert(*account);
            }
            BankCommand::SetLimits(set) => {
                self.accounts.insert(set.account);
            }
            BankCommand::SetSettlementAccount { partner, account } => {
                self.accounts.insert(*account);
                self.partners.insert(*partner);
                self.settled.insert(*partner);
            }
            // What their dead letters refer to is added with those.
            BankCommand::RedriveDeadLetters { .. } | BankCommand::RejectDeadLetter(_) => {}
        }
    }

    fn root(&mut self, root: PaymentId, wanted: &mut Wanted) {
        self.roots.insert(root);
        wanted.payments.push(root);
    }

    /// Whether everything that `items` turn out to need under lock is locked. It is not when it was made, or became
    /// something else, after the facts were read: then the transaction begins again.
    pub fn cover<'a>(&self, view: &View, items: impl IntoIterator<Item = &'a Item>) -> bool {
        items.into_iter().all(|item| match &item.content {
            Content::Partner(envelope) => self.cover_partner(view, envelope),
            Content::Bank(envelope, _) => self.cover_bank(view, &envelope.command),
            Content::Undecodable(_) => true,
        })
    }

    fn cover_partner(&self, view: &View, envelope: &PartnerEnvelope) -> bool {
        match &envelope.command {
            PartnerCommand::Payment(payment) => {
                let debit = view.mandates.get(&payment.mandate).and_then(|slot| slot.row.account);
                let credit = view.settlement_accounts.get(&(envelope.partner, payment.currency));
                let mut both = debit.into_iter().chain(credit.map(|slot| slot.row));
                both.all(|account| self.accounts.contains(&account))
            }
            PartnerCommand::Capture(_)
            | PartnerCommand::Void(_)
            | PartnerCommand::Refund(_)
            | PartnerCommand::Expire => self.cover_root(view, envelope.root),
            PartnerCommand::Transfer(transfer) => self.cover_owner(view, transfer.to),
            PartnerCommand::CancelMandate(_)
            | PartnerCommand::ExpireMandate(_)
            | PartnerCommand::SandboxMandate(_) => true,
        }
    }

    fn cover_bank(&self, view: &View, command: &BankCommand) -> bool {
        match command {
            BankCommand::RevokeMandate { mandate } => {
                view.mandates.get(mandate).is_none_or(|slot| self.sequences.contains(&slot.row.partner))
            }
            BankCommand::Deposit(command) | BankCommand::Withdrawal(command) => {
                self.cover_owner(view, command.account)
            }
            BankCommand::Transfer(transfer) => self.cover_owner(view, transfer.to),
            BankCommand::Reversal(reversal) => self.cover_reversal(view, reversal.payment),
            BankCommand::OpenAccount(_)
            | BankCommand::GrantMandate(_)
            | BankCommand::DeclineMandate { .. }
            | BankCommand::FreezeAccount { .. }
            | BankCommand::UnfreezeAccount { .. }
            | BankCommand::CloseAccount { .. }
            | BankCommand::SetLimits(_)
            | BankCommand::SetSettlementAccount { .. }
            | BankCommand::RedriveDeadLetters { .. }
            | BankCommand::RejectDeadLetter(_) => true,
        }
    }

    /// The one that had been credited is told.
    fn cover_reversal(&self, view: &View, root: PaymentId) -> bool {
        let credited =
            view.payments.get(&root).and_then(|slot| slot.row.accounts).map(|[_, credited]| credited);
        self.cover_root(view, root) && credited.is_none_or(|account| self.cover_owner(view, account))
    }

    fn cover_root(&self, view: &View, root: PaymentId) -> bool {
        view.payments.get(&root).is_none_or(|slot| {
            let accounts = slot.row.accounts.iter().flatten();
            accounts.into_iter().all(|account| self.accounts.contains(account))
                && slot.row.partner.is_none_or(|partner| self.sequences.contains(&partner))
        })
    }

    fn cover_owner(&self, view: &View, account: AccountId) -> bool {
        let account: Option<&Account> = view.accounts.get(&account).map(|slot| &slot.row);
        account.is_none_or(|account| match account.owner {
            Owner::Partner(partner) => self.partners.contains(&partner) && self.sequences.contains(&partner),
            Owner::Customer(_) | Owner::Bank => true,
        })
    }
}

/// The account that a reversal debits, once it is known what it moves back: otherwise the next look adds it.
fn debited_by(item: &Item, facts: &mut Facts) -> Option<AccountId> {
    let Content::Bank(envelope, _) = &item.content else { return None };
    let BankCommand::Reversal(reversal) = &envelope.command else { return None };
    facts.payment(reversal.payment)?.accounts[1]
}
