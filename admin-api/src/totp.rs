//! The second factor of staff: time-based codes (RFC 6238, SHA-1, six digits, steps of 30 s), and recovery codes.
//!
//! A code counts one step before and after its time, for clocks that are wrong. The step of the last code taken is
//! stored, and only later steps count: no code is taken twice, also not by two requests at once.

use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::problem::Problem;
use crate::random;

/// Bytes of a secret: those of a SHA-1 (RFC 4226, section 4).
pub const SECRET_BYTES: usize = 20;
/// How many recovery codes a user gets.
pub const RECOVERY_CODES: usize = 10;
const RECOVERY_CODE_BYTES: usize = 10;
const ISSUER: &str = "Wired City";

/// A new secret.
pub fn new_secret() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(random::bytes::<SECRET_BYTES>().to_vec())
}

fn codes(secret: &[u8], account: &str) -> Result<Totp, Problem> {
    let builder = Builder::new()
        .with_secret(Secret::from(secret.to_vec()))
        .with_issuer(Some(ISSUER))
        // A colon would end the issuer.
        .with_account_name(account.replace(':', " "));
    builder.build().map_err(|error| Problem::internal(&error))
}

/// The secret as an authenticator takes it: typed (base32), and as the address in a QR code.
pub fn enrolment(secret: &[u8], account: &str) -> Result<(String, String), Problem> {
    let url = codes(secret, account)?.to_url().map_err(|error| Problem::internal(&error))?;
    Ok((Secret::from(secret.to_vec()).to_base32(), url))
}

/// The step that a code stands for at this time, when it is right and later than `last_step`.
pub fn step_of(secret: &[u8], code: &str, now_s: u64, last_step: u64) -> Result<Option<u64>, Problem> {
    let code: String = code.chars().filter(|it| !it.is_whitespace()).collect();
    let step = codes(secret, "x")?.check(&code, now_s);
    Ok(step.filter(|step| *step > last_step))
}

/// New recovery codes, in groups that a person can type.
pub fn recovery_codes() -> Vec<String> {
    let code = || {
        let text = Secret::from(random::bytes::<RECOVERY_CODE_BYTES>().to_vec()).to_base32().to_lowercase();
        let groups: Vec<_> = text.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
        groups.join("-")
    };
    (0..RECOVERY_CODES).map(|_| code()).collect()
}

/// What is stored of a recovery code, however it is typed; 80 random bits need no slow hash.
pub fn recovery_hash(code: &str) -> [u8; 32] {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
    random::token_hash(&plain.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, with six instead of eight digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = b"12345678901234567890";
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(step_of(secret, code, time, 0).unwrap(), Some(time / 30), "{code}");
        }
    }

    #[test]
    fn one_step_around_and_none_twice() {
        let (secret, time) = (b"12345678901234567890", 1_234_567_890_u64);
        let step = time / 30;
        for (seconds, counts) in
            [(-60, false), (-30, true), (0, true), (30, true), (60, false), (3_600, false)]
        {
            let at = time.checked_add_signed(seconds).unwrap();
            assert_eq!(step_of(secret, "005924", at, 0).unwrap().is_some(), counts, "{seconds}");
        }
        assert_eq!(step_of(secret, "005 924", time, step - 1).unwrap(), Some(step));
        assert_eq!(step_of(secret, "005924", time, step).unwrap(), None);
        for wrong in ["", "00592", "0059240", "aaaaaa", "٠٠٥٩٢٤"] {
            assert_eq!(step_of(secret, wrong, time, 0).unwrap(), None, "{wrong}");
        }
    }

    #[test]
    fn recovery_codes_are_found_however_they_are_typed() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), RECOVERY_CODES);
        assert_eq!(codes[0].len(), 19, "{}", codes[0]);
        assert_eq!(recovery_hash(&codes[0]), recovery_hash(&codes[0].to_uppercase().replace('-', " ")));
        assert_ne!(recovery_hash(&codes[0]), recovery_hash(&codes[1]));
    }

    #[test]
    fn an_authenticator_can_read_the_enrolment() {
        let (base32, url) = enrolment(b"12345678901234567890", "a:b@c.de").unwrap();
        assert_eq!(base32, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(url.starts_with("otpauth://totp/Wired%20City:a%20b%40c.de?secret=GEZDGNBVGY3TQOJQ"), "{url}");
    }
}
