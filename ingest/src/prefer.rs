//! `Prefer: wait=N` (RFC 7240): how long a client would like to wait for the outcome.

use std::time::Duration;

use http::HeaderMap;

/// Longest wait; a longer wish is cut. Clients and proxies give up on silent requests not much later.
pub const WAIT_MAX: Duration = Duration::from_secs(10);

/// The wish, if there is one that can be read. A preference is never an error.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    // The first of equal preferences counts (RFC 7240, section 2).
    let value = preferences.find_map(|preference| {
        let (name, rest) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| rest.trim().trim_matches('"'))
    })?;
    let seconds: u64 = value.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_wish_is_read_and_cut() {
        let cases: &[(&str, Option<u64>)] = &[
            ("wait=5", Some(5)),
            ("Wait=\"7\"", Some(7)),
            ("respond-async, wait=3; foo", Some(3)),
            ("wait=2, wait=9", Some(2)),
            ("wait=100000", Some(10)),
            ("wait=0", None),
            ("wait=-1", None),
            ("wait=1.5", None),
            ("wait", None),
            ("waiting=5", None),
            ("", None),
        ];
        for (value, seconds) in cases {
            let headers: HeaderMap =
                [(http::HeaderName::from_static("prefer"), HeaderValue::from_static(value))]
                    .into_iter()
                    .collect();
            assert_eq!(wait(&headers), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(wait(&HeaderMap::new()), None);
    }
}
