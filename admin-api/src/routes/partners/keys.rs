//! API keys of a partner: issued with a second person, shown once to whoever asked, revoked by one alone and at once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use domain::ids::{KeyId, PartnerId, derived_uuid};
use domain::scope::Scope;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::super::commands::Why;
use super::super::documents::ProblemShape;
use super::super::fields::Fields;
use super::{cut, nobody};
use crate::access::{Admin, Fresh, Reader};
use crate::app::App;
use crate::approvals::{self, Approval};
use crate::audit::{Action, Entry};
use crate::body::{FromPath, FromQuery, Json};
use crate::cursor;
use crate::idempotency::IdempotencyKey;
use crate::partners::PartnerChange;
use crate::partners::keys::{QUIET_HOURS, Verdict, open_secret, verdict};
use crate::problem::{Code, Problem};
use crate::second_person::ask;
use crate::store::api_keys::{self as store, KeyRow};
use crate::store::{audit, partners};

/// How far ahead the end of a key can be set, in days: what is later will be forgotten.
const END_DAYS_MAX: i64 = 90;
/// For how long the secret of a new key waits for whoever asked, in hours.
const SHOWN_WITHIN_HOURS: i64 = 24;

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
pub struct Key {
    /// The id: `keyid` of signatures.
    #[schema(value_type = String, example = "key_01k9q5m3v7f8h9j0kamcneprqs")]
    id: KeyId,
    /// What it may be used for.
    #[schema(value_type = Vec<String>, example = json!(["payments", "refunds"]))]
    scopes: Vec<Scope>,
    /// Whether it counts now.
    #[schema(example = true)]
    live: bool,
    /// Since when.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    created_at: Timestamp,
    /// From when on it does not count; nothing when no end is set.
    #[schema(value_type = Option<String>, example = "2026-03-01T12:00:00.000000Z")]
    revoked_at: Option<Timestamp>,
    /// When it last signed a request that was let in; up to a minute late. Nothing: never.
    #[schema(value_type = Option<String>, example = "2026-02-28T12:00:00.000000Z")]
    last_used_at: Option<Timestamp>,
    /// Whether it can be revoked and nobody will notice; `verdict` says why.
    #[schema(example = false)]
    safe_to_revoke: bool,
    /// `safe`: another key with at least its scopes was used since, and this one not for `quiet_hours`. Otherwise what
    /// is missing.
    #[schema(inline)]
    verdict: Verdict,
    /// For how many hours a key must not have been used to be `safe`.
    #[schema(example = 24)]
    quiet_hours: u32,
    /// Whether the secret still waits for whoever asked for the key.
    #[schema(example = false)]
    secret_waits: bool,
}

/// A partner's keys, newest first.
#[derive(Serialize, ToSchema)]
pub struct Keys {
    /// The keys, revoked ones too.
    data: Vec<Key>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// How many, 1 to 200.
    #[param(example = 50)]
    pub(super) limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AZmZmQAAcACAAAAAAAAAAA")]
    pub(super) cursor: Option<String>,
}

/// A key to be issued.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it may be used for: `payments`, `refunds`, `transfers`, `transfers_out`, `mandates`, `balances`, `events`,
    /// `endpoints`.
    #[schema(example = json!(["payments", "refunds"]), min_items = 1, max_items = 8)]
    scopes: Vec<String>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "the tills of the second shop", min_length = 5, max_length = 300)]
    reason: String,
}

/// The end of a key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// From when on it does not count, at most 90 days ahead; now when nothing is said.
    #[schema(value_type = Option<String>, example = "2026-03-01T12:00:00Z", nullable)]
    at: Option<Timestamp>,
    /// Why, in 5 to 300 characters.
    #[schema(example = "rotated, the new key is in use", min_length = 5, max_length = 300)]
    reason: String,
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
pub struct Secret {
    /// The id: `keyid` of signatures.
    #[schema(value_type = String, example = "key_01k9q5m3v7f8h9j0kamcneprqs")]
    id: KeyId,
    /// The secret in base64; shown here and never again.
    #[schema(example = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw2fK1Yy7sQ8o=")]
    secret: String,
}

