//! What a member of the staff may do alone. Pure: the store says what was moved today and who owns what.
//!
//! | command | alone |
//! |---|---|
//! | deposit, withdrawal, transfer, reversal | up to a sum for each, and up to a sum of them all on a day (UTC) of a currency |
//! | open without overdraft and limits, freeze, unfreeze, close, revoke a mandate, redrive, reject | always |
//! | everything else: limits, overdraft, settlement accounts, mandates in a customer's name | never |
//!
//! What was asked for alone counts towards the day also when the ledger rejects it; what a second person agreed to does
//! not. A reversal counts with the whole payment, unless it names a part. Nobody moves money of an account of their own
//! alone.

use domain::command::BankCommand;
use domain::ids::{AccountId, PaymentId};
use domain::money::{Amount, Currency};

/// How much one member of the staff may move alone.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Thresholds {
    /// What a member of the staff may move alone at once, in whole units of the currency, whatever it is. Higher lets one
    /// person do more harm, lower makes two work where one would do.
    #[arg(long, env = "WIRED_ALONE_MAX", default_value_t = 1_000)]
    pub alone_max: u32,
    /// What a member of the staff may move alone on a day (UTC) in one currency, in whole units of it.
    #[arg(long, env = "WIRED_ALONE_DAILY_MAX", default_value_t = 5_000)]
    pub alone_daily_max: u32,
}

/// Whether one person is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// One is.
    Alone,
    /// One is, within the thresholds.
    Within(Amount),
    /// One is not.
    Never,
}

impl Thresholds {
    /// Whether one person may move this much alone who has moved `moved_minor` of the currency alone today.
    pub fn allow(&self, amount: Amount, moved_minor: i64) -> bool {
        let minor = |units: u32| i64::from(units).saturating_mul(10_i64.pow(amount.currency().digits()));
        amount.minor() <= minor(self.alone_max)
            && moved_minor.saturating_add(amount.minor()) <= minor(self.alone_daily_max)
    }
}

/// What a command moves, as far as the command itself says.
pub fn amount(command: &BankCommand) -> Option<Amount> {
    let amount = |minor: i64, currency: Currency| Amount::new(minor, currency).ok();
    match command {
        BankCommand::Deposit(it) | BankCommand::Withdrawal(it) => amount(it.amount_minor, it.currency),
        BankCommand::Transfer(it) => amount(it.amount_minor, it.currency),
        BankCommand::Reversal(it) => it.part.and_then(|part| amount(part.amount_minor, part.currency)),
        _ => None,
    }
}

/// The accounts that a command names.
pub fn accounts(command: &BankCommand) -> Vec<AccountId> {
    match command {
        BankCommand::OpenAccount(it) => vec![it.account],
        BankCommand::Deposit(it) | BankCommand::Withdrawal(it) => vec![it.account],
        BankCommand::Transfer(it) => vec![it.from, it.to],
        BankCommand::GrantMandate(it) => vec![it.account],
        BankCommand::FreezeAccount { account }
        | BankCommand::UnfreezeAccount { account }
        | BankCommand::CloseAccount { account }
        | BankCommand::SetSettlementAccount { account, .. } => vec![*account],
        BankCommand::SetLimits(it) => vec![it.account],
        BankCommand::Reversal(_)
        | BankCommand::RevokeMandate { .. }
        | BankCommand::DeclineMandate { .. }
        | BankCommand::RedriveDeadLetters { .. }
        | BankCommand::RejectDeadLetter(_) => Vec::new(),
    }
}

/// The payment that a command names, whose accounts it moves.
pub fn payment(command: &BankCommand) -> Option<PaymentId> {
    match command {
        BankCommand::Reversal(reversal) => Some(reversal.payment),
        _ => None,
    }
}

