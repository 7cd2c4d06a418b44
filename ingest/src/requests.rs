//! The bodies of requests that ask for a command: read field by field, every fault collected.

pub mod follow_up;
pub mod mandate;
pub mod payment;
pub mod transfer;

use domain::fingerprint::Fingerprint;
use serde::Serialize;

/// What a request said, independent of white space, escapes and the order of fields: method, path and the parsed body.
/// The path names the root of a capture, a void and a refund, so that the same body on another payment is another
/// request.
pub fn fingerprint(path: &str, parsed: &impl Serialize) -> Fingerprint {
    // Strings, integers and maps with string keys: serialising them cannot fail.
    let canonical = serde_json::to_vec(parsed).unwrap_or_default();
    Fingerprint::of(&[b"POST", path.as_bytes(), &canonical])
}
