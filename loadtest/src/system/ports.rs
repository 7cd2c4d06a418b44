//! Free ports that stay free while a service is down.
//!
//! They lie below the range that the system gives to outgoing connections (32768 and above), and below that of
//! `wired-local` (from 20000): a port asked from the system could be some connection's own port by the time that a
//! killed service wants it back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::bail;

const FIRST: u16 = 10_000;
const LAST: u16 = 19_999;

/// The ports that this process has given out.
static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// A loopback address that nobody listens on and that this process has not given out before.
pub fn free() -> anyhow::Result<SocketAddr> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1_000 {
        let port = rand::random_range(FIRST..=LAST);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if !given.contains(&port) && TcpListener::bind(address).is_ok() {
            given.push(port);
            return Ok(address);
        }
    }
    bail!("found no free port between {FIRST} and {LAST}: see what listens there with `ss -ltn`")
}
