//! The fields of a request's body, taken one by one, with every fault collected.
//!
//! A reader takes each field that it knows and ends with [`Fields::finish`], which refuses what nobody took. All
//! faults of a body are told in one answer, each with its JSON pointer. For optional fields `null` is the same as
//! leaving them out, except in a change ([`Fields::change`]), where it means "none from now on".

use std::borrow::Cow;
use std::ops::RangeInclusive;

use domain::command::limits;
use domain::ids::AccountId;
use domain::money::{Amount, Currency, decimal_text};
use domain::payment::Metadata;
use domain::time::Timestamp;

use crate::json::{self, Node, push_pointer};
use crate::problem::{Code, FieldError, Problem};

/// More faults than a person reads are not listed.
const ERRORS_MAX: usize = 30;

/// The members of one JSON object.
#[derive(Debug)]
pub struct Fields {
    members: Vec<(String, Node)>,
    /// What was asked for so far; the names in the message about an unknown field.
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
    /// The pointer of the object itself: empty for the body.
    base: String,
}

impl Fields {
    /// Reads a body, which must be an object.
    pub fn of_body(body: &[u8]) -> Result<Self, Problem> {
        Self::of_node(json::parse(body)?)
    }

    /// As [`Self::of_body`], but an empty body is an object without members.
    pub fn of_optional_body(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() { Self::of_node(Node::Object(Vec::new())) } else { Self::of_body(body) }
    }

    /// Takes a whole body that is parsed already.
    pub fn of_node(node: Node) -> Result<Self, Problem> {
        match node {
            Node::Object(members) => Ok(Self::of_members(members, String::new())),
            other => {
                let detail = format!("the body must be a JSON object, not {}", other.kind());
                Err(Problem::new(Code::MalformedJson, detail))
            }
        }
    }

    /// The members of an object at `base`, a JSON pointer.
    pub const fn of_members(members: Vec<(String, Node)>, base: String) -> Self {
        Self { members, known: Vec::new(), errors: Vec::new(), base }
    }

