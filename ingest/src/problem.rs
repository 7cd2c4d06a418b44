//! The error catalogue: every way in which a request can fail, as RFC 9457 problem documents.
//!
//! One table gives code, HTTP status, title and the text of the documentation page. A 4xx says what to change; a
//! 5xx says nothing of the inside. A [`Problem`] travels as a response extension and is rendered in one place
//! ([`crate::answer`]), which knows the request's id; so a handler cannot answer an error of another shape.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use runtime::precondition::PreconditionError;
use runtime::problem::Document;
pub use runtime::problem::FieldError;
use uuid::Uuid;

runtime::problem_catalogue! {
    SignatureMissing UNAUTHORIZED "signature_missing" "The request is not signed"
        "Every request under /v1 is signed as RFC 9421 describes, with the header fields Signature-Input and \
         Signature. Sign the request with one of your API keys; POST /v1/sandbox/echo shows what arrived.";
    SignatureInvalid UNAUTHORIZED "signature_invalid" "The signature is not valid"
        "The key is unknown, or the signature was made with another secret or over other content than what arrived, \
         or its parameters are not those of the profile. Compare your signature base with the one that \
         POST /v1/sandbox/echo shows.";
    SignatureExpired UNAUTHORIZED "signature_expired" "The signature is too old or too new"
        "The parameter `created` may be at most 300 seconds away from the server's clock, and `expires` may not have \
         passed. Set the clock of your machine and sign each attempt anew.";
    ComponentMissing UNAUTHORIZED "component_missing" "The signature does not cover enough"
        "A signature covers \"@method\" \"@authority\" \"@path\" \"@query\", with a body also \"content-digest\" \
         \"content-type\", and on every POST, PATCH and DELETE \"idempotency-key\". The problem names the missing one.";
    DigestMismatch BAD_REQUEST "digest_mismatch" "Content-Digest is not the hash of the body"
        "Content-Digest (RFC 9530) must hold the sha-256 or sha-512 of exactly the bytes that are sent. Hash the \
         body after it was serialised, and send those bytes.";
    KeyRevoked UNAUTHORIZED "key_revoked" "The API key was revoked"
        "The signature is right, but its key no longer counts. Sign with your other key, or ask for a new one.";
    KeysUnavailable SERVICE_UNAVAILABLE "keys_unavailable" "Keys cannot be checked at the moment"
        "The server has had no current list of API keys for too long. Try again after the time in Retry-After.";
    AuthorityUnknown MISDIRECTED_REQUEST "authority_unknown" "The request was sent to another host"
        "The Host header field names a host that this server does not answer for. Send the request to the base URL \
         you were given, and sign that host as \"@authority\".";
    ScopeMissing FORBIDDEN "scope_missing" "The API key may not do this"
        "The key lacks the scope that this operation needs. Use a key that has it.";
    TestPartnersOnly FORBIDDEN "test_partners_only" "Only test partners may do this"
        "Sandbox mandates are made with a key of a test partner (livemode: false). Apply for one with \
         POST /v1/partner-applications.";
    PartnerSuspended FORBIDDEN "partner_suspended" "You may not ask customers for mandates at the moment"
        "The bank has suspended you, or has not activated you yet: customers are not asked, and payments are rejected. \
         Refunds, voids, reads and webhooks go on. Ask the bank.";
    RateLimited TOO_MANY_REQUESTS "rate_limited" "Too many requests"
        "You sent more requests in a second than agreed. Wait for the seconds in Retry-After; the same \
         Idempotency-Key can be used again.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is too large"
        "A body may have 64 KiB, that of a batch 1 MiB.";
    BodyTimeout REQUEST_TIMEOUT "body_timeout" "The body did not arrive in time"
        "The whole body must arrive within a few seconds after the header. Send it at once.";
    MalformedRequest BAD_REQUEST "malformed_request" "The request cannot be read"
        "The request's HTTP is broken: a body that ends early, or a header field that stands twice where it may not.";
    MalformedJson BAD_REQUEST "malformed_json" "The body is no acceptable JSON"
        "The body must be one JSON object in UTF-8, without duplicate keys and nested at most 8 deep.";
    UnknownField BAD_REQUEST "unknown_field" "A field is unknown"
        "Fields that the API does not know are refused, so that a misspelt one is not silently ignored. `errors` \
         names them.";
    InvalidField BAD_REQUEST "invalid_field" "A field is missing or not acceptable"
        "`errors` names each field and says what to change.";
    InvalidAmount BAD_REQUEST "invalid_amount" "The amount is not acceptable"
        "An amount is a JSON string with exactly the digits of its currency, such as \"12.50\" for EUR and \"1250\" \
         for JPY, greater than zero and at most 1000000000000 minor units.";
    UnknownCurrency BAD_REQUEST "unknown_currency" "The currency is unknown"
        "A currency is one of the upper-case ISO 4217 codes EUR, USD, GBP, CHF, SEK, NOK, DKK, PLN, CZK, JPY, KWD.";
    IdempotencyKeyMissing BAD_REQUEST "idempotency_key_missing" "There is no Idempotency-Key"
        "Every POST, PATCH and DELETE carries one Idempotency-Key header field, which the signature covers. Use a \
         fresh value for each intended payment and the same value for each retry of it.";
    IdempotencyKeyInvalid BAD_REQUEST "idempotency_key_invalid" "The Idempotency-Key is not acceptable"
        "An Idempotency-Key has 1 to 255 visible ASCII characters.";
    IdempotencyConflict UNPROCESSABLE_ENTITY "idempotency_conflict" "The Idempotency-Key was used for another request"
        "This Idempotency-Key was used, and for something else. Use a fresh key for a new payment or change, or repeat \
         the first request unchanged.";
    InvalidCursor BAD_REQUEST "invalid_cursor" "The position or cursor is not one of ours"
        "Use `status_url` and `next` exactly as they were answered.";
    PreconditionRequired PRECONDITION_REQUIRED "precondition_required" "The request does not say which state it changes"
        "PATCH and DELETE carry If-Match with the ETag that the last read or change answered, so that two changes at \
         once do not undo each other. `If-Match: *` changes whatever is there.";
    PreconditionFailed PRECONDITION_FAILED "precondition_failed" "The state has changed meanwhile"
        "Somebody changed it after you read it. Read it again, decide again, and send the new ETag in If-Match.";
    StateConflict CONFLICT "state_conflict" "The state does not allow this"
        "What is there now does not allow the change; the detail says what to do first.";
    LimitReached CONFLICT "limit_reached" "There may be no more of these"
        "The number of these is bounded. Remove one that is not needed any more, or wait until one is done.";
    HistoryGone GONE "history_gone" "What was asked for is not kept any more"
        "Events are kept for 400 days, deliveries for 30. `first_kept_sequence` says where what is kept begins; reconcile \
         what came before it with GET /v1/payments.";
    NotFound NOT_FOUND "not_found" "There is no such thing"
        "There is nothing under this path, or it is not yours. A payment that was just accepted is found under its \
         `status_url`.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The method is not allowed here"
        "The header field Allow of the answer lists the methods of this path.";
    NotAcceptable NOT_ACCEPTABLE "not_acceptable" "The answer cannot be given in the wanted form"
        "Answers are application/json, problems application/problem+json. Let Accept allow them, or leave it out.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The body is of another type"
        "Send Content-Type: application/json in UTF-8, without a Content-Encoding.";
    QueueUnavailable SERVICE_UNAVAILABLE "queue_unavailable" "Payments cannot be accepted at the moment"
        "Nothing was accepted. Try again after the time in Retry-After, with the same Idempotency-Key.";
    OutcomeUnknown SERVICE_UNAVAILABLE "outcome_unknown" "The payment may or may not have been accepted"
        "Repeat the request with the same Idempotency-Key: it cannot be paid twice.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "This cannot be answered at the moment"
        "Try again after the time in Retry-After. Payments are accepted nevertheless.";
    Internal INTERNAL_SERVER_ERROR "internal_error" "Something went wrong on our side"
        "Try again later, with the same Idempotency-Key. If it stays, tell us the request_id.";
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .code.as_str())]
pub struct Problem {
    /// The entry of the catalogue.
    pub code: Code,
    /// What is wrong with this request; safe to show.
    pub detail: Cow<'static, str>,
    /// The fields that have to change.
    pub errors: Vec<FieldError>,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u32>,
    /// Where what is kept of the event log begins, for [`Code::HistoryGone`].
    pub first_kept_sequence: Option<u64>,
}

