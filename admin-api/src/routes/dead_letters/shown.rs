//! A record as staff see it: what the bank's own programs wrote, and nothing that a person may have written.
//!
//! Only fields on a list are shown, since a record that cannot be read may hold anything under any name. The rest is
//! there with a mask for its value, or not even with its name.

use serde_json::{Map, Value};

/// What stands for a value that is not shown.
const MASK: &str = "•••";
/// Deeper is no command.
const DEPTH_MAX: usize = 8;
/// Longest name of a field that is shown.
const NAME_BYTES_MAX: usize = 40;

/// Fields whose values are ids, numbers, times and words of closed sets.
const SHOWN: &[&str] = &[
    "schema",
    "id",
    "root",
    "partner",
    "key",
    "fingerprint",
    "actor",
    "request_id",
    "mandate",
    "account",
    "owner",
    "customer",
    "amount_minor",
    "currency",
    "expires_in_s",
    "expires_at",
    "answer_by",
    "from",
    "to",
    "outward",
    "kind",
    "payment_max_minor",
    "daily_max_minor",
    "overdraft_minor",
    "balance_minor",
    "state",
    "source",
    "partition",
    "offset",
];

/// Commands, and parts of them that hold such fields.
const OPENED: &[&str] = &[
    "command",
    "payment",
    "capture",
    "void",
    "refund",
    "transfer",
    "cancel_mandate",
    "expire_mandate",
    "sandbox_mandate",
    "terms",
    "part",
    "open_account",
    "deposit",
    "withdrawal",
    "reversal",
    "grant_mandate",
    "revoke_mandate",
    "decline_mandate",
    "freeze_account",
    "unfreeze_account",
    "close_account",
    "set_limits",
    "set_settlement_account",
    "redrive_dead_letters",
    "reject_dead_letter",
    "owner",
];

/// The record, masked; `None` when it is no JSON object.
pub(super) fn record(value: &[u8]) -> Option<Value> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(members)) => Some(object(members, 0)),
        Ok(_) | Err(_) => None,
    }
}

fn object(members: Map<String, Value>, depth: usize) -> Value {
    let is_word = |name: &str| {
        name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let shown = members.into_iter().filter(|(name, _)| is_word(name)).map(|(name, value)| {
        let value = match value {
            Value::Object(inner) if OPENED.contains(&name.as_str()) && depth < DEPTH_MAX => {
                object(inner, depth + 1)
            }
            value if SHOWN.contains(&name.as_str()) => plain(value),
            // A payment is named by commands of the bank, and is a command of partners.
            value if name == "payment" => plain(value),
            Value::Null => Value::Null,
            _ => Value::from(MASK),
        };
        (name, value)
    });
    Value::Object(shown.collect())
}

/// A number, a truth, or a text that can only be an id, a time or a word.
fn plain(value: Value) -> Value {
    let is_plain = |text: &str| {
        text.len() <= 80 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:.".contains(&byte))
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) if is_plain(&text) => Value::String(text),
        Value::String(_) | Value::Array(_) | Value::Object(_) => Value::from(MASK),
    }
}

/// What the program said, without what it quoted of the record: text in quotes, and in backticks what is no name.
pub(super) fn detail(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(['"', '\'', '`']) {
        let quote = rest[start..].chars().next().unwrap_or('"');
        shown.push_str(&rest[..=start]);
        let inner = &rest[start + 1..];
        // A quote that is not closed quotes everything to the end.
        let end = inner.find(quote).unwrap_or(inner.len());
        let is_name = quote == '`'
            && end <= NAME_BYTES_MAX
            && inner[..end].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        shown.push_str(if is_name { &inner[..end] } else { MASK });
        rest = &inner[end..];
        if !rest.is_empty() {
            shown.push(quote);
            rest = &rest[1..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_sums_are_shown_and_nothing_that_a_person_wrote() {
        let value = json!({
            "schema": 1, "id": "pay_01k9q5m3v7f8h9j0kamcneprqs", "idempotency_key": "anna@example.com",
            "address": "203.0.113.7", "reason": "for Anna", "Anna Bell": 1, "anna": {"bell": "x"},
            "command": {"payment": {"mandate": "mdt_01k9q5m3v7f8h9j0kamcneprqs", "amount_minor": 5, "currency": "EUR",
                "description": "Anna", "metadata": {"name": "Anna"}, "reference": null}},
            "partner": "Anna Bell", "key": ["Anna"], "account": {"name": "Anna"}
        });
        let shown = record(value.to_string().as_bytes()).unwrap();
        let expected = json!({
            "schema": 1, "id": "pay_01k9q5m3v7f8h9j0kamcneprqs", "idempotency_key": "•••", "address": "•••", "reason": "•••",
            "anna": "•••", "partner": "•••", "key": "•••", "account": "•••",
            "command": {"payment": {"mandate": "mdt_01k9q5m3v7f8h9j0kamcneprqs", "amount_minor": 5, "currency": "EUR",
                "description": "•••", "metadata": "•••", "reference": null}}
        });
        assert_eq!(shown, expected);
        let reversal = json!({"command": {"reversal": {"payment": "pay_01k9q5m3v7f8h9j0kamcneprqs"}}});
        assert_eq!(record(reversal.to_string().as_bytes()), Some(reversal));
        for value in [&b"Anna Bell"[..], b"\"Anna\"", b"[1]", b"", b"\xff{}"] {
            assert_eq!(record(value), None);
        }
        let deep = "{\"command\":".repeat(100) + "1" + &"}".repeat(100);
        let shown = record(deep.as_bytes()).unwrap().to_string();
        assert!(shown.matches("command").count() <= DEPTH_MAX + 2, "{shown}");
    }

    #[test]
    fn what_a_program_quotes_is_masked() {
        for (text, expected) in [
            ("missing field `id` at line 1 column 5", "missing field `id` at line 1 column 5"),
            ("unknown field `Anna Bell`, expected `id`", "unknown field `•••`, expected `id`"),
            ("invalid type: string \"Anna\", expected u8", "invalid type: string \"•••\", expected u8"),
            ("Incorrect string value: '\\xF0' for column", "Incorrect string value: '•••' for column"),
            ("open \"Anna", "open \"•••"),
            ("it's Anna", "it'•••"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(detail(text), expected);
        }
    }
}
