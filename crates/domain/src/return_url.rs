//! Where a customer's browser may go after a request for a mandate was answered: under a URL that is registered for the
//! partner, and nowhere else, so that the bank's page sends nobody to a stranger.

use url::{Host, Url};

use crate::endpoint_url::Loopback;

/// Longest one; fits its column.
pub const RETURN_URL_MAX: usize = 2_048;

/// Whether a browser may be sent there at all: https without user, password and fragment; on the machine itself http will
/// do where it is allowed.
pub fn is_acceptable(url: &Url, loopback: Loopback) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    let scheme = match url.scheme() {
        "https" => true,
        "http" => is_loopback && loopback == Loopback::Allowed,
        _ => false,
    };
    scheme && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
}

/// Whether a URL lies under a preregistered one: the same scheme, host and port, and its path is the registered one or
/// goes on below it. `/return` covers `/return` and `/return/x`, not `/returned`.
pub fn lies_under(url: &Url, registered: &Url) -> bool {
    if url.origin() != registered.origin() {
        return false;
    }
    let Some(rest) = url.path().strip_prefix(registered.path()) else { return false };
    rest.is_empty() || rest.starts_with('/') || registered.path().ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_url_lies_under_what_is_registered() {
        let cases: &[(&str, &str, bool)] = &[
            ("https://shop.test/return", "https://shop.test/return", true),
            ("https://shop.test/return?order=1", "https://shop.test/return", true),
            ("https://shop.test/return/x", "https://shop.test/return", true),
            ("https://shop.test/returned", "https://shop.test/return", false),
            ("https://shop.test/return/../other", "https://shop.test/return", false),
            ("https://shop.test/return/%2e%2e/other", "https://shop.test/return", false),
            ("https://shop.test/anything", "https://shop.test/", true),
            ("https://shop.test.evil.test/return", "https://shop.test/return", false),
            ("https://shop.test:8443/return", "https://shop.test/return", false),
            ("https://shop.test:443/return", "https://shop.test/return", true),
            ("http://shop.test/return", "https://shop.test/return", false),
            ("https://SHOP.test/return", "https://shop.test/return", true),
        ];
        for (url, registered, lies) in cases {
            let [url, registered] = [url, registered].map(|text| Url::parse(text).unwrap());
            assert_eq!(lies_under(&url, &registered), *lies, "{url} under {registered}");
        }
    }
}
