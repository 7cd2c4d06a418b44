//! When a failed delivery is attempted again: the schedule as data, jitter, and `Retry-After` within bounds.
//!
//! Pure: clock and randomness are arguments. It does not know circuits, budgets or endpoints.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

/// The wait before each attempt. The first is made at once; after the last has failed the delivery is dead.
pub const WAITS: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(5 * 3_600),
    Duration::from_secs(10 * 3_600),
    Duration::from_secs(14 * 3_600),
    Duration::from_secs(20 * 3_600),
    Duration::from_secs(24 * 3_600),
];
/// How far a wait is moved at random, either way, so that what failed together is not retried together.
pub const JITTER: f64 = 0.2;
/// The longest `Retry-After` that is honoured: the longest wait of the schedule itself.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The wait after `failed` attempts, or `None` when the delivery is dead.
///
/// `random` is uniform in 0..1. A receiver's `retry_after` can lengthen a wait, never shorten it: otherwise it
/// could make us hammer it.
pub fn wait_after(failed: u8, random: f64, retry_after: Option<Duration>) -> Option<Duration> {
    let wait = *WAITS.get(usize::from(failed))?;
    let factor = 1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0);
    Some(wait.mul_f64(factor).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)))
}

/// What `Retry-After` (RFC 9110, section 10.2.3) asks for: seconds or an HTTP date. Negative, malformed and past
/// values ask for nothing; too large ones are cut to [`RETRY_AFTER_MAX`].
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds are just a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;

    #[test]
    fn the_schedule_is_the_documented_one_and_ends() {
        let seconds = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
        for (failed, wait) in (1..).zip(seconds) {
            assert_eq!(wait_after(failed, MIDDLE, None), Some(Duration::from_secs(wait)), "after {failed}");
        }
        assert_eq!(wait_after(0, MIDDLE, None), Some(Duration::ZERO));
        for failed in [10, 11, 255] {
            assert_eq!(wait_after(failed, MIDDLE, Some(Duration::from_secs(1))), None, "dead after {failed}");
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(wait_after(1, 0.0, None), Some(Duration::from_secs(4)));
        assert_eq!(wait_after(1, 1.0, None), Some(Duration::from_secs(6)));
        assert_eq!(wait_after(1, 7.0, None), Some(Duration::from_secs(6)));
    }

    #[test]
    fn a_whole_life_ends_within_the_jitter_of_its_schedule() {
        // Seconds after the first attempt at which each later one is due, by the table alone.
        let due = [5, 305, 2_105, 9_305, 27_305, 63_305, 113_705, 185_705, 272_105];
        for random in [0.0, 0.1, MIDDLE, 0.9, 1.0, 7.0, -3.0] {
            let (mut clock, mut failed) = (Duration::ZERO, 1);
            while let Some(wait) = wait_after(failed, random, None) {
                let nominal = Duration::from_secs(due[usize::from(failed) - 1]);
                clock += wait;
                let (earliest, latest) = (nominal.mul_f64(1.0 - JITTER), nominal.mul_f64(1.0 + JITTER));
                // A microsecond for the sum of roundings.
                let micro = Duration::from_micros(1);
                assert!(
                    clock + micro >= earliest && clock <= latest + micro,
                    "{failed}: {clock:?} at {random}"
                );
                failed += 1;
            }
            assert_eq!(usize::from(failed), WAITS.len());
        }
    }

    #[test]
    fn retry_after_lengthens_and_never_shortens() {
        let asked = |seconds| wait_after(1, MIDDLE, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(0), Some(Duration::from_secs(5)));
        assert_eq!(asked(120), Some(Duration::from_secs(120)));
        assert_eq!(asked(u64::MAX), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 32 Nov 1994 08:50:37 GMT", None),
            ("Sun, 06 Nov 1994 08:50:37 +0100", None),
            ("-5", None),
            ("-99999999999999999999999", None),
            ("0x10", None),
            ("1e3", None),
            ("5, 10", None),
            ("+5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
