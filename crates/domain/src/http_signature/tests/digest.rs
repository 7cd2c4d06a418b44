//! `Content-Digest`.

use super::*;

const SHA_256: &str = "sha-256=:1R2hJv6R6hfDl7KJt7DSn7FzlTinxL0Ti4NqZC5O61A=:";

fn verify(values: &[&str], body: &[u8]) -> Result<(), Error> {
    let mut request = Request::get();
    for value in values {
        request.add("content-digest", value);
    }
    content_digest::verify(&request.headers, body)
}

#[test]
fn rfc_9530_sha_512() {
    let facts: serde_json::Value =
        serde_json::from_str(include_str!("../../../testdata/http-message-signatures.json")).unwrap();
    let facts = &facts["content_digest"];
    let body = facts["body"].as_str().unwrap().as_bytes();
    let value = format!("sha-512=:{}:", facts["sha_512_base64"].as_str().unwrap());
    assert_eq!(verify(&[&value], body), Ok(()));
    assert!(verify(&[&value], &[body, b" "].concat()).is_err());
}

#[test]
fn all_supported_algorithms_must_match() {
    let wrong = "sha-512=:AAAA:";
    let differs = "Content-Digest is not the hash of the body's bytes";
    let neither = "Content-Digest has neither `sha-256` nor `sha-512`";
    let malformed = "Content-Digest is no dictionary such as `sha-256=:…:`";
    let cases: &[(&[&str], Result<(), &str>)] = &[
        (&[SHA_256], Ok(())),
        (&["md5=:AAAA:", SHA_256], Ok(())),
        (&["md5=:AAAA:, sha=(1 2);a", SHA_256], Ok(())),
        (&[SHA_256, wrong], Err(differs)),
        (&[wrong, SHA_256], Err(differs)),
        (&["sha-256=:AAAA:", SHA_256], Err(differs)),
        (&[SHA_256, SHA_256, SHA_256], Err(differs)),
        (&["sha-256=::"], Err(differs)),
        (&["sha-256"], Err(differs)),
        (&["sha-256=(:AAAA:)", SHA_256], Err(differs)),
        (&["sha-256=token"], Err(differs)),
        (&["md5=:AAAA:"], Err(neither)),
        (&[""], Err(neither)),
        (&["SHA-256=:AAAA:"], Err(malformed)),
        (&["sha-256=:A"], Err(malformed)),
    ];
    for (values, expected) in cases {
        assert_eq!(verify(values, BODY), expected.map_err(Error::DigestMismatch), "{values:?}");
    }
    assert_eq!(verify(&[SHA_256], b"").unwrap_err().code(), "digest_mismatch");
    assert_eq!(verify(&[], BODY), Err(Error::ComponentAbsent { component: "content-digest".to_owned() }));
    assert_eq!(content_digest::header_value(BODY), SHA_256);
}
