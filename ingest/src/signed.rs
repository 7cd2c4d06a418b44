//! Extractor for signed requests: a handler that takes [`Signed`] is reached by nobody else.
//!
//! Order, the cheap first: authority, shape of the signature, its key in memory, the clock, the MAC over the header,
//! revocation, scope, rate, the header fields about the body; then the body is read (bounded in size and time) and
//! its digest compared. An unknown key and a wrong MAC cost the same work and get the same answer. Signatures are
//! never logged.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, FromRequest, Request};
use bytes::Bytes;
use domain::http_signature::{Error as SignatureError, RequestParts, Signature, content_digest};
use domain::ids::KeyId;
use domain::time::Timestamp;
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use uuid::Uuid;

use crate::answer::RequestId;
use crate::app::App;
use crate::calls::Known;
use crate::keys::{Partner, Scope};
use crate::metrics;
use crate::problem::{Code, Problem};

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The largest body of a batch.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// While no keys are loaded.
const KEYS_RETRY_AFTER_S: u32 = 5;

/// What a handler needs of the key; a type, so that it stands in the handler's signature.
pub trait Permission: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
    /// Scopes that do as well.
    const OR: &'static [Scope] = &[];
    /// The largest body.
    const BODY_BYTES_MAX: usize = BODY_BYTES_MAX;
}

/// Make and read payments.
pub struct Payments;

impl Permission for Payments {
    const SCOPE: Scope = Scope::Payments;
}

/// Make many payments at once.
pub struct PaymentBatch;

impl Permission for PaymentBatch {
    const SCOPE: Scope = Scope::Payments;
    const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX;
}

/// Read payments of every kind: who makes one may ask what became of it.
pub struct ReadPayments;

impl Permission for ReadPayments {
    const SCOPE: Scope = Scope::Payments;
    const OR: &'static [Scope] = &[Scope::Refunds, Scope::Transfers];
}

/// Give money back.
pub struct Refunds;

impl Permission for Refunds {
    const SCOPE: Scope = Scope::Refunds;
}

/// Move money between accounts.
pub struct Transfers;

impl Permission for Transfers {
    const SCOPE: Scope = Scope::Transfers;
}

/// Ask customers for mandates.
pub struct Mandates;

impl Permission for Mandates {
    const SCOPE: Scope = Scope::Mandates;
}

/// Read the own balances.
pub struct Balances;

impl Permission for Balances {
    const SCOPE: Scope = Scope::Balances;
}

/// Read the event log.
pub struct Events;

impl Permission for Events {
    const SCOPE: Scope = Scope::Events;
}

/// Manage endpoints and their deliveries.
pub struct Endpoints;

impl Permission for Endpoints {
    const SCOPE: Scope = Scope::Endpoints;
}

/// Who signed a request.
pub struct Caller {
    /// The partner.
    pub partner: Arc<Partner>,
    /// The key.
    pub key: KeyId,
    /// Whether the key may transfer to accounts of others.
    pub transfers_out: bool,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Uuid,
    /// What is reported of the call.
    pub known: Known,
}

/// A request with a valid signature of a key that has the scope, within the partner's rate, and its whole body.
pub struct Signed<P> {
    /// Who signed.
    pub caller: Caller,
    /// The head.
    pub parts: Parts,
    /// The body, equal to what was signed.
    pub body: Bytes,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequest<Arc<App>> for Signed<P> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let caller = authenticate::<P>(app, &parts, has_body)?;
        metrics::verified(started.elapsed());
        check_accept(&parts.headers)?;
        let mut bytes = Bytes::new();
        if has_body {
            check_media_type(&parts.headers)?;
            let started = Instant::now();
            bytes = read_body(&parts.headers, body, P::BODY_BYTES_MAX).await?;
            content_digest::verify(&parts.headers, &bytes)
                .map_err(|error| signature_problem(&error, &parts))?;
            metrics::body_read(started.elapsed());
        }
        Ok(Self { caller, parts, body: bytes, permission: PhantomData })
    }
}

/// Everything that can be decided from the head.
fn authenticate<P: Permission>(app: &App, parts: &Parts, has_body: bool) -> Result<Caller, Problem> {
    let authority = authority(app, parts)?;
    let keys = app
        .keys
        .load()
        .ok_or_else(|| Problem::plain(Code::KeysUnavailable).retry_after(KEYS_RETRY_AFTER_S))?;
    let keys =
        keys.as_ref().ok_or_else(|| Problem::plain(Code::KeysUnavailable).retry_after(KEYS_RETRY_AFTER_S))?;
    let refused = |error| signature_problem(&error, parts);
    let signature =
        Signature::parse(&request_parts(parts, &authority, has_body), |id| keys.get(id).is_some())
            .map_err(refused)?;
    let now = now();
    signature.check_clock(now.seconds()).map_err(refused)?;
    let key = keys.get(signature.key_id());
    signature.verify(key.map(|key| &key.hmac)).map_err(refused)?;
    // A signature verifies with a key that is there, and with no other.
    let key = key.ok_or_else(|| Problem::plain(Code::SignatureInvalid))?;
    let known = parts.extensions.get::<Known>().cloned().unwrap_or_default();
    known.by(key.partner.id, key.id);
    if key.is_revoked(now) {
        return Err(Problem::plain(Code::KeyRevoked));
    }
    key.used(now);
    if !key.allows(P::SCOPE) && !P::OR.iter().any(|scope| key.allows(*scope)) {
        let detail = format!("this operation needs a key with the scope `{}`", P::SCOPE.as_str());
        return Err(Problem::new(Code::ScopeMissing, detail));
    }
    key.partner.allow().map_err(|seconds| Problem::plain(Code::RateLimited).retry_after(seconds))?;
    Ok(Caller {
        partner: key.partner.clone(),
        key: key.id,
        transfers_out: key.allows(Scope::TransfersOut),
        address: address(parts),
        request_id: request_id(parts),
        known,
    })
}

