//! HTTP message signatures (RFC 9421) with `hmac-sha256` in the one strict profile of the partner API.
//!
//! A server verifies in steps, the cheap ones before the body is read:
//!
//! 1. it compares the request's authority with its configured list (never a forwarded header);
//! 2. [`Signature::parse`] reads `Signature-Input` and `Signature`, checks parameters and covered components and
//!    rebuilds the signature base;
//! 3. [`Signature::check_clock`] refuses what is older or newer than [`CLOCK_WINDOW_SECONDS`];
//! 4. [`Signature::verify`] compares the MAC in constant time, with a stand-in key when the key is unknown;
//! 5. [`content_digest::verify`] compares `Content-Digest` (RFC 9530) with the bytes of the body.
//!
//! A client calls [`content_digest::header_value`] and [`sign`].
//!
//! **The profile.** Covered are at least `"@method" "@authority" "@path" "@query"`; with a body also
//! `"content-digest" "content-type"`; with every method that writes also `"idempotency-key"`, with PATCH and DELETE
//! also `"if-match"`. More header fields may be covered; component parameters and other derived components are
//! refused. Parameters: `created` and `keyid` must, `nonce`, `expires` and `alg="hmac-sha256"` may be given; others
//! are refused. Label and order are free. Signatures by keys the server does not know are passed over, so that a
//! proxy may add its own.
//!
//! **Not done here:** nonces are not stored (a replay meets the signed idempotency key), and the scheme is unknown,
//! so a default port in the authority is the caller's to remove (RFC 9421, section 2.2.3).

mod base;
pub mod content_digest;
mod error;
mod input;
mod profile;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

use http::{HeaderMap, Method};

pub use error::{Error, Fault};
pub use sign::{SignatureHeaders, sign};
pub use verify::Signature;

/// How far `created` may be from the server's clock, either way, in seconds. Less would refuse partners whose
/// clocks drift; more would let a recorded GET be repeated for longer.
pub const CLOCK_WINDOW_SECONDS: i64 = 300;

/// The parts of a request that a signature can cover.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    /// The request's method; compared byte by byte, as RFC 9110 wants.
    pub method: &'a Method,
    /// Host and non-default port as the server read them from `Host` or `:authority` and found in its configured
    /// list. Lower case is applied here.
    pub authority: &'a str,
    /// The path as sent, percent-encoding untouched. Empty means `/`.
    pub path: &'a str,
    /// The query without its `?`; `None` and `Some("")` are both signed as a lone `?`.
    pub query: Option<&'a str>,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Whether a body follows. On a server: whether it could, i.e. `!body.is_end_stream()`.
    pub has_body: bool,
}
