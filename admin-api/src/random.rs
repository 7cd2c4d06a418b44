//! Randomness of the system, and secrets made of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of an opaque token: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

/// Random bytes.
///
/// # Panics
/// When the system has no randomness: nothing that needs a secret may go on then.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// An opaque token: what the client keeps. Only its hash is stored; at 256 random bits it needs no salt and no
/// slow hash.
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new one.
    pub fn draw() -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes::<TOKEN_BYTES>())))
    }

    /// The text, to give away once.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        token_hash(&self.0)
    }
}

/// What is stored of a token with this text.
pub fn token_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
