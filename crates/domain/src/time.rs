//! Instants with microseconds, as the database and the API have them.

use std::{fmt, str::FromStr};

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An instant, in microseconds since 1970 UTC. Written as RFC 3339 with six digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A calendar day in the bank's time zone, in days since 1970-01-01: the day that daily caps count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

impl Day {
    /// When the day begins in `zone`. Days are not all of 24 hours.
    pub fn start_in(self, zone: &TimeZone) -> Timestamp {
        let day =
            jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(self.0).unwrap_or_default());
        let start = day.and_then(|day| day.to_zoned(zone.clone()));
        // Days far outside the bounds of `Timestamp` are kept within them, too.
        start.map_or(Timestamp::default(), |start| Timestamp::from_micros(start.timestamp().as_microsecond()))
    }
}

/// The text is no RFC 3339 instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like 2026-01-31T12:00:00.000000Z")]
pub struct MalformedTimestamp;

impl Timestamp {
    /// The last instant that a DATETIME and RFC 3339 can both tell: the end of the year 9998.
    const MAX_MICROS: i64 = 253_370_764_799_999_999;

    /// An instant from microseconds since 1970 UTC, kept within 1970 to 9998.
    pub const fn from_micros(micros: i64) -> Self {
        match micros {
            ..0 => Self(0),
            0..=Self::MAX_MICROS => Self(micros),
            _ => Self(Self::MAX_MICROS),
        }
    }

    /// An instant from the milliseconds that Kafka stamps records with.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// Microseconds since 1970 UTC.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970 UTC.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant moved by `micros`, within the same bounds as [`Self::from_micros`].
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This instant and `seconds` more, within the same bounds.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_micros(seconds.saturating_mul(1_000_000))
    }

    /// The calendar day of this instant in `zone`.
    pub fn day_in(self, zone: &TimeZone) -> Day {
        let seconds_of_offset = i64::from(zone.to_offset(self.jiff()).seconds());
        Day((self.seconds() + seconds_of_offset).div_euclid(86_400) as i32)
    }

    /// The fields year, month, day, hour, minute, second, microsecond in UTC.
    pub fn civil(self) -> [i64; 7] {
        let civil = self.jiff().to_zoned(TimeZone::UTC).datetime();
        [
            i64::from(civil.year()),
            i64::from(civil.month()),
            i64::from(civil.day()),
            i64::from(civil.hour()),
            i64::from(civil.minute()),
            i64::from(civil.second()),
            self.0.rem_euclid(1_000_000),
        ]
    }

    fn jiff(self) -> jiff::Timestamp {
        // Every value is clamped on construction, so this cannot fail.
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second, micro] = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
    }
}

impl FromStr for Timestamp {
    type Err = MalformedTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| MalformedTimestamp)?;
        match instant.as_microsecond() {
            micros @ 0..=Self::MAX_MICROS => Ok(Self(micros)),
            _ => Err(MalformedTimestamp),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_with_microseconds_and_reads_back() {
        let instant = Timestamp::from_micros(1_614_265_330_000_007);
        assert_eq!(instant.to_string(), "2021-02-25T15:02:10.000007Z");
        assert_eq!(instant.to_string().parse(), Ok(instant));
        assert_eq!("2021-02-25".parse::<Timestamp>(), Err(MalformedTimestamp));
        assert_eq!("1969-12-31T23:59:59Z".parse::<Timestamp>(), Err(MalformedTimestamp));
    }

    #[test]
    fn a_day_is_the_banks_day() {
        let zone = TimeZone::get("Europe/Vienna").unwrap();
        let before: Timestamp = "2026-03-01T22:59:59.999999Z".parse().unwrap();
        let after: Timestamp = "2026-03-01T23:00:00Z".parse().unwrap();
        assert_eq!(before.day_in(&zone).0 + 1, after.day_in(&zone).0);
        assert_eq!(Timestamp::default().day_in(&TimeZone::UTC), Day(0));
        assert_eq!(after.day_in(&zone).start_in(&zone), after);
        // Clocks were put forward on 2026-03-29: a day of 23 hours.
        let short: Timestamp = "2026-03-29T12:00:00Z".parse().unwrap();
        let day = short.day_in(&zone);
        let hours = (Day(day.0 + 1).start_in(&zone).seconds() - day.start_in(&zone).seconds()) / 3_600;
        assert_eq!(hours, 23);
    }

    #[test]
    fn absurd_instants_are_kept_within_bounds() {
        assert_eq!(Timestamp::from_micros(i64::MAX).to_string(), "9998-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_millis(-5), Timestamp::default());
    }
}
