//! Vectors of the reference libraries, tables of what a receiver refuses, and properties.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::secret::{HmacKey, SecretError, decode_base64};

const ID: &str = "evt_01";
const NOW: i64 = 1_800_000_000;
const BODY: &[u8] = br#"{"type":"payment.posted"}"#;

fn facts() -> Value {
    serde_json::from_str(include_str!("../../testdata/standard-webhooks.json")).unwrap()
}

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&[byte; 32]).unwrap()
}

fn ed25519() -> SigningKey {
    SigningKey::from_seed(&[3; 32])
}

fn headers(signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ID_HEADER, HeaderValue::from_static(ID));
    headers.insert(TIMESTAMP_HEADER, HeaderValue::from(NOW));
    headers.insert(SIGNATURE_HEADER, HeaderValue::from_str(signature).unwrap());
    headers
}

#[test]
fn vectors_of_the_reference_libraries() {
    let facts = facts();
    let vectors = facts["valid"].as_array().unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let timestamp = vector["timestamp"].as_i64().unwrap();
        let (token, keys) = if vector["public_key"].is_string() {
            let key = SigningKey::parse(text("signing_key")).unwrap();
            assert_eq!(key.public_key().to_string(), text("public_key"));
            let signing = SigningKeys { ed25519: Some(key), ..SigningKeys::new(secret(1)) };
            let value = signing.sign(text("id"), timestamp, text("body").as_bytes());
            let public_keys = vec![PublicKey::parse(text("public_key")).unwrap()];
            (
                value.split(' ').next().unwrap().to_owned(),
                VerifyingKeys { public_keys, ..VerifyingKeys::default() },
            )
        } else {
            // Svix's documentation has an example of 18 bytes, fewer than the specification and we accept.
            let bytes = decode_base64(text("secret").strip_prefix("whsec_").unwrap()).unwrap();
            let secret = Secret::parse(text("secret")).unwrap_or_else(|error| {
                assert_eq!(error, SecretError::Length { bytes: 18, min: 24, max: 64 });
                Secret(HmacKey::of_any_length(&bytes))
            });
            let value = SigningKeys::new(secret.clone()).sign(text("id"), timestamp, text("body").as_bytes());
            (value, VerifyingKeys::new(secret))
        };
        assert_eq!(token, text("signature"), "{}", text("name"));
        let (id, stamp, body) = (text("id"), timestamp.to_string(), text("body").as_bytes());
        assert_eq!(keys.verify(id, &stamp, &token, body, timestamp), Ok(()));
        assert_eq!(
            keys.verify(id, &stamp, &token, &[body, b" "].concat(), timestamp),
            Err(VerifyError::Signature)
        );
    }
}

#[test]
fn v1a_stands_first_and_the_current_secret_last() {
    let keys =
        SigningKeys { previous: vec![secret(1), secret(2)], current: secret(3), ed25519: Some(ed25519()) };
    let value = keys.sign(ID, NOW, BODY);
    let tokens: Vec<&str> = value.split(' ').collect();
    assert_eq!(
        tokens.iter().map(|token| token.split_once(',').unwrap().0).collect::<Vec<_>>(),
        ["v1a", "v1", "v1", "v1"]
    );
    for (token, byte) in tokens[1..].iter().zip(1..) {
        assert_eq!(*token, SigningKeys::new(secret(byte)).sign(ID, NOW, BODY));
        assert_eq!(VerifyingKeys::new(secret(byte)).verify_headers(&headers(&value), BODY, NOW), Ok(ID));
    }
    let public_only = VerifyingKeys { public_keys: vec![ed25519().public_key()], ..VerifyingKeys::default() };
    assert_eq!(public_only.verify_headers(&headers(&value), BODY, NOW), Ok(ID));
    // Any of a receiver's own keys will do as well.
    for secrets in [vec![secret(9), secret(3)], vec![secret(3), secret(9)]] {
        let several = VerifyingKeys { secrets, ..VerifyingKeys::default() };
        assert_eq!(several.verify_headers(&headers(&value), BODY, NOW), Ok(ID));
    }
}

