//! The signing side, for clients.

use http::{HeaderMap, HeaderValue};

use super::{Error, Fault, RequestParts, base, input::push_string, profile};
use crate::secret::{HmacKey, encode_base64};

/// The label under which [`sign`] puts its signature.
const LABEL: &str = "sig";

/// The two header fields that carry a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// The value of `Signature-Input`.
    pub input: HeaderValue,
    /// The value of `Signature`; marked sensitive, so that `Debug` does not show it.
    pub signature: HeaderValue,
}

impl SignatureHeaders {
    /// Puts both fields into the request's headers, in place of earlier ones.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        headers.insert("signature-input", self.input);
        headers.insert("signature", self.signature);
    }
}

/// Signs a request, covering exactly what the profile requires. `created` is in seconds since 1970.
///
/// The headers must already hold what is covered: `content-type` and `content-digest` with a body,
/// `idempotency-key` and `if-match` where the method needs them; otherwise [`Error::ComponentAbsent`] names the
/// missing one. Key id and nonce must be visible ASCII.
pub fn sign(
    request: &RequestParts<'_>,
    key_id: &str,
    key: &HmacKey,
    created: i64,
    nonce: Option<&str>,
) -> Result<SignatureHeaders, Error> {
    let components: Vec<&str> = profile::required(request).collect();
    let mut params = format!("(\"{}\");created={created}", components.join("\" \""));
    for (name, value) in [("keyid", Some(key_id)), ("nonce", nonce)] {
        let Some(value) = value else { continue };
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let problem = "must be visible ASCII";
            return Err(Fault::ParameterRefused { parameter: name.to_owned(), problem }.into());
        }
        params.extend([";", name, "="]);
        push_string(&mut params, value);
    }
    let base = base::build(request, &components, &params)?;
    let mac = encode_base64(&key.mac(&[base.as_bytes()]));
    let mut signature = header(&format!("{LABEL}=:{mac}:"));
    signature.set_sensitive(true);
    Ok(SignatureHeaders { input: header(&format!("{LABEL}={params}")), signature })
}

fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("key id and nonce were checked, all else is ours")
}