    /// Refuses what nobody took; gives `value` when there is no fault at all.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Problem> {
        self.refuse_unknown();
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(Problem::fields(self.errors)),
        }
    }

    /// As [`Self::finish`], for an object that is a part of a larger one: its faults become the other's.
    pub fn finish_in(mut self, outer: &mut Self) {
        self.refuse_unknown();
        for error in self.errors {
            outer.push(error);
        }
    }

    fn refuse_unknown(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let known = self.known.join(", ");
        for (name, _) in std::mem::take(&mut self.members) {
            let pointer = self.pointer(&name);
            self.refuse_at(pointer, "unknown_field", format!("unknown; the fields are {known}"));
        }
    }

    /// The pointer of a member.
    pub fn pointer(&self, name: &str) -> String {
        let mut pointer = self.base.clone();
        push_pointer(&mut pointer, name);
        pointer
    }

    /// Notes a fault of a field.
    pub fn refuse(
        &mut self,
        name: &str,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        let pointer = self.pointer(name);
        self.refuse_at(pointer, code, detail);
    }

    /// Notes a fault at a pointer.
    pub fn refuse_at(
        &mut self,
        pointer: String,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.push(FieldError { pointer, code: code.into(), detail: detail.into() });
    }

    fn push(&mut self, error: FieldError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// A field as it is; `None` when it was left out.
    pub fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let index = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.remove(index).1)
    }

    /// A field that may be left out; `null` is the same.
    fn optional(&mut self, name: &'static str) -> Option<Node> {
        self.take(name).filter(|node| *node != Node::Null)
    }

    /// A field of a change: `None` when it is to stay, `Some(None)` when there is to be none from now on.
    pub fn change<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self, &'static str, Node) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name)? {
            Node::Null => Some(None),
            node => read(self, name, node).map(Some),
        }
    }

    /// The string of a required field.
    pub fn required_string(&mut self, name: &'static str, example: &str) -> Option<String> {
        match self.take(name) {
            Some(Node::String(text)) => return Some(text),
            Some(other) => {
                let detail = format!("send a string such as {example}, not {}", other.kind());
                let code = if name == "amount" { "invalid_amount" } else { "wrong_type" };
                self.refuse(name, code, detail);
            }
            None => self.refuse(name, "missing", format!("required; send a string such as {example}")),
        }
        None
    }

    /// The string of an optional field.
    pub fn optional_string(&mut self, name: &'static str) -> Option<String> {
        let node = self.optional(name)?;
        self.string_of(name, node)
    }

    /// A string, or a fault.
    pub fn string_of(&mut self, name: &str, node: Node) -> Option<String> {
        match node {
            Node::String(text) => Some(text),
            other => {
                self.refuse(name, "wrong_type", format!("send a string, not {}", other.kind()));
                None
            }
        }
    }

    /// The text of an optional field: neither empty nor too long, without characters that hide something.
    pub fn optional_text(&mut self, name: &'static str, chars_max: usize) -> Option<String> {
        let node = self.optional(name)?;
        self.text_of(name, node, chars_max)
    }

    /// The text of a required field.
    pub fn required_text(&mut self, name: &'static str, example: &str, chars_max: usize) -> Option<String> {
        let text = self.required_string(name, example)?;
        self.text_of(name, Node::String(text), chars_max)
    }

    /// A text as [`Self::optional_text`] wants it, or a fault.
    pub fn text_of(&mut self, name: &str, node: Node, chars_max: usize) -> Option<String> {
        let text = self.string_of(name, node)?;
        match text_fault(&text, 1, chars_max) {
            None => Some(text),
            Some((code, detail)) => {
                self.refuse(name, code, detail);
                None
            }
        }
    }

    /// The whole number of an optional field.
    pub fn optional_integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let node = self.optional(name)?;
        self.integer_of(name, node, range)
    }

    /// A whole number within bounds, or a fault.
    pub fn integer_of(&mut self, name: &str, node: Node, range: RangeInclusive<i64>) -> Option<i64> {
        let (min, max) = (range.start(), range.end());
        match node {
            Node::Integer(value) if range.contains(&value) => return Some(value),
            Node::Integer(value) => {
                self.refuse(name, "out_of_range", format!("{value} is not from {min} to {max}"));
            }
            other => {
                let detail = format!("send a whole number from {min} to {max}, not {}", other.kind());
                self.refuse(name, "wrong_type", detail);
            }
        }
        None
    }

    /// The boolean of an optional field.
    pub fn optional_bool(&mut self, name: &'static str) -> Option<bool> {
        let node = self.optional(name)?;
        match node {
            Node::Bool(value) => Some(value),
            other => {
                self.refuse(name, "wrong_type", format!("send true or false, not {}", other.kind()));
                None
            }
        }
    }

    /// One of a closed set of words, of an optional field.
    pub fn optional_word<T: std::str::FromStr>(&mut self, name: &'static str, words: &str) -> Option<T> {
        let node = self.optional(name)?;
        let text = self.string_of(name, node)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, "unknown_value", format!("unknown; the values are {words}"));
        }
        parsed
    }

    /// One of a closed set of words, of a required field.
    pub fn required_word<T: std::str::FromStr>(&mut self, name: &'static str, words: &str) -> Option<T> {
        let text = self.required_string(name, words)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, "unknown_value", format!("unknown; the values are {words}"));
        }
        parsed
    }

    /// The RFC 3339 time of an optional field.
    pub fn optional_time(&mut self, name: &'static str) -> Option<Timestamp> {
        let text = self.optional_string(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, "invalid_time", "a time is written like 2026-01-31T12:00:00.000000Z");
        }
        parsed
    }

    /// The id of a required field; `what` begins the sentence about its form.
    pub fn required_id<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        what: &str,
        prefix: &str,
    ) -> Option<T> {
        let text = self.required_string(name, &format!("\"{prefix}_…\""))?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let detail = format!("{what} begins with `{prefix}_` and has 26 more characters");
            self.refuse(name, "invalid_id", detail);
        }
        parsed
    }

    /// An account's id.
    pub fn required_account(&mut self, name: &'static str) -> Option<AccountId> {
        self.required_id(name, "an account's id", "acct")
    }

    /// `currency`.
    pub fn required_currency(&mut self) -> Option<Currency> {
        let text = self.required_string("currency", "\"EUR\"")?;
        self.currency_of(&text)
    }

    fn currency_of(&mut self, text: &str) -> Option<Currency> {
        let parsed: Result<Currency, _> = text.parse();
        if let Err(error) = &parsed {
            self.refuse("currency", "unknown_currency", error.to_string());
        }
        parsed.ok()
    }

    /// `amount`, in `currency`. Without a currency the digits cannot be judged; its own fault is listed already.
    pub fn required_amount(&mut self, currency: Option<Currency>) -> Option<Amount> {
        let text = self.required_string("amount", "\"12.50\"")?;
        let parsed = Amount::parse(&text, currency?);
        if let Err(error) = &parsed {
            self.refuse("amount", "invalid_amount", error.to_string());
        }
        parsed.ok()
    }

    /// `amount` and `currency`, both or neither.
    pub fn optional_amount_and_currency(&mut self) -> Option<Amount> {
        let given =
            |name: &str| self.members.iter().any(|(member, node)| member == name && *node != Node::Null);
        if given("amount") || given("currency") {
            let currency = self.required_currency();
            return self.required_amount(currency);
        }
        self.take("amount");
        self.take("currency");
        None
    }

    /// An amount in `currency` under another name.
    pub fn optional_amount(&mut self, name: &'static str, currency: Option<Currency>) -> Option<Amount> {
        let text = self.optional_string(name)?;
        let parsed = Amount::parse(&text, currency?);
        if let Err(error) = &parsed {
            self.refuse(name, "invalid_amount", error.to_string());
        }
        parsed.ok()
    }

    /// A required sum in `currency` that may be zero, in minor units.
    pub fn required_balance(&mut self, name: &'static str, currency: Option<Currency>) -> Option<i64> {
        let text = self.required_string(name, "\"100.00\"")?;
        let currency = currency?;
        if text == decimal_text(0, currency) {
            return Some(0);
        }
        let parsed = Amount::parse(&text, currency).map_err(|error| error.to_string());
        let bounded = parsed.and_then(|amount| {
            if amount.minor() <= limits::SANDBOX_BALANCE_MINOR_MAX {
                return Ok(amount.minor());
            }
            let most = decimal_text(limits::SANDBOX_BALANCE_MINOR_MAX, currency);
            Err(format!("is above {most}, the most that a test account begins with"))
        });
        if let Err(detail) = &bounded {
            self.refuse(name, "invalid_amount", detail.clone());
        }
        bounded.ok()
    }

    /// `metadata`: the partner's own keys and values.
    pub fn metadata(&mut self) -> Metadata {
        let entries = match self.optional("metadata") {
            None => return Metadata::new(),
            Some(Node::Object(entries)) => entries,
            Some(other) => {
                let detail = format!("send an object of strings, not {}", other.kind());
                self.refuse("metadata", "wrong_type", detail);
                return Metadata::new();
            }
        };
        if entries.len() > limits::METADATA_KEYS_MAX {
            let detail =
                format!("has {} keys; at most {} are kept", entries.len(), limits::METADATA_KEYS_MAX);
            self.refuse("metadata", "too_many", detail);
            return Metadata::new();
        }
        let mut metadata = Metadata::new();
        for (key, node) in entries {
            let mut pointer = self.pointer("metadata");
            push_pointer(&mut pointer, &key);
            if let Some((code, detail)) = text_fault(&key, 1, limits::METADATA_KEY_MAX) {
                self.refuse_at(pointer, code, format!("the key {detail}"));
                continue;
            }
            match node {
                Node::String(value) => match text_fault(&value, 0, limits::METADATA_VALUE_MAX) {
                    None => drop(metadata.insert(key, value)),
                    Some((code, detail)) => self.refuse_at(pointer, code, detail),
                },
                other => {
                    self.refuse_at(pointer, "wrong_type", format!("send a string, not {}", other.kind()));
                }
            }
        }
        metadata
    }
}