fn key(row: &KeyRow, live: &[KeyRow]) -> Key {
    let verdict = verdict(row, live);
    Key {
        id: row.id,
        scopes: Scope::of_bits(row.scopes),
        live: row.is_live(),
        created_at: row.created_at,
        revoked_at: row.revoked_at,
        last_used_at: row.last_used_at,
        safe_to_revoke: verdict == Verdict::Safe,
        verdict,
        quiet_hours: QUIET_HOURS,
        secret_waits: row.issued_to.is_some() && row.shown_at.is_none() && waits(row),
    }
}

fn waits(row: &KeyRow) -> bool {
    row.is_live() && row.created_at.plus_seconds(SHOWN_WITHIN_HOURS * 3_600) > row.now
}

/// The keys of a partner
///
/// Newest first, with when each was last used and whether it can be revoked.
#[utoipa::path(
    get, path = "/v1/partners/{id}/keys", tag = "partners", operation_id = "list_keys", security(("access_token" = [])),
    params(("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"), Part),
    responses(
        (status = 200, description = "The keys", body = Keys),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(partner): FromPath<PartnerId>,
    FromQuery(part): FromQuery<Part>,
) -> Result<axum::Json<Keys>, Problem> {
    let limit = cursor::limit(part.limit)?;
    let below = part.cursor.as_deref().map(cursor::read).transpose()?;
    partners::by_id(&app.pool, partner).await?.ok_or_else(nobody)?;
    let rows = store::list(&app.pool, partner, below, limit + 1).await?;
    let live = store::live(&app.pool, partner).await?;
    let (rows, next) = cut(rows, limit, |row| cursor::after(row.id.uuid()));
    Ok(axum::Json(Keys { data: rows.iter().map(|row| key(row, &live)).collect(), next }))
}

