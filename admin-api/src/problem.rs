//! The error catalogue: every way in which a request can fail, as RFC 9457 problem documents.
//!
//! A 4xx says what to change, and never whether an address is registered; a 5xx says nothing of the inside. A
//! [`Problem`] travels as a response extension and is rendered in one place ([`crate::answer`]), which knows the
//! request's id; so a handler cannot answer an error of another shape.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use runtime::precondition::PreconditionError;
use runtime::problem::Document;
pub use runtime::problem::FieldError;
use serde_json::{Map, Value};
use uuid::Uuid;

runtime::problem_catalogue! {
    TokenMissing UNAUTHORIZED "token_missing" "The request carries no access token"
        "Log in (POST /v1/auth/login) and send the access token as `Authorization: Bearer …`.";
    TokenInvalid UNAUTHORIZED "token_invalid" "The access token is not valid"
        "The token was not issued by this bank, was changed, has expired, or its session has ended. Ask for a new one \
         with POST /v1/auth/refresh, or log in again.";
    CredentialsInvalid UNAUTHORIZED "credentials_invalid" "These credentials are not valid"
        "The address, the password or the code is wrong, or there is no such user. A code counts once. A forgotten \
         password is set anew with POST /v1/auth/password-resets.";
    CodeMissing UNAUTHORIZED "code_missing" "A code of the second factor is needed"
        "The password is right. Send the log-in again with `code`: the six digits that your authenticator shows, or \
         one of your recovery codes.";
    RefreshInvalid UNAUTHORIZED "refresh_invalid" "The refresh token is not valid"
        "The token is unknown, its session has ended, or it was used before. A token that is used twice ends its \
         session, since somebody has a copy of it. Log in again.";
    RoleMissing FORBIDDEN "role_missing" "Your role may not do this"
        "Another role is needed for this operation.";
    SecondFactorMissing FORBIDDEN "second_factor_missing" "Set up your second factor first"
        "Staff work with a second factor. Until it is set up with POST /v1/me/second-factor and confirmed, nothing \
         else can be done.";
    ProofTooOld FORBIDDEN "proof_too_old" "Prove again that it is you"
        "This needs a proof that is not older than 5 minutes: POST /v1/auth/step-up with a code of your second \
         factor, as a customer with your password; then repeat the request.";
    LinkInvalid BAD_REQUEST "link_invalid" "The link is not valid any more"
        "A link counts once and for 30 minutes. Ask for a new one.";
    Conflict CONFLICT "conflict" "The state does not allow this"
        "`detail` says what has to happen first.";
    PreconditionRequired PRECONDITION_REQUIRED "precondition_required" "The request does not say which state it changes"
        "PATCH carries If-Match with the ETag that the last read or change answered, so that two changes at once do not \
         undo each other. `If-Match: *` changes whatever is there.";
    PreconditionFailed PRECONDITION_FAILED "precondition_failed" "The state has changed meanwhile"
        "Somebody changed it after you read it. Read it again, decide again, and send the new ETag in If-Match.";
    TooManyRequests TOO_MANY_REQUESTS "too_many_requests" "Too many requests"
        "Wait for the seconds in Retry-After.";
    TooManyAttempts TOO_MANY_REQUESTS "too_many_attempts" "Too many failed attempts"
        "There were too many wrong passwords or codes from your address or for this user. Wait for the seconds in \
         Retry-After, or set a new password with POST /v1/auth/password-resets.";
    Busy SERVICE_UNAVAILABLE "busy" "Too many log-ins at the moment"
        "Checking a password is expensive on purpose, and too many wait already. Try again after the time in \
         Retry-After.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "This cannot be answered at the moment"
        "Try again after the time in Retry-After.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is too large"
        "A body may have 16 KiB.";
    BodyTimeout REQUEST_TIMEOUT "body_timeout" "The body did not arrive in time"
        "The whole body must arrive within a few seconds after the header. Send it at once.";
    MalformedRequest BAD_REQUEST "malformed_request" "The request cannot be read"
        "The request's HTTP is broken, or a parameter of its address cannot be read.";
    MalformedJson BAD_REQUEST "malformed_json" "The body is no acceptable JSON"
        "The body must be one JSON object in UTF-8.";
    InvalidField BAD_REQUEST "invalid_field" "A field is missing, unknown or not acceptable"
        "`errors` names each field and says what to change.";
    InvalidCursor BAD_REQUEST "invalid_cursor" "The cursor is not one of ours"
        "Use `next` exactly as it was answered.";
    CommandRejected UNPROCESSABLE_ENTITY "command_rejected" "The ledger refused the command"
        "`reason` says why, `command` is its id. It is refused for good: to try again, use another Idempotency-Key.";
    SecondPersonNeeded FORBIDDEN "second_person_needed" "It takes somebody else"
        "Neither whoever asked nor whoever owns the account can agree to this.";
    ApprovalAltered CONFLICT "approval_altered" "It is not what was asked for"
        "The request and its digest do not fit: either you agreed to something else than you were shown, or somebody \
         altered it. Read it again; if it stays, tell the auditor.";
    IdempotencyConflict CONFLICT "idempotency_conflict" "The Idempotency-Key stands for another request"
        "The key was used for something else. Use a fresh value for each intended movement or change.";
    QueueUnavailable SERVICE_UNAVAILABLE "queue_unavailable" "It is written down and not on its way yet"
        "The command will be carried out once, as soon as that is possible. Repeat the request with the same \
         Idempotency-Key to learn what became of it.";
    IdempotencyKeyMissing BAD_REQUEST "idempotency_key_missing" "There is no Idempotency-Key"
        "Every POST that asks for a command of the bank carries one Idempotency-Key header field. Use a fresh value for each intended \
         movement and the same value for each retry of it.";
    IdempotencyKeyInvalid BAD_REQUEST "idempotency_key_invalid" "The Idempotency-Key is not acceptable"
        "An Idempotency-Key is one header field of 1 to 255 visible ASCII characters.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The body is of another type"
        "Send Content-Type: application/json in UTF-8, without a Content-Encoding.";
    NotFound NOT_FOUND "not_found" "There is no such thing"
        "There is nothing under this path, or it is not yours.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The method is not allowed here"
        "The header field Allow of the answer lists the methods of this path.";
    Internal INTERNAL_SERVER_ERROR "internal_error" "Something went wrong on our side"
        "Try again later. If it stays, tell us the request_id.";
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
    /// Further members of the document (RFC 9457, section 3.2).
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem with its detail.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_s: None, members: Map::new() }
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

    /// Fields of the body that have to change.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => Cow::Owned(format!("{}: {}", only.pointer, only.detail)),
            _ => Cow::Owned(format!("{} fields have to change, see errors", errors.len())),
        };
        Self { errors, ..Self::new(Code::InvalidField, detail) }
    }

    /// Something that our own side could not do; the log has why, the answer does not.
    pub fn internal(why: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %why, "a request failed on our side");
        Self::plain(Code::Internal)
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
        let mut response = document.render_with(request_id, &self.members);
        let headers = response.headers_mut();
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.code, Code::BodyTooLarge | Code::BodyTimeout) {
            // The rest of the body is not read, so the connection cannot carry another request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

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

/// MySQL away or busy is a matter of time; everything else is a defect. Neither shows in the answer.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        /// Deadlock and lock wait: the transaction was rolled back, a repeat finds its way.
        const TRANSIENT: [&str; 2] = ["40001", "HY000"];
        let transient = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|code| TRANSIENT.contains(&&*code))
            }
            _ => false,
        };
        if transient {
            tracing::warn!(error = %error, "mysql did not serve a request");
            return Self::plain(Code::Unavailable).retry_after(2);
        }
        Self::internal(&error)
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

    #[test]
    fn words_are_distinct_and_all_are_errors() {
        let words: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        let is_error = |code: &Code| code.status().is_client_error() || code.status().is_server_error();
        assert!(Code::ALL.iter().all(is_error));
    }

    #[test]
    fn what_mysql_says_is_not_answered() {
        let broken = sqlx::Error::Io(std::io::Error::other("10.1.2.3 refused"));
        let problem = Problem::from(broken);
        assert_eq!((problem.code, problem.retry_after_s), (Code::Unavailable, Some(2)));
        assert!(!problem.detail.contains("10.1.2.3"));
        assert_eq!(Problem::from(sqlx::Error::RowNotFound).code, Code::Internal);
    }
}
