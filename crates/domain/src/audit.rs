//! A row of the audit log and its link of the chain.
//!
//! Whoever acts writes rows; the sealer links them afterwards, one behind the other. A link covers its number, so the
//! hash that a checkpoint signs says how far the chain had come as well as what it held.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::time::Timestamp;

/// The hash that the first link follows; a checkpoint's `audit_head` while nothing is sealed.
pub const GENESIS: [u8; 32] = [0; 32];

/// Keeps a link from being anything else.
const CONTEXT: &[u8] = b"wired-city audit\0";

/// A row of the audit log, every column of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The id, a UUIDv7.
    pub id: Uuid,
    /// When it was written.
    pub at: Timestamp,
    /// Who, when known.
    pub actor: Option<Uuid>,
    /// What, as a word.
    pub action: String,
    /// To whom or what, as an id with its prefix.
    pub target: Option<String>,
    /// 1 done, 2 refused.
    pub outcome: u8,
    /// What changed, as the text that is stored.
    pub detail: String,
    /// The request.
    pub request_id: Uuid,
    /// The client's network address, 4 or 16 bytes.
    pub address: Option<Vec<u8>>,
}

impl AuditRow {
    /// The link: SHA-256 over a context, the hash of the link before (32 bytes), the number (8) and the row: id (16), time
    /// in microseconds (8), outcome (1), request (16), then actor, action, target, detail and address, each with its
    /// length before it (8), where what is NULL has the length 2^64 - 1. All big-endian.
    pub fn hash_after(&self, previous: &[u8; 32], number: u64) -> [u8; 32] {
        let mut hash = Sha256::new()
            .chain_update(CONTEXT)
            .chain_update(previous)
            .chain_update(number.to_be_bytes())
            .chain_update(self.id.as_bytes())
            .chain_update(self.at.micros().to_be_bytes())
            .chain_update([self.outcome])
            .chain_update(self.request_id.as_bytes());
        let fields = [
            self.actor.as_ref().map(|actor| actor.as_bytes().as_slice()),
            Some(self.action.as_bytes()),
            self.target.as_deref().map(str::as_bytes),
            Some(self.detail.as_bytes()),
            self.address.as_deref(),
        ];
        for field in fields {
            hash.update(field.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
            hash.update(field.unwrap_or_default());
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_the_number_and_the_hash_before_count() {
        let id = Uuid::from_u128;
        let row = AuditRow {
            id: id(1),
            at: Timestamp::from_micros(2),
            actor: Some(id(3)),
            action: "user.log_in".to_owned(),
            target: Some("usr_x".to_owned()),
            outcome: 1,
            detail: "{}".to_owned(),
            request_id: id(4),
            address: Some(vec![127, 0, 0, 1]),
        };
        let changed = [
            AuditRow { id: id(9), ..row.clone() },
            AuditRow { at: Timestamp::from_micros(9), ..row.clone() },
            AuditRow { actor: None, ..row.clone() },
            AuditRow { actor: Some(id(9)), ..row.clone() },
            AuditRow { action: "user.log_out".to_owned(), ..row.clone() },
            AuditRow { target: None, ..row.clone() },
            AuditRow { target: Some(String::new()), ..row.clone() },
            AuditRow { outcome: 2, ..row.clone() },
            AuditRow { detail: "{\"a\":1}".to_owned(), ..row.clone() },
            AuditRow { request_id: id(9), ..row.clone() },
            AuditRow { address: None, ..row.clone() },
            AuditRow { address: Some(Vec::new()), ..row.clone() },
            // A character that moves from one field to the next.
            AuditRow { action: "user.log_inu".to_owned(), target: Some("sr_x".to_owned()), ..row.clone() },
        ];
        let mut hashes: Vec<_> = changed.iter().map(|other| other.hash_after(&GENESIS, 1)).collect();
        hashes.extend([
            row.hash_after(&GENESIS, 1),
            row.hash_after(&GENESIS, 2),
            row.hash_after(&[1; 32], 1),
        ]);
        let all = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }
}
