//! `Content-Digest` (RFC 9530): the hash of the body's bytes, so that a signature of the header field covers the body.

use std::convert::Infallible;

use http::{HeaderMap, HeaderValue};
use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor},
};
use sha2::{Digest, Sha256, Sha512};

use super::{Error, input::combined};
use crate::secret::encode_base64;

/// The header field's value for a body, with SHA-256.
pub fn header_value(body: &[u8]) -> HeaderValue {
    let value = format!("sha-256=:{}:", encode_base64(&Sha256::digest(body)));
    HeaderValue::try_from(value).expect("base64 is visible ASCII")
}

/// Compares the request's `Content-Digest` with the body as received.
///
/// Every `sha-256` and `sha-512` must match, and there must be one at least; other algorithms are passed over
/// (RFC 9530, section 2).
pub fn verify(headers: &HeaderMap, body: &[u8]) -> Result<(), Error> {
    let value = combined(headers, "content-digest")
        .ok_or_else(|| Error::ComponentAbsent { component: "content-digest".to_owned() })?;
    let mut digests = Digests { body, compared: 0, differs: false };
    if Parser::new(&value).parse_dictionary_with_visitor(&mut digests).is_err() {
        return Err(Error::DigestMismatch("Content-Digest is no dictionary such as `sha-256=:…:`"));
    }
    match digests {
        Digests { differs: true, .. } => {
            Err(Error::DigestMismatch("Content-Digest is not the hash of the body's bytes"))
        }
        Digests { compared: 0, .. } => {
            Err(Error::DigestMismatch("Content-Digest has neither `sha-256` nor `sha-512`"))
        }
        Digests { .. } => Ok(()),
    }
}

struct Digests<'b> {
    body: &'b [u8],
    compared: usize,
    differs: bool,
}

impl<'a> DictionaryVisitor<'a> for Digests<'_> {
    type Error = Infallible;

    fn entry(&mut self, key: &'a KeyRef) -> Result<impl EntryVisitor<'a>, Infallible> {
        let hash: fn(&[u8], &[u8]) -> bool = match key.as_str() {
            "sha-256" => |body, expected| Sha256::digest(body).as_slice() == expected,
            "sha-512" => |body, expected| Sha512::digest(body).as_slice() == expected,
            _ => return Ok(None),
        };
        Ok(Some(Comparison { digests: self, hash }))
    }
}

struct Comparison<'m, 'b> {
    digests: &'m mut Digests<'b>,
    hash: fn(&[u8], &[u8]) -> bool,
}

impl<'a> ItemVisitor<'a> for Comparison<'_, '_> {
    type Error = Infallible;

    fn bare_item(self, item: BareItemFromInput<'a>) -> Result<impl ParameterVisitor<'a>, Infallible> {
        let digests = self.digests;
        // A field of many equal members must not make the server hash a body many times.
        if !digests.differs {
            digests.compared += 1;
            let matches =
                matches!(&item, BareItemFromInput::ByteSequence(hash) if (self.hash)(digests.body, hash));
            digests.differs = !matches || digests.compared > 2;
        }
        Ok(Ignored)
    }
}

impl<'a> EntryVisitor<'a> for Comparison<'_, '_> {
    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, Infallible> {
        self.digests.differs = true;
        Ok(Ignored)
    }
}