/// Each entry of the list in the test data, which this test must know.
#[test]
fn what_a_receiver_must_refuse() {
    let keys = VerifyingKeys::new(secret(1));
    let good = SigningKeys::new(secret(1)).sign(ID, NOW, BODY);
    assert_eq!(keys.verify_headers(&headers(&good), BODY, NOW), Ok(ID));
    let with = |name: &'static str, value: &str| {
        let mut headers = headers(&good);
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        keys.verify_headers(&headers, BODY, NOW).map(str::to_owned)
    };
    let must_refuse = facts()["a_receiver_must_refuse"].as_array().unwrap().clone();
    assert_eq!(must_refuse.len(), 8);
    for what in must_refuse {
        match what.as_str().unwrap() {
            "missing header" => {
                for name in [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER] {
                    let refused = Err(VerifyError::Header(name));
                    let mut headers = headers(&good);
                    let value = headers.remove(name).unwrap();
                    assert_eq!(keys.verify_headers(&headers, BODY, NOW), refused);
                    assert_eq!(with(name, ""), Err(VerifyError::Header(name)));
                    headers.append(name, value.clone());
                    headers.append(name, value);
                    assert_eq!(keys.verify_headers(&headers, BODY, NOW), refused, "doubled");
                }
            }
            "timestamp not a number" => {
                let values = ["x", "1800000000.0", "+1800000000", "-1", "1e9", "0x1", "1800000000 1"];
                for value in values.into_iter().chain(["9999999999999999999999"]) {
                    assert_eq!(with(TIMESTAMP_HEADER, value), Err(VerifyError::Timestamp), "{value}");
                }
            }
            "timestamp more than 300 s away, either way" => {
                for (skew_s, accepted) in [(-301, false), (-300, true), (300, true), (301, false)] {
                    let expected = if accepted { Ok(ID) } else { Err(VerifyError::Clock { skew_s }) };
                    assert_eq!(keys.verify_headers(&headers(&good), BODY, NOW - skew_s), expected);
                }
            }
            "empty v1" => {
                for value in ["v1,", "v1", ",", " ", "v1, v1,"] {
                    assert_eq!(with(SIGNATURE_HEADER, value), Err(VerifyError::Signature), "{value:?}");
                }
            }
            "truncated signature" => {
                for end in 1..good.trim_end_matches('=').len() {
                    assert_eq!(with(SIGNATURE_HEADER, &good[..end]), Err(VerifyError::Signature), "{end}");
                }
            }
            "only a v2 token" => {
                for version in ["v2", "v1a", "V1", "v10", ""] {
                    let token = good.replace("v1,", &format!("{version},"));
                    assert_eq!(with(SIGNATURE_HEADER, &token), Err(VerifyError::Signature));
                    // Beside a good one it is passed over.
                    assert_eq!(with(SIGNATURE_HEADER, &format!("{token} {good}")), Ok(ID.to_owned()));
                }
            }
            "another body" => {
                for body in [&b""[..], b"{}", br#"{"type":"payment.posted"} "#] {
                    let headers = headers(&good);
                    assert_eq!(keys.verify_headers(&headers, body, NOW), Err(VerifyError::Signature));
                }
            }
            "another id" => assert_eq!(with(ID_HEADER, "evt_02"), Err(VerifyError::Signature)),
            unknown => panic!("no test for {unknown}"),
        }
    }
    let other_secret = SigningKeys::new(secret(2)).sign(ID, NOW, BODY);
    assert_eq!(with(SIGNATURE_HEADER, &other_secret), Err(VerifyError::Signature));
    assert_eq!(with(TIMESTAMP_HEADER, "1800000001"), Err(VerifyError::Signature));
    assert_eq!(with(TIMESTAMP_HEADER, "01800000000"), Err(VerifyError::Signature));
}

/// `a.1` at 2 and `a` at 1 with the body `2.…` would sign the same text.
#[test]
fn ids_hold_no_full_stop() {
    let key = secret(1);
    let mac = key.0.mac(&[b"a.1800000000.1800000000.x"]);
    let signature = format!("v1,{}", encode_base64(&mac));
    let keys = VerifyingKeys::new(key.clone());
    assert_eq!(keys.verify("a", "1800000000", &signature, b"1800000000.x", NOW), Ok(()));
    assert_eq!(keys.verify("a.1800000000", "1800000000", &signature, b"x", NOW), Err(VerifyError::Id));
    let signing = std::panic::catch_unwind(|| SigningKeys::new(key).sign("a.1", NOW, BODY));
    assert!(signing.is_err());
}

#[test]
fn tokens_read_are_bounded() {
    let keys = VerifyingKeys::new(secret(1));
    let good = SigningKeys::new(secret(1)).sign(ID, NOW, BODY);
    let value = |others: usize| format!("{}{good}", "v9,AAAA ".repeat(others));
    assert_eq!(keys.verify_headers(&headers(&value(31)), BODY, NOW), Ok(ID));
    assert_eq!(keys.verify_headers(&headers(&value(32)), BODY, NOW), Err(VerifyError::Signature));
}

