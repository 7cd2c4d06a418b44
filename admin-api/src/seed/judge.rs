//! Whether the ledger made of a command what seeding wants.

use domain::command::{BankCommand, BankEnvelope};
use domain::payment::Reason;

use crate::commands::Outcome;

/// A command that the ledger refused.
#[derive(Debug, thiserror::Error)]
#[error("the ledger refused {what}: {why}")]
pub struct Refusal {
    what: String,
    why: Outcome,
}

/// An account or mandate that is there already is what was wanted.
pub(super) fn judge(envelope: &BankEnvelope, outcome: Outcome) -> Result<(), Refusal> {
    match (&envelope.command, outcome) {
        (_, Outcome::Applied)
        | (BankCommand::OpenAccount(_), Outcome::Rejected(Some(Reason::AccountExists)))
        | (BankCommand::GrantMandate(_), Outcome::Rejected(Some(Reason::MandateExists))) => Ok(()),
        (command, why) => {
            Err(Refusal { what: format!("{} of {}", command.word(), command.kafka_key()), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::{AccountId, UserId};
    use uuid::Uuid;

    fn envelope(command: BankCommand) -> BankEnvelope {
        BankEnvelope {
            schema: 1,
            id: Uuid::nil(),
            actor: UserId::from_uuid(Uuid::nil()),
            reason: String::new(),
            request_id: Uuid::nil(),
            address: None,
            command,
        }
    }

    #[test]
    fn only_a_real_refusal_is_one() {
        let account = AccountId::from_uuid(Uuid::from_u128(1));
        let open = envelope(BankCommand::OpenAccount(domain::command::OpenAccount {
            account,
            owner: domain::account::Owner::Bank,
            currency: domain::money::Currency::EUR,
            overdraft_minor: 0,
            payment_max_minor: None,
            daily_max_minor: None,
        }));
        assert!(judge(&open, Outcome::Applied).is_ok());
        assert!(judge(&open, Outcome::Rejected(Some(Reason::AccountExists))).is_ok());
        let refusal = judge(&open, Outcome::Rejected(Some(Reason::CurrencyMismatch))).unwrap_err();
        assert!(refusal.to_string().ends_with("currency_mismatch"), "{refusal}");
        assert!(judge(&open, Outcome::DeadLetter("x".into())).is_err());
        let freeze = envelope(BankCommand::FreezeAccount { account });
        assert!(judge(&freeze, Outcome::Rejected(Some(Reason::AccountExists))).is_err());
    }
}
