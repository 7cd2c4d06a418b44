//! Extractors for what a request says: a JSON body, parameters of the path and the query.
//!
//! A field that is unknown, missing, doubled or of the wrong type is named, and its value never repeated: it may be a
//! password.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::{Code, FieldError, Problem};

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest piece of what a client sent that an answer repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// A JSON body.
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let content_type =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let is_json = parts.next().is_some_and(|media_type| media_type == "application/json");
        let is_utf8 =
            parts.all(|part| !part.starts_with("charset=") || part.trim_matches('"').ends_with("utf-8"));
        if !is_json || !is_utf8 || headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Problem::plain(Code::UnsupportedMediaType));
        }
        let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(collected) => zeroize::Zeroizing::new(collected.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => return Err(Problem::plain(Code::BodyTooLarge)),
            Err(error) if runtime::http::is_body_timeout(error.as_ref()) => {
                return Err(Problem::plain(Code::BodyTimeout));
            }
            Err(_) => return Err(Problem::plain(Code::MalformedRequest)),
        };
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refusal(&path, error.inner())
    })?;
    deserializer.end().map_err(|_| malformed("something follows the object"))?;
    Ok(value)
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(Code::MalformedJson, detail)
}

fn refusal(path: &str, error: &serde_json::Error) -> Problem {
    if error.classify() != Category::Data {
        return malformed("the body is not one whole JSON object in UTF-8");
    }
    let text = error.to_string();
    let quoted = text.split('`').nth(1).unwrap_or("");
    let name: String = quoted.chars().take(SHOWN_CHARS_MAX).collect();
    let (code, detail) = if text.starts_with("missing field") {
        ("missing", "the field is required")
    } else if text.starts_with("unknown field") {
        ("unknown_field", "there is no such field")
    } else if text.starts_with("duplicate field") {
        ("duplicate_key", "the field stands twice; send it once")
    } else {
        ("wrong_type", "the value has another type or form than the field")
    };
    let named = matches!(code, "missing" | "unknown_field" | "duplicate_key");
    let path = if path == "." { String::new() } else { path.replace('.', "/") };
    let pointer = match (named, path.is_empty()) {
        // The path of an unknown or doubled field ends with the field itself.
        (true, true) => format!("/{name}"),
        (true, false) if path.split('/').next_back() != Some(&name) => format!("/{path}/{name}"),
        (_, false) => format!("/{}", path.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
        (false, true) => String::new(),
    };
    Problem::fields(vec![FieldError { pointer, code: code.into(), detail: detail.into() }])
}

/// A part of the path. One that is no id is nothing there.
pub struct FromPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for FromPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        found.map(|Path(value)| Self(value)).map_err(|_| Problem::plain(Code::NotFound))
    }
}

/// The query.
pub struct FromQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for FromQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Query::<T>::from_request_parts(parts, state).await;
        let refused = |_| {
            let detail =
                "a parameter of the query is unknown, doubled or has another form; see /v1/openapi.json";
            Problem::new(Code::MalformedRequest, detail)
        };
        found.map(|Query(value)| Self(value)).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read by the derive alone")]
    struct Body {
        email: String,
        limit: Option<u32>,
    }

    #[test]
    fn the_field_is_named_and_its_value_is_not() {
        for (body, code, pointer) in [
            (r#"{"email":"a","limit":5}"#, "", ""),
            (r"{}", "missing", "/email"),
            (r#"{"email":5}"#, "wrong_type", "/email"),
            (r#"{"email":"a","limit":"geheim"}"#, "wrong_type", "/limit"),
            (r#"{"email":"a","limit":-99999}"#, "wrong_type", "/limit"),
            (r#"{"email":"a","pass":"geheim"}"#, "unknown_field", "/pass"),
            (r#"{"email":"a","email":"geheim"}"#, "duplicate_key", "/email"),
            (r#""geheim""#, "wrong_type", ""),
            ("[]", "missing", "/email"),
        ] {
            match parse::<Body>(body.as_bytes()) {
                Ok(_) => assert_eq!(code, "", "{body}"),
                Err(problem) => {
                    assert!(!format!("{problem:?}").contains("geheim"), "{problem:?}");
                    let error = &problem.errors[0];
                    if body != "[]" {
                        assert_eq!((&*error.code, error.pointer.as_str()), (code, pointer), "{body}");
                    }
                }
            }
        }
        for body in ["", "{", "{\"email\":\"a\"} {}", "{\"email\":\"a\"} x", "{'a':1}", "nul"] {
            assert_eq!(parse::<Body>(body.as_bytes()).unwrap_err().code, Code::MalformedJson, "{body}");
        }
        assert_eq!(parse::<Body>(b"\xff{}").unwrap_err().code, Code::MalformedJson);
    }
}
