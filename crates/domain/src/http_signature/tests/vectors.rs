//! What others computed: RFC 9421, appendix B.2.5, and the examples of its section 2.

use serde_json::Value;

use super::{super::base, *};

fn facts() -> Value {
    serde_json::from_str(include_str!("../../../testdata/http-message-signatures.json")).unwrap()
}

#[test]
fn rfc_9421_b_2_5() {
    let facts = &facts()["hmac_sha256"];
    let text = |name: &str| facts[name].as_str().unwrap();
    let mut request = Request { authority: text("authority").to_owned(), ..Request::post() };
    request.set("date", text("date"));
    request.set("content-type", text("content_type"));
    let input = text("signature_input");
    let base = base::build(&request.parts(), &["date", "@authority", "content-type"], input).unwrap();
    assert_eq!(
        base,
        format!(
            "\"date\": {}\n\"@authority\": {}\n\"content-type\": {}\n\"@signature-params\": {input}",
            text("date"),
            text("authority"),
            text("content_type")
        )
    );
    let key = HmacKey::from_base64(text("key_base64")).unwrap();
    let mac = key.mac(&[base.as_bytes()]);
    assert_eq!(crate::secret::encode_base64(&mac), text("signature_base64"));

    // Valid as a signature, yet it covers less than the profile wants.
    request.set("signature-input", &format!("sig-b25={input}"));
    request.set("signature", &format!("sig-b25=:{}:", text("signature_base64")));
    assert_eq!(request.parse().unwrap_err(), Error::ComponentMissing { component: "@method".to_owned() });
}

/// RFC 9421, section 2.1: trimmed lines joined by a comma and a space, empty values kept.
#[test]
fn header_fields_are_combined() {
    let mut request = Request::get();
    request.add("x-ows-header", "  Leading and trailing whitespace.   ");
    request.add("cache-control", "max-age=60");
    request.add("cache-control", "\t   must-revalidate ");
    request.add("x-empty-header", "");
    let names = ["cache-control", "x-empty-header", "x-ows-header"];
    assert_eq!(
        base::build(&request.parts(), &names, "()").unwrap(),
        "\"cache-control\": max-age=60, must-revalidate\n\"x-empty-header\": \n\
         \"x-ows-header\": Leading and trailing whitespace.\n\"@signature-params\": ()"
    );
}

/// RFC 9421, sections 2.2.1, 2.2.3, 2.2.6 and 2.2.7.
#[test]
fn derived_components() {
    let cases = [
        ("/", None, "/", "?"),
        ("", None, "/", "?"),
        ("/path", Some(""), "/path", "?"),
        ("/path", Some("param=value&foo=bar&baz=bat%2Dman"), "/path", "?param=value&foo=bar&baz=bat%2Dman"),
        ("/a%2Fb/../c", Some("q?"), "/a%2Fb/../c", "?q?"),
    ];
    for (path, query, signed_path, signed_query) in cases {
        let request = Request {
            authority: "API.Bank.example:8443".to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            ..Request::post()
        };
        assert_eq!(
            base::build(&request.parts(), &["@method", "@authority", "@path", "@query"], "()").unwrap(),
            format!(
                "\"@method\": POST\n\"@authority\": api.bank.example:8443\n\"@path\": {signed_path}\n\
                 \"@query\": {signed_query}\n\"@signature-params\": ()"
            )
        );
    }
}

/// Requests signed by the libraries that partners use.
#[test]
fn independent_libraries() {
    let facts: Value =
        serde_json::from_str(include_str!("../../../testdata/http-message-signatures-libraries.json"))
            .unwrap();
    let body = facts["body"].as_str().unwrap();
    let requests = facts["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 4);
    for signed in requests {
        let uri: http::Uri = signed["url"].as_str().unwrap().parse().unwrap();
        let mut request = Request {
            method: signed["method"].as_str().unwrap().parse().unwrap(),
            // The default port is no part of `@authority`: a server takes it off, and so does this test.
            authority: uri.authority().unwrap().as_str().trim_end_matches(":443").to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers: HeaderMap::new(),
            has_body: signed["headers"]["content-digest"].is_string(),
        };
        for (name, value) in signed["headers"].as_object().unwrap() {
            request.add(name, value.as_str().unwrap());
        }
        assert_eq!(request.verify(), Ok(()), "{}", signed["name"]);
        if request.has_body {
            assert_eq!(content_digest::verify(&request.headers, body.as_bytes()), Ok(()));
        }
        request.path.push('x');
        assert_eq!(request.verify(), Err(super::super::Fault::Unverified.into()));
    }
}
