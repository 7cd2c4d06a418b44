//! An entry: one debit or credit of one account, chained to the entry before it.

use sha2::{Digest, Sha256};

use crate::account::Direction;
use crate::ids::{AccountId, PaymentId};
use crate::time::Timestamp;

/// The hash that an account's first entry follows.
pub const GENESIS: [u8; 32] = [0; 32];

/// One debit or credit of one account, with the balance after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub account: AccountId,
    /// Counts the account's entries from 1.
    pub version: u64,
    /// What moved the money.
    pub payment: PaymentId,
    /// The side.
    pub direction: Direction,
    /// Minor units, positive.
    pub amount_minor: i64,
    /// Minor units of the account after this entry.
    pub balance_minor: i64,
    /// When it was decided.
    pub entered_at: Timestamp,
}

impl Entry {
    /// The link of the chain: SHA-256 over the previous entry's hash (32 bytes) and this entry as account
    /// (16 bytes), version (8), payment (16), direction (1), amount (8), balance (8) and time in microseconds
    /// (8), all big-endian.
    pub fn hash_after(&self, previous: &[u8; 32]) -> [u8; 32] {
        Sha256::new()
            .chain_update(previous)
            .chain_update(self.account.uuid().as_bytes())
            .chain_update(self.version.to_be_bytes())
            .chain_update(self.payment.uuid().as_bytes())
            .chain_update([self.direction.code()])
            .chain_update(self.amount_minor.to_be_bytes())
            .chain_update(self.balance_minor.to_be_bytes())
            .chain_update(self.entered_at.micros().to_be_bytes())
            .finalize()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn every_field_and_the_previous_hash_count() {
        let entry = Entry {
            account: AccountId::from_uuid(Uuid::from_u128(1)),
            version: 1,
            payment: PaymentId::from_uuid(Uuid::from_u128(2)),
            direction: Direction::Debit,
            amount_minor: 3,
            balance_minor: 4,
            entered_at: Timestamp::from_micros(5),
        };
        let changed = [
            Entry { account: AccountId::from_uuid(Uuid::from_u128(9)), ..entry },
            Entry { version: 9, ..entry },
            Entry { payment: PaymentId::from_uuid(Uuid::from_u128(9)), ..entry },
            Entry { direction: Direction::Credit, ..entry },
            Entry { amount_minor: 9, ..entry },
            Entry { balance_minor: 9, ..entry },
            Entry { entered_at: Timestamp::from_micros(9), ..entry },
        ];
        let hash = entry.hash_after(&GENESIS);
        assert!(changed.iter().all(|other| other.hash_after(&GENESIS) != hash));
        assert_ne!(entry.hash_after(&[1; 32]), hash);
    }
}