impl Problem {
    /// A problem with its detail.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            first_kept_sequence: None,
        }
    }

    /// A problem that says no more than its page.
    pub fn plain(code: Code) -> Self {
        Self::new(code, code.page())
    }

    /// The answer carries `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What was asked for is gone; where what is kept begins.
    pub fn gone(first_kept_sequence: u64) -> Self {
        let detail =
            format!("the first event that is kept has the sequence {first_kept_sequence}; begin there");
        Self { first_kept_sequence: Some(first_kept_sequence), ..Self::new(Code::HistoryGone, detail) }
    }

    /// A refused body. The code is that of the fields when all agree, else [`Code::InvalidField`].
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let specific = |error: &FieldError| match Code::find(&error.code) {
            Some(code @ (Code::UnknownField | Code::InvalidAmount | Code::UnknownCurrency)) => code,
            _ => Code::InvalidField,
        };
        let first = errors.first().map_or(Code::InvalidField, specific);
        let code =
            if errors.iter().all(|error| specific(error) == first) { first } else { Code::InvalidField };
        let detail = match errors.as_slice() {
            [only] => Cow::Owned(format!("{}: {}", only.pointer, only.detail)),
            _ => Cow::Owned(format!("{} fields have to change, see errors", errors.len())),
        };
        Self { code, detail, errors, retry_after_s: None, first_kept_sequence: None }
    }

    /// The response, once the request's id is known.
    pub fn render(&self, request_id: Uuid) -> Response {
        let document = Document {
            type_path: self.code.type_path(),
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.as_str(),
            errors: &self.errors,
            retry_after_s: self.retry_after_s,
        };
        let first_kept =
            self.first_kept_sequence.map(|sequence| ("first_kept_sequence".to_owned(), sequence.into()));
        let mut response = document.render_with(request_id, &first_kept.into_iter().collect());
        let headers = response.headers_mut();
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
            // RFC 9421, section 5.1: which signature is wanted.
            headers.insert("accept-signature", HeaderValue::from_static(WANTED_SIGNATURE));
        }
        if matches!(self.code, Code::BodyTooLarge | Code::BodyTimeout | Code::MalformedRequest) {
            // The rest of the body is not read, so the connection cannot carry another request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const WANTED_SIGNATURE: &str = "sig=(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\" \
                                \"content-type\" \"idempotency-key\");created;keyid;alg=\"hmac-sha256\"";

/// `If-Match` is missing, is none, or names another version.
impl From<PreconditionError> for Problem {
    fn from(error: PreconditionError) -> Self {
        match error {
            PreconditionError::Missing => Self::plain(Code::PreconditionRequired),
            PreconditionError::Malformed => Self::new(Code::PreconditionFailed, error.to_string()),
            PreconditionError::Failed => Self::plain(Code::PreconditionFailed),
        }
    }
}

/// The status alone; [`crate::answer`] fills in the document.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_catalogue_has_every_code_of_the_partner_api_and_no_code_twice() {
        let documented = [
            "signature_missing",
            "signature_invalid",
            "signature_expired",
            "component_missing",
            "digest_mismatch",
            "key_revoked",
            "keys_unavailable",
            "scope_missing",
            "rate_limited",
            "body_too_large",
            "malformed_json",
            "unknown_field",
            "invalid_amount",
            "unknown_currency",
            "idempotency_key_missing",
            "idempotency_conflict",
            "invalid_cursor",
            "not_found",
            "method_not_allowed",
            "not_acceptable",
            "unsupported_media_type",
            "queue_unavailable",
            "outcome_unknown",
        ];
        for word in documented {
            assert!(Code::find(word).is_some(), "{word}");
        }
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(
            Code::ALL.iter().all(|code| code.status().is_client_error() || code.status().is_server_error())
        );
    }

    #[test]
    fn a_refused_body_has_the_code_on_which_its_fields_agree() {
        let field =
            |code: &'static str| FieldError { pointer: "/x".into(), code: code.into(), detail: "d".into() };
        let cases: &[(&[&'static str], Code)] = &[
            (&["invalid_amount"], Code::InvalidAmount),
            (&["unknown_field", "unknown_field"], Code::UnknownField),
            (&["unknown_field", "invalid_amount"], Code::InvalidField),
            (&["too_long"], Code::InvalidField),
            (&["invalid_amount", "too_long"], Code::InvalidField),
        ];
        for (codes, expected) in cases {
            assert_eq!(Problem::fields(codes.iter().map(|code| field(code)).collect()).code, *expected);
        }
    }
}
