//! A call of one of the two APIs, as it travels on [`crate::topic::API_CALLS`].
//!
//! Small on purpose: there is one for every request. It says who asked for what and what was answered; never what was
//! in the request or the answer.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// The longest route that is kept.
pub const ROUTE_BYTES_MAX: usize = 100;
/// The longest method that is kept; all that HTTP knows are shorter.
pub const METHOD_BYTES_MAX: usize = 10;
/// The route of a request that no route matched.
pub const NO_ROUTE: &str = "other";

crate::codes::codes! {
    /// Which API was called.
    Api {
        /// That of partners (ingest).
        Partner = 1 "partner",
        /// That of customers and staff (admin-api).
        Bank = 2 "bank",
    }
}

/// One call. The names on the wire are short, since there are many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall<'a> {
    /// When it came, in microseconds since 1970.
    #[serde(rename = "t", with = "micros")]
    pub at: Timestamp,
    /// Which API.
    #[serde(rename = "v")]
    pub api: Api,
    /// The method.
    #[serde(rename = "m", borrow)]
    pub method: Cow<'a, str>,
    /// The template of the route, or [`NO_ROUTE`].
    #[serde(rename = "r", borrow)]
    pub route: Cow<'a, str>,
    /// The status of the answer.
    #[serde(rename = "s")]
    pub status: u16,
    /// Microseconds until the answer.
    #[serde(rename = "d")]
    pub duration_us: u32,
    /// The id of the request, as in the answer.
    #[serde(rename = "q")]
    pub request_id: Uuid,
    /// The partner; nobody is known before a signature or a token was found valid.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<Uuid>,
    /// The API key or the user.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Uuid>,
    /// The payment that was asked for.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Uuid>,
    /// From where.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// The record is no call, and which part of it is not.
#[derive(Debug, thiserror::Error)]
#[error("no call: {0}")]
pub struct Malformed(#[from] serde_json::Error);

impl<'a> ApiCall<'a> {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers alone, so this does not fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record; what is longer than its column is cut off.
    pub fn decode(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut call: Self = serde_json::from_slice(record)?;
        cut(&mut call.method, METHOD_BYTES_MAX);
        cut(&mut call.route, ROUTE_BYTES_MAX);
        Ok(call)
    }

    /// The same, kept for longer than its record.
    pub fn into_owned(self) -> ApiCall<'static> {
        ApiCall {
            method: Cow::Owned(self.method.into_owned()),
            route: Cow::Owned(self.route.into_owned()),
            ..self
        }
    }
}

/// Keeps what an ASCII column of so many characters holds.
fn cut(text: &mut Cow<'_, str>, bytes_max: usize) {
    if text.len() > bytes_max || !text.is_ascii() {
        *text = Cow::Owned(text.chars().filter(char::is_ascii).take(bytes_max).collect());
    }
}

mod micros {
    use super::{Deserialize as _, Timestamp};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
    pub(super) fn serialize<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.micros())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_short_and_reads_back() {
        let call = ApiCall {
            at: Timestamp::from_micros(1_700_000_000_000_001),
            api: Api::Partner,
            method: "POST".into(),
            route: "/v1/payments".into(),
            status: 202,
            duration_us: 1_234,
            request_id: Uuid::from_u128(1),
            partner: Some(Uuid::from_u128(2)),
            actor: Some(Uuid::from_u128(3)),
            target: Some(Uuid::from_u128(4)),
            address: Some("2001:db8::1".parse().unwrap()),
        };
        let record = call.encode();
        assert!(record.len() < 320, "{}", String::from_utf8_lossy(&record));
        assert_eq!(ApiCall::decode(&record).unwrap(), call);
        let nobody = ApiCall { partner: None, actor: None, target: None, address: None, ..call };
        assert_eq!(ApiCall::decode(&nobody.encode()).unwrap(), nobody);
    }

    #[test]
    fn what_no_column_holds_is_cut_off_and_what_is_no_call_refused() {
        let text = format!(
            r#"{{"t":-5,"v":"bank","m":"{}","r":"/ä{}","s":1,"d":2,"q":"{}","x":1}}"#,
            "M".repeat(50),
            "r".repeat(500),
            Uuid::nil()
        );
        let call = ApiCall::decode(text.as_bytes()).unwrap();
        assert_eq!((call.method.len(), call.route.len()), (METHOD_BYTES_MAX, ROUTE_BYTES_MAX));
        assert!(call.route.is_ascii());
        for record in ["", "{}", "[]", "\u{0}", r#"{"t":1}"#] {
            assert!(ApiCall::decode(record.as_bytes()).is_err(), "{record}");
        }
    }
}
