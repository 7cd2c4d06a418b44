//! Query parameters: each known, each at most once, every fault named.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;

use domain::time::Timestamp;

use crate::problem::{Code, FieldError, Problem};

/// The parameters of a request. What is not taken is unknown.
#[derive(Debug)]
pub struct Query<'q> {
    pairs: Vec<(Cow<'q, str>, Cow<'q, str>)>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl<'q> Query<'q> {
    /// Reads `a=b&c=d` as forms write it.
    pub fn parse(query: Option<&'q str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        Self { pairs, known: Vec::new(), errors: Vec::new() }
    }

    /// Refuses what nobody took.
    pub fn finish(mut self) -> Result<(), Problem> {
        let known = match self.known.as_slice() {
            [] => "this path takes no query parameters; send them without".to_owned(),
            names => format!("unknown or doubled; the query parameters are {}, each once", names.join(", ")),
        };
        for (name, _) in std::mem::take(&mut self.pairs) {
            let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
            self.refuse(&shown, "unknown_field", known.clone());
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// Notes a fault.
    pub fn refuse(&mut self, name: &str, code: &'static str, detail: impl Into<Cow<'static, str>>) {
        if self.errors.len() < ERRORS_MAX {
            let pointer = format!("?{name}");
            self.errors.push(FieldError { pointer, code: code.into(), detail: detail.into() });
        }
    }

    /// A parameter as it is.
    pub fn text(&mut self, name: &'static str) -> Option<Cow<'q, str>> {
        self.known.push(name);
        let index = self.pairs.iter().position(|(pair, _)| pair == name)?;
        Some(self.pairs.remove(index).1)
    }

    /// A whole number.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(name)?;
        let value = text.parse().ok().filter(|value| range.contains(value));
        if value.is_none() {
            let detail = format!("send a whole number from {} to {}", range.start(), range.end());
            self.refuse(name, "out_of_range", detail);
        }
        value
    }

    /// An RFC 3339 time.
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.parsed(name, "a time is written like 2026-01-31T12:00:00.000000Z (with `+` as %2B)")
    }

    /// Anything that is read from a text.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, form: &'static str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.refuse(name, "invalid_value", form);
        }
        value
    }

    /// Words separated by commas, each of a closed set.
    pub fn words<T: FromStr>(&mut self, name: &'static str, known: &str) -> Option<Vec<T>> {
        let text = self.text(name)?;
        let mut words = Vec::new();
        for word in text.split(',') {
            let Ok(parsed) = word.trim().parse() else {
                let shown: String = word.trim().chars().take(NAME_CHARS_MAX).collect();
                self.refuse(name, "unknown_value", format!("`{shown}` is unknown; there are {known}"));
                return None;
            };
            words.push(parsed);
        }
        Some(words)
    }
}

/// More faults than a person reads are not listed.
const ERRORS_MAX: usize = 20;
/// Longest piece of what a sender wrote that is shown.
const NAME_CHARS_MAX: usize = 64;

/// Refuses query parameters where none is known.
pub fn none(query: Option<&str>) -> Result<(), Problem> {
    Query::parse(query).finish()
}

/// A cursor or token that is not one of ours.
pub fn invalid_cursor(detail: &'static str) -> Problem {
    Problem::new(Code::InvalidCursor, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_read_and_decoded() {
        let mut query = Query::parse(Some("limit=7&types=EUR%2CJPY&since=2026-01-01T00%3A00%3A00Z&x=a+b"));
        assert_eq!(query.integer("limit", 1..=200), Some(7));
        let words: Vec<domain::money::Currency> = query.words("types", "EUR, JPY").unwrap();
        assert_eq!(words.len(), 2);
        assert_eq!(query.time("since").unwrap().seconds(), 1_767_225_600);
        assert_eq!(query.text("x").as_deref(), Some("a b"));
        assert_eq!(query.text("absent"), None);
        query.finish().unwrap();
        none(None).unwrap();
        none(Some("")).unwrap();
    }

    #[test]
    fn every_fault_is_named() {
        let mut query = Query::parse(Some("limit=201&limit=2&types=EUR,&since=x&Other=1"));
        assert_eq!(query.integer("limit", 1..=200), None);
        assert_eq!(query.words::<domain::money::Currency>("types", "EUR"), None);
        assert_eq!(query.time("since"), None);
        let problem = query.finish().unwrap_err();
        let faults: Vec<_> =
            problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect();
        let expected = [
            ("?limit", "out_of_range"),
            ("?types", "unknown_value"),
            ("?since", "invalid_value"),
            ("?limit", "unknown_field"),
            ("?Other", "unknown_field"),
        ];
        assert_eq!(faults, expected);
        assert_eq!(none(Some("a")).unwrap_err().code, Code::UnknownField);
    }
}
