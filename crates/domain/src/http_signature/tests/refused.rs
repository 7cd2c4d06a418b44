//! Requests that must be refused, each with its own reason.

use super::{super::Fault, *};

const GET: [&str; 4] = ["@method", "@authority", "@path", "@query"];
const PARAMS: &str = ";created=1800000000;keyid=\"key_01\"";

fn component(name: &str) -> String {
    name.to_owned()
}

/// A GET whose `Signature-Input` is `input` under the label `sig`; its MAC has the right length only.
fn with_input(input: &str) -> Request {
    let mut request = Request::get();
    request.set("signature-input", input);
    request.set("signature", "sig=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:");
    request
}

#[test]
fn every_required_component_must_be_covered_and_there() {
    let mut whole = Request { method: Method::PATCH, ..Request::post() };
    whole.set("if-match", "\"3\"");
    let all: Vec<&str> = super::super::profile::required(&whole.parts()).collect();
    assert_eq!(all.len(), 8);
    for name in &all {
        let others: Vec<&str> = all.iter().copied().filter(|other| other != name).collect();
        let error = whole.clone().signed_as("sig", &others, PARAMS).verify().unwrap_err();
        assert_eq!(error, Error::ComponentMissing { component: component(name) });
        assert_eq!((error.code(), error.component()), ("component_missing", Some(*name)));
    }
    for name in &all[4..] {
        let mut request = whole.clone();
        request.headers.remove(*name);
        let absent = Error::ComponentAbsent { component: component(name) };
        assert_eq!(sign(&request.parts(), KEY_ID, &key(), NOW, None), Err(absent.clone()));
        let mut request = whole.clone().signed();
        request.headers.remove(*name);
        assert_eq!(request.verify(), Err(absent));
    }
}

#[test]
fn unsigned_requests() {
    for (header, name) in [("signature-input", "Signature-Input"), ("signature", "Signature")] {
        let mut request = Request::post().signed();
        request.headers.remove(header);
        let error = request.verify().unwrap_err();
        assert_eq!(error, Error::SignatureMissing { header: name });
        assert_eq!(error.code(), "signature_missing");
    }
    assert_eq!(with_input("").verify(), Err(Error::SignatureMissing { header: "Signature-Input" }));
}

#[test]
fn inputs_that_the_profile_forbids() {
    let refused =
        |parameter: &str, problem| Fault::ParameterRefused { parameter: parameter.to_owned(), problem };
    let malformed = Fault::Malformed { header: "Signature-Input" };
    let number = "must be a whole number of seconds";
    let text = "must be a string";
    let unsupported = |name: &str| Fault::ComponentUnsupported { component: component(name) };
    let parameters = |name: &str| Fault::ComponentParameters { component: component(name) };
    let cases: Vec<(&str, &str, Fault)> = vec![
        ("", "", Fault::ParameterMissing { parameter: "created" }),
        ("", ";created=1800000000", Fault::ParameterMissing { parameter: "keyid" }),
        ("", ";created=\"1800000000\";keyid=\"key_01\"", refused("created", number)),
        ("", ";created=1800000000.0;keyid=\"key_01\"", refused("created", number)),
        ("", ";created=@1800000000;keyid=\"key_01\"", refused("created", number)),
        ("", ";created;keyid=\"key_01\"", refused("created", number)),
        ("", ";created=1800000000;keyid=key_01", refused("keyid", text)),
        ("", ";created=1800000000;keyid=\"key_01\";nonce=:AAAA:", refused("nonce", text)),
        ("", ";created=1800000000;keyid=\"key_01\";expires=?1", refused("expires", number)),
        ("", ";created=1;created=1800000000;keyid=\"key_01\"", refused("created", "stands twice")),
        ("", ";created=1800000000;keyid=\"key_01\";keyid=\"key_01\"", refused("keyid", "stands twice")),
        ("", ";created=1800000000;keyid=\"key_01\";expires=1;expires=2", refused("expires", "stands twice")),
        ("", ";nonce=\"\";nonce=\"\"", refused("nonce", "stands twice")),
        ("", ";alg=\"hmac-sha256\";alg=\"hmac-sha256\"", refused("alg", "stands twice")),
        ("", ";created=1800000000;keyid=\"key_01\";tag=\"a\"", refused("tag", "is not accepted")),
        ("", ";alg=\"rsa-v1_5-sha256\"", refused("alg", "must be \"hmac-sha256\" or left out")),
        ("", ";alg=\"HMAC-SHA256\"", refused("alg", "must be \"hmac-sha256\" or left out")),
        ("", ";alg=hmac-sha256", refused("alg", "must be \"hmac-sha256\" or left out")),
        (" \"@path\"", PARAMS, Fault::ComponentTwice { component: component("@path") }),
        (" \"host\" \"host\"", PARAMS, Fault::ComponentTwice { component: component("host") }),
        (" \"date\";sf", PARAMS, parameters("date")),
        (" \"date\";bs", PARAMS, parameters("date")),
        (" \"@target-uri\";req", PARAMS, parameters("@target-uri")),
        (" \"date\";key=\"a\"", PARAMS, parameters("date")),
        (" \"date\";tr", PARAMS, parameters("date")),
        (" \"@query-param\";name=\"a\"", PARAMS, parameters("@query-param")),
        (" \"@scheme\"", PARAMS, unsupported("@scheme")),
        (" \"@status\"", PARAMS, unsupported("@status")),
        (" \"@signature-params\"", PARAMS, unsupported("@signature-params")),
        (" \"Date\"", PARAMS, unsupported("Date")),
        (" \"\"", PARAMS, unsupported("")),
        (" \"@\"", PARAMS, unsupported("@")),
        (" \"a: b\"", PARAMS, unsupported("a: b")),
        (" date", PARAMS, malformed.clone()),
        (" 1", PARAMS, malformed.clone()),
        (")", PARAMS, malformed.clone()),
    ];
    for (components, params, fault) in cases {
        let input = format!("sig=(\"@method\" \"@authority\" \"@path\" \"@query\"{components}){params}");
        assert_eq!(with_input(&input).verify(), Err(Error::SignatureInvalid(fault)), "{input}");
    }
    for input in
        ["sig", "sig=1", "sig=:AAAA:", "sig=\"a\"", "sig=(", "SIG=()", "sig=(),", "sig=() x", "=", "é=()"]
    {
        assert_eq!(with_input(input).verify(), Err(malformed.clone().into()), "{input}");
    }
}

