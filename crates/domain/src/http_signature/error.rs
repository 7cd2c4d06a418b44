//! Why a signed request is refused, with the problem code of each reason.

use super::CLOCK_WINDOW_SECONDS;

/// Why a request is refused. Every message is safe to show to the sender; none holds a key or a MAC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A header field that carries the signature is not there.
    #[error("the request has no {header} header field; sign it as RFC 9421 describes")]
    SignatureMissing {
        /// `Signature-Input` or `Signature`.
        header: &'static str,
    },
    /// The signature cannot be accepted; see the fault.
    #[error("{0}")]
    SignatureInvalid(Fault),
    /// `created` is outside the clock window.
    #[error(
        "the signature was created {} s {} the server's clock; at most {CLOCK_WINDOW_SECONDS} s are accepted",
        skew_s.unsigned_abs(), if *skew_s < 0 { "behind" } else { "ahead of" }
    )]
    SignatureExpired {
        /// `created` minus the server's clock, in seconds.
        skew_s: i64,
    },
    /// `expires` lies before the server's clock.
    #[error("the signature expired {ago_s} s ago, by its own `expires`")]
    SignatureOutlived {
        /// The server's clock minus `expires`, in seconds.
        ago_s: i64,
    },
    /// A component that this request must cover is not covered.
    #[error("the signature does not cover \"{component}\", which this request must cover")]
    ComponentMissing {
        /// The component's name without quotes.
        component: String,
    },
    /// A component is covered, but the request has no such header field.
    #[error("the signature covers \"{component}\", but the request has no such header field")]
    ComponentAbsent {
        /// The component's name without quotes.
        component: String,
    },
    /// `Content-Digest` and the body differ, or the field is not usable.
    #[error("{0}")]
    DigestMismatch(&'static str),
}

impl Error {
    /// The stable problem code of the partner API.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SignatureMissing { .. } => "signature_missing",
            Self::SignatureInvalid(_) => "signature_invalid",
            Self::SignatureExpired { .. } | Self::SignatureOutlived { .. } => "signature_expired",
            Self::ComponentMissing { .. } | Self::ComponentAbsent { .. } => "component_missing",
            Self::DigestMismatch(_) => "digest_mismatch",
        }
    }

    /// The component that is missing, doubled or not usable, when it is about one.
    pub fn component(&self) -> Option<&str> {
        match self {
            Self::ComponentMissing { component }
            | Self::ComponentAbsent { component }
            | Self::SignatureInvalid(
                Fault::ComponentTwice { component }
                | Fault::ComponentParameters { component }
                | Fault::ComponentUnsupported { component }
                | Fault::ComponentNotAscii { component },
            ) => Some(component),
            Self::DigestMismatch(_) => Some("content-digest"),
            Self::SignatureMissing { .. }
            | Self::SignatureInvalid(_)
            | Self::SignatureExpired { .. }
            | Self::SignatureOutlived { .. } => None,
        }
    }
}

/// What is wrong with a signature (`signature_invalid`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The key is unknown or the MAC differs; deliberately one answer for both.
    #[error("the signature does not verify: unknown key, or another secret or content than what was signed")]
    Unverified,
    /// A field is no dictionary of the required shape (RFC 9651).
    #[error("{header} is no structured field dictionary of the required shape")]
    Malformed {
        /// `Signature-Input` or `Signature`.
        header: &'static str,
    },
    /// A label stands twice in one field.
    #[error("the label `{label}` stands twice in {header}")]
    LabelTwice {
        /// The label.
        label: String,
        /// `Signature-Input` or `Signature`.
        header: &'static str,
    },
    /// A label of `Signature-Input` has no bytes in `Signature`.
    #[error("Signature has no bytes for the label `{label}` of Signature-Input")]
    LabelWithoutSignature {
        /// The label.
        label: String,
    },
    /// More than one signature could be meant.
    #[error("the labels `{first}` and `{second}` both carry a signature of the same or of a known key")]
    Ambiguous {
        /// The first label.
        first: String,
        /// The second label.
        second: String,
    },
    /// More labels or components than anybody needs.
    #[error("more than {max} {things} in Signature-Input")]
    TooMany {
        /// What there are too many of.
        things: &'static str,
        /// How many are accepted.
        max: usize,
    },
    /// A required parameter is not there.
    #[error("the signature has no `{parameter}` parameter")]
    ParameterMissing {
        /// The parameter's name.
        parameter: &'static str,
    },
    /// A parameter is unknown, stands twice or has a value that is not accepted.
    #[error("the signature parameter `{parameter}` {problem}")]
    ParameterRefused {
        /// The parameter's name.
        parameter: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A component is covered twice.
    #[error("the signature covers \"{component}\" twice")]
    ComponentTwice {
        /// The component's name.
        component: String,
    },
    /// A component has parameters, such as `;sf`, `;bs`, `;key`, `;req` or `;tr`.
    #[error("the covered component \"{component}\" has parameters; none are accepted")]
    ComponentParameters {
        /// The component's name.
        component: String,
    },
    /// A derived component that the profile does not know, or a name that is no lower-case field name.
    #[error("the covered component \"{component}\" is not supported")]
    ComponentUnsupported {
        /// The component's name.
        component: String,
    },
    /// A value has characters that a signature base cannot hold (RFC 9421, section 2.5).
    #[error("the value of the covered component \"{component}\" has characters outside visible ASCII")]
    ComponentNotAscii {
        /// The component's name.
        component: String,
    },
    /// The signature's bytes are not as many as an HMAC-SHA256 has.
    #[error("an hmac-sha256 signature has 32 bytes, this one has {bytes}")]
    MacLength {
        /// How many it has.
        bytes: usize,
    },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::SignatureInvalid(fault)
    }
}

/// A sender's text for a message: cut, so that a problem document stays small.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
