//! What holds for every request.

use proptest::prelude::*;

use super::{super::Fault, *};

/// Pieces that look like structured fields, so that the visitors are reached and not only the parser's errors.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "sig",
        "=",
        "(",
        ")",
        "\"@method\"",
        "\"@authority\"",
        "\"@path\"",
        "\"@query\"",
        "\"date\"",
        " ",
        ";",
        "created",
        "keyid",
        "expires",
        "nonce",
        "alg",
        "\"key_01\"",
        "1800000000",
        "-0",
        ":AAAA:",
        "sha-256",
        ", ",
        "\"hmac-sha256\"",
        "?1",
        "1.5",
        "@5",
        "%\"a\"",
        "\\",
        "\"",
    ];
    let alike = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        alike.prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];
    let value = "[!-~]([ -~]{0,30}[!-~])?";
    (
        prop::sample::select(methods.to_vec()),
        "[a-z.]{1,20}(:[0-9]{1,5})?",
        "/[!-~]{0,30}",
        value,
        any::<bool>(),
    )
        .prop_flat_map(move |parts| (Just(parts), prop::option::of("[!-~]{0,30}"), value))
        .prop_map(|((method, authority, path, header, has_body), query, other)| {
            let mut request = Request { method, authority, path, query, has_body, ..Request::post() };
            request.set("idempotency-key", &header);
            request.set("if-match", &other);
            request
        })
}

proptest! {
    #[test]
    fn no_header_bytes_panic(lines in prop::collection::vec((0..3usize, field()), 0..5), has_body: bool) {
        let mut request = Request { has_body, ..Request::get() };
        for (header, value) in lines {
            let name = ["signature-input", "signature", "content-digest"][header];
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers.append(name, value);
            }
        }
        prop_assert!(request.verify().is_err());
        let _ = content_digest::verify(&request.headers, BODY);
    }

    #[test]
    fn what_is_signed_verifies(request in request(), key_id in "[ -~]{0,40}", nonce in prop::option::of("[ -~]{0,40}")) {
        let mut request = request;
        let headers = sign(&request.parts(), &key_id, &key(), NOW, nonce.as_deref()).unwrap();
        headers.insert_into(&mut request.headers);
        let signature = Signature::parse(&request.parts(), |id| id == key_id).unwrap();
        prop_assert_eq!(signature.key_id(), &key_id);
        prop_assert_eq!(signature.verify(Some(&key())), Ok(()));
    }

    #[test]
    fn every_changed_part_is_noticed(request in request()) {
        let signed = request.signed();
        prop_assert_eq!(signed.verify(), Ok(()));
        let covered: Vec<String> = signed.parse().unwrap().components().map(str::to_owned).collect();
        for name in &covered {
            let mut changed = signed.clone();
            match name.as_str() {
                "@method" => changed.method = Method::from_bytes(b"QUERY").unwrap(),
                "@authority" => changed.authority.push('x'),
                "@path" => changed.path.push('x'),
                "@query" => changed.query.get_or_insert_default().push('x'),
                field => {
                    let value = format!("{}x", changed.headers[field].to_str().unwrap());
                    changed.set(field, &value);
                }
            }
            // Another method may need components that the signed one did not.
            let refused = changed.verify().unwrap_err();
            let missing = matches!(refused, Error::ComponentMissing { .. }) && name == "@method";
            prop_assert!(missing || refused == Fault::Unverified.into(), "{}: {}", name, refused);
        }
    }

    #[test]
    fn every_changed_bit_of_the_mac_is_noticed(byte in 0..32usize, bit in 0..8u32) {
        let mut request = Request::get().signed();
        let value = request.headers["signature"].to_str().unwrap().to_owned();
        let mut mac = crate::secret::decode_base64(value.trim_start_matches("sig=:").trim_end_matches(':')).unwrap();
        mac[byte] ^= 1 << bit;
        request.set("signature", &format!("sig=:{}:", crate::secret::encode_base64(&mac)));
        prop_assert_eq!(request.verify(), Err(Fault::Unverified.into()));
    }
}

/// Each parameter is covered too.
#[test]
fn every_changed_parameter_is_noticed() {
    let components = ["@method", "@authority", "@path", "@query"];
    let params = ";created=1800000000;expires=1800000009;keyid=\"key_01\";nonce=\"n\";alg=\"hmac-sha256\"";
    let signed = Request::get().signed_as("sig", &components, params);
    assert_eq!(signed.verify(), Ok(()));
    let input = signed.headers["signature-input"].to_str().unwrap();
    let changes = [
        ("created=1800000000", "created=1800000001"),
        ("expires=1800000009", "expires=1800000008"),
        (";expires=1800000009", ""),
        ("nonce=\"n\"", "nonce=\"m\""),
        (";nonce=\"n\"", ""),
        (";alg=\"hmac-sha256\"", ""),
        ("\"@path\" \"@query\"", "\"@query\" \"@path\""),
    ];
    for (from, to) in changes {
        let mut request = signed.clone();
        assert!(input.contains(from));
        request.set("signature-input", &input.replace(from, to));
        assert_eq!(request.verify(), Err(Fault::Unverified.into()), "{from} → {to}");
    }
}
