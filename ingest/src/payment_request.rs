//! The body of `POST /v1/payments`: read field by field, every fault collected.

use std::borrow::Cow;

use domain::command::{PaymentCommand, limits};
use domain::fingerprint::Fingerprint;
use domain::ids::MandateId;
use domain::money::{Amount, Currency};
use domain::payment::Metadata;

use crate::json::{self, Node, push_pointer};
use crate::problem::{Code, FieldError, Problem};

/// More faults than a person reads are not listed.
const ERRORS_MAX: usize = 30;

/// Reads and checks the whole body.
pub fn parse(body: &[u8]) -> Result<PaymentCommand, Problem> {
    let fields = match json::parse(body)? {
        Node::Object(fields) => fields,
        other => {
            let detail = format!("the body must be a JSON object, not {}", other.kind());
            return Err(Problem::new(Code::MalformedJson, detail));
        }
    };
    let mut read = Reader { errors: Vec::new() };
    let (mut amount, mut currency, mut mandate) = (None, None, None);
    let (mut reference, mut description, mut metadata) = (None, None, None);
    for (name, node) in fields {
        match name.as_str() {
            "amount" => amount = Some(node),
            "currency" => currency = Some(node),
            "mandate" => mandate = Some(node),
            "capture" => read.capture(node),
            "reference" => reference = read.text("/reference", node, limits::REFERENCE_MAX),
            "description" => description = read.text("/description", node, limits::DESCRIPTION_MAX),
            "metadata" => metadata = Some(read.metadata(node)),
            _ => {
                let mut pointer = String::new();
                push_pointer(&mut pointer, &name);
                read.refuse(
                    pointer,
                    "unknown_field",
                    "unknown; the fields are amount, currency, mandate, capture, reference, description, metadata",
                );
            }
        }
    }
    let currency = read.currency(currency);
    let amount = read.amount(amount, currency);
    let mandate = read.mandate(mandate);
    match (amount, mandate) {
        (Some(amount), Some(mandate)) if read.errors.is_empty() => Ok(PaymentCommand {
            mandate,
            amount_minor: amount.minor(),
            currency: amount.currency(),
            expires_in_s: None,
            reference,
            description,
            metadata: metadata.unwrap_or_default(),
        }),
        _ => Err(Problem::fields(read.errors)),
    }
}

/// What the request said, independent of white space, escapes and the order of fields.
pub fn fingerprint(command: &PaymentCommand) -> Fingerprint {
    // Strings, integers and maps with string keys: serialising them cannot fail.
    let canonical = serde_json::to_vec(command).unwrap_or_default();
    Fingerprint::of(&[b"POST", b"/v1/payments", &canonical])
}

struct Reader {
    errors: Vec<FieldError>,
}

impl Reader {
    fn refuse(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        if self.errors.len() < ERRORS_MAX {
            let error = FieldError { pointer: pointer.into(), code: code.into(), detail: detail.into() };
            self.errors.push(error);
        }
    }

    /// The string of a required field.
    fn required(&mut self, pointer: &'static str, node: Option<Node>, example: &str) -> Option<String> {
        match node {
            Some(Node::String(text)) => return Some(text),
            Some(other) => {
                let detail = format!("send a string such as {example}, not {}", other.kind());
                let code = if pointer == "/amount" { "invalid_amount" } else { "wrong_type" };
                self.refuse(pointer, code, detail);
            }
            None => self.refuse(pointer, "missing", format!("required; send a string such as {example}")),
        }
        None
    }

    fn currency(&mut self, node: Option<Node>) -> Option<Currency> {
        let text = self.required("/currency", node, "\"EUR\"")?;
        let parsed: Result<Currency, _> = text.parse();
        if let Err(error) = &parsed {
            self.refuse("/currency", "unknown_currency", error.to_string());
        }
        parsed.ok()
    }

    fn amount(&mut self, node: Option<Node>, currency: Option<Currency>) -> Option<Amount> {
        let text = self.required("/amount", node, "\"12.50\"")?;
        // Without a currency the digits cannot be judged; its own fault is listed already.
        let parsed = Amount::parse(&text, currency?);
        if let Err(error) = &parsed {
            self.refuse("/amount", "invalid_amount", error.to_string());
        }
        parsed.ok()
    }

    fn mandate(&mut self, node: Option<Node>) -> Option<MandateId> {
        let text = self.required("/mandate", node, "\"mdt_…\"")?;
        let parsed: Result<MandateId, _> = text.parse();
        if parsed.is_err() {
            self.refuse(
                "/mandate",
                "invalid_id",
                "a mandate's id begins with `mdt_` and has 26 more characters",
            );
        }
        parsed.ok()
    }

