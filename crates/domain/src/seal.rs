//! Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key-encryption key that stands outside the database.
//!
//! A sealed value is
//!
//! ```text
//! version 1 byte (= 1) | key id 4 bytes | nonce 12 bytes | ciphertext | tag 16 bytes
//! ```
//!
//! The tag also covers version, key id and the place of the value ([`Place`]: table, column, row), so that a sealed
//! secret copied to another row does not open there. The key id is the beginning of a hash of the key: nobody has
//! to configure ids, and after a rotation ([`KeyEncryptionKeys::with_older`]) each value finds its key.
//!
//! The caller gives the nonce. It must be random and never used twice with one key; at 96 random bits that holds
//! for 2³² values (SP 800-38D, section 8.3), far more than there are partners and endpoints.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::decode_base64;

/// Bytes of a key-encryption key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
/// By how much a sealed value is longer than its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// Why a key cannot be read or a value cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key file's content is no base64 of 32 bytes.
    #[error(
        "a key-encryption key is base64 of {KEY_BYTES} bytes, e.g. from `openssl rand -base64 {KEY_BYTES}`"
    )]
    Key,
    /// The value is too short or of an unknown version.
    #[error("the value is no sealed secret of version {VERSION}")]
    Format,
    /// The value was sealed with a key that is not configured.
    #[error("the value was sealed with the key-encryption key {0}, which is not configured")]
    UnknownKey(KeyId),
    /// The value was changed, or belongs to another table, column or row.
    #[error("the sealed secret was changed, or stands in another place than where it was sealed")]
    Tampered,
}

/// Names a key-encryption key without telling anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a sealed value stands; a value opens only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The column's name.
    pub column: &'a str,
    /// The row's primary key as bytes.
    pub row: &'a [u8],
}

/// A key under which secrets are sealed; wiped when dropped, not shown by `Debug`.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    id: KeyId,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl KeyEncryptionKey {
    /// Takes the key's bytes.
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        let hash =
            Sha256::new().chain_update(b"wired-city key-encryption key id\0").chain_update(key).finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        Self { id: KeyId(id), key: Zeroizing::new(key) }
    }

    /// Reads the content of a key file: base64 of 32 bytes, white space around it ignored.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = decode_base64(text).map_err(|_| SealError::Key)?;
        <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map(Self::new).map_err(|_| SealError::Key)
    }

    /// The id that values sealed with this key carry.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.key.as_slice().into())
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyEncryptionKey({})", self.id)
    }
}

/// The key that seals, and older ones that still open.
#[derive(Debug, Clone)]
pub struct KeyEncryptionKeys {
    current: KeyEncryptionKey,
    older: Vec<KeyEncryptionKey>,
}

impl KeyEncryptionKeys {
    /// One key, which seals and opens.
    pub const fn new(current: KeyEncryptionKey) -> Self {
        Self { current, older: Vec::new() }
    }

    /// Adds a key that only opens, until everything is sealed anew.
    #[must_use]
    pub fn with_older(mut self, key: KeyEncryptionKey) -> Self {
        self.older.push(key);
        self
    }

    /// Seals a secret for its place with the current key. The nonce must be fresh and random.
    pub fn seal(&self, plaintext: &[u8], place: &Place<'_>, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let mut header = [VERSION; HEADER_BYTES];
        header[1..].copy_from_slice(&self.current.id.0);
        let payload = Payload { msg: plaintext, aad: &associated_data(header, place) };
        let ciphertext =
            self.current.cipher().encrypt(&nonce.into(), payload).expect("a secret is far below 64 GiB");
        [&header[..], &nonce, &ciphertext].concat()
    }

    /// Opens what was sealed for the same place with any of the keys; the result is wiped when dropped.
    pub fn open(&self, sealed: &[u8], place: &Place<'_>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, rest) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(SealError::Format)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Format)?;
        let [VERSION, id @ ..] = *header else { return Err(SealError::Format) };
        if ciphertext.len() < TAG_BYTES {
            return Err(SealError::Format);
        }
        let key = self.key(KeyId(id))?;
        let payload = Payload { msg: ciphertext, aad: &associated_data(*header, place) };
        key.cipher().decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| SealError::Tampered)
    }

    /// Whether a value was sealed with another than the current key and should be sealed anew.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        sealed.get(1..HEADER_BYTES) != Some(self.current.id.0.as_slice())
    }

    fn key(&self, id: KeyId) -> Result<&KeyEncryptionKey, SealError> {
        let mut keys = std::iter::once(&self.current).chain(&self.older);
        keys.find(|key| key.id == id).ok_or(SealError::UnknownKey(id))
    }
}

/// What the tag covers beside the ciphertext; each part with its length, so that no two places look alike.
fn associated_data(header: [u8; HEADER_BYTES], place: &Place<'_>) -> Vec<u8> {
    let mut data = header.to_vec();
    for part in [place.table.as_bytes(), place.column.as_bytes(), place.row] {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

#[cfg(test)]
mod tests;
