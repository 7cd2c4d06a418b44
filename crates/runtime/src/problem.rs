//! What the HTTP APIs share of RFC 9457: how a service writes its catalogue of errors, and how a problem looks.
//!
//! Each service has a catalogue of its own ([`problem_catalogue!`](crate::problem_catalogue)) and its own `Problem`,
//! because what has to accompany one differs; the document is the same for all. It knows no code of any service.

use std::borrow::Cow;

pub use axum::http::StatusCode;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// One field that has to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// What is wrong, as a stable word.
    #[schema(value_type = String, example = "invalid_amount")]
    pub code: Cow<'static, str>,
    /// What to change.
    #[schema(value_type = String, example = "an amount in EUR has exactly 2 digits behind the point")]
    pub detail: Cow<'static, str>,
}

/// Declares `enum Code`, the error catalogue of a service: one line each with name, status, word, title and the text
/// of the documentation page.
#[macro_export]
macro_rules! problem_catalogue {
    ($($Code:ident $STATUS:ident $code:literal $title:literal $page:literal;)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $Code,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$Code,)*];

            /// The word in `code` and at the end of `type`.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$Code => $code,)* } }

            /// The HTTP status; the same for every problem of this code.
            pub const fn status(self) -> $crate::problem::StatusCode {
                match self { $(Self::$Code => $crate::problem::StatusCode::$STATUS,)* }
            }

            /// The same for every problem of this code.
            pub const fn title(self) -> &'static str { match self { $(Self::$Code => $title,)* } }

            /// What it means and what to do, for the documentation page.
            pub const fn page(self) -> &'static str { match self { $(Self::$Code => $page,)* } }

            /// The path of the documentation page: the problem's `type`.
            pub const fn type_path(self) -> &'static str {
                match self { $(Self::$Code => concat!("/problems/", $code),)* }
            }

            /// The code of this word.
            pub fn find(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == word)
            }
        }
    };
}

/// A problem document, whose `instance` is the request's id.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The path of its page.
    pub type_path: &'a str,
    /// The same for every problem of this code.
    pub title: &'a str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong with this request; safe to show.
    pub detail: &'a str,
    /// The stable word.
    pub code: &'a str,
    /// The fields that have to change.
    pub errors: &'a [FieldError],
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u32>,
}

impl Document<'_> {
    /// The answer to the request with this id.
    pub fn render(&self, request_id: Uuid) -> Response {
        self.render_with(request_id, &Map::new())
    }

    /// As [`Self::render`], with extension members (RFC 9457, section 3.2).
    pub fn render_with(&self, request_id: Uuid, extensions: &Map<String, Value>) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            instance: String,
            request_id: Uuid,
            code: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(flatten)]
            extensions: &'a Map<String, Value>,
        }
        let body = Body {
            r#type: self.type_path,
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            instance: format!("urn:uuid:{request_id}"),
            request_id,
            code: self.code,
            errors: self.errors,
            extensions,
        };
        // JSON alone: serialising it cannot fail.
        let mut response = (self.status, serde_json::to_vec(&body).unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
