//! `POST /v1/sandbox/echo`: what arrived of a signed request, for whoever wonders why theirs is refused.
//!
//! It needs no valid signature, so it is bounded per client address. It tells what the sender could compute from
//! its own request (components, signature base, clock skew) and the verdict that any other route would give; never
//! a MAC, and nothing that tells an unknown key from a wrong secret. It moves nothing.

use std::sync::Arc;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use domain::http_signature::{Signature, content_digest};
use domain::time::Timestamp;
use serde::Serialize;

use super::schema;
use crate::app::App;
use crate::problem::{Code, Problem};
use crate::signed::{
    BODY_BYTES_MAX, address, authority, now, read_body, request_id, request_parts, signature_problem,
};

/// What arrived.
#[derive(Debug, Serialize)]
pub struct Echo {
    verified: bool,
    /// The code and detail with which a signed route would refuse this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Verdict>,
    request_id: uuid::Uuid,
    server_time: Timestamp,
    method: String,
    authority: Option<String>,
    path: String,
    query: String,
    body_bytes: usize,
    /// Names of all header fields that arrived.
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Understood>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    code: &'static str,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Understood {
    key_id: String,
    components: Vec<String>,
    created: i64,
    clock_skew_s: i64,
    signature_base: String,
}

/// Is my signature right?
///
/// Send any request here that you would send elsewhere. The answer shows which components arrived, the signature base
/// as the server builds it, and the verdict.
#[utoipa::path(
    post, path = "/v1/sandbox/echo", tag = "sandbox", operation_id = "echo",
    request_body(content = serde_json::Value, content_type = "application/json", description = "Anything up to 64 KiB", example = json!({"hello": "world"})),
    responses(
        (status = 200, description = "What arrived", body = schema::Echo, example = json!(schema::echo())),
        (status = 408, description = "The body did not arrive in time", body = schema::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 64 KiB", body = schema::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests from this address; see Retry-After", body = schema::Problem, content_type = "application/problem+json")
    )
)]
pub async fn echo(State(app): State<Arc<App>>, request: Request) -> Result<Json<Echo>, Problem> {
    let (parts, body) = request.into_parts();
    // Without an address there is no listener of ours in front, only a test.
    if let Some(address) = address(&parts) {
        app.echo_limit
            .allow(address)
            .map_err(|seconds| Problem::plain(Code::RateLimited).retry_after(seconds))?;
    }
    let has_body = !body.is_end_stream();
    let body = read_body(&parts.headers, body, BODY_BYTES_MAX).await?;
    let authority = authority(&app, &parts);
    let now = now();
    let mut understood = None;
    let verdict = match &authority {
        Err(problem) => Err(problem.clone()),
        Ok(authority) => {
            let keys = app.keys.load();
            let find = |id: &str| keys.as_ref()?.as_ref()?.get(id);
            Signature::parse(&request_parts(&parts, authority, has_body), |id| find(id).is_some())
                .and_then(|signature| {
                    understood = Some(describe(&signature, now));
                    signature.check_clock(now.seconds())?;
                    let key = find(signature.key_id());
                    signature.verify(key.map(|key| &key.hmac))?;
                    if has_body {
                        content_digest::verify(&parts.headers, &body)?;
                    }
                    Ok(key.is_some_and(|key| key.is_revoked(now)))
                })
                .map_err(|error| signature_problem(&error, &parts))
                .and_then(|revoked| if revoked { Err(Problem::plain(Code::KeyRevoked)) } else { Ok(()) })
        }
    };
    let mut headers: Vec<String> = parts.headers.keys().map(ToString::to_string).collect();
    headers.sort_unstable();
    Ok(Json(Echo {
        verified: verdict.is_ok(),
        problem: verdict
            .err()
            .map(|problem| Verdict { code: problem.code.as_str(), detail: problem.detail.into_owned() }),
        request_id: request_id(&parts),
        server_time: now,
        method: parts.method.to_string(),
        authority: authority.ok(),
        path: parts.uri.path().to_owned(),
        query: format!("?{}", parts.uri.query().unwrap_or_default()),
        body_bytes: body.len(),
        headers,
        signature: understood,
    }))
}

fn describe(signature: &Signature, now: Timestamp) -> Understood {
    Understood {
        key_id: signature.key_id().to_owned(),
        components: signature.components().map(ToOwned::to_owned).collect(),
        created: signature.created(),
        clock_skew_s: signature.clock_skew_s(now.seconds()),
        signature_base: signature.base().to_owned(),
    }
}