#[test]
fn signatures_that_are_no_mac() {
    let invalid = |label: &str, signature: &str| {
        let mut request = Request::get().signed_as(label, &GET, PARAMS);
        request.set("signature", signature);
        match request.verify() {
            Err(Error::SignatureInvalid(fault)) => fault,
            other => panic!("{signature}: {other:?}"),
        }
    };
    let malformed = Fault::Malformed { header: "Signature" };
    let without = Fault::LabelWithoutSignature { label: "sig".to_owned() };
    let twice = Fault::LabelTwice { label: "sig".to_owned(), header: "Signature" };
    assert_eq!(invalid("sig", "other=:AAAA:"), without);
    assert_eq!(invalid("sig", "sig=\"AAAA\""), without);
    assert_eq!(invalid("sig", "sig=(:AAAA:)"), without);
    assert_eq!(invalid("sig", "sig"), without);
    assert_eq!(invalid("sig", ""), without);
    assert_eq!(invalid("sig", "sig=:AAAA"), malformed);
    assert_eq!(invalid("sig", "sig=:A A:"), malformed);
    assert_eq!(invalid("sig", "sig=::"), Fault::MacLength { bytes: 0 });
    assert_eq!(invalid("sig", "sig=:AAAA:"), Fault::MacLength { bytes: 3 });
    assert_eq!(invalid("sig", "sig=:AAAA:, sig=:AAAA:"), twice);
    let zeros = "sig=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    assert_eq!(invalid("sig", zeros), Fault::Unverified);
}

#[test]
fn more_than_one_signature_that_could_count() {
    let ambiguous = |second: &str| Fault::Ambiguous { first: "a".to_owned(), second: second.to_owned() };
    let valid = Request::get().signed_as("a", &GET, PARAMS);
    assert_eq!(valid.verify(), Ok(()));
    assert_eq!(valid.clone().signed_as("b", &GET, PARAMS).verify(), Err(ambiguous("b").into()));
    // Two known keys: whose request would it be?
    let two = valid.signed_as("b", &GET, ";created=1800000000;keyid=\"key_02\"");
    let parsed = Signature::parse(&two.parts(), |_| true);
    assert_eq!(parsed.unwrap_err(), ambiguous("b").into());
    assert_eq!(two.verify(), Ok(()));
    // The same answer for keys that do not exist.
    let unknown = ";created=1800000000;keyid=\"nobody\"";
    let unknown = Request::get().signed_as("a", &GET, unknown).signed_as("b", &GET, unknown);
    assert_eq!(unknown.verify(), Err(ambiguous("b").into()));

    let twice = Request::get().signed_as("a", &GET, PARAMS).signed_as("a", &GET, PARAMS);
    let fault = Fault::LabelTwice { label: "a".to_owned(), header: "Signature-Input" };
    assert_eq!(twice.verify(), Err(fault.into()));
}

