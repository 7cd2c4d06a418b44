//! Requests that the profile accepts.

use super::{super::Fault, *};

const POST: [&str; 7] =
    ["@method", "@authority", "@path", "@query", "content-digest", "content-type", "idempotency-key"];
const PARAMS: &str = ";created=1800000000;keyid=\"key_01\"";

#[test]
fn signing_covers_exactly_the_profile() {
    let write = ["idempotency-key", "if-match"];
    let cases: [(Method, bool, &[&str]); 7] = [
        (Method::GET, false, &[]),
        (Method::GET, true, &["content-digest", "content-type"]),
        (Method::POST, false, &["idempotency-key"]),
        (Method::POST, true, &["content-digest", "content-type", "idempotency-key"]),
        (Method::PUT, false, &["idempotency-key"]),
        (Method::PATCH, true, &["content-digest", "content-type", "idempotency-key", "if-match"]),
        (Method::DELETE, false, &write),
    ];
    for (method, has_body, further) in cases {
        let mut request = Request { method: method.clone(), has_body, ..Request::post() };
        request.set("if-match", "\"3\"");
        let request = request.signed();
        let signature = request.parse().unwrap();
        let expected: Vec<_> = POST[..4].iter().chain(further).copied().collect();
        assert_eq!(signature.components().collect::<Vec<_>>(), expected, "{method}, body: {has_body}");
        assert_eq!(request.verify(), Ok(()));
    }
}

#[test]
fn the_base_is_the_text_that_was_signed() {
    let request = Request::post().signed();
    let signature = request.parse().unwrap();
    assert_eq!(
        signature.base(),
        "\"@method\": POST\n\"@authority\": api.bank.example\n\"@path\": /v1/payments\n\"@query\": ?\n\
         \"content-digest\": sha-256=:1R2hJv6R6hfDl7KJt7DSn7FzlTinxL0Ti4NqZC5O61A=:\n\
         \"content-type\": application/json\n\"idempotency-key\": order-4711\n\
         \"@signature-params\": (\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\" \
         \"content-type\" \"idempotency-key\");created=1800000000;keyid=\"key_01\""
    );
    assert_eq!((signature.key_id(), signature.created(), signature.clock_skew_s(NOW + 5)), (KEY_ID, NOW, -5));
}

#[test]
fn label_order_and_parameters_are_free() {
    let reversed: Vec<&str> = POST.iter().rev().copied().collect();
    let params = [
        PARAMS,
        ";keyid=\"key_01\";created=1800000000",
        ";created=1800000000;keyid=\"key_01\";alg=\"hmac-sha256\"",
        ";alg=\"hmac-sha256\";nonce=\"a\\\"b\\\\c\";created=1800000000;expires=1800000000;keyid=\"key_01\"",
    ];
    for label in ["sig1", "pyhms", "*x-_.2"] {
        for params in params {
            for components in [&POST[..], &reversed] {
                assert_eq!(Request::post().signed_as(label, components, params).verify(), Ok(()), "{params}");
            }
        }
    }
}

#[test]
fn other_spacing_of_the_same_list_is_the_same_signature() {
    let mut request = Request::post().signed();
    let input = request.headers["signature-input"].to_str().unwrap();
    let spaced = input.replace("\" \"", "\"   \"").replace('(', "(  ").replace(')', " )").replace(';', "; ");
    request.set("signature-input", &spaced);
    assert_eq!(request.verify(), Ok(()));
}

#[test]
fn further_header_fields_may_be_covered() {
    let mut request = Request::post();
    request.set("x-trace", "1");
    request.add("x-trace", "2");
    let components: Vec<_> = POST.iter().copied().chain(["x-trace"]).collect();
    let mut request = request.signed_as("sig", &components, PARAMS);
    assert_eq!(request.verify(), Ok(()));
    request.add("x-trace", "3");
    assert_eq!(request.verify(), Err(Fault::Unverified.into()));
}

#[test]
fn signatures_by_other_keys_are_passed_over() {
    let mut request = Request::post();
    // A proxy's, which the profile would refuse thrice over.
    request.add("signature-input", "proxy=(\"@method\";req \"Via\");created=1;keyid=\"p\";tag=\"x\", bare=1");
    request.add("signature", "proxy=:AAAA:, bare=:AAAA:");
    assert_eq!(request.signed_as("sig", &POST, PARAMS).verify(), Ok(()));
}

#[test]
fn the_clock_window_includes_its_ends() {
    let signature = Request::get().signed().parse().unwrap();
    for skew_s in [-300, 0, 300] {
        assert_eq!(signature.check_clock(NOW - skew_s), Ok(()));
    }
    for skew_s in [-301, 301, i64::MIN, i64::MAX] {
        let skew_s = signature.clock_skew_s(NOW.saturating_sub(skew_s));
        assert_eq!(signature.check_clock(NOW - skew_s), Err(Error::SignatureExpired { skew_s }));
    }
}

#[test]
fn debug_shows_no_mac_and_no_base() {
    let request = Request::post().signed();
    let shown = format!("{:?} {:?}", request.parse().unwrap(), key());
    assert_eq!(shown, "Signature { key_id: \"key_01\", created: 1800000000, .. } HmacKey(…)");
    let headers = sign(&request.parts(), KEY_ID, &key(), NOW, None).unwrap();
    assert!(format!("{headers:?}").contains("signature: Sensitive"));
}
