//! Every known way to forge a token, made by hand, since a library would refuse to.

use ed25519_dalek::Signer as _;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://bank.example";

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn signer() -> Signer {
    Signer::new(ISSUER.to_owned(), &key(1), &[key(2)]).unwrap()
}

fn bearer() -> Bearer {
    Bearer { user: UserId::from_uuid(Uuid::from_u128(7)), session: Uuid::from_u128(8) }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn header(of: &SigningKey) -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": public(of).0})
}

fn claims() -> Value {
    let now = now_s();
    json!({
        "iss": ISSUER, "aud": ISSUER, "sub": bearer().user, "sid": bearer().session, "iat": now, "exp": now + LIFETIME_S
    })
}

fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let signature = key.sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", base64(signature))
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).unwrap();
    object
}

#[test]
fn a_token_of_any_of_our_keys_is_taken() {
    let signer = signer();
    let token = signer.issue(bearer()).unwrap();
    assert_eq!(signer.verify(&token), Some(bearer()));
    for key in [key(1), key(2)] {
        assert_eq!(signer.verify(&sign(&key, &header(&key), &claims())), Some(bearer()));
    }
    // A rotation: the next key signs, the last one still verifies, and then no more.
    let next = Signer::new(ISSUER.to_owned(), &key(2), &[key(1)]).unwrap();
    assert_eq!(next.verify(&token), Some(bearer()));
    assert_eq!(signer.verify(&next.issue(bearer()).unwrap()), Some(bearer()));
    let later = Signer::new(ISSUER.to_owned(), &key(2), &[]).unwrap();
    assert_eq!(later.verify(&token), None);
    let kids: Vec<_> = signer.jwks()["keys"].as_array().unwrap().iter().map(|it| it["kid"].clone()).collect();
    assert_eq!(kids, [json!(public(&key(1)).0), json!(public(&key(2)).0)]);
}

/// RFC 8037, appendix A.3.
#[test]
fn a_key_id_is_its_thumbprint() {
    let secret = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = SigningKey::from_bytes(&secret.try_into().unwrap());
    assert_eq!(public(&key).0, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn other_algorithms_are_refused_whoever_signed() {
    let signer = signer();
    let (good, claims) = (header(&key(1)), claims());
    for alg in ["none", "None", "NONE", "HS256", "ES256", "RS256", "", "EdDSA "] {
        let forged = sign(&key(1), &with(good.clone(), "alg", json!(alg)), &claims);
        assert_eq!(signer.verify(&forged), None, "{alg}");
        let unsigned = forged.rsplit_once('.').unwrap().0.to_owned() + ".";
        assert_eq!(signer.verify(&unsigned), None, "{alg}");
        assert_eq!(signer.verify(unsigned.trim_end_matches('.')), None, "{alg}");
    }
    assert_eq!(signer.verify(&sign(&key(1), &without(good.clone(), "alg"), &claims)), None);
    // The public key as the secret of an HMAC, in every form in which somebody could have it.
    let public_key = *key(1).verifying_key().as_bytes();
    for secret in
        [public_key.to_vec(), base64(public_key).into_bytes(), signer.jwks().to_string().into_bytes()]
    {
        let message = format!(
            "{}.{}",
            base64(with(good.clone(), "alg", json!("HS256")).to_string()),
            base64(claims.to_string())
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        mac.update(message.as_bytes());
        assert_eq!(signer.verify(&format!("{message}.{}", base64(mac.finalize().into_bytes()))), None);
    }
}

#[test]
fn every_claim_is_required_and_checked() {
    let signer = signer();
    let header = header(&key(1));
    let verify = |claims: &Value| signer.verify(&sign(&key(1), &header, claims));
    assert_eq!(verify(&claims()), Some(bearer()));
    for name in ["iss", "aud", "sub", "sid", "iat", "exp"] {
        assert_eq!(verify(&without(claims(), name)), None, "{name}");
        assert_eq!(verify(&with(claims(), name, Value::Null)), None, "{name}");
        assert_eq!(verify(&with(claims(), name, json!("other"))), None, "{name}");
    }
    for (name, value) in [
        ("iss", json!([ISSUER])),
        ("aud", json!("https://bank.example.evil.example")),
        ("aud", json!([])),
        ("sub", json!("acct_00000000000000000000000007")),
        ("exp", json!(1e300)),
        ("exp", json!(-1)),
        ("exp", json!(u64::MAX)),
        ("iat", json!(0)),
    ] {
        assert_eq!(verify(&with(claims(), name, value.clone())), None, "{name}: {value}");
    }
}

#[test]
fn clocks_may_differ_a_little_and_a_token_lives_no_longer_than_ours() {
    let signer = signer();
    let verify = |iat: i64, exp: i64| {
        let at = |seconds: i64| json!(now_s().checked_add_signed(seconds).unwrap());
        let claims = with(with(claims(), "iat", at(iat)), "exp", at(exp));
        signer.verify(&sign(&key(1), &header(&key(1)), &claims)).is_some()
    };
    let (life, skew) = (LIFETIME_S as i64, SKEW_S as i64);
    assert!(verify(0, life));
    assert!(verify(-life + 1, 1));
    assert!(verify(-life, 0) && verify(-life - skew + 2, -skew + 2), "expired within the skew");
    assert!(!verify(-life - skew - 2, -skew - 2), "expired");
    assert!(verify(skew, life), "issued by a clock that is ahead");
    assert!(!verify(skew + 3, life), "issued in the future");
    assert!(!verify(0, life + 1), "valid for longer than we issue");
    assert!(!verify(10, 5), "ends before it begins");
}

#[test]
fn foreign_keys_and_tampered_tokens_are_refused() {
    let signer = signer();
    let good = sign(&key(1), &header(&key(1)), &claims());
    let foreign = [
        sign(&key(9), &header(&key(9)), &claims()),
        sign(&key(9), &header(&key(1)), &claims()),
        sign(&key(2), &header(&key(1)), &claims()),
        sign(&key(1), &without(header(&key(1)), "kid"), &claims()),
        sign(&key(1), &with(header(&key(1)), "kid", json!("../../etc/passwd")), &claims()),
        // A key that the token brings along.
        sign(
            &key(9),
            &with(with(header(&key(9)), "jwk", signer.jwks()["keys"][0].clone()), "jku", json!("x")),
            &claims(),
        ),
    ];
    for token in foreign {
        assert_eq!(signer.verify(&token), None, "{token}");
    }
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = base64(with(claims(), "sub", json!(UserId::from_uuid(Uuid::from_u128(9)))).to_string());
    for token in [
        format!("{head}.{other}.{signature}"),
        format!("{head}.{body}.{}", base64([0; 64])),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        String::new(),
        "...".to_owned(),
        format!("{good}{}", "A".repeat(BYTES_MAX)),
    ] {
        assert_eq!(signer.verify(&token), None, "{token}");
    }
}
