//! The receiving side, for `wired listen`, `wired verify-webhook` and the tests.

use http::HeaderMap;

use super::{ID_HEADER, PublicKey, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, TOLERANCE_SECONDS};
use crate::secret::decode_base64;

/// Tokens read from one `webhook-signature`: a sender has a few live keys, and each ed25519 check costs 50 µs.
const TOKENS_MAX: usize = 32;
/// Digits of a timestamp: enough for 30 million years, too few to overflow.
const TIMESTAMP_DIGITS_MAX: usize = 15;

/// Why a webhook is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header field is missing, doubled, empty or no text.
    #[error("the header field {0} must be there exactly once and not be empty")]
    Header(&'static str),
    /// The id holds a full stop: what was signed would be ambiguous.
    #[error("webhook-id holds a full stop")]
    Id,
    /// The timestamp is no number of seconds.
    #[error("webhook-timestamp is no whole number of seconds since 1970")]
    Timestamp,
    /// The timestamp is too far from the clock.
    #[error(
        "webhook-timestamp is {skew_s} s from this clock; at most {TOLERANCE_SECONDS} s either way are accepted"
    )]
    Clock {
        /// The timestamp minus the receiver's clock, in seconds.
        skew_s: i64,
    },
    /// No token is a signature by one of the keys.
    #[error("no signature in webhook-signature matches id, timestamp and body under the known keys")]
    Signature,
}

/// The keys that a receiver accepts: any of them may have signed.
#[derive(Debug, Clone, Default)]
pub struct VerifyingKeys {
    /// Shared secrets, for `v1`.
    pub secrets: Vec<Secret>,
    /// Public keys, for `v1a`.
    pub public_keys: Vec<PublicKey>,
}

impl VerifyingKeys {
    /// Keys with one shared secret.
    pub fn new(secret: Secret) -> Self {
        Self { secrets: vec![secret], public_keys: Vec::new() }
    }

    /// Verifies a received webhook at `now` (seconds since 1970); gives its id.
    pub fn verify_headers<'h>(
        &self,
        headers: &'h HeaderMap,
        body: &[u8],
        now: i64,
    ) -> Result<&'h str, VerifyError> {
        let id = single(headers, ID_HEADER)?;
        let timestamp = single(headers, TIMESTAMP_HEADER)?;
        let signature = single(headers, SIGNATURE_HEADER)?;
        self.verify(id, timestamp, signature, body, now).map(|()| id)
    }

    /// Verifies the three header values and the body's raw bytes at `now` (seconds since 1970).
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now: i64,
    ) -> Result<(), VerifyError> {
        for (value, header) in [(id, ID_HEADER), (timestamp, TIMESTAMP_HEADER), (signature, SIGNATURE_HEADER)]
        {
            if value.is_empty() {
                return Err(VerifyError::Header(header));
            }
        }
        if id.contains('.') {
            return Err(VerifyError::Id);
        }
        let skew_s = parse_timestamp(timestamp)?.saturating_sub(now);
        if !(-TOLERANCE_SECONDS..=TOLERANCE_SECONDS).contains(&skew_s) {
            return Err(VerifyError::Clock { skew_s });
        }
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let mut tokens = signature.split(' ').take(TOKENS_MAX);
        if tokens.any(|token| self.accepts(token, &signed)) { Ok(()) } else { Err(VerifyError::Signature) }
    }

    /// Whether one `version,base64` token is by one of the keys. Tokens of other versions are passed over, as the
    /// specification asks.
    fn accepts(&self, token: &str, signed: &[&[u8]]) -> bool {
        let Some((version, base64)) = token.split_once(',') else { return false };
        let Ok(signature) = decode_base64(base64) else { return false };
        match version {
            // Not `any`, which would stop at the first match and tell by its time which key it was.
            "v1" => {
                self.secrets.iter().fold(false, |found, secret| secret.0.verify(signed, &signature) | found)
            }
            "v1a" => {
                let Ok(signature) = ed25519_dalek::Signature::from_slice(&signature) else { return false };
                let message = signed.concat();
                self.public_keys.iter().any(|key| key.0.verify_strict(&message, &signature).is_ok())
            }
            _ => false,
        }
    }
}

/// The field's only line.
fn single<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyError> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next().and_then(|line| line.to_str().ok()), lines.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(VerifyError::Header(name)),
    }
}

/// Digits only: `parse` alone would take a sign.
fn parse_timestamp(text: &str) -> Result<i64, VerifyError> {
    if text.len() > TIMESTAMP_DIGITS_MAX || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(VerifyError::Timestamp);
    }
    text.parse().map_err(|_| VerifyError::Timestamp)
}
