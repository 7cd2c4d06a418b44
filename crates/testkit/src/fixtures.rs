//! What tests need to begin with. Partners, keys and endpoints are rows, since their API comes with another part
//! of the system; accounts and mandates are made by commands alone, as the ledger allows no other way.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::account::Owner;
use domain::command::{
    BankCommand, BankEnvelope, Deposit, GrantMandate, OpenAccount, PartnerCommand, PartnerEnvelope,
    PaymentCommand, SCHEMA,
};
use domain::event::API_VERSION;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, EndpointId, EndpointSecretId, KeyId, MandateId, PartnerId, UserId, payment_id};
use domain::mandate::MandateKind;
use domain::money::Currency;
use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, Place};
use domain::webhook::Secret;
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::env::random;

/// Every scope that an API key can have.
pub const ALL_SCOPES: u32 = 0xff;

/// A random key-encryption key, in memory and in the file that a service reads.
pub struct Kek {
    /// Seals and opens.
    pub keys: KeyEncryptionKeys,
    file: tempfile::NamedTempFile,
}

impl Kek {
    /// The file with the key in base64; gone when this is dropped.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// A new key-encryption key.
pub fn kek() -> Kek {
    let key = random::<32>();
    let file = secret_file(&key);
    Kek { keys: KeyEncryptionKeys::new(KeyEncryptionKey::new(key)), file }
}

/// A file with `key` in base64, as key-encryption keys and the status token's key are configured.
pub fn secret_file(key: &[u8; 32]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), STANDARD.encode(key)).expect("a temporary file can be written");
    file
}

/// A partner to insert; the default is active, live and not slowed down.
#[derive(Debug, Clone)]
pub struct PartnerRow {
    /// Its name.
    pub name: String,
    /// `false`: suspended.
    pub active: bool,
    /// `false`: a test partner.
    pub livemode: bool,
    /// Sustained requests in a second.
    pub requests_per_second: u32,
}

impl Default for PartnerRow {
    fn default() -> Self {
        Self { name: "Café Mozart".to_owned(), active: true, livemode: true, requests_per_second: 100_000 }
    }
}

