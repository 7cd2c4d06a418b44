//! A strict reader of JSON bodies: what a second parser could understand differently is refused.
//!
//! `serde_json` decides what is JSON and UTF-8; on top of it duplicate keys are noticed (the first or the last
//! could win), nesting is bounded, and nothing may follow the value. The result is a small tree from which the
//! fields of a request are taken one by one, so that one answer can name all that are wrong.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::problem::{Code, FieldError, Problem};

/// Requests need two levels; each level costs stack.
const DEPTH_MAX: usize = 8;
/// The longest list that a request may hold has 500 items.
const ITEMS_MAX: usize = 1_000;
/// Longest piece of a sender's key that is shown in a pointer.
const POINTER_KEY_CHARS_MAX: usize = 64;

/// A JSON value, as far as a request needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number; no field is one, so its value does not matter.
    Number,
    /// A string, unescaped.
    String(String),
    /// The items in their order.
    Array(Vec<Node>),
    /// The members in their order, no key twice.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for "send a string, not …".
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Number => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Writes it so that two texts that mean the same are the same: members sorted, no white space.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        // Strings alone: serialising them cannot fail.
        let string = |out: &mut Vec<u8>, text: &str| out.extend(serde_json::to_vec(text).unwrap_or_default());
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Number => out.extend_from_slice(b"number"),
            Self::String(text) => string(out, text),
            Self::Array(items) => {
                out.push(b'[');
                for item in items {
                    item.write_canonical(out);
                    out.push(b',');
                }
                out.push(b']');
            }
            Self::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
                out.push(b'{');
                for (key, value) in sorted {
                    string(out, key);
                    out.push(b':');
                    value.write_canonical(out);
                    out.push(b',');
                }
                out.push(b'}');
            }
        }
    }
}

/// Reads a body.
pub fn parse(body: &[u8]) -> Result<Node, Problem> {
    let malformed = |detail: String| Problem::new(Code::MalformedJson, detail);
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())))?;
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut pointer = String::new();
    let seed = Seed { depth: 0, pointer: &mut pointer, duplicates: &mut duplicates };
    let node = seed
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node))
        .map_err(|error| malformed(format!("the body is no acceptable JSON: {error}")))?;
    if duplicates.is_empty() {
        return Ok(node);
    }
    let errors = duplicates.into_iter().map(|pointer| FieldError {
        pointer,
        code: "duplicate_key".into(),
        detail: "the key stands twice in its object; send it once".into(),
    });
    Err(Problem {
        errors: errors.collect(),
        ..malformed("a key stands twice in one object, see errors".into())
    })
}

/// Appends a key to a JSON pointer (RFC 6901), cut so that an answer stays small.
pub fn push_pointer(pointer: &mut String, key: &str) {
    pointer.push('/');
    for (index, character) in key.chars().enumerate() {
        match character {
            _ if index == POINTER_KEY_CHARS_MAX => {
                pointer.push('…');
                break;
            }
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            _ => pointer.push(character),
        }
    }
}

struct Seed<'p> {
    depth: usize,
    pointer: &'p mut String,
    duplicates: &'p mut Vec<String>,
}

