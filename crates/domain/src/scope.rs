//! What an API key may be used for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codes::UnknownWord;

/// A scope: a bit of `api_keys.scopes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum Scope {
    /// Make and read payments.
    Payments = 1,
    /// Give money back.
    Refunds = 2,
    /// Move money between the own accounts.
    Transfers = 4,
    /// Move money to accounts of others; on top of `transfers`.
    TransfersOut = 8,
    /// Ask customers for mandates.
    Mandates = 16,
    /// Read the own balances.
    Balances = 32,
    /// Read the event log.
    Events = 64,
    /// Manage endpoints and their deliveries.
    Endpoints = 128,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 8] = [
        Self::Payments,
        Self::Refunds,
        Self::Transfers,
        Self::TransfersOut,
        Self::Mandates,
        Self::Balances,
        Self::Events,
        Self::Endpoints,
    ];

    /// Its bit.
    pub const fn bit(self) -> u32 {
        self as u32
    }

    /// The scopes of a stored number; bits that mean nothing are left out.
    pub fn of_bits(bits: u32) -> Vec<Self> {
        Self::ALL.into_iter().filter(|scope| bits & scope.bit() != 0).collect()
    }

    /// The word in the documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Refunds => "refunds",
            Self::Transfers => "transfers",
            Self::TransfersOut => "transfers_out",
            Self::Mandates => "mandates",
            Self::Balances => "balances",
            Self::Events => "events",
            Self::Endpoints => "endpoints",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownWord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bits_name_the_same_scopes() {
        assert_eq!(Scope::ALL.iter().fold(0, |bits, scope| bits | scope.bit()), 0xff);
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(Scope::of_bits(scope.bit() | 0x100), [scope]);
        }
        assert_eq!("Payments".parse::<Scope>(), Err(UnknownWord));
    }
}
