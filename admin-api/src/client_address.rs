//! Who is at the other end: the peer of the connection, or, when that is a proxy we trust, whom the proxy names.
//!
//! `X-Forwarded-For` is read from the right: each trusted proxy appended the address it saw. The first address that is
//! no trusted proxy is the client; whatever stands left of it, the client may have written himself.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// More entries than this are no chain of ours.
const ENTRIES_MAX: usize = 16;

/// The client's address.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    let named = headers.get_all("x-forwarded-for").iter().rev();
    let named = named.flat_map(|value| value.to_str().unwrap_or("").rsplit(',')).map(str::trim);
    for entry in named.take(ENTRIES_MAX) {
        if !is_trusted(client) {
            break;
        }
        // What cannot be read ends the chain: the proxy that sent it is all we know.
        let Ok(address) = entry.parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let cases: &[(&str, &[&str], &str)] = &[
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, 1.2.3.4:80"], "10.0.0.1"),
            ("::1", &["2001:db8::7"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
        ];
        for (peer, forwarded, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in *forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let found = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), *expected, "{peer} {forwarded:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "10.0.0.9,".repeat(500).parse().unwrap());
        assert_eq!(client_address("10.0.0.1".parse().unwrap(), &headers, &trusted).to_string(), "10.0.0.1");
    }
}
