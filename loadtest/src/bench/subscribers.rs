//! Endpoints in any number, as configuration: making a thousand through the API would measure that.

use domain::event::API_VERSION;
use domain::ids::{EndpointId, EndpointSecretId, PartnerId};
use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, NONCE_BYTES, Place};
use domain::webhook::Secret;
use runtime::sql::Sql;
use uuid::Uuid;

use crate::sink::Sink;
use crate::system::System;

/// Rows of one statement.
const ROWS: usize = 500;

/// Makes an endpoint of the partner for each path, received by the sink.
pub(super) async fn add(
    system: &System,
    sink: &Sink,
    partner: PartnerId,
    paths: &[String],
) -> anyhow::Result<Vec<EndpointId>> {
    let kek = std::fs::read_to_string(system.folder().join("webhook-secrets.kek"))?;
    let keys = KeyEncryptionKeys::new(KeyEncryptionKey::from_base64(&kek)?);
    let mut endpoints = Vec::with_capacity(paths.len());
    for paths in paths.chunks(ROWS) {
        let (mut secrets, mut rows) = (Sql::new(), Sql::new());
        secrets.text("INSERT INTO endpoint_secrets (id, endpoint_id, secret_sealed, created_at) VALUES ");
        rows.text("INSERT INTO endpoints (id, partner_id, url, api_version, created_at) VALUES ");
        for (index, path) in paths.iter().enumerate() {
            let secret = Secret::text_of(&rand::random());
            let endpoint = EndpointId::from_uuid(Uuid::new_v4());
            let id = EndpointSecretId::from_uuid(Uuid::new_v4()).uuid();
            let place = Place { table: "endpoint_secrets", column: "secret_sealed", row: id.as_bytes() };
            let sealed = keys.seal(secret.as_bytes(), &place, rand::random::<[u8; NONCE_BYTES]>());
            let comma = if index == 0 { "(" } else { ", (" };
            secrets.text(comma).uuid(id).text(", ").uuid(endpoint.uuid()).text(", ").bytes(&sealed);
            secrets.text(", UTC_TIMESTAMP(6))");
            rows.text(comma).uuid(endpoint.uuid()).text(", ").uuid(partner.uuid()).text(", ");
            rows.string(&sink.url(path)).text(", ").string(API_VERSION).text(", UTC_TIMESTAMP(6))");
            sink.endpoint(path, &secret)?;
            endpoints.push(endpoint);
        }
        // The secrets first: an endpoint must never be seen without one.
        for sql in [secrets, rows] {
            sqlx::raw_sql(sql.as_str()).execute(system.pool()).await?;
        }
    }
    Ok(endpoints)
}

/// Removes what `admin-api seed` made for the partner.
pub(super) async fn remove_all(system: &System, partner: PartnerId) -> anyhow::Result<()> {
    let id = partner.uuid();
    let secrets =
        "DELETE FROM endpoint_secrets WHERE endpoint_id IN (SELECT id FROM endpoints WHERE partner_id = ?)";
    for statement in [secrets, "DELETE FROM endpoints WHERE partner_id = ?"] {
        sqlx::query(statement).bind(id.as_bytes().as_slice()).execute(system.pool()).await?;
    }
    Ok(())
}
