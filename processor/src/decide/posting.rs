//! Moves money between two accounts: two entries, two balances, two chains.

use domain::account::Direction;
use domain::entry::Entry;
use domain::ids::{AccountId, PaymentId};
use domain::money::Amount;
use domain::payment::{PaymentStatus, Reason};

use super::effects::EntryRow;
use super::{Account, Fold, Payment};

/// A movement that passed every check: applying it cannot fail.
pub(super) struct Posting {
    debit: (AccountId, i64),
    credit: (AccountId, i64),
    amount: Amount,
}

impl Posting {
    /// The last checks: both accounts hold the same kind of money, funds of the debited one, and that both balances
    /// fit.
    pub(super) fn check(debit: &Account, credit: &Account, amount: Amount) -> Result<Self, Reason> {
        Self::check_with_held(debit, credit, amount, 0)
    }

    /// The same for a capture, whose funds are held: `held_minor` of the debited account are for it.
    pub(super) fn check_with_held(
        debit: &Account,
        credit: &Account,
        amount: Amount,
        held_minor: i64,
    ) -> Result<Self, Reason> {
        // Whoever asks: what begins in the sandbox ends there.
        if debit.livemode != credit.livemode {
            return Err(Reason::LivemodeMismatch);
        }
        if i128::from(amount.minor()) > debit.available_minor().saturating_add(held_minor.into()) {
            return Err(Reason::InsufficientFunds);
        }
        let debited = debit.balance_minor.checked_sub(amount.minor()).ok_or(Reason::AmountOverflow)?;
        let credited = credit.balance_minor.checked_add(amount.minor()).ok_or(Reason::AmountOverflow)?;
        // The database compares balance and overdraft as one number.
        credited.checked_add(credit.overdraft_minor).ok_or(Reason::AmountOverflow)?;
        Ok(Self { debit: (debit.id, debited), credit: (credit.id, credited), amount })
    }
}

impl Fold {
    /// Writes the two entries of `payment`, which now has moved the amount.
    pub(super) fn post(&mut self, payment: &mut Payment, posting: &Posting) {
        payment.status = PaymentStatus::Posted;
        payment.captured_minor = posting.amount.minor();
        payment.accounts = Some([posting.debit.0, posting.credit.0]);
        payment.versions = Some(self.enter(payment.id, posting));
    }

    /// Writes the two entries and says their versions, debit first.
    fn enter(&mut self, payment: PaymentId, posting: &Posting) -> [u64; 2] {
        let sides = [(Direction::Debit, posting.debit), (Direction::Credit, posting.credit)];
        let first = self.effects.entries.len();
        let versions = sides.map(|(direction, (id, balance_minor))| {
            let slot = self.view.accounts.get_mut(&id);
            // Both accounts were read from the view by the checks of this very command.
            let Some(account) = slot.map(super::Slot::change) else {
                unreachable!("account {id} was checked and is not in the view")
            };
            account.version += 1;
            account.balance_minor = balance_minor;
            assert!(self.decided_at >= account.entered_at, "an entry of {id} would go back in time");
            account.entered_at = self.decided_at;
            let entry = Entry {
                account: id,
                version: account.version,
                payment,
                direction,
                amount_minor: posting.amount.minor(),
                balance_minor,
                entered_at: self.decided_at,
            };
            account.head = entry.hash_after(&account.head);
            self.effects.entries.push(EntryRow { entry, hash: account.head });
            account.version
        });
        let written = &self.effects.entries[first..];
        assert!(
            matches!(written, [debit, credit]
                if debit.entry.amount_minor == credit.entry.amount_minor
                    && debit.entry.account != credit.entry.account),
            "the posting of {payment} does not balance"
        );
        versions
    }
}