    fn capture(&mut self, node: Node) {
        match node {
            Node::Null => {}
            Node::String(word) if word == "automatic" => {}
            Node::String(_) => {
                self.refuse("/capture", "unknown_value", "unknown; the one value is \"automatic\"");
            }
            other => {
                let detail = format!("send the string \"automatic\", not {}", other.kind());
                self.refuse("/capture", "wrong_type", detail);
            }
        }
    }

    /// The text of an optional field; `null` is the same as leaving it out.
    fn text(&mut self, pointer: &str, node: Node, chars_max: usize) -> Option<String> {
        match node {
            Node::Null => None,
            Node::String(text) => match text_fault(&text, 1, chars_max) {
                None => Some(text),
                Some((code, detail)) => {
                    self.refuse(pointer, code, detail);
                    None
                }
            },
            other => {
                self.refuse(pointer, "wrong_type", format!("send a string, not {}", other.kind()));
                None
            }
        }
    }

    fn metadata(&mut self, node: Node) -> Metadata {
        let entries = match node {
            Node::Null => return Metadata::new(),
            Node::Object(entries) => entries,
            other => {
                let detail = format!("send an object of strings, not {}", other.kind());
                self.refuse("/metadata", "wrong_type", detail);
                return Metadata::new();
            }
        };
        if entries.len() > limits::METADATA_KEYS_MAX {
            let detail =
                format!("has {} keys; at most {} are kept", entries.len(), limits::METADATA_KEYS_MAX);
            self.refuse("/metadata", "too_many", detail);
            return Metadata::new();
        }
        let mut metadata = Metadata::new();
        for (key, node) in entries {
            let mut pointer = "/metadata".to_owned();
            push_pointer(&mut pointer, &key);
            if let Some((code, detail)) = text_fault(&key, 1, limits::METADATA_KEY_MAX) {
                self.refuse(pointer, code, format!("the key {detail}"));
                continue;
            }
            match node {
                Node::String(value) => match text_fault(&value, 0, limits::METADATA_VALUE_MAX) {
                    None => drop(metadata.insert(key, value)),
                    Some((code, detail)) => self.refuse(pointer, code, detail),
                },
                other => {
                    self.refuse(pointer, "wrong_type", format!("send a string, not {}", other.kind()));
                }
            }
        }
        metadata
    }
}

