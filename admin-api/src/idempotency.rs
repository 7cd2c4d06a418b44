//! `Idempotency-Key` of requests that move money: the same key of the same user is the same command, on any replica
//! and for ever.

use axum::extract::FromRequestParts;
use domain::ids::{UserId, derived_uuid};
use http::HeaderMap;
use http::request::Parts;
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// Characters of a key.
const CHARS_MAX: usize = 255;

/// The one `Idempotency-Key` of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all("idempotency-key").iter();
        let value = values.next().ok_or_else(|| Problem::plain(Code::IdempotencyKeyMissing))?;
        let text = value.to_str().unwrap_or("");
        let is_key = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
        if values.next().is_some() || !is_key {
            return Err(Problem::plain(Code::IdempotencyKeyInvalid));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id of the command that this key of this user stands for.
    pub fn command_id(&self, user: UserId) -> Uuid {
        derived_uuid(&format!("user:{user}\0{}", self.0))
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<IdempotencyKey, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        IdempotencyKey::read(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn one_key_of_visible_characters() {
        assert_eq!(read(&[]), Err(Code::IdempotencyKeyMissing));
        for bad in [&["a", "a"][..], &[""], &["a b"], &["\u{fc}"], &[&"x".repeat(256)]] {
            assert_eq!(read(bad), Err(Code::IdempotencyKeyInvalid), "{bad:?}");
        }
        assert!(read(&[&"x".repeat(255)]).is_ok());
    }

    #[test]
    fn a_key_is_one_command_of_one_user() {
        let (anna, bob) = (UserId::from_uuid(Uuid::from_u128(1)), UserId::from_uuid(Uuid::from_u128(2)));
        let (one, other) = (read(&["a"]).unwrap(), read(&["b"]).unwrap());
        assert_eq!(one.command_id(anna), read(&["a"]).unwrap().command_id(anna));
        assert_ne!(one.command_id(anna), one.command_id(bob));
        assert_ne!(one.command_id(anna), other.command_id(anna));
    }
}
