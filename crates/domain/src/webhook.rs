//! Webhooks signed as the Standard Webhooks specification (version 1.0.0) describes.
//!
//! Signed is `id.timestamp.body`; `webhook-signature` holds a space-separated list of `version,base64` tokens:
//! `v1` is an HMAC-SHA256 with a shared secret, `v1a` an ed25519 signature. The bytes signed are the bytes sent.
//!
//! **Order of the tokens:** `v1a` first, then previous secrets, the current secret's `v1` last, because some
//! receivers read only the text after the last comma, and some stop at the first token they do not know.
//!
//! Keys are parsed once into [`SigningKeys`] or [`VerifyingKeys`]; an HMAC is then two hash states copied and
//! finished. A receiver does best to remember the ids it has handled: a delivery may arrive more than once.

mod keys;
#[cfg(test)]
mod tests;
mod verify;

use ed25519_dalek::Signer;

pub use keys::{PublicKey, Secret, SigningKey};
pub use verify::{VerifyError, VerifyingKeys};

use crate::secret::encode_base64;

/// The event's id, the same on every attempt.
pub const ID_HEADER: &str = "webhook-id";
/// When this attempt was signed, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The space-separated signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How far `webhook-timestamp` may be from the receiver's clock, either way, in seconds: the specification's own
/// figure in all its libraries.
pub const TOLERANCE_SECONDS: i64 = 300;

/// The keys of one endpoint, ready to sign.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    /// Secrets that a rotation has replaced and that still live, oldest first.
    pub previous: Vec<Secret>,
    /// The secret of new receivers.
    pub current: Secret,
    /// For endpoints that verify with a public key.
    pub ed25519: Option<SigningKey>,
}

impl SigningKeys {
    /// Keys with one secret.
    pub const fn new(current: Secret) -> Self {
        Self { previous: Vec::new(), current, ed25519: None }
    }

    /// The value of `webhook-signature` for an attempt at `timestamp` (seconds since 1970).
    ///
    /// `id` must hold no full stop, which separates the signed parts: ids are made by us, so this is asserted.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        assert!(!id.contains('.'), "a webhook id must not hold the separator of the signed parts");
        let head = format!("{id}.{timestamp}.");
        let mut tokens = String::with_capacity(96 + 48 * self.previous.len());
        if let Some(key) = &self.ed25519 {
            let message = [head.as_bytes(), body].concat();
            push_token(&mut tokens, "v1a,", &key.0.sign(&message).to_bytes());
        }
        for secret in self.previous.iter().chain([&self.current]) {
            push_token(&mut tokens, "v1,", &secret.0.mac(&[head.as_bytes(), body]));
        }
        tokens
    }
}

fn push_token(tokens: &mut String, version: &str, signature: &[u8]) {
    if !tokens.is_empty() {
        tokens.push(' ');
    }
    tokens.push_str(version);
    tokens.push_str(&encode_base64(signature));
}
