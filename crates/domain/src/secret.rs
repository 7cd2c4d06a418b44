//! Shared secrets for HMAC-SHA256 (RFC 2104), hashed once when they are read and never shown again.
//!
//! [`HmacKey`] serves request signatures and webhooks alike. It holds the two hash states that follow from the
//! key, not the key: signing costs a copy of them and no key schedule. `hmac` 0.12 cannot wipe these states, so
//! they stay in memory until it is reused; the bytes and text they were made from are wiped here.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of an HMAC-SHA256.
pub const MAC_BYTES: usize = 32;
/// Shortest secret accepted: the Standard Webhooks specification asks for 24 bytes or more. Ours have 32.
pub const SECRET_BYTES_MIN: usize = 24;
/// Longest secret accepted: one SHA-256 block; a longer one would be hashed down and gain nothing.
pub const SECRET_BYTES_MAX: usize = 64;

/// Base64 as people paste it: the standard alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a secret was not accepted; says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text does not begin with the prefix that names its kind.
    #[error("the secret does not begin with `{0}`")]
    Prefix(&'static str),
    /// The text is no base64.
    #[error("the secret is no base64")]
    Base64,
    /// The number of bytes is outside the permitted range.
    #[error("the secret has {bytes} bytes; {min} to {max} are accepted")]
    Length {
        /// How many bytes it has.
        bytes: usize,
        /// The fewest accepted.
        min: usize,
        /// The most accepted.
        max: usize,
    },
    /// The bytes are no ed25519 key, or its two halves do not belong together.
    #[error("the bytes are no ed25519 key")]
    Ed25519,
}

/// Decodes base64 after trimming white space; the result is wiped when dropped.
pub(crate) fn decode_base64(text: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    BASE64.decode(text.trim()).map(Zeroizing::new).map_err(|_| SecretError::Base64)
}

/// Encodes bytes as padded base64.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A key for HMAC-SHA256, ready to sign. `Debug` does not show it.
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    /// Reads a key of [`SECRET_BYTES_MIN`] to [`SECRET_BYTES_MAX`] bytes.
    pub fn new(secret: &[u8]) -> Result<Self, SecretError> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(SecretError::Length {
                bytes: secret.len(),
                min: SECRET_BYTES_MIN,
                max: SECRET_BYTES_MAX,
            });
        }
        Ok(Self::of_any_length(secret))
    }

    /// Reads a key from base64, the form in which partners receive theirs.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        Self::new(&decode_base64(text)?)
    }

    /// HMAC takes keys of every length; only constants and test vectors may be outside the range.
    pub(crate) fn of_any_length(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of every length"))
    }

    /// The MAC of the parts, one after the other.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        state.finalize().into_bytes().into()
    }

    /// Compares the MAC of the parts with a received one in constant time; a wrong length never matches.
    pub fn verify(&self, parts: &[&[u8]], received: &[u8]) -> bool {
        bool::from(self.mac(parts).as_slice().ct_eq(received))
    }
}

impl std::fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HmacKey(…)")
    }
}
