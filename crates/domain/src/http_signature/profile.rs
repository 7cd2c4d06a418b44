//! Which components a request must cover.

use std::borrow::Cow;

use http::Method;

use super::{Error, RequestParts};

const ALWAYS: [&str; 4] = ["@method", "@authority", "@path", "@query"];
const WITH_BODY: [&str; 2] = ["content-digest", "content-type"];

/// The names of the components that the request must cover, in the order in which [`super::sign()`] covers them.
///
/// Every method but the safe ones (RFC 9110, section 9.2.1) needs an idempotency key, so that a method added later
/// is covered from the start; PATCH and DELETE change what exists, hence `if-match`.
pub(super) fn required(request: &RequestParts<'_>) -> impl Iterator<Item = &'static str> {
    let method = request.method;
    let writes = ![Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method);
    let changes = [Method::PATCH, Method::DELETE].contains(method);
    ALWAYS
        .into_iter()
        .chain(WITH_BODY.into_iter().filter(move |_| request.has_body))
        .chain(writes.then_some("idempotency-key"))
        .chain(changes.then_some("if-match"))
}

/// Refuses when a required component is not covered.
pub(super) fn check(request: &RequestParts<'_>, covered: &[Cow<'_, str>]) -> Result<(), Error> {
    match required(request).find(|name| !covered.iter().any(|component| component == name)) {
        None => Ok(()),
        Some(name) => Err(Error::ComponentMissing { component: name.to_owned() }),
    }
}
