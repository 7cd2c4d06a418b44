//! The partners' endpoints with their opened secrets, in memory, refreshed every second from MySQL.
//!
//! Whoever sends asks first what was changed ([`Snapshot::newest`], [`Snapshot::knows`]), in the same round trip as
//! for the deliveries: a new endpoint, another URL or a new secret holds for everything that is sent after it. What
//! is read every second finds the rest: deleted endpoints, and changes stamped by a clock far behind.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::endpoint_headers::{self, Headers};
use domain::event::EventType;
use domain::notice::NoticeType;
use domain::seal::{KeyEncryptionKeys, Place};
use domain::time::Timestamp;
use domain::webhook::{Secret, SigningKey, SigningKeys};
use http::{HeaderMap, HeaderName, HeaderValue};
use runtime::health::Component;
use sqlx::MySqlPool;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::lanes::Terms;
use crate::store::endpoints::{self as store, EndpointRow, SecretRow};
use domain::endpoint_url::{Loopback, Refusal, check_url};

/// How often everything is read again; with the reading itself it stays below two seconds.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// By how much the clock of who changes an endpoint, and its commit, may be behind the last change known here.
const CHANGE_SKEW_MICROS: i64 = 10_000_000;
/// How long the copy may be unrefreshed before readiness says so.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The types that an endpoint is subscribed to.
#[derive(Debug)]
pub struct Types {
    /// Of events.
    pub events: Vec<EventType>,
    /// Of notices.
    pub notices: Vec<NoticeType>,
}

/// An endpoint, ready to be sent to.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub partner: Uuid,
    /// Where to post, or why nowhere.
    pub target: Result<Url, Refusal>,
    /// Which types it receives; `None` for all.
    pub types: Option<Types>,
    /// The version of the bodies it wants.
    pub api_version: String,
    /// Its keys; `None` when they cannot be opened: then its deliveries wait in MySQL.
    pub keys: Option<SigningKeys>,
    /// Its live secrets by id, for pings that are signed with one alone.
    pub secrets: Vec<(Uuid, Secret)>,
    /// Headers of its owner.
    pub headers: HeaderMap,
    /// Deliveries in a second, at most.
    pub rate: Option<NonZeroU32>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// No deliveries are created and none attempted.
    pub disabled: bool,
}

impl Endpoint {
    /// Whether deliveries of this type are created for it.
    pub fn wants(&self, event_type: EventType) -> bool {
        !self.disabled && self.subscribes(event_type)
    }

    /// Whether it is subscribed to the type.
    pub fn subscribes(&self, event_type: EventType) -> bool {
        self.types.as_ref().is_none_or(|types| types.events.contains(&event_type))
    }

    /// Whether a notice of this type is created for it.
    pub fn wants_notice(&self, notice: NoticeType) -> bool {
        !self.disabled && self.types.as_ref().is_none_or(|types| types.notices.contains(&notice))
    }

    /// What bounds its requests.
    pub fn terms(&self) -> Terms {
        Terms { endpoint: self.id, partner: self.partner, rate: self.rate }
    }

    /// Whether attempts can be made.
    pub fn is_open(&self) -> bool {
        !self.disabled && self.keys.is_some()
    }
}

/// All endpoints at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_id: HashMap<Uuid, Arc<Endpoint>>,
    by_partner: HashMap<Uuid, Vec<Arc<Endpoint>>>,
    newest: Option<Timestamp>,
}

impl Snapshot {
    /// The endpoint of an id.
    pub fn get(&self, id: Uuid) -> Option<&Arc<Endpoint>> {
        self.by_id.get(&id)
    }

    /// A partner's endpoints.
    pub fn of_partner(&self, partner: Uuid) -> &[Arc<Endpoint>] {
        self.by_partner.get(&partner).map_or(&[], Vec::as_slice)
    }

    /// Every endpoint.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_id.values()
    }

    /// From when on to ask for changes: some time before the last one that is known, since what was stamped earlier
    /// may have been committed later.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest.map(|newest| newest.plus_micros(-CHANGE_SKEW_MICROS))
    }

    /// Whether all these changes are known here.
    pub fn knows(&self, changes: &[(Uuid, Timestamp)]) -> bool {
        changes.iter().all(|(id, at)| self.get(*id).is_some_and(|endpoint| endpoint.changed_at >= *at))
    }
}