/// Issue a key
///
/// Another admin approves it, which makes the key; then whoever asked sees its secret once, with
/// `POST /v1/partners/{id}/keys/{key}/secret`. Earlier keys go on: revoke them when the new one is in use.
#[utoipa::path(
    post, path = "/v1/partners/{id}/keys", tag = "partners", operation_id = "issue_key", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", example = "key-mozart-2")
    ),
    request_body(content = NewKey, example = json!({"scopes": ["payments", "refunds"], "reason": "the tills of the second shop"})),
    responses(
        (status = 202, description = "Another admin has to approve it; the key's id is in `action`", body = Approval),
        (status = 200, description = "It is decided", body = Approval),
        (status = 404, description = "There is no such partner", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "The partner has as many live keys as it may have", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn issue(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath(partner): FromPath<PartnerId>,
    idempotency: IdempotencyKey,
    Json(body): Json<NewKey>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let mut scopes: Vec<Scope> = body.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
    if scopes.len() != body.scopes.len() || scopes.is_empty() {
        let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        fields.refuse("/scopes", "unknown_value", format!("one or more of {}", known.join(", ")));
    }
    let reason = fields.reason(&body.reason);
    fields.done()?;
    scopes.sort_unstable();
    scopes.dedup();
    // The same request again asks for the same key.
    let id = derived_uuid(&format!("issue:{}", idempotency.command_id(caller.user)));
    let change = PartnerChange::IssueKey { partner, key: KeyId::from_uuid(id), scopes };
    ask(&app, &caller, &idempotency, approvals::Action::Partner(change), &reason).await
}

/// See the secret of a new key
///
/// Once, within 24 hours, and only by whoever asked for the key. Lost is lost: revoke the key and issue another.
#[utoipa::path(
    post, path = "/v1/partners/{id}/keys/{key}/secret", tag = "partners", operation_id = "show_key_secret", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("key" = String, Path, description = "The key", example = "key_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    request_body(content = Why, example = json!({"reason": "handed over in a sealed letter"})),
    responses(
        (status = 200, description = "The secret; ingest knows the key within 5 seconds", body = Secret),
        (status = 404, description = "There is no such key", body = ProblemShape, content_type = "application/problem+json"),
        (status = 409, description = "It was shown, or somebody else asked for the key", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn show_secret(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath((partner, id)): FromPath<(PartnerId, KeyId)>,
    Json(why): Json<Why>,
) -> Result<axum::Json<Secret>, Problem> {
    let reason = why.checked()?;
    let conflict = |detail: &'static str| Problem::new(Code::Conflict, detail);
    let mut transaction = app.pool.begin().await?;
    let row = store::find(&mut *transaction, partner, id).await?.ok_or_else(nobody)?;
    if row.issued_to != Some(caller.user) {
        return Err(conflict("a secret is shown to whoever asked for the key, and to nobody else"));
    }
    if !waits(&row) {
        return Err(conflict(
            "the key is revoked, or its secret has waited for more than 24 hours: issue another key",
        ));
    }
    let shown = || conflict("the secret was shown already: if it is lost, revoke the key and issue another");
    let sealed = store::take_secret(&mut transaction, id).await?.ok_or_else(shown)?;
    let secret = open_secret(&app.partner_kek, id, &sealed)?;
    let entry =
        Entry { target: Some(id.to_string()), ..Entry::own(caller.user, Action::ShowSecret, caller.origin) };
    audit::write(&mut transaction, &entry.with(json!({ "partner": partner, "reason": reason }))).await?;
    // Nothing is shown before it is written down that it was.
    transaction.commit().await?;
    Ok(axum::Json(Secret { id, secret }))
}

/// Revoke a key
///
/// At once, or at a time in the future while both keys are in use. It takes nobody else: whoever stole a key does not
/// wait. Ingest knows within 5 seconds. An end in the future can be moved; one that has come cannot.
#[utoipa::path(
    post, path = "/v1/partners/{id}/keys/{key}/revocation", tag = "partners", operation_id = "revoke_key", security(("access_token" = [])),
    params(
        ("id" = String, Path, description = "The partner", example = "ptr_01k9q5m3v7f8h9j0kamcneprqs"),
        ("key" = String, Path, description = "The key", example = "key_01k9q5m3v7f8h9j0kamcneprqs")
    ),
    request_body(content = Revocation, example = json!({"reason": "rotated, the new key is in use"})),
    responses(
        (status = 200, description = "The key with its end", body = Key),
        (status = 404, description = "There is no such key", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Fresh(Admin(caller)): Fresh<Admin>,
    FromPath((partner, id)): FromPath<(PartnerId, KeyId)>,
    Json(body): Json<Revocation>,
) -> Result<axum::Json<Key>, Problem> {
    let mut fields = Fields::default();
    let reason = fields.reason(&body.reason);
    let mut transaction = app.pool.begin().await?;
    // Whoever issues or revokes a key of this partner waits here.
    partners::lock(&mut transaction, partner).await?.ok_or_else(nobody)?;
    let row = store::find(&mut *transaction, partner, id).await?.ok_or_else(nobody)?;
    if body.at.is_some_and(|at| at > row.now.plus_seconds(END_DAYS_MAX * 86_400)) {
        fields.refuse("/at", "out_of_range", format!("at most {END_DAYS_MAX} days ahead"));
    }
    fields.done()?;
    if row.is_live() {
        store::revoke(&mut transaction, id, body.at).await?;
        let entry = Entry {
            target: Some(id.to_string()),
            ..Entry::own(caller.user, Action::RevokeKey, caller.origin)
        };
        let detail = json!({"partner": partner, "before": row.revoked_at, "at": body.at, "reason": reason});
        audit::write(&mut transaction, &entry.with(detail)).await?;
    }
    let row = store::find(&mut *transaction, partner, id).await?.ok_or_else(nobody)?;
    let live = store::live(&mut *transaction, partner).await?;
    transaction.commit().await?;
    Ok(axum::Json(key(&row, &live)))
}
