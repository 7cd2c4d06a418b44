//! The body of `POST /v1/transfers`.

use domain::command::{TransferCommand, limits};

use crate::fields::Fields;
use crate::problem::Problem;

/// Reads and checks the whole body; `outward` is what the key may do and no part of the request.
pub fn parse(body: &[u8], outward: bool) -> Result<TransferCommand, Problem> {
    let mut fields = Fields::of_body(body)?;
    let currency = fields.required_currency();
    let amount = fields.required_amount(currency);
    let from = fields.required_account("from");
    let to = fields.required_account("to");
    if from.is_some() && from == to {
        fields.refuse("to", "same_account", "is the account that is debited; name another one");
    }
    let reference = fields.optional_text("reference", limits::REFERENCE_MAX);
    let description = fields.optional_text("description", limits::DESCRIPTION_MAX);
    let metadata = fields.metadata();
    let command = amount.zip(from.zip(to)).map(|(amount, (from, to))| TransferCommand {
        from,
        to,
        amount_minor: amount.minor(),
        currency: amount.currency(),
        outward,
        reference,
        description,
        metadata,
    });
    fields.finish(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "acct_00000000000000000000000001";
    const TO: &str = "acct_00000000000000000000000002";

    fn body(from: &str, to: &str) -> Vec<u8> {
        format!(r#"{{"amount":"12.50","currency":"EUR","from":"{from}","to":"{to}"}}"#).into_bytes()
    }

    #[test]
    fn a_transfer_is_between_two_accounts() {
        let command = parse(&body(FROM, TO), true).unwrap();
        assert_eq!((command.from.to_string(), command.to.to_string()), (FROM.to_owned(), TO.to_owned()));
        assert!(command.outward && command.amount_minor == 1_250);
        let cases = [
            (FROM, FROM, vec![("/to", "same_account")]),
            ("mdt_00000000000000000000000001", TO, vec![("/from", "invalid_id")]),
            ("x", "y", vec![("/from", "invalid_id"), ("/to", "invalid_id")]),
        ];
        for (from, to, expected) in cases {
            let problem = parse(&body(from, to), false).unwrap_err();
            let faults: Vec<_> =
                problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect();
            assert_eq!(faults, expected);
        }
    }
}
