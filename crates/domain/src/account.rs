//! Accounts: one currency for one owner.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codes::codes;
use crate::ids::{PartnerId, UserId, bank_owner};

codes! {
    /// What an account lets happen.
    AccountStatus {
        /// Debits and credits.
        Active = 1 "active",
        /// Credits only: no debits, holds or captures.
        Frozen = 2 "frozen",
        /// Nothing, for ever.
        Closed = 3 "closed",
    }
}

codes! {
    /// Who an account belongs to.
    OwnerKind {
        /// A customer.
        Customer = 1 "customer",
        /// A partner; its first account in a currency is where its payments are credited.
        Partner = 2 "partner",
        /// The bank itself; its accounts may go below zero.
        Bank = 3 "bank",
    }
}

/// The owner of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A customer.
    Customer(UserId),
    /// A partner.
    Partner(PartnerId),
    /// The bank.
    Bank,
}

impl Owner {
    /// The kind and the id as stored.
    pub fn stored(self) -> (OwnerKind, Uuid) {
        match self {
            Self::Customer(user) => (OwnerKind::Customer, user.uuid()),
            Self::Partner(partner) => (OwnerKind::Partner, partner.uuid()),
            Self::Bank => (OwnerKind::Bank, bank_owner()),
        }
    }

    /// The owner that [`Self::stored`] wrote.
    pub fn from_stored(kind: OwnerKind, id: Uuid) -> Self {
        match kind {
            OwnerKind::Customer => Self::Customer(UserId::from_uuid(id)),
            OwnerKind::Partner => Self::Partner(PartnerId::from_uuid(id)),
            OwnerKind::Bank => Self::Bank,
        }
    }
}

codes! {
    /// The side of an entry.
    Direction {
        /// Lowers the balance.
        Debit = 1 "debit",
        /// Raises the balance.
        Credit = 2 "credit",
    }
}
