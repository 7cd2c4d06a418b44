//! API keys: new secrets, and whether a key can be revoked without anybody noticing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::ids::KeyId;
use domain::seal::{KeyEncryptionKeys, Place};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::problem::Problem;
use crate::random;
use crate::store::api_keys::KeyRow;

/// For how long a key must not have been used before it can be revoked safely, in hours: whatever runs once a day has
/// run. What is recorded of uses is a minute late, which is nothing beside it.
pub const QUIET_HOURS: u32 = 24;

/// Whether a key can be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Another key that may do as much was used since this one, which was not used for a day.
    Safe,
    /// It was used, or made, within the last day.
    InUse,
    /// No other live key may do as much: whoever uses this one could not go on.
    NoSuccessor,
    /// There is another one, which was not used since.
    SuccessorUnused,
    /// It does not count any more.
    Revoked,
}

impl KeyRow {
    /// Whether it counts.
    pub fn is_live(&self) -> bool {
        self.revoked_at.is_none_or(|at| at > self.now)
    }
}

/// Whether `key` can be revoked, beside all `live` keys of its partner.
pub fn verdict(key: &KeyRow, live: &[KeyRow]) -> Verdict {
    if !key.is_live() {
        return Verdict::Revoked;
    }
    // One that was never used was handed out when it was made.
    let last = key.last_used_at.unwrap_or(key.created_at);
    if last.plus_seconds(i64::from(QUIET_HOURS) * 3_600) > key.now {
        return Verdict::InUse;
    }
    let does_as_much = |other: &&KeyRow| other.id != key.id && key.scopes & !other.scopes == 0;
    let mut successors = live.iter().filter(does_as_much).peekable();
    if successors.peek().is_none() {
        return Verdict::NoSuccessor;
    }
    let used_since = successors.any(|other| other.last_used_at.is_some_and(|used| used > last));
    if used_since { Verdict::Safe } else { Verdict::SuccessorUnused }
}

fn place(id: &Uuid) -> Place<'_> {
    Place { table: "api_keys", column: "secret_sealed", row: id.as_bytes() }
}

/// A new secret, sealed for its key; nobody has seen it.
pub fn new_secret(keys: &KeyEncryptionKeys, id: KeyId) -> Vec<u8> {
    let secret = Zeroizing::new(random::bytes::<32>());
    keys.seal(&secret[..], &place(&id.uuid()), random::bytes())
}

/// A secret in base64, to be shown.
pub fn open_secret(keys: &KeyEncryptionKeys, id: KeyId, sealed: &[u8]) -> Result<String, Problem> {
    let opened = keys.open(sealed, &place(&id.uuid())).map_err(|error| Problem::internal(&error))?;
    Ok(STANDARD.encode(&opened[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::time::Timestamp;

    const HOUR: i64 = 3_600_000_000;
    const NOW: i64 = 1_000 * HOUR;

    fn key(number: u128, scopes: u32, used_hours_ago: Option<i64>) -> KeyRow {
        let at = |hours_ago: i64| Timestamp::from_micros(NOW - hours_ago * HOUR);
        KeyRow {
            id: KeyId::from_uuid(Uuid::from_u128(number)),
            scopes,
            created_at: at(500),
            revoked_at: None,
            issued_to: None,
            shown_at: None,
            last_used_at: used_hours_ago.map(at),
            now: at(0),
        }
    }

    #[test]
    fn a_key_can_be_revoked_when_nobody_would_notice() {
        let old = |used| key(1, 3, used);
        let ended = KeyRow { revoked_at: Some(Timestamp::from_micros(NOW)), ..old(Some(30)) };
        let ends_soon = KeyRow { revoked_at: Some(Timestamp::from_micros(NOW + 1)), ..old(Some(30)) };
        let young = KeyRow { created_at: Timestamp::from_micros(NOW - 23 * HOUR), ..old(None) };
        for (key, others, expected) in [
            (old(Some(25)), vec![key(2, 3, Some(1))], Verdict::Safe),
            (old(Some(25)), vec![key(2, 7, Some(24))], Verdict::Safe),
            (old(None), vec![key(2, 3, Some(499))], Verdict::Safe),
            (ends_soon, vec![key(2, 3, Some(1))], Verdict::Safe),
            (old(Some(23)), vec![key(2, 3, Some(1))], Verdict::InUse),
            (young, vec![key(2, 3, Some(1))], Verdict::InUse),
            (old(Some(25)), vec![], Verdict::NoSuccessor),
            // It may do less, so it is used for something else.
            (old(Some(25)), vec![key(2, 1, Some(1))], Verdict::NoSuccessor),
            (old(Some(25)), vec![key(2, 3, None)], Verdict::SuccessorUnused),
            (old(Some(25)), vec![key(2, 3, Some(26))], Verdict::SuccessorUnused),
            (old(Some(25)), vec![key(2, 3, Some(26)), key(3, 3, Some(2))], Verdict::Safe),
            (ended, vec![key(2, 3, Some(1))], Verdict::Revoked),
        ] {
            let mut live = others.clone();
            live.push(key.clone());
            assert_eq!(verdict(&key, &live), expected, "{key:?} beside {others:?}");
        }
    }
}
