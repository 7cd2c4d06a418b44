//! Cursors of lists: where to go on, opaque to clients. Lists are ordered by ids that are drawn in the order of time,
//! so a cursor stays right while rows arrive.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::time::Timestamp;
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// Rows of a list when nothing is said.
pub const LIMIT_DEFAULT: u32 = 50;
/// Most rows of one answer.
pub const LIMIT_MAX: u32 = 200;

/// The cursor behind this row.
pub fn after(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// The row that a cursor stands behind.
pub fn read(cursor: &str) -> Result<Uuid, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    id.ok_or_else(|| Problem::plain(Code::InvalidCursor))
}

/// The cursor behind a row of a list that is ordered by time and, at the same time, by id.
pub fn after_time(at: Timestamp, id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([&at.micros().to_be_bytes()[..], id.as_bytes()].concat())
}

/// The row that such a cursor stands behind.
pub fn read_time(cursor: &str) -> Result<(Timestamp, Uuid), Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    let found = bytes.split_first_chunk::<8>().and_then(|(at, id)| {
        let at = Timestamp::from_micros(i64::from_be_bytes(*at));
        Some((at, Uuid::from_slice(id).ok()?))
    });
    found.ok_or_else(|| Problem::plain(Code::InvalidCursor))
}

/// The number of rows that is asked for.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(Problem::new(Code::MalformedRequest, format!("`limit` is 1 to {LIMIT_MAX}"))),
    }
}