/// More duplicates than a person reads are not listed.
const DUPLICATES_MAX: usize = 20;

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<Seed<'_>, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(Seed { depth: self.depth + 1, pointer: self.pointer, duplicates: self.duplicates })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Number, Node::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        loop {
            let length = self.pointer.len();
            push_pointer(self.pointer, &nodes.len().to_string());
            let item = items.next_element_seed(self.deeper()?)?;
            self.pointer.truncate(length);
            match item {
                Some(_) if nodes.len() == ITEMS_MAX => {
                    return Err(A::Error::custom(format_args!("an array of more than {ITEMS_MAX} items")));
                }
                Some(node) => nodes.push(node),
                None => return Ok(Node::Array(nodes)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Node, A::Error> {
        let mut members: Vec<(String, Node)> = Vec::with_capacity(8);
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let length = self.pointer.len();
            push_pointer(self.pointer, &key);
            // A short object is searched; a long one is hashed, lest a hostile body costs quadratic time.
            let doubled = if members.len() < 16 {
                members.iter().any(|(known, _)| *known == key)
            } else {
                if seen.is_empty() {
                    seen.extend(members.iter().map(|(known, _)| known.clone()));
                }
                !seen.insert(key.clone())
            };
            if doubled && self.duplicates.len() < DUPLICATES_MAX {
                self.duplicates.push(self.pointer.clone());
            }
            let value = entries.next_value_seed(self.deeper()?).map_err(A::Error::custom)?;
            self.pointer.truncate(length);
            members.push((key, value));
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Node {
        Node::String(text.to_owned())
    }

    #[test]
    fn values_become_a_small_tree() {
        let node = parse(br#" {"a":"\u00fc","b":{"c":null,"d":1e400,"e":[1,"x"]},"f":true} "#);
        // 1e400 does not fit a float: serde_json refuses it, and so do we.
        assert!(node.is_err());
        let node = parse(br#" {"a":"\u00fc","b":{"c":null,"d":1.5,"e":[1,"x"]},"f":true} "#).unwrap();
        let items = Node::Array(vec![Node::Integer(1), string("x")]);
        let inner = vec![("c".into(), Node::Null), ("d".into(), Node::Number), ("e".into(), items)];
        let expected = vec![
            ("a".into(), string("ü")),
            ("b".into(), Node::Object(inner)),
            ("f".into(), Node::Bool(true)),
        ];
        assert_eq!(node, Node::Object(expected));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        let refused: &[&[u8]] = &[
            b"",
            b"{",
            b"{}{}",
            b"{} x",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"{\"a\":NaN}",
            b"\xff{}",
            b"{\"a\":\"\xc3\"}",
            b"{\"a\":\"\\ud800\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\n\"}",
            b"// x\n{}",
            b"{\"a\":01}",
            b"{a:1}",
        ];
        for body in refused {
            assert_eq!(
                parse(body).unwrap_err().code,
                Code::MalformedJson,
                "{:?}",
                String::from_utf8_lossy(body)
            );
        }
        for levels in [DEPTH_MAX + 1, 200, 30_000] {
            assert_eq!(parse(deep(levels).as_bytes()).unwrap_err().code, Code::MalformedJson);
        }
    }

    #[test]
    fn duplicate_keys_are_named_at_any_depth() {
        let problem = parse(br#"{"a":1,"m":{"x/y":1,"z":2,"x/y":3},"\u0061":2}"#).unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/m/x~1y", "/a"]);
        let many: Vec<_> = (0..100).map(|index| format!("\"k{index}\":0")).collect();
        let problem = parse(format!("{{{},\"k99\":1,\"k3\":1}}", many.join(",")).as_bytes()).unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/k99", "/k3"]);
    }

    #[test]
    fn the_canonical_form_is_of_the_meaning_not_of_the_bytes() {
        let canonical = |text: &str| {
            let mut out = Vec::new();
            parse(text.as_bytes()).unwrap().write_canonical(&mut out);
            out
        };
        let one = canonical(r#"{"a":[1,"x",null],"b":{"c":true}}"#);
        assert_eq!(one, canonical(" { \"b\" : {\"c\":true}, \"\\u0061\":[1, \"x\",null]}"));
        for other in [
            r#"{"a":[1,"x"],"b":{"c":true}}"#,
            r#"{"a":["x",1,null],"b":{"c":true}}"#,
            r#"{"a":[1,"x",null],"b":{"c":false}}"#,
            r#"{"a":["1","x",null],"b":{"c":true}}"#,
        ] {
            assert_ne!(one, canonical(other), "{other}");
        }
    }

    #[test]
    fn an_array_is_bounded() {
        let array = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(parse(array(ITEMS_MAX).as_bytes()).is_ok());
        assert!(parse(array(ITEMS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_pointer_shows_no_more_than_a_piece_of_a_long_key() {
        let mut pointer = String::new();
        push_pointer(&mut pointer, &"k".repeat(5_000));
        assert_eq!(pointer.chars().count(), 1 + POINTER_KEY_CHARS_MAX + 1);
    }
}
