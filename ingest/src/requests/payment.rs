//! The body of `POST /v1/payments`, and of each item of a batch.

use domain::command::{PaymentCommand, limits};
use domain::ids::MandateId;

use crate::fields::Fields;
use crate::problem::Problem;

/// The longest time that funds are held: 30 days.
pub const HOLD_SECONDS_MAX: u32 = 30 * 24 * 3_600;
/// How long funds are held unless the request says: 7 days.
pub const HOLD_SECONDS_DEFAULT: u32 = 7 * 24 * 3_600;

/// Where payments are asked for; each item of a batch stands for such a request.
pub const PATH: &str = "/v1/payments";

/// Reads and checks the whole body.
pub fn parse(body: &[u8], hold_seconds_min: u32) -> Result<PaymentCommand, Problem> {
    parse_fields(Fields::of_body(body)?, hold_seconds_min)
}

/// Reads and checks all that is left of an object.
pub fn parse_fields(mut fields: Fields, hold_seconds_min: u32) -> Result<PaymentCommand, Problem> {
    let currency = fields.required_currency();
    let amount = fields.required_amount(currency);
    let mandate: Option<MandateId> = fields.required_id("mandate", "a mandate's id", "mdt");
    let expires_in_s = hold_seconds(&mut fields, hold_seconds_min);
    let reference = fields.optional_text("reference", limits::REFERENCE_MAX);
    let description = fields.optional_text("description", limits::DESCRIPTION_MAX);
    let metadata = fields.metadata();
    let command = amount.zip(mandate).map(|(amount, mandate)| PaymentCommand {
        mandate,
        amount_minor: amount.minor(),
        currency: amount.currency(),
        expires_in_s,
        reference,
        description,
        metadata,
    });
    fields.finish(command)
}

/// `capture` and `expires_in`: how long the funds of a payment in two phases are held.
fn hold_seconds(fields: &mut Fields, min: u32) -> Option<u32> {
    let capture = fields.optional_string("capture");
    let wish = fields.optional_integer("expires_in", min.into()..=HOLD_SECONDS_MAX.into());
    match capture.as_deref() {
        Some("manual") => Some(
            wish.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(HOLD_SECONDS_DEFAULT.max(min)),
        ),
        None | Some("automatic") => {
            if wish.is_some() {
                let detail = "only a payment with \"capture\": \"manual\" holds funds; leave it out";
                fields.refuse("expires_in", "not_allowed", detail);
            }
            None
        }
        Some(_) => {
            fields.refuse("capture", "unknown_value", "unknown; the values are \"automatic\" and \"manual\"");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;
    use crate::requests::fingerprint;
    use domain::money::Currency;

    const MANDATE: &str = "mdt_00000000000000000000000001";

    const MIN: u32 = 60;

    fn parse(body: &[u8]) -> Result<PaymentCommand, Problem> {
        super::parse(body, MIN)
    }

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
    fn a_payment_in_two_phases_holds_funds_for_a_time() {
        let held = |fields: &str| parse(&body(fields)).unwrap().expires_in_s;
        assert_eq!(held(""), None);
        assert_eq!(held(r#","capture":"automatic""#), None);
        assert_eq!(held(r#","capture":"manual""#), Some(HOLD_SECONDS_DEFAULT));
        assert_eq!(held(r#","capture":"manual","expires_in":60"#), Some(60));
        assert_eq!(held(r#","capture":"manual","expires_in":2592000"#), Some(HOLD_SECONDS_MAX));
    }

    #[test]
    fn null_is_the_same_as_leaving_an_optional_field_out() {
        let nulls = r#","capture":null,"reference":null,"description":null,"metadata":null"#;
        assert_eq!(
            fingerprint(PATH, &parse(&body(nulls)).unwrap()),
            fingerprint(PATH, &parse(&body("")).unwrap())
        );
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
            (body(r#","capture":"later""#), Code::InvalidField, "/capture", "unknown_value"),
            (body(r#","expires_in":60"#), Code::InvalidField, "/expires_in", "not_allowed"),
            (
                body(r#","capture":"automatic","expires_in":60"#),
                Code::InvalidField,
                "/expires_in",
                "not_allowed",
            ),
            (
                body(r#","capture":"manual","expires_in":0"#),
                Code::InvalidField,
                "/expires_in",
                "out_of_range",
            ),
            (
                body(r#","capture":"manual","expires_in":59"#),
                Code::InvalidField,
                "/expires_in",
                "out_of_range",
            ),
            // Ten years, and a second above thirty days.
            (
                body(r#","capture":"manual","expires_in":315360000"#),
                Code::InvalidField,
                "/expires_in",
                "out_of_range",
            ),
            (
                body(r#","capture":"manual","expires_in":2592001"#),
                Code::InvalidField,
                "/expires_in",
                "out_of_range",
            ),
            (
                body(r#","capture":"manual","expires_in":"60""#),
                Code::InvalidField,
                "/expires_in",
                "wrong_type",
            ),
            (
                body(r#","capture":"manual","expires_in":60.5"#),
                Code::InvalidField,
                "/expires_in",
                "wrong_type",
            ),
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
        assert_eq!(fingerprint(PATH, &one), fingerprint(PATH, &parse(same.as_bytes()).unwrap()));
        assert_ne!(fingerprint(PATH, &one), fingerprint(PATH, &other));
        assert_ne!(fingerprint(PATH, &one), fingerprint("/v1/payments/other", &one));
    }
}
