//! The keys of webhooks in their textual forms: `whsec_`, `whsk_` and `whpk_` with base64.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::{HmacKey, SecretError, decode_base64, encode_base64};

const SECRET_PREFIX: &str = "whsec_";
const SIGNING_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// Bytes of an ed25519 seed, and of a public key.
const KEY_BYTES: usize = 32;
/// Bytes of an ed25519 seed followed by its public key.
const PAIR_BYTES: usize = 64;

/// A shared secret (`whsec_…`), ready to sign. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(pub(super) HmacKey);

impl Secret {
    /// Reads `whsec_` and base64 of 24 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        HmacKey::new(&decode(text, SECRET_PREFIX)?).map(Self)
    }

    /// Takes the secret's bytes, as they come out of a seal.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, SecretError> {
        HmacKey::new(secret).map(Self)
    }

    /// The textual form of a new secret's bytes, to be shown once.
    pub fn text_of(secret: &[u8; 32]) -> Zeroizing<String> {
        let base64 = Zeroizing::new(encode_base64(secret));
        Zeroizing::new([SECRET_PREFIX, &base64].concat())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An ed25519 key (`whsk_…`) for `v1a` signatures; wiped when dropped. `Debug` shows its public half only.
#[derive(Clone)]
pub struct SigningKey(pub(super) ed25519_dalek::SigningKey);

impl SigningKey {
    /// Reads `whsk_` and base64 of a seed, or of a seed and its public key.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = decode(text, SIGNING_PREFIX)?;
        if bytes.len() == KEY_BYTES {
            let seed = Zeroizing::new(array::<KEY_BYTES>(&bytes)?);
            return Ok(Self::from_seed(&seed));
        }
        let pair = Zeroizing::new(array::<PAIR_BYTES>(&bytes)?);
        ed25519_dalek::SigningKey::from_keypair_bytes(&pair).map(Self).map_err(|_| SecretError::Ed25519)
    }

    /// Takes a seed, as it comes out of a seal.
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key to publish.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(… of {})", self.public_key())
    }
}

/// The public half (`whpk_…`) with which receivers verify `v1a` signatures. `Display` gives its textual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub(super) ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Reads `whpk_` and base64 of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let bytes = array::<KEY_BYTES>(&decode(text, PUBLIC_PREFIX)?)?;
        ed25519_dalek::VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| SecretError::Ed25519)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", encode_base64(self.0.as_bytes()))
    }
}

fn decode(text: &str, prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    decode_base64(text.trim().strip_prefix(prefix).ok_or(SecretError::Prefix(prefix))?)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SecretError> {
    bytes.try_into().map_err(|_| SecretError::Length { bytes: bytes.len(), min: N, max: N })
}