/// The copy in memory and what it takes to refresh it.
pub struct Endpoints {
    pool: MySqlPool,
    keys: KeyEncryptionKeys,
    loopback: Loopback,
    snapshot: ArcSwap<Snapshot>,
    /// Opened secrets by row: opening costs more than comparing. One refresh at a time.
    opened: Mutex<HashMap<Uuid, (Vec<u8>, Secret)>>,
    wanted: Notify,
    health: Component,
}

impl Endpoints {
    /// An empty copy.
    pub fn new(pool: MySqlPool, keys: KeyEncryptionKeys, loopback: Loopback, health: Component) -> Self {
        Self {
            pool,
            keys,
            loopback,
            snapshot: ArcSwap::default(),
            opened: Mutex::default(),
            wanted: Notify::new(),
            health,
        }
    }

    /// The copy as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The copy, read again first when anything was changed.
    pub async fn renewed(&self) -> Result<Arc<Snapshot>, sqlx::Error> {
        let snapshot = self.snapshot();
        if snapshot.knows(&store::changed(&self.pool, snapshot.newest()).await?) {
            return Ok(snapshot);
        }
        self.refresh().await?;
        Ok(self.snapshot())
    }

    /// Asks for a refresh soon.
    pub fn refresh_soon(&self) {
        self.wanted.notify_one();
    }

