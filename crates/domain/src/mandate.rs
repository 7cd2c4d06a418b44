//! Mandates: a customer's authority for a partner to debit an account.

use crate::codes::codes;

codes! {
    /// How often a mandate may be used.
    MandateKind {
        /// One payment that is not rejected.
        Single = 1 "single",
        /// Until it expires or is revoked.
        Standing = 2 "standing",
    }
}

codes! {
    /// Whether a mandate still authorises; expiry is read from its time, never stored.
    MandateStatus {
        /// It authorises.
        Active = 1 "active",
        /// Its single use is spent.
        Used = 2 "used",
        /// The customer or the bank took it back.
        Revoked = 3 "revoked",
    }
}