/// Inserts a partner.
pub async fn insert_partner(pool: &MySqlPool, partner: PartnerRow) -> PartnerId {
    let id = PartnerId::from_uuid(Uuid::now_v7());
    sqlx::query(
        "INSERT INTO partners (id, name, status, livemode, requests_per_second, created_at)
        VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(id.uuid().as_bytes().as_slice())
    .bind(partner.name)
    .bind(if partner.active { 1_u8 } else { 2 })
    .bind(u8::from(partner.livemode))
    .bind(partner.requests_per_second)
    .execute(pool)
    .await
    .expect("a partner is inserted");
    id
}

/// Inserts an API key with these scopes; returns its id and its secret in base64, as the partner gets it.
pub async fn insert_api_key(
    pool: &MySqlPool,
    kek: &KeyEncryptionKeys,
    partner: PartnerId,
    scopes: u32,
) -> (KeyId, String) {
    let (id, secret) = (KeyId::from_uuid(Uuid::now_v7()), random::<32>());
    sqlx::query(
        "INSERT INTO api_keys (id, partner_id, secret_sealed, scopes, created_at)
        VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(id.uuid().as_bytes().as_slice())
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(sealed(kek, "api_keys", id.uuid(), &secret))
    .bind(scopes)
    .execute(pool)
    .await
    .expect("a key is inserted");
    (id, STANDARD.encode(secret))
}

/// Inserts an endpoint that receives `event_types` (comma separated; `None` for all); returns its id and its
/// secret `whsec_…`.
pub async fn insert_endpoint(
    pool: &MySqlPool,
    kek: &KeyEncryptionKeys,
    partner: PartnerId,
    url: &str,
    event_types: Option<&str>,
) -> (EndpointId, String) {
    let endpoint = EndpointId::from_uuid(Uuid::now_v7());
    sqlx::query(
        "INSERT INTO endpoints (id, partner_id, url, event_types, api_version, created_at)
        VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(endpoint.uuid().as_bytes().as_slice())
    .bind(partner.uuid().as_bytes().as_slice())
    .bind(url)
    .bind(event_types)
    .bind(API_VERSION)
    .execute(pool)
    .await
    .expect("an endpoint is inserted");
    (endpoint, insert_endpoint_secret(pool, kek, endpoint, None).await)
}

/// Inserts a further secret of an endpoint; `expires_in_seconds` for a previous one. Returns `whsec_…`.
pub async fn insert_endpoint_secret(
    pool: &MySqlPool,
    kek: &KeyEncryptionKeys,
    endpoint: EndpointId,
    expires_in_seconds: Option<i64>,
) -> String {
    let (id, text) =
        (EndpointSecretId::from_uuid(Uuid::now_v7()), Secret::text_of(&random::<32>()).to_string());
    sqlx::query(
        "INSERT INTO endpoint_secrets (id, endpoint_id, secret_sealed, created_at, expires_at)
        VALUES (?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? SECOND)",
    )
    .bind(id.uuid().as_bytes().as_slice())
    .bind(endpoint.uuid().as_bytes().as_slice())
    .bind(sealed(kek, "endpoint_secrets", id.uuid(), text.as_bytes()))
    .bind(expires_in_seconds)
    .execute(pool)
    .await
    .expect("a secret is inserted");
    text
}

fn sealed(kek: &KeyEncryptionKeys, table: &str, row: Uuid, plaintext: &[u8]) -> Vec<u8> {
    kek.seal(plaintext, &Place { table, column: "secret_sealed", row: row.as_bytes() }, random())
}

/// A new account's id.
pub fn account_id() -> AccountId {
    AccountId::from_uuid(Uuid::now_v7())
}

/// A new mandate's id.
pub fn mandate_id() -> MandateId {
    MandateId::from_uuid(Uuid::now_v7())
}

/// A new user's id.
pub fn user_id() -> UserId {
    UserId::from_uuid(Uuid::now_v7())
}

/// An envelope with a new id around a bank command.
pub fn bank(actor: UserId, command: BankCommand) -> BankEnvelope {
    BankEnvelope {
        schema: SCHEMA,
        id: Uuid::now_v7(),
        actor,
        reason: "test".to_owned(),
        request_id: Uuid::now_v7(),
        address: None,
        command,
    }
}

/// Opens an account without overdraft and limits.
pub fn open_account(account: AccountId, owner: Owner, currency: Currency) -> BankCommand {
    BankCommand::OpenAccount(OpenAccount {
        account,
        owner,
        currency,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    })
}

/// Credits an account.
pub fn deposit(account: AccountId, amount_minor: i64, currency: Currency) -> BankCommand {
    BankCommand::Deposit(Deposit { account, amount_minor, currency, reference: None })
}

/// Grants a standing mandate without caps.
pub fn grant_mandate(
    mandate: MandateId,
    partner: PartnerId,
    account: AccountId,
    currency: Currency,
) -> BankCommand {
    BankCommand::GrantMandate(GrantMandate {
        mandate,
        partner,
        account,
        kind: MandateKind::Standing,
        currency,
        payment_max_minor: None,
        daily_max_minor: None,
        expires_at: None,
        reference: None,
    })
}

/// A payment under an idempotency key. The fingerprint is of the command, so that the same call is a duplicate and
/// another one under the key a conflict.
pub fn payment(
    partner: PartnerId,
    key: KeyId,
    idempotency_key: &str,
    mandate: MandateId,
    amount_minor: i64,
    currency: Currency,
) -> PartnerEnvelope {
    let command = PaymentCommand {
        mandate,
        amount_minor,
        currency,
        expires_in_s: None,
        reference: None,
        description: None,
        metadata: domain::payment::Metadata::new(),
    };
    let id = payment_id(partner, idempotency_key);
    PartnerEnvelope {
        schema: SCHEMA,
        id,
        root: id,
        partner,
        key,
        idempotency_key: idempotency_key.to_owned(),
        fingerprint: Fingerprint::of(&[format!("{command:?}").as_bytes()]),
        request_id: Uuid::now_v7(),
        address: None,
        command: PartnerCommand::Payment(command),
    }
}
