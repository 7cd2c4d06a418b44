//! API keys and endpoint secrets: kept while the partner's file holds them, made anew otherwise.
//!
//! A new key leaves the newest of the earlier ones live, as in a rotation by overlap, and revokes the others; a new
//! endpoint secret leaves the previous one signing along for a day.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    ids::{EndpointId, EndpointSecretId, KeyId, PartnerId, derived_uuid},
    seal::{KeyEncryptionKey, KeyEncryptionKeys, NONCE_BYTES, Place},
    webhook,
};
use sqlx::MySqlPool;
use uuid::Uuid;

use super::{Config, EnvFile, Error, plan::Partner, store};

/// The keys that seal what this module stores.
pub(super) struct Keys {
    partner_keys: KeyEncryptionKeys,
    webhook_secrets: KeyEncryptionKeys,
}

impl Keys {
    pub(super) fn read(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            partner_keys: read_kek(&config.partner_keys_kek_file)?,
            webhook_secrets: read_kek(&config.webhook_secrets_kek_file)?,
        })
    }
}

fn read_kek(path: &Path) -> Result<KeyEncryptionKeys, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    KeyEncryptionKey::from_base64(&text)
        .map(KeyEncryptionKeys::new)
        .map_err(|source| Error::Kek { path: path.to_owned(), source })
}

fn place<'a>(table: &'a str, id: &'a Uuid) -> Place<'a> {
    Place { table, column: "secret_sealed", row: id.as_bytes() }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn seal(keys: &KeyEncryptionKeys, secret: &[u8], place: &Place<'_>) -> Result<Vec<u8>, Error> {
    Ok(keys.seal(secret, place, random::<NONCE_BYTES>()?))
}

/// The partner's key and whether it is new; the file holds it afterwards.
pub(super) async fn ensure_api_key(
    pool: &MySqlPool,
    keys: &Keys,
    partner: PartnerId,
    file: &mut EnvFile,
) -> Result<(KeyId, bool), Error> {
    let live = store::live_api_keys(pool, partner).await?;
    let held = file.get("WIRED_KEY_ID").and_then(|id| id.parse::<KeyId>().ok());
    if let Some(row) = live.iter().find(|row| held == Some(KeyId::from_uuid(row.id))) {
        let opened = keys.partner_keys.open(&row.secret_sealed, &place("api_keys", &row.id));
        let ours =
            opened.is_ok_and(|secret| file.get("WIRED_KEY_SECRET") == Some(&*STANDARD.encode(&*secret)));
        if ours {
            return Ok((KeyId::from_uuid(row.id), false));
        }
    }
    let id = Uuid::new_v4();
    let secret = random::<32>()?;
    let sealed = seal(&keys.partner_keys, &secret, &place("api_keys", &id))?;
    // `live` has the newest first.
    for row in live.iter().skip(1) {
        store::revoke_api_key(pool, row.id).await?;
    }
    store::insert_api_key(pool, id, partner, &sealed).await?;
    let key = KeyId::from_uuid(id);
    file.set("WIRED_KEY_ID", key.to_string());
    file.set("WIRED_KEY_SECRET", STANDARD.encode(secret));
    Ok((key, true))
}

/// The partner's endpoint at `url` with a current secret that the file holds.
pub(super) async fn ensure_endpoint(
    pool: &MySqlPool,
    keys: &Keys,
    partner: &Partner,
    url: &str,
    file: &mut EnvFile,
) -> Result<(), Error> {
    let endpoint = EndpointId::from_uuid(derived_uuid(&format!("seed:endpoint:{}", partner.id)));
    if let Some(row) = store::current_endpoint_secret(pool, endpoint).await? {
        let opened = keys.webhook_secrets.open(&row.secret_sealed, &place("endpoint_secrets", &row.id));
        let held = file.get("WIRED_WEBHOOK_SECRET").map(str::as_bytes);
        if opened.is_ok_and(|secret| held == Some(&secret)) {
            return Ok(store::ensure_endpoint(pool, endpoint, partner.id, url).await?);
        }
    }
    let id = EndpointSecretId::from_uuid(Uuid::new_v4());
    let text = webhook::Secret::text_of(&random::<32>()?);
    let sealed = seal(&keys.webhook_secrets, text.as_bytes(), &place("endpoint_secrets", &id.uuid()))?;
    // The secret first: an endpoint must never be seen without one.
    store::replace_endpoint_secret(pool, endpoint, id, &sealed).await?;
    store::ensure_endpoint(pool, endpoint, partner.id, url).await?;
    file.set("WIRED_WEBHOOK_SECRET", text.to_string());
    Ok(())
}
