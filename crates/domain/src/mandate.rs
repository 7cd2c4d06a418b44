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
    /// Whether a mandate authorises. It may be past its time while it is still `active` here.
    MandateStatus {
        /// It authorises.
        Active = 1 "active",
        /// Its single use is spent.
        Used = 2 "used",
        /// The customer or the bank took it back, or the partner gave it up.
        Revoked = 3 "revoked",
        /// The customer said no to the request for it.
        Declined = 4 "declined",
        /// Its time, or that of the request for it, has come.
        Expired = 5 "expired",
        /// It is asked for and not answered yet; never stored.
        Pending = 6 "pending",
    }
}
