//! Checkpoints: signed statements of how far accounts had come, kept where nobody who can write the database can write.
//!
//! A checkpoint names, for every account that changed since the one before, the hash of its last entry. Since that hash
//! follows from all earlier entries of the account, none of them can be altered afterwards without the checkpoint
//! telling. The hashes (leaves) stay in the database; what is signed and published is the root of a Merkle tree over
//! them. Each checkpoint also signs the digest of the one before, so that none can be taken away or replaced.
//!
//! The tree is that of RFC 6962 (section 2.1): a leaf is SHA-256(0x00 ‖ account ‖ version ‖ hash), a node is
//! SHA-256(0x01 ‖ left ‖ right), nothing is SHA-256(). Leaves stand in the order of their accounts' ids.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};

use crate::ids::AccountId;
use crate::time::Timestamp;

/// The format written today.
pub const FORMAT: u8 = 1;
/// The audit head while nothing is sealed: what the chain's first link follows ([`crate::audit::GENESIS`]).
pub const NO_AUDIT_HEAD: Hash = Hash([0; 32]);
/// What the first checkpoint follows.
pub const GENESIS: Hash = Hash([0; 32]);

/// Keeps a signature from meaning anything else.
const CONTEXT: &[u8] = b"wired-city checkpoint\0";

/// A SHA-256, in hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

/// An ed25519 signature, in hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureBytes(pub [u8; 64]);

/// How far an account had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The account.
    pub account: AccountId,
    /// The version of its last entry.
    pub version: u64,
    /// The hash of that entry.
    pub hash: [u8; 32],
}

impl Leaf {
    fn hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update([0])
            .chain_update(self.account.uuid().as_bytes())
            .chain_update(self.version.to_be_bytes())
            .chain_update(self.hash)
            .finalize()
            .into()
    }
}

/// The root over leaves that come one after the other; holds one hash for each level of the tree.
#[derive(Debug, Clone, Default)]
pub struct Merkle {
    /// Perfect trees of what came so far, from the largest to the smallest: how many leaves each has, and its root.
    trees: Vec<(u64, [u8; 32])>,
}

impl Merkle {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: &Leaf) {
        let mut tree = (1, leaf.hash());
        while let Some((leaves, left)) = self.trees.pop_if(|(leaves, _)| *leaves == tree.0) {
            tree = (2 * leaves, node(&left, &tree.1));
        }
        self.trees.push(tree);
    }

    /// The root over everything that was added.
    pub fn root(mut self) -> Hash {
        let Some((_, mut root)) = self.trees.pop() else { return Hash(Sha256::digest([]).into()) };
        while let Some((_, left)) = self.trees.pop() {
            root = node(&left, &root);
        }
        Hash(root)
    }

    /// How many leaves were added.
    pub fn leaves(&self) -> u64 {
        self.trees.iter().map(|(leaves, _)| leaves).sum()
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`FORMAT`].
    pub format: u8,
    /// Counts from 1 without gaps.
    pub number: u64,
    /// When the accounts were looked at.
    pub taken_at: Timestamp,
    /// How many accounts had changed.
    pub leaves: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// [`Statement::digest`] of the checkpoint before; [`GENESIS`] for the first.
    pub previous: Hash,
    /// The hash of the last link of the audit chain, which covers its number; [`NO_AUDIT_HEAD`] while there is none.
    pub audit_head: Hash,
}

/// A statement with its signature: what is published, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What is signed.
    #[serde(flatten)]
    pub statement: Statement,
    /// By the bank's checkpoint key.
    pub signature: SignatureBytes,
}

impl Statement {
    /// The signed bytes: context, format (1 byte), number (8), time in microseconds (8), leaves (8), root (32), previous
    /// (32), audit head (32), all big-endian.
    fn message(&self) -> Vec<u8> {
        let mut message = CONTEXT.to_vec();
        message.push(self.format);
        message.extend(self.number.to_be_bytes());
        message.extend(self.taken_at.micros().to_be_bytes());
        message.extend(self.leaves.to_be_bytes());
        for hash in [self.root, self.previous, self.audit_head] {
            message.extend(hash.0);
        }
        message
    }

    /// SHA-256 of the signed bytes, which the next checkpoint signs.
    pub fn digest(&self) -> Hash {
        Hash(Sha256::digest(self.message()).into())
    }

