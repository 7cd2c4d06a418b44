//! The body of `POST /v1/payments`: read field by field, every fault collected.

use domain::command::{PaymentCommand, limits};
use domain::fingerprint::Fingerprint;
use domain::ids::MandateId;

use crate::fields::Fields;
use crate::problem::Problem;

/// Reads and checks the whole body.
pub fn parse(body: &[u8]) -> Result<PaymentCommand, Problem> {
    let mut fields = Fields::of_body(body)?;
    let currency = fields.required_currency();
    let amount = fields.required_amount(currency);
    let mandate: Option<MandateId> = fields.required_id("mandate", "a mandate's id", "mdt");
    capture(&mut fields);
    let reference = fields.optional_text("reference", limits::REFERENCE_MAX);
    let description = fields.optional_text("description", limits::DESCRIPTION_MAX);
    let metadata = fields.metadata();
    let command = amount.zip(mandate).map(|(amount, mandate)| PaymentCommand {
        mandate,
        amount_minor: amount.minor(),
        currency: amount.currency(),
        expires_in_s: None,
        reference,
        description,
        metadata,
    });
    fields.finish(command)
}

fn capture(fields: &mut Fields) {
    let word = fields.optional_string("capture");
    if word.is_some_and(|word| word != "automatic") {
        fields.refuse("capture", "unknown_value", "unknown; the one value is \"automatic\"");
    }
}

/// What the request said, independent of white space, escapes and the order of fields.
pub fn fingerprint(command: &PaymentCommand) -> Fingerprint {
    // Strings, integers and maps with string keys: serialising them cannot fail.
    let canonical = serde_json::to_vec(command).unwrap_or_default();
    Fingerprint::of(&[b"POST", b"/v1/payments", &canonical])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;
    use domain::money::Currency;

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
        assert_eq!(pointers, ["/currency", "/amount", "/mandate", "/reference", "/mandat"]);
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
