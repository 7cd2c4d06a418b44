//! The partners' endpoints with their opened secrets, in memory, refreshed every second from MySQL.
//!
//! A change takes effect within two seconds. A new endpoint is seen before the first batch of events after it: the
//! dispatcher asks for new ones with each batch ([`Snapshot::newest`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use domain::event::EventType;
use domain::seal::{KeyEncryptionKeys, Place};
use domain::time::Timestamp;
use domain::webhook::{Secret, SigningKey, SigningKeys};
use runtime::health::Component;
use sqlx::MySqlPool;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::store::endpoints::{self as store, EndpointRow, SecretRow};
use domain::endpoint_url::{Loopback, Refusal, check_url};

/// How often everything is read again; with the reading itself it stays below two seconds.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the copy may be unrefreshed before readiness says so.
const STALE_AFTER: Duration = Duration::from_secs(10);

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
    pub types: Option<Vec<EventType>>,
    /// The version of the bodies it wants.
    pub api_version: String,
    /// Its keys; `None` when they cannot be opened: then its deliveries wait in MySQL.
    pub keys: Option<SigningKeys>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// No deliveries are created and none attempted.
    pub disabled: bool,
}

impl Endpoint {
    /// Whether deliveries of this type are created for it.
    pub fn wants(&self, event_type: EventType) -> bool {
        !self.disabled && self.types.as_ref().is_none_or(|types| types.contains(&event_type))
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

    /// When the newest endpoint was created.
    pub const fn newest(&self) -> Option<Timestamp> {
        self.newest
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
            let keys = self.open_keys(&row, secrets, now, &mut opened, &mut fresh);
            unsigned += usize::from(keys.is_none());
            snapshot.newest = snapshot.newest.max(Some(row.created_at));
            let endpoint = Arc::new(endpoint(row, keys, self.loopback));
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
    ) -> Option<SigningKeys> {
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
            fresh.insert(secret.id, (secret.sealed, key.clone()));
            live.push(key);
        }
        let current = live.pop()?;
        let ed25519 = match &row.signing_key_sealed {
            Some(sealed) => Some(self.open_signing_key(row.id, sealed)?),
            None => None,
        };
        Some(SigningKeys { previous: live, current, ed25519 })
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

fn endpoint(row: EndpointRow, keys: Option<SigningKeys>, loopback: Loopback) -> Endpoint {
    // A word that this version does not know matches no event.
    let types =
        row.event_types.map(|list| list.split(',').filter_map(|word| word.trim().parse().ok()).collect());
    Endpoint {
        id: row.id,
        partner: row.partner_id,
        target: check_url(&row.url, loopback),
        types,
        api_version: row.api_version,
        keys,
        created_at: row.created_at,
        failing_since: row.failing_since,
        disabled: row.disabled,
    }
}