    /// Signs it.
    pub fn sign(self, key: &SigningKey) -> Checkpoint {
        Checkpoint { signature: SignatureBytes(key.sign(&self.message()).to_bytes()), statement: self }
    }
}

impl Checkpoint {
    /// Whether the owner of `key` signed exactly this. Signatures that another form of the same would pass are refused.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = Signature::from_bytes(&self.signature.0);
        self.statement.format == FORMAT && key.verify_strict(&self.statement.message(), &signature).is_ok()
    }

    /// The name of its file: names sort by number.
    pub fn file_name(number: u64) -> String {
        format!("checkpoint-{number:012}.json")
    }
}

fn to_hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    serializer.serialize_str(&text)
}

fn from_hex<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    let malformed = || D::Error::custom(format!("{N} bytes in hexadecimal digits expected"));
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * N).ok_or_else(malformed)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_hex(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_hex(deserializer).map(Self)
    }
}

impl Serialize for SignatureBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_hex(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_hex(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn leaf(number: u128) -> Leaf {
        Leaf { account: AccountId::from_uuid(Uuid::from_u128(number)), version: 7, hash: [number as u8; 32] }
    }

    /// RFC 6962, written as its definition.
    fn by_definition(leaves: &[Leaf]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => leaf.hash(),
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_for_any_number_of_leaves() {
        let leaves: Vec<Leaf> = (0..70).map(leaf).collect();
        for count in 0..leaves.len() {
            let mut merkle = Merkle::default();
            for leaf in &leaves[..count] {
                merkle.push(leaf);
            }
            assert_eq!(merkle.leaves(), count as u64);
            assert_eq!(merkle.root().0, by_definition(&leaves[..count]), "{count} leaves");
        }
    }

    #[test]
    fn every_field_of_a_leaf_and_their_order_count() {
        let root = |leaves: &[Leaf]| {
            let mut merkle = Merkle::default();
            for leaf in leaves {
                merkle.push(leaf);
            }
            merkle.root()
        };
        let whole = root(&[leaf(1), leaf(2), leaf(3)]);
        assert_ne!(root(&[leaf(2), leaf(1), leaf(3)]), whole);
        assert_ne!(root(&[leaf(1), leaf(2)]), whole);
        for other in [
            Leaf { version: 8, ..leaf(3) },
            Leaf { hash: [9; 32], ..leaf(3) },
            Leaf { account: leaf(4).account, ..leaf(3) },
        ] {
            assert_ne!(root(&[leaf(1), leaf(2), other]), whole);
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_and_any_change_of_it_breaks_the_signature() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let statement = Statement {
            format: FORMAT,
            number: 3,
            taken_at: Timestamp::from_micros(1_700_000_000_000_000),
            leaves: 2,
            root: Hash([1; 32]),
            previous: Hash([2; 32]),
            audit_head: NO_AUDIT_HEAD,
        };
        let checkpoint = statement.sign(&key);
        let text = serde_json::to_string(&checkpoint).unwrap();
        assert!(text.contains(&"01".repeat(32)) && text.contains("\"number\":3"), "{text}");
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), checkpoint);
        assert!(checkpoint.is_signed_by(&key.verifying_key()));
        assert!(!checkpoint.is_signed_by(&SigningKey::from_bytes(&[8; 32]).verifying_key()));
        for changed in [
            Statement { format: 2, ..statement },
            Statement { number: 4, ..statement },
            Statement { taken_at: Timestamp::from_micros(1), ..statement },
            Statement { leaves: 1, ..statement },
            Statement { root: Hash([9; 32]), ..statement },
            Statement { previous: Hash([9; 32]), ..statement },
            Statement { audit_head: Hash([9; 32]), ..statement },
        ] {
            let forged = Checkpoint { statement: changed, ..checkpoint };
            assert!(!forged.is_signed_by(&key.verifying_key()), "{changed:?}");
            assert_ne!(changed.digest(), statement.digest());
        }
        assert!(serde_json::from_str::<Checkpoint>(&text.replace("0101", "01x1")).is_err());
        assert!(serde_json::from_str::<Checkpoint>(&text.replacen("0101", "01", 1)).is_err());
    }
}