/// The parts that a signature covers.
pub fn request_parts<'a>(parts: &'a Parts, authority: &'a str, has_body: bool) -> RequestParts<'a> {
    RequestParts {
        method: &parts.method,
        authority,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        has_body,
    }
}

/// The authority that the request was sent to, when it is one of ours. Forwarded headers do not count.
pub fn authority(app: &App, parts: &Parts) -> Result<String, Problem> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
        // The absolute form of a request line wins over Host (RFC 9112, section 3.2.2).
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let found = host.map(crate::app::normal_authority).filter(|host| app.authorities.contains(host));
    found.ok_or_else(|| Problem::plain(Code::AuthorityUnknown))
}

/// The problem of a refused signature. That a header field which it has to cover is not there at all is told as such.
pub fn signature_problem(error: &SignatureError, parts: &Parts) -> Problem {
    let absent = error.component().filter(|name| !parts.headers.contains_key(*name));
    match absent {
        Some("idempotency-key") => return Problem::plain(Code::IdempotencyKeyMissing),
        Some("if-match") => return Problem::plain(Code::PreconditionRequired),
        _ => {}
    }
    Problem::new(Code::find(error.code()).unwrap_or(Code::SignatureInvalid), error.to_string())
}

/// The server's clock.
pub fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}

/// The client's address.
pub fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// The request's id.
pub fn request_id(parts: &Parts) -> Uuid {
    parts.extensions.get::<RequestId>().map_or_else(Uuid::nil, |RequestId(id)| *id)
}

/// Reads the body within its bound; the listener bounds its time.
pub async fn read_body(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the body has more than {bytes_max} bytes"));
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) if runtime::http::is_body_timeout(error.as_ref()) => {
            Err(Problem::plain(Code::BodyTimeout))
        }
        Err(error) => {
            tracing::debug!(error = %error, "a body ended early");
            Err(Problem::new(Code::MalformedRequest, "the body ended early or is framed wrongly"))
        }
    }
}

/// Refuses an `Accept` that excludes JSON.
pub fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let accepts =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|range| {
            let mut pieces = range.split(';').map(str::trim);
            let media = pieces.next().unwrap_or_default();
            let json = ["*/*", "application/*", "application/json", "application/problem+json"];
            let refused = pieces.any(|parameter| {
                let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
            });
            !refused && json.iter().any(|known| known.eq_ignore_ascii_case(media))
        });
    if accepts { Ok(()) } else { Err(Problem::plain(Code::NotAcceptable)) }
}

/// Refuses a body that is not plain JSON in UTF-8.
pub fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: Cow<'static, str>| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let encoded = headers.get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity");
    if encoded {
        return refused("a Content-Encoding is not accepted; send the body as it is".into());
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next().and_then(|value| value.to_str().ok()), types.next()) else {
        return refused("send one Content-Type, application/json".into());
    };
    let mut pieces = value.split(';').map(str::trim);
    let is_json = pieces.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let is_utf8 = pieces.all(|parameter| {
        let Some((name, charset)) = parameter.split_once('=') else { return parameter.is_empty() };
        !name.eq_ignore_ascii_case("charset") || charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if is_json && is_utf8 { Ok(()) } else { refused("send Content-Type: application/json, in UTF-8".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn accept_must_allow_json() {
        for accepted in ["*/*", "application/json", "text/html, application/*;q=0.1", "Application/JSON"] {
            assert!(check_accept(&headers(header::ACCEPT, accepted)).is_ok(), "{accepted}");
        }
        for refused in ["text/html", "application/xml", "application/json;q=0", "*/*; q=0.0", ""] {
            assert!(check_accept(&headers(header::ACCEPT, refused)).is_err(), "{refused}");
        }
        assert!(check_accept(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn only_plain_json_is_a_body() {
        for accepted in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
        {
            assert!(check_media_type(&headers(header::CONTENT_TYPE, accepted)).is_ok(), "{accepted}");
        }
        for refused in
            ["text/plain", "application/jsonp", "application/json; charset=latin1", "", "application/json, x"]
        {
            assert!(check_media_type(&headers(header::CONTENT_TYPE, refused)).is_err(), "{refused}");
        }
        let mut zipped = headers(header::CONTENT_TYPE, "application/json");
        zipped.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(check_media_type(&zipped).is_err());
    }
}