    /// Refreshes every second until `shutdown`.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken) {
        let mut fresh = Instant::now();
        while !shutdown.is_cancelled() {
            match self.refresh().await {
                Ok(()) => fresh = Instant::now(),
                Err(error) if fresh.elapsed() > STALE_AFTER || self.snapshot.load().newest.is_none() => {
                    self.health.down(format!("endpoints cannot be read: {error}"));
                }
                Err(error) => tracing::debug!(error = %error, "endpoints not refreshed"),
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
                () = self.wanted.notified() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Reads everything now.
    pub async fn refresh(&self) -> Result<(), sqlx::Error> {
        let mut opened = self.opened.lock().await;
        let (endpoints, secrets) = store::load(&self.pool).await?;
        let now = clock::now();
        let mut secrets_of: HashMap<Uuid, Vec<SecretRow>> = HashMap::new();
        for secret in secrets {
            secrets_of.entry(secret.endpoint_id).or_default().push(secret);
        }
        let mut fresh = HashMap::new();
        let mut snapshot = Snapshot::default();
        let mut unsigned = 0_usize;
        for row in endpoints {
            let secrets = secrets_of.remove(&row.id).unwrap_or_default();
            let unsealed = self.open_keys(&row, secrets, now, &mut opened, &mut fresh);
            unsigned += usize::from(unsealed.is_none());
            snapshot.newest = snapshot.newest.max(Some(row.changed_at));
            let endpoint = Arc::new(endpoint(row, unsealed, self.loopback));
            snapshot.by_partner.entry(endpoint.partner).or_default().push(Arc::clone(&endpoint));
            snapshot.by_id.insert(endpoint.id, endpoint);
        }
        *opened = fresh;
        self.snapshot.store(Arc::new(snapshot));
        if unsigned == 0 {
            self.health.up();
        } else {
            self.health.down(format!(
                "{unsigned} endpoints have no secret that opens with WIRED_WEBHOOK_SECRETS_KEK_FILE; their deliveries wait"
            ));
        }
        Ok(())
    }

    /// Opens an endpoint's secrets: previous ones in overlap, and the current one, the youngest without an end.
    fn open_keys(
        &self,
        row: &EndpointRow,
        mut secrets: Vec<SecretRow>,
        now: Timestamp,
        opened: &mut HashMap<Uuid, (Vec<u8>, Secret)>,
        fresh: &mut HashMap<Uuid, (Vec<u8>, Secret)>,
    ) -> Option<Opened> {
        secrets.retain(|secret| secret.expires_at.is_none_or(|end| end > now));
        // The current one last; before it, those that a rotation replaced, oldest first.
        secrets.sort_by_key(|secret| (secret.expires_at.is_none(), secret.created_at));
        let mut live = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let known = opened.remove(&secret.id).filter(|(sealed, _)| *sealed == secret.sealed);
            let key = match known {
                Some((_, key)) => key,
                None => self.open_secret(&secret)?,
            };
            live.push((secret.id, key.clone()));
            fresh.insert(secret.id, (secret.sealed, key));
        }
        let secrets = live.clone();
        let (_, current) = live.pop()?;
        let previous = live.into_iter().map(|(_, secret)| secret).collect();
        let headers = match &row.headers_sealed {
            Some(sealed) => self.open_headers(row.id, sealed)?,
            None => HeaderMap::new(),
        };
        let ed25519 = match &row.signing_key_sealed {
            Some(sealed) => Some(self.open_signing_key(row.id, sealed)?),
            None => None,
        };
        Some(Opened { keys: SigningKeys { previous, current, ed25519 }, secrets, headers })
    }

    fn open_secret(&self, row: &SecretRow) -> Option<Secret> {
        let place = Place { table: "endpoint_secrets", column: "secret_sealed", row: row.id.as_bytes() };
        let opened = self.keys.open(&row.sealed, &place);
        let secret = match &opened {
            Ok(text) => std::str::from_utf8(text).ok().and_then(|text| Secret::parse(text).ok()),
            Err(error) => {
                tracing::error!(endpoint.id = %row.endpoint_id, error = %error, "endpoint secret cannot be opened");
                return None;
            }
        };
        if secret.is_none() {
            tracing::error!(endpoint.id = %row.endpoint_id, "endpoint secret is no whsec_ text");
        }
        secret
    }

    fn open_headers(&self, endpoint: Uuid, sealed: &[u8]) -> Option<HeaderMap> {
        let place = Place { table: "endpoints", column: "headers_sealed", row: endpoint.as_bytes() };
        let opened = self.keys.open(sealed, &place).ok();
        let headers: Option<Headers> = opened.and_then(|text| serde_json::from_slice(&text).ok());
        // Whatever is stored: what is not on the safe list is never sent.
        let Some(headers) = headers.filter(|headers| endpoint_headers::check(headers).is_ok()) else {
            tracing::error!(endpoint.id = %endpoint, "endpoint headers cannot be opened or are not allowed");
            return None;
        };
        let pairs = headers.iter().map(|(name, value)| {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        });
        pairs.collect()
    }

    fn open_signing_key(&self, endpoint: Uuid, sealed: &[u8]) -> Option<SigningKey> {
        let place = Place { table: "endpoints", column: "signing_key_sealed", row: endpoint.as_bytes() };
        let opened = self.keys.open(sealed, &place).ok();
        let key = opened.as_ref().and_then(|bytes| match <&[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(seed) => Some(SigningKey::from_seed(seed)),
            Err(_) => SigningKey::parse(std::str::from_utf8(bytes).ok()?).ok(),
        });
        if key.is_none() {
            tracing::error!(endpoint.id = %endpoint, "endpoint signing key cannot be opened");
        }
        key
    }
}

/// What stands sealed in the rows of an endpoint.
struct Opened {
    keys: SigningKeys,
    secrets: Vec<(Uuid, Secret)>,
    headers: HeaderMap,
}

fn endpoint(row: EndpointRow, opened: Option<Opened>, loopback: Loopback) -> Endpoint {
    // A word that this version does not know matches nothing.
    let types = row.event_types.map(|list| Types {
        events: list.split(',').filter_map(|word| word.trim().parse().ok()).collect(),
        notices: list.split(',').filter_map(|word| word.trim().parse().ok()).collect(),
    });
    let (keys, secrets, headers) = match opened {
        Some(Opened { keys, secrets, headers }) => (Some(keys), secrets, headers),
        None => (None, Vec::new(), HeaderMap::new()),
    };
    Endpoint {
        id: row.id,
        partner: row.partner_id,
        target: check_url(&row.url, loopback),
        types,
        api_version: row.api_version,
        keys,
        secrets,
        headers,
        rate: row.rate.and_then(NonZeroU32::new),
        created_at: row.created_at,
        changed_at: row.changed_at,
        failing_since: row.failing_since,
        disabled: row.disabled,
    }
}
