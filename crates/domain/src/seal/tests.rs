//! A known answer, every kind of change, and properties.

use proptest::prelude::*;

use super::*;

const PLACE: Place<'_> = Place { table: "partner_keys", column: "secret", row: &[1, 2, 3] };

fn key(byte: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::new([byte; KEY_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Computed from the format's description with another implementation (OpenSSL's, through Node).
#[test]
fn known_answer() {
    let key = KeyEncryptionKey::new(std::array::from_fn(|index| index as u8));
    assert_eq!(key.id().to_string(), "8fe5af80");
    let sealed = KeyEncryptionKeys::new(key).seal(b"a secret", &PLACE, [9; NONCE_BYTES]);
    assert_eq!(
        hex(&sealed),
        "018fe5af80090909090909090909090909d2387b5ee4ed26d08a5bd163090c6ed577488468f7ea6b87"
    );
    assert_eq!(sealed.len(), b"a secret".len() + OVERHEAD_BYTES);
}

#[test]
fn every_changed_bit_and_every_cut_is_noticed() {
    let keys = KeyEncryptionKeys::new(key(1));
    let sealed = keys.seal(b"a secret", &PLACE, [9; NONCE_BYTES]);
    assert_eq!(keys.open(&sealed, &PLACE).unwrap().as_slice(), b"a secret");
    for (index, bit) in (0..sealed.len()).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
        let mut changed = sealed.clone();
        changed[index] ^= 1 << bit;
        let error = keys.open(&changed, &PLACE).unwrap_err();
        match index {
            0 => assert_eq!(error, SealError::Format),
            1..HEADER_BYTES => assert!(matches!(error, SealError::UnknownKey(_)), "{error}"),
            _ => assert_eq!(error, SealError::Tampered),
        }
    }
    for end in 0..sealed.len() {
        let expected = if end < OVERHEAD_BYTES { SealError::Format } else { SealError::Tampered };
        assert_eq!(keys.open(&sealed[..end], &PLACE), Err(expected), "{end} bytes");
    }
    assert_eq!(keys.open(&[&sealed[..], b"x"].concat(), &PLACE), Err(SealError::Tampered));
}

#[test]
fn a_value_opens_only_in_its_place() {
    let keys = KeyEncryptionKeys::new(key(1));
    let sealed = keys.seal(b"a secret", &PLACE, [9; NONCE_BYTES]);
    let others = [
        Place { table: "endpoints", ..PLACE },
        Place { column: "previous_secret", ..PLACE },
        Place { row: &[1, 2, 4], ..PLACE },
        Place { row: &[], ..PLACE },
        // The same bytes, divided in another way.
        Place { table: "partner_key", column: "ssecret", ..PLACE },
        Place { column: "secret\x01", row: &[2, 3], ..PLACE },
    ];
    for place in others {
        assert_eq!(keys.open(&sealed, &place), Err(SealError::Tampered), "{place:?}");
    }
}

#[test]
fn rotation() {
    let old = KeyEncryptionKeys::new(key(1));
    let sealed = old.seal(b"a secret", &PLACE, [9; NONCE_BYTES]);
    assert!(!old.is_outdated(&sealed));
    let only_new = KeyEncryptionKeys::new(key(2));
    assert_eq!(only_new.open(&sealed, &PLACE), Err(SealError::UnknownKey(key(1).id())));
    let both = only_new.with_older(key(1));
    assert_eq!(both.open(&sealed, &PLACE).unwrap().as_slice(), b"a secret");
    assert!(both.is_outdated(&sealed) && both.is_outdated(b""));
    let resealed = both.seal(b"a secret", &PLACE, [8; NONCE_BYTES]);
    assert!(!both.is_outdated(&resealed));
    assert_eq!(old.open(&resealed, &PLACE), Err(SealError::UnknownKey(key(2).id())));
}

#[test]
fn keys_in_text() {
    let text = crate::secret::encode_base64(&[1; KEY_BYTES]);
    for text in [text.clone(), format!(" {text}\r\n"), text.trim_end_matches('=').to_owned()] {
        assert_eq!(KeyEncryptionKey::from_base64(&text).unwrap().id(), key(1).id());
    }
    let wrong_lengths = [0, 16, 31, 33].map(|bytes| crate::secret::encode_base64(&vec![1; bytes]));
    for text in wrong_lengths.iter().map(String::as_str).chain(["not base64!", "é"]) {
        assert_eq!(KeyEncryptionKey::from_base64(text).unwrap_err(), SealError::Key, "{text}");
    }
    assert_eq!(format!("{:?}", key(1)), format!("KeyEncryptionKey({})", key(1).id()));
    assert_ne!(key(1).id(), key(2).id());
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        secret in prop::collection::vec(any::<u8>(), 0..200), key: [u8; KEY_BYTES], nonce: [u8; NONCE_BYTES],
        table in ".{0,20}", column in ".{0,20}", row in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let keys = KeyEncryptionKeys::new(KeyEncryptionKey::new(key));
        let place = Place { table: &table, column: &column, row: &row };
        let sealed = keys.seal(&secret, &place, nonce);
        prop_assert_eq!(sealed.len(), secret.len() + OVERHEAD_BYTES);
        let opened = keys.open(&sealed, &place).unwrap();
        prop_assert_eq!(opened.as_slice(), &secret);
    }

    #[test]
    fn no_bytes_panic_or_open(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let keys = KeyEncryptionKeys::new(key(1));
        prop_assert!(keys.open(&bytes, &PLACE).is_err());
        let headed = [&[VERSION][..], &key(1).id().0, &bytes].concat();
        prop_assert!(keys.open(&headed, &PLACE).is_err());
    }
}