#[test]
fn keys_in_text() {
    let length = |bytes, min, max| SecretError::Length { bytes, min, max };
    let whsec = |bytes: usize| format!("whsec_{}", encode_base64(&vec![5; bytes]));
    for (bytes, accepted) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
        let expected = if accepted { None } else { Some(length(bytes, 24, 64)) };
        assert_eq!(Secret::parse(&whsec(bytes)).err(), expected, "{bytes} bytes");
    }
    assert!(Secret::parse(&format!(" {}\n", whsec(32).trim_end_matches('='))).is_ok());
    assert_eq!(Secret::text_of(&[5; 32]).as_str(), whsec(32));
    assert_eq!(Secret::parse("whsk_AAAA").err(), Some(SecretError::Prefix("whsec_")));
    assert_eq!(Secret::parse(&whsec(32).replace("BQUF", "B_-F")).err(), Some(SecretError::Base64));

    let text = |prefix: &str, bytes: &[u8]| format!("{prefix}{}", encode_base64(bytes));
    let public = ed25519().public_key();
    let pair = ed25519().0.to_keypair_bytes();
    assert_eq!(SigningKey::parse(&text("whsk_", &[3; 32])).unwrap().public_key(), public);
    assert_eq!(SigningKey::parse(&text("whsk_", &pair)).unwrap().public_key(), public);
    let mut torn = pair;
    torn[40] ^= 1;
    assert_eq!(SigningKey::parse(&text("whsk_", &torn)).err(), Some(SecretError::Ed25519));
    assert_eq!(SigningKey::parse(&text("whsk_", &[3; 33])).err(), Some(length(33, 64, 64)));
    assert_eq!(PublicKey::parse(&public.to_string()), Ok(public));
    assert_eq!(PublicKey::parse(&text("whpk_", &[3; 31])), Err(length(31, 32, 32)));
}

#[test]
fn debug_shows_no_secret() {
    let keys = SigningKeys { ed25519: Some(ed25519()), ..SigningKeys::new(secret(1)) };
    let shown = format!("{keys:?}");
    assert_eq!(
        shown,
        format!(
            "SigningKeys {{ previous: [], current: Secret(…), ed25519: Some(SigningKey(… of {})) }}",
            ed25519().public_key()
        )
    );
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        id in "[!-\\-/-~]{1,40}", timestamp in 0..=999_999_999_999_999_i64,
        body in prop::collection::vec(any::<u8>(), 0..300), with_ed25519: bool,
    ) {
        let signing = SigningKeys { ed25519: with_ed25519.then(ed25519), ..SigningKeys::new(secret(1)) };
        let value = signing.sign(&id, timestamp, &body);
        let keys = VerifyingKeys::new(secret(1));
        prop_assert_eq!(keys.verify(&id, &timestamp.to_string(), &value, &body, timestamp), Ok(()));
    }

    #[test]
    fn nothing_received_panics_or_passes(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 3),
        token in "(v1|v1a|v2)?,?[A-Za-z0-9+/=, ]{0,90}",
    ) {
        let keys = VerifyingKeys { public_keys: vec![ed25519().public_key()], ..VerifyingKeys::new(secret(1)) };
        let mut random = HeaderMap::new();
        for (name, value) in [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER].into_iter().zip(&values) {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                random.insert(name, value);
            }
        }
        prop_assert!(keys.verify_headers(&random, BODY, NOW).is_err());
        prop_assert!(keys.verify_headers(&headers(&token), BODY, NOW).is_err());
    }

    #[test]
    fn every_changed_bit_is_noticed(byte in 0..96usize, bit in 0..8u32) {
        let signing = SigningKeys { ed25519: Some(ed25519()), ..SigningKeys::new(secret(1)) };
        let value = signing.sign(ID, NOW, BODY);
        let (v1a, v1) = value.split_once(' ').unwrap();
        let (version, token, byte) = if byte < 32 { ("v1", v1, byte) } else { ("v1a", v1a, byte - 32) };
        let mut signature = decode_base64(token.split_once(',').unwrap().1).unwrap();
        signature[byte] ^= 1 << bit;
        let changed = format!("{version},{}", encode_base64(&signature));
        let keys = VerifyingKeys { public_keys: vec![ed25519().public_key()], ..VerifyingKeys::new(secret(1)) };
        let stamp = NOW.to_string();
        prop_assert_eq!(keys.verify(ID, &stamp, token, BODY, NOW), Ok(()));
        prop_assert_eq!(keys.verify(ID, &stamp, &changed, BODY, NOW), Err(VerifyError::Signature));
    }
}
