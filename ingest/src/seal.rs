//! New secrets, and what is kept of them: sealed values, each for its place.

use domain::ids::{EndpointId, EndpointSecretId};
use domain::seal::{KeyEncryptionKeys, Place};
use domain::webhook::{Secret, SigningKey};
use type_safe_id::{StaticType, TypeSafeId};
use zeroize::Zeroizing;

use crate::problem::{Code, Problem};

/// Random bytes of the system's.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES], Problem> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(error = %error, "the system gives no randomness");
        Problem::plain(Code::Internal)
    })?;
    Ok(bytes)
}

/// Seals a value for its place.
pub fn seal<T: StaticType>(
    kek: &KeyEncryptionKeys,
    table: &'static str,
    column: &'static str,
    row: &TypeSafeId<T>,
    plaintext: &[u8],
) -> Result<Vec<u8>, Problem> {
    let row = row.uuid();
    Ok(kek.seal(plaintext, &Place { table, column, row: row.as_bytes() }, random()?))
}

/// A new secret of an endpoint: its text, to be shown once, and its sealed form.
pub fn new_secret(
    kek: &KeyEncryptionKeys,
    id: EndpointSecretId,
) -> Result<(Zeroizing<String>, Vec<u8>), Problem> {
    let text = Secret::text_of(&Zeroizing::new(random()?));
    let sealed = seal(kek, "endpoint_secrets", "secret_sealed", &id, text.as_bytes())?;
    Ok((text, sealed))
}

/// A new ed25519 key of an endpoint, sealed.
pub fn new_signing_key(kek: &KeyEncryptionKeys, endpoint: EndpointId) -> Result<Vec<u8>, Problem> {
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
    seal(kek, "endpoints", "signing_key_sealed", &endpoint, seed.as_slice())
}

/// The public half of a sealed ed25519 key; `None` (and a line in the log) when it cannot be opened.
pub fn public_key(kek: &KeyEncryptionKeys, endpoint: EndpointId, sealed: &[u8]) -> Option<String> {
    let opened = open(kek, "signing_key_sealed", endpoint, sealed)?;
    let seed: &[u8; 32] = opened.as_slice().try_into().ok()?;
    Some(SigningKey::from_seed(seed).public_key().to_string())
}

/// A sealed value of an endpoint; `None` (and a line in the log) when it cannot be opened.
pub fn open(
    kek: &KeyEncryptionKeys,
    column: &'static str,
    endpoint: EndpointId,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let row = endpoint.uuid();
    let opened = kek.open(sealed, &Place { table: "endpoints", column, row: row.as_bytes() });
    opened
        .map_err(|error| {
            tracing::error!(endpoint.id = %endpoint, column, error = %error, "a sealed value cannot be opened");
        })
        .ok()
}
