//! The bodies of `POST /v1/mandates` and `POST /v1/sandbox/mandates`.

use domain::command::{SandboxState, limits};
use domain::endpoint_url::Loopback;
use domain::mandate::MandateKind;
use domain::money::{Amount, Currency};
use domain::return_url::{RETURN_URL_MAX, is_acceptable};
use domain::time::Timestamp;
use serde::Serialize;
use url::Url;

use crate::fields::Fields;
use crate::problem::{FieldError, Problem};

/// What a partner asks a customer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// The currency.
    pub currency: Currency,
    /// The most that one payment may debit, in minor units.
    pub payment_max_minor: Option<i64>,
    /// The most that may be debited in a day of the bank, in minor units.
    pub daily_max_minor: Option<i64>,
    /// From when on it authorises nothing.
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    pub reference: Option<String>,
}

impl Terms {
    fn read(fields: &mut Fields) -> Option<Self> {
        let kind = fields.required_word("kind", "single, standing");
        let currency = fields.required_currency();
        let payment_max_minor = fields.optional_amount("per_payment_max", currency).map(Amount::minor);
        let daily_max_minor = fields.optional_amount("daily_cap", currency).map(Amount::minor);
        let expires_at = fields.optional_time("expires_at");
        let reference = fields.optional_text("reference", limits::REFERENCE_MAX);
        Some(Self {
            kind: kind?,
            currency: currency?,
            payment_max_minor,
            daily_max_minor,
            expires_at,
            reference,
        })
    }

    /// Refuses a mandate that would have expired before it was asked for. Apart from the reading of the body, so that a
    /// retry that comes later is a retry.
    pub fn check_time(&self, now: Timestamp) -> Result<(), Problem> {
        match self.expires_at {
            Some(expires_at) if expires_at <= now => Err(fault(
                "/expires_at",
                "out_of_range",
                "lies in the past; a mandate expires later than it is asked for",
            )),
            _ => Ok(()),
        }
    }
}

/// One faulty field.
pub fn fault(pointer: &'static str, code: &'static str, detail: &'static str) -> Problem {
    Problem::fields(vec![FieldError { pointer: pointer.into(), code: code.into(), detail: detail.into() }])
}

/// A request for a customer's mandate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MandateRequest {
    /// What for.
    pub terms: Terms,
    /// Where the customer's browser goes afterwards.
    pub return_url: Option<Url>,
}

impl MandateRequest {
    /// Reads and checks the whole body.
    pub fn parse(body: &[u8], loopback: Loopback) -> Result<Self, Problem> {
        let mut fields = Fields::of_body(body)?;
        let terms = Terms::read(&mut fields);
        let return_url = return_url(&mut fields, loopback);
        fields.finish(terms.map(|terms| Self { terms, return_url }))
    }
}

fn return_url(fields: &mut Fields, loopback: Loopback) -> Option<Url> {
    let text = fields.optional_text("return_url", RETURN_URL_MAX)?;
    match Url::parse(&text) {
        Ok(url) if is_acceptable(&url, loopback) && url.as_str().len() <= RETURN_URL_MAX => Some(url),
        _ => {
            let detail = "an https URL without user, password and fragment, such as https://shop.example/return?order=1";
            fields.refuse("return_url", "invalid_url", detail);
            None
        }
    }
}

/// A mandate on a funded test account, in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxRequest {
    /// The mandate.
    pub terms: Terms,
    /// The account's balance in minor units.
    pub balance_minor: i64,
    /// What the account or the mandate is like.
    pub state: SandboxState,
}

