//! Where webhooks may go: protection against server-side request forgery (OWASP API7:2023).
//!
//! Two checks, because neither sees everything: the URL is checked when it is given and whenever it is read (scheme,
//! credentials, port, and hosts that are IP literals in any notation, which no resolver is asked for), and the
//! addresses of a name are checked by the notifier when a connection is made, so that a name cannot be pointed
//! elsewhere between. No name is resolved here.
//!
//! Addresses that carry another address inside (IPv4-mapped, NAT64, 6to4, Teredo) are refused as a whole: nobody
//! needs them to reach a public server, and what they lead to depends on the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::codes::codes;

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Well-known ports that webhooks may use; others below 1024 belong to services that are not the web.
const PORTS: [u16; 2] = [443, 8443];
const PORT_FREE_MIN: u16 = 1024;
/// Ports from 1024 on at which something listens that would take an HTTP request for commands of its own.
const PORTS_REFUSED: [u16; 9] = [2375, 2379, 3306, 5432, 6379, 9092, 9200, 11211, 27017];

/// Top-level names that lead nowhere on the public internet (RFC 6761, 6762, 7686, 8375, 9476; ICANN's `internal`).
const NAMES_REFUSED: [&str; 8] =
    ["localhost", "local", "internal", "arpa", "onion", "invalid", "alt", "localdomain"];

/// Whether the local set-up's exception holds: loopback is allowed, also with http and at any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// As everywhere but in the local set-up.
    Refused,
    /// `WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP=true`.
    Allowed,
}

codes! {
    /// The rule by which a webhook is not sent.
    Refusal {
        /// The URL cannot be read or has no host.
        Malformed = 1 "malformed",
        /// Longer than [`URL_BYTES_MAX`].
        TooLong = 2 "too_long",
        /// Another scheme than https (or http to loopback, where that is allowed).
        Scheme = 3 "scheme",
        /// The URL carries a user or password.
        Credentials = 4 "credentials",
        /// The port is not one for webhooks.
        Port = 5 "port",
        /// The address is not one of the public internet.
        Address = 6 "address",
        /// The name can only lead to a machine or network of one's own.
        Name = 7 "name",
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// What to change.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Malformed => "the URL cannot be read: give an absolute URL with a host",
            Self::TooLong => "the URL is longer than 2048 bytes",
            Self::Scheme => "the URL must begin with https://",
            Self::Credentials => "the URL must carry no user name or password: use a header",
            Self::Port => "the port must be 443, 8443 or from 1024 on, and none of a database or broker",
            Self::Address => "the address must be one of the public internet, and embed no other address",
            Self::Name => "the host must be a name of the public internet",
        }
    }
}

/// Checks and reads an endpoint's URL.
pub fn check_url(text: &str, loopback: Loopback) -> Result<Url, Refusal> {
    if text.len() > URL_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    // The parser would pass over them.
    if text.contains(|character: char| character.is_control() || character.is_whitespace()) {
        return Err(Refusal::Malformed);
    }
    // The parser turns 0x7f.1, 2130706433 and 0177.0.0.1 into the address that they mean.
    let url = Url::parse(text).map_err(|_| Refusal::Malformed)?;
    let local = match url.host().ok_or(Refusal::Malformed)? {
        Host::Ipv4(ip) => check_literal(ip.into(), loopback)?,
        Host::Ipv6(ip) => check_literal(ip.into(), loopback)?,
        Host::Domain(name) => check_name(name, loopback)?,
    };
    let exempt = local && loopback == Loopback::Allowed;
    match url.scheme() {
        "https" => {}
        "http" if exempt => {}
        _ => return Err(Refusal::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Credentials);
    }
    let port = url.port_or_known_default().ok_or(Refusal::Port)?;
    if exempt || port_is_allowed(port) { Ok(url) } else { Err(Refusal::Port) }
}

/// `true` for an allowed name of this machine, `false` for one of the public internet.
fn check_name(name: &str, loopback: Loopback) -> Result<bool, Refusal> {
    let local = is_localhost(name);
    if local && loopback == Loopback::Allowed {
        return Ok(true);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let (labels, last) = name.rsplit_once('.').ok_or(Refusal::Name)?;
    if local || labels.is_empty() || NAMES_REFUSED.contains(&last) {
        return Err(Refusal::Name);
    }
    Ok(false)
}

/// Whether a name means this machine by its own word (RFC 6761): its addresses must then be loopback.
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether an address that a name resolved to may be connected to.
pub fn address_is_allowed(name: &str, ip: IpAddr, loopback: Loopback) -> bool {
    if is_localhost(name) {
        return loopback == Loopback::Allowed && ip.is_loopback();
    }
    is_public(ip) || (loopback == Loopback::Allowed && ip.is_loopback())
}

/// `true` for an allowed loopback literal, `false` for a public one.
fn check_literal(ip: IpAddr, loopback: Loopback) -> Result<bool, Refusal> {
    match (is_public(ip), ip.is_loopback(), loopback) {
        (true, _, _) => Ok(false),
        (false, true, Loopback::Allowed) => Ok(true),
        (false, _, _) => Err(Refusal::Address),
    }
}

fn port_is_allowed(port: u16) -> bool {
    PORTS.contains(&port) || (port >= PORT_FREE_MIN && !PORTS_REFUSED.contains(&port))
}

/// Whether an address belongs to the public internet.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// An address and how many of its first bits count.
type Prefix<T> = (T, u32);

/// The IANA IPv4 special-purpose registry (RFC 6890 and its updates) and what is not unicast.
const REFUSED_V4: [Prefix<Ipv4Addr>; 18] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, with the clouds' metadata services
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24), // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24), // AMT
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(192, 175, 48, 0), 24), // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
];

/// Global unicast. Everything outside is refused without being listed, which covers ::, ::1, IPv4-mapped and
/// -compatible, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, SRv6 SIDs, unique local, link-local, site-local
/// and multicast addresses.
const GLOBAL_V6: Prefix<Ipv6Addr> = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is refused of [`GLOBAL_V6`].
const REFUSED_V6: [Prefix<Ipv6Addr>; 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, with Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let within =
        |(network, length): &Prefix<Ipv4Addr>| (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0;
    !REFUSED_V4.iter().any(within)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let within =
        |(network, length): &Prefix<Ipv6Addr>| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0;
    within(&GLOBAL_V6) && !REFUSED_V6.iter().any(within)
}

#[cfg(test)]
mod tests;
