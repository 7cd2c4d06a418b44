//! Request headers that the owner of an endpoint may add to its webhooks: a safe list, checked when they are given
//! and again when they are used.
//!
//! Allowed are `authorization` and names that begin with `x-`, less those that proxies and frameworks take for a
//! statement of their own about where a request comes from or what it is. Everything else is ours (`webhook-*`,
//! `content-*`, `user-agent`) or governs the connection. Values are visible ASCII with single spaces between, so that
//! nothing can break out of its line.

use std::collections::BTreeMap;

use crate::codes::codes;

/// Names and values, by name.
pub type Headers = BTreeMap<String, String>;

/// Headers of one endpoint, at most.
pub const HEADERS_MAX: usize = 10;
/// The longest name and the longest value, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// See [`NAME_BYTES_MAX`].
pub const VALUE_BYTES_MAX: usize = 512;

/// What begins like ours to give and is not.
const PREFIXES_REFUSED: [&str; 6] =
    ["x-forwarded", "x-http-method", "x-method", "x-original", "x-rewrite", "x-real"];
const NAMES_REFUSED: [&str; 5] =
    ["x-client-ip", "x-cluster-client-ip", "x-remote-addr", "x-remote-ip", "x-host"];

codes! {
    /// The rule by which a header is refused.
    HeaderRefusal {
        /// More than [`HEADERS_MAX`].
        TooMany = 1 "too_many",
        /// Empty, too long, or not lower-case letters, digits and hyphens.
        Name = 2 "name",
        /// A name that is ours, a proxy's or the connection's.
        Reserved = 3 "reserved",
        /// Empty, too long, or with something else than visible ASCII and single spaces between.
        Value = 4 "value",
    }
}

/// Checks all headers of an endpoint; the error names the first that is refused.
pub fn check(headers: &Headers) -> Result<(), (&str, HeaderRefusal)> {
    if headers.len() > HEADERS_MAX {
        return Err(("", HeaderRefusal::TooMany));
    }
    for (name, value) in headers {
        check_header(name, value).map_err(|refusal| (name.as_str(), refusal))?;
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), HeaderRefusal> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return Err(HeaderRefusal::Name);
    }
    let is_free = name.strip_prefix("x-").is_some_and(|rest| !rest.is_empty())
        && !PREFIXES_REFUSED.iter().any(|prefix| name.starts_with(prefix))
        && !NAMES_REFUSED.contains(&name);
    if !is_free && name != "authorization" {
        return Err(HeaderRefusal::Reserved);
    }
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let is_spaced = value.trim_matches(' ').len() == value.len() && !value.contains("  ");
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || !value.bytes().all(is_text) || !is_spaced {
        return Err(HeaderRefusal::Value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_ones_own_are_a_safe_list() {
        use HeaderRefusal::{Name, Reserved, Value};
        let long = "v".repeat(VALUE_BYTES_MAX + 1);
        let cases = [
            ("authorization", "Bearer abc.def", None),
            ("x-api-key", "s3cr3t", None),
            ("x-shop", "a b, c=\"d\"", None),
            ("", "v", Some(Name)),
            ("x-Shop", "v", Some(Name)),
            ("x-shop\r\nhost", "v", Some(Name)),
            ("x shop", "v", Some(Name)),
            ("x-ümlaut", "v", Some(Name)),
            ("x-shop:", "v", Some(Name)),
            ("x-", "v", Some(Reserved)),
            ("host", "v", Some(Reserved)),
            ("content-length", "0", Some(Reserved)),
            ("content-type", "text/plain", Some(Reserved)),
            ("transfer-encoding", "chunked", Some(Reserved)),
            ("connection", "close", Some(Reserved)),
            ("expect", "100-continue", Some(Reserved)),
            ("user-agent", "v", Some(Reserved)),
            ("cookie", "v", Some(Reserved)),
            ("proxy-authorization", "v", Some(Reserved)),
            ("webhook-id", "v", Some(Reserved)),
            ("webhook-signature", "v1,AAAA", Some(Reserved)),
            ("svix-id", "v", Some(Reserved)),
            ("x-forwarded-for", "127.0.0.1", Some(Reserved)),
            ("x-http-method-override", "DELETE", Some(Reserved)),
            ("x-original-url", "/admin", Some(Reserved)),
            ("x-real-ip", "127.0.0.1", Some(Reserved)),
            ("x-shop", "", Some(Value)),
            ("x-shop", " v", Some(Value)),
            ("x-shop", "a  b", Some(Value)),
            ("x-shop", "a\r\nx-evil: 1", Some(Value)),
            ("x-shop", "a\nb", Some(Value)),
            ("x-shop", "a\0b", Some(Value)),
            ("x-shop", "a\tb", Some(Value)),
            ("x-shop", "ü", Some(Value)),
            ("x-shop", long.as_str(), Some(Value)),
        ];
        for (name, value, refusal) in cases {
            let headers = Headers::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(check(&headers).err().map(|(_, refusal)| refusal), refusal, "{name:?}: {value:?}");
        }
        let many: Headers = (0..=HEADERS_MAX).map(|n| (format!("x-{n}"), "v".to_owned())).collect();
        assert_eq!(check(&many), Err(("", HeaderRefusal::TooMany)));
    }
}
