//! Money that comes into the bank or leaves it: deposits and withdrawals, posted against the bank's own account of the
//! currency.

use domain::command::{BankEnvelope, Deposit};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, bank_account_id};
use domain::money::Amount;
use domain::payment::Reason;

use super::payment::{check_credit_status, check_debit_status};
use super::posting::Posting;
use super::{Fold, Payment};
use crate::item::Item;

impl Fold {
    pub(super) fn deposit(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        deposit: &Deposit,
    ) {
        let (mut payment, mut asked) = self.asked_by_bank(item, envelope, fingerprint);
        self.show_to_owner(deposit.account, &mut payment);
        let cash = bank_account_id(deposit.currency);
        match self.check_bank_money([cash, deposit.account], deposit.account, payment.amount) {
            Ok(posting) => {
                self.post(&mut payment, &posting);
                asked.event_sequence =
                    self.tell_credit(deposit.account, &payment).map(|(_, sequence)| sequence);
            }
            Err(reason) => payment.reason = Some(reason),
        }
        self.record(payment, asked, None);
    }

    pub(super) fn withdrawal(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        withdrawal: &Deposit,
    ) {
        let (mut payment, asked) = self.asked_by_bank(item, envelope, fingerprint);
        self.show_to_owner(withdrawal.account, &mut payment);
        let cash = bank_account_id(withdrawal.currency);
        match self.check_bank_money([withdrawal.account, cash], withdrawal.account, payment.amount) {
            Ok(posting) => self.post(&mut payment, &posting),
            Err(reason) => payment.reason = Some(reason),
        }
        self.record(payment, asked, None);
    }

    /// Whether `amount` can go from the first to the second account, of which one is the customer's.
    fn check_bank_money(
        &self,
        [debit, credit]: [AccountId; 2],
        account: AccountId,
        amount: Option<Amount>,
    ) -> Result<Posting, Reason> {
        let currency = self.account(account)?.currency;
        let (debit, credit) = (self.account(debit)?, self.account(credit)?);
        let amount = amount.filter(|amount| amount.currency() == currency).ok_or(Reason::CurrencyMismatch)?;
        if debit.id == credit.id {
            return Err(Reason::SameAccount);
        }
        check_debit_status(debit)?;
        check_credit_status(credit)?;
        Posting::check(debit, credit, amount)
    }

    /// The partner whose account it is sees the payment, and it is a test payment when the account holds test money.
    fn show_to_owner(&self, account: AccountId, payment: &mut Payment) {
        payment.partner = self.partner_that_owns(account);
        payment.livemode = self.holds_real_money(account);
    }
}