/// Why a text cannot be kept. Control characters and those that turn the direction of writing could make a
/// statement show something else than what was paid.
pub fn text_fault(text: &str, chars_min: usize, chars_max: usize) -> Option<(&'static str, String)> {
    let chars = text.chars().count();
    if chars < chars_min {
        return Some(("empty", "is empty; leave it out instead".to_owned()));
    }
    if chars > chars_max {
        return Some(("too_long", format!("has {chars} characters; at most {chars_max} are kept")));
    }
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().find(|c| hidden(*c)).map(|c| {
        ("control_character", format!("has the control character U+{:04X}; remove it", u32::from(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::of_body(body.as_bytes()).unwrap()
    }

    fn faults(problem: &Problem) -> Vec<(&str, &str)> {
        problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect()
    }

    #[test]
    fn what_nobody_took_is_unknown() {
        let mut read = fields(r#"{"a":"x","b~/":1,"c":null}"#);
        let a = read.optional_text("a", 5);
        let problem = read.finish(a).unwrap_err();
        assert_eq!(faults(&problem), [("/b~0~1", "unknown_field"), ("/c", "unknown_field")]);
        assert_eq!(problem.errors[0].detail, "unknown; the fields are a");
    }

    #[test]
    fn values_of_each_kind_are_read_or_refused() {
        let mut read =
            fields(r#"{"n":5,"m":6,"t":true,"at":"2026-01-01T00:00:00Z","w":"EUR","e":"","x":"2026"}"#);
        assert_eq!(read.optional_integer("n", 0..=5), Some(5));
        assert_eq!(read.optional_integer("m", 0..=5), None);
        assert_eq!(read.optional_bool("t"), Some(true));
        assert_eq!(read.optional_time("at").unwrap().seconds(), 1_767_225_600);
        assert_eq!(read.optional_time("x"), None);
        assert_eq!(read.optional_word::<Currency>("w", "EUR"), Some(Currency::EUR));
        assert_eq!(read.optional_text("e", 5), None);
        assert_eq!(read.required_account("account"), None);
        let problem = read.finish(Some(())).unwrap_err();
        let expected =
            [("/m", "out_of_range"), ("/x", "invalid_time"), ("/e", "empty"), ("/account", "missing")];
        assert_eq!(faults(&problem), expected);
    }

    #[test]
    fn a_change_tells_null_from_nothing() {
        let mut read = fields(r#"{"a":null,"b":"x","c":5}"#);
        let text = |fields: &mut Fields, name: &'static str, node| fields.text_of(name, node, 5);
        assert_eq!(read.change("a", text), Some(None));
        assert_eq!(read.change("b", text), Some(Some("x".to_owned())));
        assert_eq!(read.change("c", text), None);
        assert_eq!(read.change("d", text), None);
        assert_eq!(faults(&read.finish(Some(())).unwrap_err()), [("/c", "wrong_type")]);
    }

    #[test]
    fn faults_of_a_part_are_told_with_the_whole() {
        let mut outer = fields(r#"{"a":{"b":5,"c":1}}"#);
        let Some(Node::Object(members)) = outer.take("a") else { panic!("an object") };
        let mut inner = Fields::of_members(members, "/a".to_owned());
        assert_eq!(inner.required_string("b", "\"x\""), None);
        inner.finish_in(&mut outer);
        let problem = outer.finish(Some(())).unwrap_err();
        assert_eq!(faults(&problem), [("/a/b", "wrong_type"), ("/a/c", "unknown_field")]);
    }
}
