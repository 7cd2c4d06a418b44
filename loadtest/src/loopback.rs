//! Refuses targets that are not this machine: load must never reach a bank that somebody uses.

use std::net::IpAddr;

/// The address is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not on this machine: load is for 127.0.0.1, [::1] and localhost alone")]
pub struct NotLoopback(String);

/// Accepts `host:port`, `[host]:port` and URLs whose host is this machine.
pub fn check(address: &str) -> Result<(), NotLoopback> {
    let after_scheme = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host_and_port.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host_and_port.rsplit_once(':').map_or(host_and_port, |(host, _)| host),
    };
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    // The password of a URL is not for messages.
    if here { Ok(()) } else { Err(NotLoopback(host.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_a_target() {
        for good in [
            "127.0.0.1:80",
            "http://127.0.0.1:8080/x",
            "mysql://root:p@w@localhost:1/d",
            "[::1]:9",
            "127.9.9.9:1",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "10.0.0.1:80",
            "https://bank.example/",
            "http://127.0.0.1@bank.example/",
            "localhost.example:1",
            "",
            "[::2]:1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
