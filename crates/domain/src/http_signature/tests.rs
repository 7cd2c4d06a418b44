//! Requests for the tests, and what they have in common.

mod accepted;
mod digest;
mod properties;
mod refused;
mod vectors;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Error, RequestParts, Signature, content_digest, sign};
use crate::secret::HmacKey;

const KEY_ID: &str = "key_01";
const NOW: i64 = 1_800_000_000;
const BODY: &[u8] = br#"{"amount":"12.50","currency":"EUR"}"#;

fn key() -> HmacKey {
    HmacKey::new(&[7; 32]).unwrap()
}

/// A request that owns its parts, so that tests can change them.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    has_body: bool,
}

impl Request {
    fn get() -> Self {
        Self {
            method: Method::GET,
            authority: "api.bank.example".to_owned(),
            path: "/v1/payments".to_owned(),
            query: Some("limit=5".to_owned()),
            headers: HeaderMap::new(),
            has_body: false,
        }
    }

    fn post() -> Self {
        let mut request = Self { method: Method::POST, query: None, has_body: true, ..Self::get() };
        request.set("content-type", "application/json");
        request.set("idempotency-key", "order-4711");
        request.headers.insert("content-digest", content_digest::header_value(BODY));
        request
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }

    fn add(&mut self, name: &str, value: &str) {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }

    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            has_body: self.has_body,
        }
    }

    fn signed(mut self) -> Self {
        sign(&self.parts(), KEY_ID, &key(), NOW, None).unwrap().insert_into(&mut self.headers);
        self
    }

    /// Signs what the parameters say, whether the profile allows it or not.
    fn signed_as(mut self, label: &str, components: &[&str], params: &str) -> Self {
        let list = components.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" ");
        let params = format!("({list}){params}");
        let base = super::base::build(&self.parts(), components, &params).unwrap();
        let mac = crate::secret::encode_base64(&key().mac(&[base.as_bytes()]));
        self.add("signature-input", &format!("{label}={params}"));
        self.add("signature", &format!("{label}=:{mac}:"));
        self
    }

    fn parse(&self) -> Result<Signature, Error> {
        Signature::parse(&self.parts(), |key_id| key_id == KEY_ID)
    }

    /// All steps but the body's digest, as a server takes them.
    fn verify(&self) -> Result<(), Error> {
        let signature = self.parse()?;
        signature.check_clock(NOW)?;
        signature.verify((signature.key_id() == KEY_ID).then(key).as_ref())
    }
}