/// The rule of a command that moves at most `moves`.
pub fn rule(command: &BankCommand, moves: Option<Amount>) -> Rule {
    match command {
        BankCommand::Deposit(_)
        | BankCommand::Withdrawal(_)
        | BankCommand::Transfer(_)
        | BankCommand::Reversal(_) => moves.map_or(Rule::Never, Rule::Within),
        BankCommand::OpenAccount(open) => {
            let is_plain = open.overdraft_minor == 0
                && open.payment_max_minor.is_none()
                && open.daily_max_minor.is_none();
            if is_plain { Rule::Alone } else { Rule::Never }
        }
        BankCommand::FreezeAccount { .. }
        | BankCommand::UnfreezeAccount { .. }
        | BankCommand::CloseAccount { .. }
        | BankCommand::RevokeMandate { .. }
        | BankCommand::RedriveDeadLetters { .. }
        | BankCommand::RejectDeadLetter(_) => Rule::Alone,
        BankCommand::SetLimits(_)
        | BankCommand::SetSettlementAccount { .. }
        | BankCommand::GrantMandate(_)
        | BankCommand::DeclineMandate { .. } => Rule::Never,
    }
}

#[cfg(test)]
mod tests {
    use domain::command::{Deposit, OpenAccount, Part, Reversal, SetLimits};
    use uuid::Uuid;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { alone_max: 1_000, alone_daily_max: 5_000 };

    fn eur(minor: i64) -> Amount {
        Amount::new(minor, Currency::EUR).unwrap()
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        for (amount, moved, allowed) in [
            (eur(1), 0, true),
            (eur(100_000), 0, true),
            (eur(100_001), 0, false),
            (eur(100_000), 400_000, true),
            (eur(100_000), 400_001, false),
            (eur(1), 499_999, true),
            (eur(1), 500_000, false),
            (eur(1), i64::MAX, false),
            (Amount::new(1_000, Currency::JPY).unwrap(), 0, true),
            (Amount::new(1_001, Currency::JPY).unwrap(), 0, false),
            (Amount::new(1_000_000, Currency::KWD).unwrap(), 4_000_000, true),
            (Amount::new(1_000_001, Currency::KWD).unwrap(), 0, false),
        ] {
            assert_eq!(THRESHOLDS.allow(amount, moved), allowed, "{amount} after {moved}");
        }
        let widest = Thresholds { alone_max: u32::MAX, alone_daily_max: u32::MAX };
        assert!(widest.allow(Amount::new(Amount::MAX_MINOR, Currency::KWD).unwrap(), 0));
    }

    #[test]
    fn what_names_no_amount_counts_with_what_it_may_move_or_needs_two() {
        let account = AccountId::from_uuid(Uuid::nil());
        let payment = PaymentId::from_uuid(Uuid::nil());
        let part = Part { amount_minor: 7, currency: Currency::EUR };
        let reversal = |part| BankCommand::Reversal(Reversal { payment, part });
        assert_eq!(amount(&reversal(Some(part))), Some(eur(7)));
        assert_eq!(rule(&reversal(None), Some(eur(9))), Rule::Within(eur(9)));
        assert_eq!(rule(&reversal(None), None), Rule::Never);
        let deposit = Deposit { account, amount_minor: 5, currency: Currency::EUR, reference: None };
        let deposit = BankCommand::Deposit(deposit);
        assert_eq!(rule(&deposit, amount(&deposit)), Rule::Within(eur(5)));
        let open = |overdraft_minor, daily_max_minor| {
            BankCommand::OpenAccount(OpenAccount {
                account,
                owner: domain::account::Owner::Bank,
                currency: Currency::EUR,
                overdraft_minor,
                payment_max_minor: None,
                daily_max_minor,
            })
        };
        assert_eq!(rule(&open(0, None), None), Rule::Alone);
        assert_eq!(rule(&open(1, None), None), Rule::Never);
        assert_eq!(rule(&open(0, Some(5)), None), Rule::Never);
        let limits =
            SetLimits { account, overdraft_minor: 0, payment_max_minor: None, daily_max_minor: None };
        assert_eq!(rule(&BankCommand::SetLimits(limits), None), Rule::Never);
        assert_eq!(rule(&BankCommand::FreezeAccount { account }, None), Rule::Alone);
    }
}