impl SandboxRequest {
    /// Reads and checks the whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of_body(body)?;
        let words: Vec<_> = SandboxState::ALL.iter().map(|state| state.as_str()).collect();
        let state = fields.optional_word("state", &words.join(", ")).unwrap_or(SandboxState::Active);
        let terms = Terms::read(&mut fields);
        let balance = fields.required_balance("balance", terms.as_ref().map(|terms| terms.currency));
        if state == SandboxState::AccountClosed && balance.is_some_and(|minor| minor != 0) {
            fields.refuse(
                "balance",
                "out_of_range",
                "only an account without a balance is closed; send zero",
            );
        }
        let request = terms.zip(balance).map(|(terms, balance_minor)| Self { terms, balance_minor, state });
        fields.finish(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(problem: &Problem) -> Vec<(&str, &str)> {
        problem.errors.iter().map(|error| (error.pointer.as_str(), error.code.as_ref())).collect()
    }

    #[test]
    fn a_full_request_is_read() {
        let body = br#"{"kind":"standing","currency":"EUR","per_payment_max":"10.00","daily_cap":"50.00",
            "expires_at":"2030-01-01T00:00:00Z","reference":"customer 7","return_url":"https://shop.test/done?x=1"}"#;
        let request = MandateRequest::parse(body, Loopback::Refused).unwrap();
        assert_eq!(
            (request.terms.payment_max_minor, request.terms.daily_max_minor),
            (Some(1_000), Some(5_000))
        );
        assert_eq!(request.return_url.unwrap().as_str(), "https://shop.test/done?x=1");
        assert!(request.terms.check_time(Timestamp::from_micros(0)).is_ok());
        let late = request.terms.check_time(Timestamp::from_micros(4_000_000_000_000_000)).unwrap_err();
        assert_eq!(faults(&late), [("/expires_at", "out_of_range")]);
        let least =
            MandateRequest::parse(br#"{"kind":"single","currency":"JPY"}"#, Loopback::Refused).unwrap();
        assert_eq!((least.terms.payment_max_minor, least.return_url), (None, None));
    }

    #[test]
    fn each_fault_names_its_field() {
        let cases: &[(&str, &str, &str)] = &[
            (r#"{"currency":"EUR"}"#, "/kind", "missing"),
            (r#"{"kind":"twice","currency":"EUR"}"#, "/kind", "unknown_value"),
            (
                r#"{"kind":"single","currency":"EUR","per_payment_max":"0.00"}"#,
                "/per_payment_max",
                "invalid_amount",
            ),
            (r#"{"kind":"single","currency":"JPY","daily_cap":"1.00"}"#, "/daily_cap", "invalid_amount"),
            (r#"{"kind":"single","currency":"EUR","expires_at":"tomorrow"}"#, "/expires_at", "invalid_time"),
            (
                r#"{"kind":"single","currency":"EUR","return_url":"http://shop.test/"}"#,
                "/return_url",
                "invalid_url",
            ),
            (
                r#"{"kind":"single","currency":"EUR","return_url":"javascript:1"}"#,
                "/return_url",
                "invalid_url",
            ),
            (
                r#"{"kind":"single","currency":"EUR","return_url":"https://a:b@shop.test/"}"#,
                "/return_url",
                "invalid_url",
            ),
            (
                r#"{"kind":"single","currency":"EUR","return_url":"https://shop.test/#x"}"#,
                "/return_url",
                "invalid_url",
            ),
            (
                r#"{"kind":"single","currency":"EUR","return_url":"http://127.0.0.1/"}"#,
                "/return_url",
                "invalid_url",
            ),
        ];
        for (body, pointer, code) in cases {
            let problem = MandateRequest::parse(body.as_bytes(), Loopback::Refused).unwrap_err();
            assert_eq!(faults(&problem), [(*pointer, *code)], "{body}");
        }
        let local = br#"{"kind":"single","currency":"EUR","return_url":"http://127.0.0.1:9/x"}"#;
        assert!(MandateRequest::parse(local, Loopback::Allowed).is_ok());
    }

    #[test]
    fn a_sandbox_mandate_has_a_balance_and_a_state() {
        let request =
            SandboxRequest::parse(br#"{"kind":"single","currency":"EUR","balance":"0.00"}"#).unwrap();
        assert_eq!((request.balance_minor, request.state), (0, SandboxState::Active));
        let cases: &[(&str, &str, &str)] = &[
            (r#"{"kind":"single","currency":"EUR"}"#, "/balance", "missing"),
            (r#"{"kind":"single","currency":"EUR","balance":"-1.00"}"#, "/balance", "invalid_amount"),
            (r#"{"kind":"single","currency":"EUR","balance":5}"#, "/balance", "wrong_type"),
            (r#"{"kind":"single","currency":"EUR","balance":"1000000.01"}"#, "/balance", "invalid_amount"),
            (r#"{"kind":"single","currency":"EUR","balance":"1.00","state":"x"}"#, "/state", "unknown_value"),
            (
                r#"{"kind":"single","currency":"EUR","balance":"1.00","state":"account_closed"}"#,
                "/balance",
                "out_of_range",
            ),
        ];
        for (body, pointer, code) in cases {
            assert_eq!(
                faults(&SandboxRequest::parse(body.as_bytes()).unwrap_err()),
                [(*pointer, *code)],
                "{body}"
            );
        }
    }
}
