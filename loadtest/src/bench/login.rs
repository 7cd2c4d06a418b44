//! Guessing passwords: what it takes from the bank's money path, and whether the time of an answer tells who is a
//! customer.

pub(super) mod attack;
mod statistics;
pub(super) mod timing;

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::system::{Service, System};

const LOGIN_PATH: &str = "/v1/auth/login";
/// Of everybody who is guessed at; no guess is right.
const WRONG_PASSWORD: &str = "wrong grey pigeons";

/// Where the system's admin-api listens.
fn admin_api(system: &System) -> anyhow::Result<SocketAddr> {
    let url = system.public_url(Service::AdminApi, 0);
    url.trim_start_matches("http://").parse().context("the system has no admin-api")
}

/// An address that nobody else has: throttles go by networks, and each of these is one of its own.
fn address(number: usize) -> String {
    // A /64 each of a documentation prefix (RFC 3849), from which nobody comes.
    format!("2001:db8:{:x}:{:x}::1", number / 65_536 % 65_536, number % 65_536)
}
