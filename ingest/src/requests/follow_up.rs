//! The bodies of `POST /v1/payments/{id}/capture`, `/void` and `/refunds`.

use domain::command::{FollowUp, Part, limits};

use crate::fields::Fields;
use crate::problem::Problem;

/// A capture or a refund: of a part, or of everything that is left.
pub fn parse(body: &[u8]) -> Result<FollowUp, Problem> {
    let mut fields = Fields::of_optional_body(body)?;
    let part = fields
        .optional_amount_and_currency()
        .map(|amount| Part { amount_minor: amount.minor(), currency: amount.currency() });
    finish(fields, part)
}

/// A void, which takes everything.
pub fn parse_void(body: &[u8]) -> Result<FollowUp, Problem> {
    finish(Fields::of_optional_body(body)?, None)
}

fn finish(mut fields: Fields, part: Option<Part>) -> Result<FollowUp, Problem> {
    let reference = fields.optional_text("reference", limits::REFERENCE_MAX);
    let description = fields.optional_text("description", limits::DESCRIPTION_MAX);
    let metadata = fields.metadata();
    fields.finish(Some(FollowUp { part, reference, description, metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;
    use domain::money::Currency;

    #[test]
    fn amount_and_currency_stand_together_or_not_at_all() {
        for everything in [&b""[..], b"{}", br#"{"amount":null,"currency":null}"#] {
            assert_eq!(parse(everything).unwrap().part, None);
        }
        let part = parse(br#"{"amount":"5.00","currency":"EUR","reference":"r"}"#).unwrap().part.unwrap();
        assert_eq!((part.amount_minor, part.currency), (500, Currency::EUR));
        let cases: &[(&[u8], &str, &str)] = &[
            (br#"{"amount":"5.00"}"#, "/currency", "missing"),
            (br#"{"currency":"EUR"}"#, "/amount", "missing"),
            (br#"{"amount":"0.00","currency":"EUR"}"#, "/amount", "invalid_amount"),
            (br#"{"amount":"5.00","currency":"XXX"}"#, "/currency", "unknown_currency"),
            (br#"{"mandate":"x"}"#, "/mandate", "unknown_field"),
        ];
        for (body, pointer, code) in cases {
            let problem = parse(body).unwrap_err();
            let faults: Vec<_> =
                problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect();
            assert_eq!(faults, [(*pointer, *code)], "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_void_knows_no_amount() {
        assert_eq!(parse_void(b"").unwrap(), parse_void(b"{}").unwrap());
        let problem = parse_void(br#"{"amount":"5.00","currency":"EUR"}"#).unwrap_err();
        assert_eq!(problem.code, Code::UnknownField);
        assert_eq!(problem.errors.len(), 2);
    }
}
