//! Mandates: a customer's authority for a partner to debit an account.

use sha2::{Digest, Sha256};

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

/// The letters and digits of a code: none that is taken for another one.
const CODE_ALPHABET: &[u8; 31] = b"23456789ABCDEFGHJKMNPQRSTUVWXYZ";
const CODE_CHARS: usize = 8;

/// The code of a request for a mandate, which the customer enters on the bank's page, made of random bits.
pub fn request_code(mut random: u64) -> String {
    let base = CODE_ALPHABET.len() as u64;
    (0..CODE_CHARS)
        .map(|_| {
            let index = (random % base) as usize;
            random /= base;
            char::from(CODE_ALPHABET[index])
        })
        .collect()
}

/// What is stored of a code: SHA-256 of it in capitals, without the spaces and hyphens that a person may enter.
pub fn request_code_hash(code: &str) -> [u8; 32] {
    let plain: String = code.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    Sha256::digest(plain.to_uppercase().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_eight_characters_that_cannot_be_taken_for_others() {
        for random in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let code = request_code(random);
            assert_eq!(code.len(), CODE_CHARS);
            assert!(!code.contains(['0', '1', 'O', 'I', 'L']), "{code}");
        }
        assert_ne!(request_code(7), request_code(8));
        assert_ne!(request_code(7), request_code(7 + 31_u64.pow(7)));
    }

    #[test]
    fn a_code_is_recognised_however_it_is_entered() {
        assert_eq!(request_code_hash("ABCD2345"), request_code_hash("abcd-2345"));
        assert_eq!(request_code_hash("ABCD2345"), request_code_hash(" ABCD 2345 "));
        assert_ne!(request_code_hash("ABCD2345"), request_code_hash("ABCD2346"));
    }
}