/// Why a text cannot be kept. Control characters and those that turn the direction of writing could make a
/// statement show something else than what was paid.
fn text_fault(text: &str, chars_min: usize, chars_max: usize) -> Option<(&'static str, String)> {
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

    const MANDATE: &str = "mdt_00000000000000000000000001";

    fn body(fields: &str) -> Vec<u8> {
        format!(r#"{{"amount":"12.50","currency":"EUR","mandate":"{MANDATE}"{fields}}}"#).into_bytes()
    }

    #[test]
    fn a_full_request_is_read() {
        let fields = r#","capture":"automatic","reference":"order 1","description":"Kaffee ☕","metadata":{"a":"","b":"2"}"#;
        let command = parse(&body(fields)).unwrap();
        assert_eq!(command.amount_minor, 1_250);
        assert_eq!(command.currency, Currency::EUR);
        assert_eq!(command.mandate.to_string(), MANDATE);
        assert_eq!(command.reference.as_deref(), Some("order 1"));
        assert_eq!(command.description.as_deref(), Some("Kaffee ☕"));
        assert_eq!(command.metadata["b"], "2");
    }

    #[test]
    fn null_is_the_same_as_leaving_an_optional_field_out() {
        let nulls = r#","capture":null,"reference":null,"description":null,"metadata":null"#;
        assert_eq!(fingerprint(&parse(&body(nulls)).unwrap()), fingerprint(&parse(&body("")).unwrap()));
    }

    #[test]
    fn each_fault_names_its_field_and_has_its_code() {
        let long = |chars: usize| "ü".repeat(chars);
        let replace =
            |from: &str, to: &str| String::from_utf8(body("")).unwrap().replace(from, to).into_bytes();
        let many: Vec<_> = (0..21).map(|index| format!("\"k{index}\":\"v\"")).collect();
        let cases: Vec<(Vec<u8>, Code, &str, &str)> = vec![
            (replace("\"12.50\"", "12.50"), Code::InvalidAmount, "/amount", "invalid_amount"),
            (replace("\"12.50\"", "\"12.5\""), Code::InvalidAmount, "/amount", "invalid_amount"),
            (replace("\"12.50\"", "\"-1.00\""), Code::InvalidAmount, "/amount", "invalid_amount"),
            (replace("\"12.50\"", "\"0.00\""), Code::InvalidAmount, "/amount", "invalid_amount"),
            (replace("\"12.50\"", "\"１２.50\""), Code::InvalidAmount, "/amount", "invalid_amount"),
            (
                replace("\"12.50\"", "\"99999999999999999999.00\""),
                Code::InvalidAmount,
                "/amount",
                "invalid_amount",
            ),
            (replace("\"12.50\"", "null"), Code::InvalidAmount, "/amount", "invalid_amount"),
            (replace("\"amount\":\"12.50\",", ""), Code::InvalidField, "/amount", "missing"),
            (replace("EUR", "eur"), Code::UnknownCurrency, "/currency", "unknown_currency"),
            (replace("EUR", "ЕUR"), Code::UnknownCurrency, "/currency", "unknown_currency"),
            (replace("\"EUR\"", "978"), Code::InvalidField, "/currency", "wrong_type"),
            (replace("mdt_", "pay_"), Code::InvalidField, "/mandate", "invalid_id"),
            (replace("mdt_", "MDT_"), Code::InvalidField, "/mandate", "invalid_id"),
            (body(r#","capture":"manual""#), Code::InvalidField, "/capture", "unknown_value"),
            (body(r#","capture":true"#), Code::InvalidField, "/capture", "wrong_type"),
            (body(r#","Reference":"x""#), Code::UnknownField, "/Reference", "unknown_field"),
            (body(r#","reference":"""#), Code::InvalidField, "/reference", "empty"),
            (body(&format!(r#","reference":"{}""#, long(101))), Code::InvalidField, "/reference", "too_long"),
            (
                body(&format!(r#","description":"{}""#, long(201))),
                Code::InvalidField,
                "/description",
                "too_long",
            ),
            (body(r#","description":"a\u0000b""#), Code::InvalidField, "/description", "control_character"),
            (body(r#","description":"a\u202eb""#), Code::InvalidField, "/description", "control_character"),
            (body(r#","metadata":[]"#), Code::InvalidField, "/metadata", "wrong_type"),
            (body(r#","metadata":{"a":1}"#), Code::InvalidField, "/metadata/a", "wrong_type"),
            (body(r#","metadata":{"a":{"b":"c"}}"#), Code::InvalidField, "/metadata/a", "wrong_type"),
            (body(r#","metadata":{"":"x"}"#), Code::InvalidField, "/metadata/", "empty"),
            (
                body(&format!(r#","metadata":{{"a":"{}"}}"#, long(501))),
                Code::InvalidField,
                "/metadata/a",
                "too_long",
            ),
            (
                body(&format!(r#","metadata":{{{}}}"#, many.join(","))),
                Code::InvalidField,
                "/metadata",
                "too_many",
            ),
        ];
        for (body, code, pointer, field_code) in cases {
            let shown = String::from_utf8_lossy(&body).into_owned();
            let problem = parse(&body).expect_err(&shown);
            let fields: Vec<_> =
                problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect();
            assert_eq!((problem.code, fields), (code, vec![(pointer, field_code)]), "{shown}");
        }
    }

    #[test]
    fn texts_of_the_longest_length_are_kept() {
        let (key, value) = ("k".repeat(40), "ü".repeat(500));
        let fields = format!(
            r#","reference":"{}","description":"{}","metadata":{{"{key}":"{value}"}}"#,
            "ü".repeat(100),
            "ü".repeat(200)
        );
        assert_eq!(parse(&body(&fields)).unwrap().metadata[&key], value);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let problem = parse(br#"{"amount":1,"currency":"eur","mandat":"x","reference":5}"#).unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/mandat", "/reference", "/currency", "/amount", "/mandate"]);
        assert_eq!(problem.code, Code::InvalidField);
        for other in [&b"[]"[..], b"null", b"\"x\"", b"1"] {
            assert_eq!(parse(other).unwrap_err().code, Code::MalformedJson);
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_meaning_not_of_the_bytes() {
        let one = parse(&body(r#","metadata":{"a":"1","b":"2"}"#)).unwrap();
        let same = format!(
            r#"{{ "metadata":{{"b":"\u0032","a":"1"}}, "mandate":"{MANDATE}", "currency":"EUR", "amount":"12.50" }}"#
        );
        let other = parse(&body(r#","metadata":{"a":"1","b":"3"}"#)).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&parse(same.as_bytes()).unwrap()));
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