#[test]
fn counts_are_bounded() {
    let labels = (0..9).map(|n| format!("l{n}=()")).collect::<Vec<_>>().join(", ");
    assert_eq!(with_input(&labels).verify(), Err(Fault::TooMany { things: "labels", max: 8 }.into()));
    let components = (0..33).map(|n| format!("\"h{n}\"")).collect::<Vec<_>>().join(" ");
    let fault = Fault::TooMany { things: "covered components", max: 32 };
    assert_eq!(with_input(&format!("sig=({components}){PARAMS}")).verify(), Err(fault.into()));
}

#[test]
fn unknown_keys_and_wrong_macs_get_one_answer() {
    let unverified = Err(Error::from(Fault::Unverified));
    let unknown = Request::get().signed_as("sig", &GET, ";created=1800000000;keyid=\"key_02\"");
    assert_eq!(unknown.verify(), unverified);
    let signature = Request::get().signed().parse().unwrap();
    assert_eq!(signature.verify(Some(&HmacKey::new(&[8; 32]).unwrap())), unverified);
    assert_eq!(signature.verify(None), unverified);
    assert_eq!(Error::from(Fault::Unverified).code(), "signature_invalid");
    // Whoever guesses the stand-in key gains nothing.
    let stand_in = HmacKey::new(&[0x5a; 32]).unwrap();
    let mut request = Request::get();
    sign(&request.parts(), "key_02", &stand_in, NOW, None).unwrap().insert_into(&mut request.headers);
    assert_eq!(request.parse().unwrap().verify(Some(&stand_in)), Ok(()));
    assert_eq!(request.verify(), Err(Fault::Unverified.into()));
}

#[test]
fn expired_signatures() {
    let outlived = Request::get().signed_as("sig", &GET, &format!("{PARAMS};expires=1799999999"));
    let error = outlived.verify().unwrap_err();
    assert_eq!((&error, error.code()), (&Error::SignatureOutlived { ago_s: 1 }, "signature_expired"));
    let old = Request::get().signed_as("sig", &GET, ";created=1799999699;keyid=\"key_01\"");
    let error = old.verify().unwrap_err();
    assert_eq!((&error, error.code()), (&Error::SignatureExpired { skew_s: -301 }, "signature_expired"));
    assert!(error.to_string().contains("301 s behind the server's clock"), "{error}");
}

#[test]
fn values_outside_ascii() {
    let mut request = Request::post().signed();
    request.headers.insert("idempotency-key", HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap());
    let not_ascii = |name: &str| Err(Fault::ComponentNotAscii { component: component(name) }.into());
    assert_eq!(request.verify(), not_ascii("idempotency-key"));
    let request = Request { path: "/é".to_owned(), ..Request::get().signed() };
    assert_eq!(request.verify(), not_ascii("@path"));
    let request = Request { query: Some("a\n\"@path\": /b".to_owned()), ..Request::get().signed() };
    assert_eq!(request.verify(), not_ascii("@query"));
    let request = Request { authority: "bänk".to_owned(), ..Request::get().signed() };
    assert_eq!(request.verify(), not_ascii("@authority"));
    for key_id in ["é", "a\nb"] {
        let refused = sign(&Request::get().parts(), key_id, &key(), NOW, None).unwrap_err();
        assert!(matches!(refused, Error::SignatureInvalid(Fault::ParameterRefused { .. })), "{refused}");
    }
}

#[test]
fn messages_repeat_only_the_beginning_of_what_was_sent() {
    let name = "x".repeat(3_000);
    let input = format!("sig=(\"@method\" \"@authority\" \"@path\" \"@query\" \"{name}\"){PARAMS}");
    let error = with_input(&input).verify().unwrap_err();
    assert_eq!(error, Error::ComponentAbsent { component: format!("{}…", "x".repeat(64)) });
}
