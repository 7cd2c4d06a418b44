//! Access tokens: JWTs (RFC 7519) signed with Ed25519, and nothing else.
//!
//! A token says who (`sub`) in which session (`sid`); what they may do is read from the session and the user on each
//! request ([`crate::sessions`]), so that a revocation or another role needs no new token. Every claim is required,
//! the header must name a key of ours (`kid`), and the algorithm is fixed: a header that names another one is refused
//! before any key is looked at.
//!
//! Keys overlap: one signs, others only verify and are published, the next one before it signs and the last one until
//! its tokens have expired.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::ids::UserId;
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::problem::Problem;

/// Seconds that a token is valid.
pub const LIFETIME_S: u64 = 600;
/// Seconds by which the clocks of two replicas may differ.
pub const SKEW_S: u64 = 5;
/// Longer tokens are not looked at; ours have some 500 bytes.
const BYTES_MAX: usize = 2_048;
/// An Ed25519 private key in PKCS #8 is this and the 32 bytes (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    sid: Uuid,
    iat: u64,
    exp: u64,
}

/// Whose session a valid token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: Uuid,
}

/// Signs and verifies.
pub struct Signer {
    issuer: String,
    kid: String,
    key: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
    jwks: serde_json::Value,
}

/// A key as JWKS publishes it, and its id: the thumbprint of RFC 7638 and RFC 8037.
fn public(key: &SigningKey) -> (String, String) {
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    (URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)), x)
}

impl Signer {
    /// Signs with `current` as `issuer`, who is also the audience; `others` verify, too.
    pub fn new(issuer: String, current: &SigningKey, others: &[SigningKey]) -> Result<Self, Problem> {
        let (kid, _) = public(current);
        let pkcs8 = zeroize::Zeroizing::new([&PKCS8_PREFIX[..], current.as_bytes()].concat());
        let (mut verifying, mut keys) = (HashMap::new(), Vec::new());
        for key in std::iter::once(current).chain(others) {
            let (kid, x) = public(key);
            let decoding = DecodingKey::from_ed_components(&x).map_err(|error| Problem::internal(&error))?;
            if verifying.insert(kid.clone(), decoding).is_none() {
                keys.push(serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x
                }));
            }
        }
        let jwks = serde_json::json!({ "keys": keys });
        Ok(Self { issuer, kid, key: EncodingKey::from_ed_der(&pkcs8), verifying, jwks })
    }

    /// The public keys (RFC 7517).
    pub fn jwks(&self) -> &serde_json::Value {
        &self.jwks
    }

    /// A token for this session, valid for [`LIFETIME_S`].
    pub fn issue(&self, bearer: Bearer) -> Result<String, Problem> {
        let iat = now_s();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.issuer.clone(),
            sub: bearer.user,
            sid: bearer.session,
            iat,
            exp: iat + LIFETIME_S,
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| Problem::internal(&error))
    }

    /// Whose session the token names, if it is one of ours and of now. Why not is nobody's business.
    pub fn verify(&self, token: &str) -> Option<Bearer> {
        if token.len() > BYTES_MAX {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.alg != Algorithm::EdDSA {
            return None;
        }
        let key = self.verifying.get(&header.kid?)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = SKEW_S;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.issuer]);
        // Setting an issuer or an audience does not require one.
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims;
        let now = now_s();
        let is_of_now = claims.iat <= now + SKEW_S && claims.exp.checked_sub(claims.iat)? <= LIFETIME_S;
        is_of_now.then_some(Bearer { user: claims.sub, session: claims.sid })
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
