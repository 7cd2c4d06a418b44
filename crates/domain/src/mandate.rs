//! Mandates: a customer's authority for a partner to debit an account.

use sha2::{Digest, Sha256};

use crate::codes::codes;
use crate::time::Timestamp;

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

impl MandateStatus {
    /// Where a mandate or a request for one stands at `now`: what has come to its time is told so before the ledger
    /// knows. `stored` is the ledger's; a request that it does not know may be answered until `answer_by`.
    pub fn at(
        stored: Option<Self>,
        expires_at: Option<Timestamp>,
        answer_by: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let passed = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
        match stored {
            Some(Self::Active) if passed(expires_at) => Self::Expired,
            Some(status) => status,
            None if passed(answer_by) => Self::Expired,
            None => Self::Pending,
        }
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

/// Whether a text could be a code, however a person entered it.
pub fn is_request_code(text: &str) -> bool {
    let plain =
        text.bytes().filter(|byte| !matches!(byte, b' ' | b'-')).map(|byte| byte.to_ascii_uppercase());
    // What is too long is not read to its end.
    let (mut chars, mut known) = (0, true);
    for byte in plain.take(CODE_CHARS + 1) {
        chars += 1;
        known &= CODE_ALPHABET.contains(&byte);
    }
    known && chars == CODE_CHARS
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
        for code in ["ABCD2345", "abcd-2345", " ABCD 2345 "] {
            assert!(is_request_code(code), "{code}");
        }
        for text in ["", "ABCD234", "ABCD23456", "ABCD234O", "ABCD234é"] {
            assert!(!is_request_code(text), "{text}");
        }
    }
}
