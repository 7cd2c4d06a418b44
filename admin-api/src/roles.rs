//! What a user is to the bank. One role each: a member of the staff who is also a customer has two log-ins.

use serde::{Deserialize, Serialize};

/// A role, as `users.role` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Owns accounts.
    Customer = 1,
    /// Runs the bank.
    Operator = 2,
    /// Reads everything, changes nothing.
    Auditor = 3,
    /// Runs the bank, its partners and its staff.
    Admin = 4,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Customer, Self::Operator, Self::Auditor, Self::Admin];

    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == number)
    }

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// Whether a second factor is required.
    pub const fn is_staff(self) -> bool {
        match self {
            Self::Customer => false,
            Self::Operator | Self::Auditor | Self::Admin => true,
        }
    }
}

/// Where a user stands, as `users.status` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum UserStatus {
    /// The address is not proven yet, and there is no password.
    Registered = 1,
    /// May log in.
    Active = 2,
    /// May not log in.
    Disabled = 3,
    /// Nothing of the person is left.
    Erased = 4,
}

impl UserStatus {
    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Registered, Self::Active, Self::Disabled, Self::Erased];
        all.into_iter().find(|status| *status as u8 == number)
    }
}
