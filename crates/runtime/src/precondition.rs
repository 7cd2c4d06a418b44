//! `ETag` and `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1): two changes at once do not undo each other.
//!
//! The tag of a thing is its version, which every change raises.

use axum::http::{HeaderMap, HeaderValue, header};

/// Why a change is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreconditionError {
    /// There is no `If-Match`.
    #[error("If-Match is missing: send the ETag that you read")]
    Missing,
    /// It is none.
    #[error("If-Match holds an ETag as it was answered, with its quotation marks, or *")]
    Malformed,
    /// The thing has another version.
    #[error("it was changed meanwhile: read it again")]
    Failed,
}

/// The tag of a version.
pub fn etag(version: u32) -> HeaderValue {
    // Digits between quotation marks are always a valid value.
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Which versions a change is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// One of these.
    OneOf(Vec<String>),
}

impl Expected {
    /// Reads `If-Match`, without which nothing is changed.
    pub fn of(headers: &HeaderMap) -> Result<Self, PreconditionError> {
        let mut tags = Vec::new();
        for value in headers.get_all(header::IF_MATCH) {
            for tag in value.to_str().map_err(|_| PreconditionError::Malformed)?.split(',') {
                tags.push(tag.trim().to_owned());
            }
        }
        match tags.as_slice() {
            [] => Err(PreconditionError::Missing),
            [any] if any == "*" => Ok(Self::Any),
            // A weak tag never matches (RFC 9110, section 8.8.3.2), and is no mistake.
            tags if tags.iter().all(|tag| is_tag(tag.strip_prefix("W/").unwrap_or(tag))) => {
                Ok(Self::OneOf(tags.to_vec()))
            }
            _ => Err(PreconditionError::Malformed),
        }
    }

    /// Refuses when the thing has another version.
    pub fn check(&self, version: u32) -> Result<(), PreconditionError> {
        match self {
            Self::Any => Ok(()),
            Self::OneOf(tags) if tags.iter().any(|tag| *tag == format!("\"{version}\"")) => Ok(()),
            Self::OneOf(_) => Err(PreconditionError::Failed),
        }
    }
}

fn is_tag(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| !inner.contains('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(values: &[&str]) -> Result<Expected, PreconditionError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        Expected::of(&headers)
    }

    #[test]
    fn a_change_is_for_the_version_it_names() {
        assert_eq!(expected(&[]), Err(PreconditionError::Missing));
        assert_eq!(expected(&["*"]), Ok(Expected::Any));
        let versions: &[(&[&str], u32, bool)] = &[
            (&["\"3\""], 3, true),
            (&["\"3\""], 4, false),
            (&["\"2\", \"3\""], 3, true),
            (&["\"2\"", "\"3\""], 3, true),
            (&["W/\"3\""], 3, false),
            (&["\"\""], 3, false),
            (&["*"], 3, true),
        ];
        for (values, version, fits) in versions {
            assert_eq!(expected(values).unwrap().check(*version).is_ok(), *fits, "{values:?}");
        }
        for malformed in ["3", "\"3", "", "*, \"3\"", "'3'", "\"3\"\""] {
            assert_eq!(expected(&[malformed]), Err(PreconditionError::Malformed), "{malformed}");
        }
        assert_eq!(etag(17), "\"17\"");
    }
}
