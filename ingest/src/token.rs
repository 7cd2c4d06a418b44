//! The token in `status_url`: where on Kafka an accepted payment stands, and what it asked for.
//!
//! It lets any replica truthfully say "pending" before MySQL knows the payment. The MAC binds it to the partner
//! and the payment, so that a position cannot be invented or carried over to another id. It is no secret and
//! gives no right: the request that shows it is signed like any other.
//!
//! ```text
//! version 1 | partition 2 | offset 8 | accepted_at µs 8 | kind 1 | root 16 | amount minor 8 | currency 3 | mandate 16 |
//! MAC 16
//! ```
//!
//! all big-endian and zero where there is none, in base64url without padding. The MAC is HMAC-SHA256 cut to 16 bytes over the partner, the
//! payment and all before it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::ids::{MandateId, PartnerId, PaymentId};
use domain::money::Amount;
use domain::payment::{PaymentKind, PaymentView};
use domain::secret::HmacKey;
use domain::time::Timestamp;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::queue::Placed;

const VERSION: u8 = 2;
const CLAIMS_BYTES: usize = 1 + 2 + 8 + 8 + 1 + 16 + 8 + 3 + 16;
const MAC_BYTES: usize = 16;
const TOKEN_BYTES: usize = CLAIMS_BYTES + MAC_BYTES;

/// An accepted payment before it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The partition of `payments.commands.v1`.
    pub partition: u16,
    /// The record's offset.
    pub offset: u64,
    /// The broker's time of the record.
    pub accepted_at: Timestamp,
    /// What it does.
    pub kind: PaymentKind,
    /// The payment it belongs to.
    pub root: PaymentId,
    /// What was asked for, unless that was everything.
    pub amount: Option<Amount>,
    /// The mandate to debit under.
    pub mandate: Option<MandateId>,
}

impl Accepted {
    /// What is to be told of a command that was placed.
    pub fn of(placed: &Placed, view: &PaymentView) -> Self {
        let amount = view.amounts.as_ref().and_then(|it| Amount::parse(&it.amount, it.currency).ok());
        Self {
            partition: placed.partition,
            offset: placed.offset,
            accepted_at: placed.accepted_at,
            kind: view.kind,
            root: view.root,
            amount,
            mandate: view.mandate,
        }
    }
}

/// Writes the token of an accepted payment.
pub fn encode(key: &HmacKey, partner: PartnerId, payment: PaymentId, accepted: &Accepted) -> String {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&accepted.partition.to_be_bytes());
    bytes.extend_from_slice(&accepted.offset.to_be_bytes());
    bytes.extend_from_slice(&accepted.accepted_at.micros().to_be_bytes());
    bytes.push(accepted.kind.code());
    bytes.extend_from_slice(accepted.root.uuid().as_bytes());
    bytes.extend_from_slice(&accepted.amount.map_or(0, Amount::minor).to_be_bytes());
    bytes.extend_from_slice(accepted.amount.map_or("\0\0\0", |amount| amount.currency().code()).as_bytes());
    bytes.extend_from_slice(accepted.mandate.map_or(Uuid::nil(), |mandate| mandate.uuid()).as_bytes());
    let mac = mac(key, partner, payment, &bytes);
    bytes.extend_from_slice(&mac);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token; `None` when it was not made by us for this partner and payment.
pub fn decode(key: &HmacKey, partner: PartnerId, payment: PaymentId, token: &str) -> Option<Accepted> {
    let mut bytes = [0; TOKEN_BYTES];
    // A longer text does not fit, a shorter one leaves too few bytes.
    if URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()? != TOKEN_BYTES {
        return None;
    }
    let (claims, received) = bytes.split_first_chunk::<CLAIMS_BYTES>()?;
    if !bool::from(mac(key, partner, payment, claims).as_slice().ct_eq(received)) {
        return None;
    }
    let ([VERSION], rest) = claims.split_first_chunk::<1>()? else { return None };
    let (partition, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (accepted_at, rest) = rest.split_first_chunk()?;
    let ([kind], rest) = rest.split_first_chunk::<1>()?;
    let (root, rest) = rest.split_first_chunk::<16>()?;
    let (amount_minor, rest) = rest.split_first_chunk()?;
    let (currency, mandate) = rest.split_first_chunk::<3>()?;
    let amount = match i64::from_be_bytes(*amount_minor) {
        0 => None,
        minor => Some(Amount::new(minor, std::str::from_utf8(currency).ok()?.parse().ok()?).ok()?),
    };
    let mandate = Uuid::from_slice(mandate).ok()?;
    Some(Accepted {
        partition: u16::from_be_bytes(*partition),
        offset: u64::from_be_bytes(*offset),
        accepted_at: Timestamp::from_micros(i64::from_be_bytes(*accepted_at)),
        kind: PaymentKind::from_code(*kind)?,
        root: PaymentId::from_uuid(Uuid::from_bytes(*root)),
        amount,
        mandate: (!mandate.is_nil()).then(|| MandateId::from_uuid(mandate)),
    })
}

fn mac(key: &HmacKey, partner: PartnerId, payment: PaymentId, claims: &[u8]) -> [u8; MAC_BYTES] {
    let full = key.mac(&[b"status token\0", partner.uuid().as_bytes(), payment.uuid().as_bytes(), claims]);
    let mut cut = [0; MAC_BYTES];
    cut.copy_from_slice(&full[..MAC_BYTES]);
    cut
}

#[cfg(test)]
mod tests {
    use domain::money::Currency;

    use super::*;

    fn sample() -> (HmacKey, PartnerId, PaymentId, Accepted) {
        let accepted = Accepted {
            partition: 7,
            offset: 4_711,
            accepted_at: Timestamp::from_micros(1_700_000_000_000_001),
            kind: PaymentKind::Refund,
            root: PaymentId::from_uuid(Uuid::from_u128(4)),
            amount: Amount::new(1_250, Currency::EUR).ok(),
            mandate: Some(MandateId::from_uuid(Uuid::from_u128(3))),
        };
        let key = HmacKey::new(&[7; 32]).unwrap();
        (key, PartnerId::from_uuid(Uuid::from_u128(1)), PaymentId::from_uuid(Uuid::from_u128(2)), accepted)
    }

    #[test]
    fn a_token_reads_back_for_its_own_partner_and_payment_only() {
        let (key, partner, payment, accepted) = sample();
        let token = encode(&key, partner, payment, &accepted);
        assert_eq!(decode(&key, partner, payment, &token), Some(accepted));
        let bare = Accepted { amount: None, mandate: None, ..accepted };
        let bare_token = encode(&key, partner, payment, &bare);
        assert_eq!(decode(&key, partner, payment, &bare_token), Some(bare));
        assert_eq!(decode(&key, PartnerId::from_uuid(Uuid::from_u128(9)), payment, &token), None);
        assert_eq!(decode(&key, partner, PaymentId::from_uuid(Uuid::from_u128(9)), &token), None);
        assert_eq!(decode(&HmacKey::new(&[8; 32]).unwrap(), partner, payment, &token), None);
    }

    #[test]
    fn every_changed_bit_and_length_is_noticed() {
        let (key, partner, payment, accepted) = sample();
        let token = encode(&key, partner, payment, &accepted);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&key, partner, payment, &URL_SAFE_NO_PAD.encode(&changed)), None, "bit {bit}");
        }
        for other in ["", "A", "not base64!", &token[1..], &format!("{token}AAAA"), &"A".repeat(9_000)] {
            assert_eq!(decode(&key, partner, payment, other), None);
        }
    }
}
