//! What the harness reads of the ledger, as the administrator and without any code of the services.

use std::collections::HashMap;

use domain::ids::{AccountId, PartnerId, PaymentId, event_id};
use runtime::mysql::Text;
use sqlx::MySqlPool;
use uuid::Uuid;

/// A row of `payments` with what the harness compares.
#[derive(Debug, Clone)]
pub struct PaymentRow {
    /// The payment.
    pub id: PaymentId,
    /// The partner, if any.
    pub partner: Option<PartnerId>,
    /// The code of its kind.
    pub kind: u8,
    /// The code of its status.
    pub status: u8,
    /// Counts its changes.
    pub version: u32,
    /// Minor units.
    pub amount_minor: i64,
    /// Minor units that it moved and that were not given back.
    pub left_minor: i64,
    /// The mandate.
    pub mandate: Option<Uuid>,
    /// The partner's key.
    pub idempotency_key: Option<String>,
}

/// Every payment.
pub async fn payments(pool: &MySqlPool) -> sqlx::Result<Vec<PaymentRow>> {
    type Row = (Vec<u8>, Option<Vec<u8>>, u8, u8, u32, i64, i64, Option<Vec<u8>>, Option<Text>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, partner_id, kind, status, version, amount_minor, captured_minor - refunded_minor, mandate_id,
        idempotency_key FROM payments",
    )
    .fetch_all(pool)
    .await?;
    let rows =
        rows.into_iter().map(|(id, partner, kind, status, version, amount, left, mandate, key)| PaymentRow {
            id: PaymentId::from_uuid(uuid(&id)),
            partner: partner.map(|id| PartnerId::from_uuid(uuid(&id))),
            kind,
            status,
            version,
            amount_minor: amount,
            left_minor: left,
            mandate: mandate.map(|id| uuid(&id)),
            idempotency_key: key.map(String::from),
        });
    Ok(rows.collect())
}

/// The last sequence given out to a partner; 0 when it has no event.
pub async fn last_sequence(pool: &MySqlPool, partner: PartnerId) -> sqlx::Result<u64> {
    let found = sqlx::query_scalar("SELECT last_sequence FROM partner_sequences WHERE partner_id = ?");
    Ok(found.bind(bytes(partner.uuid())).fetch_optional(pool).await?.unwrap_or(0))
}

/// Sequences and epochs of a partner's events after `after`.
pub async fn events(pool: &MySqlPool, partner: PartnerId, after: u64) -> sqlx::Result<Vec<(u64, u16)>> {
    sqlx::query_as(
        "SELECT sequence, epoch FROM events WHERE partner_id = ? AND sequence > ? ORDER BY sequence",
    )
    .bind(bytes(partner.uuid()))
    .bind(after)
    .fetch_all(pool)
    .await
}

/// `next_offset` and `announced_offset` by source code and partition.
pub async fn positions(pool: &MySqlPool) -> sqlx::Result<HashMap<(u8, u16), (u64, u64)>> {
    let rows: Vec<(u8, u16, u64, u64)> =
        sqlx::query_as("SELECT source, kafka_partition, next_offset, announced_offset FROM positions")
            .fetch_all(pool)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(source, partition, next, announced)| ((source, partition), (next, announced)))
        .collect())
}

/// Reason, detail and payment of every dead letter.
pub async fn dead_letters(pool: &MySqlPool) -> sqlx::Result<Vec<(String, String, Option<Uuid>)>> {
    let rows: Vec<(Text, Text, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT reason, detail, id FROM dead_letters ORDER BY source, kafka_partition, kafka_offset",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(reason, detail, id)| (reason.into(), detail.into(), id.map(|id| uuid(&id))))
        .collect())
}

/// How many deliveries stand in each status.
pub async fn deliveries(pool: &MySqlPool) -> sqlx::Result<HashMap<u8, i64>> {
    let rows: Vec<(u8, i64)> =
        sqlx::query_as("SELECT status, COUNT(*) FROM deliveries GROUP BY status").fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

/// The sum of the balances of an owner's accounts.
pub async fn balance(pool: &MySqlPool, owner: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(balance_minor), 0) AS SIGNED) FROM accounts WHERE owner_id = ?",
    )
    .bind(bytes(owner))
    .fetch_one(pool)
    .await
}

/// Removes a payment's row, as no program of the bank could: to see that the loss is noticed.
pub async fn lose_payment(pool: &MySqlPool, id: PaymentId) -> sqlx::Result<u64> {
    let lost = sqlx::query("DELETE FROM payments WHERE id = ?").bind(bytes(id.uuid())).execute(pool).await?;
    Ok(lost.rows_affected())
}

fn uuid(bytes: &[u8]) -> Uuid {
    // Every id column is BINARY(16).
    Uuid::from_slice(bytes).unwrap_or_default()
}

fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Points a partner's endpoint elsewhere, as an operator would; gives how many endpoints it has.
pub async fn set_endpoint_url(pool: &MySqlPool, partner: PartnerId, url: &str) -> sqlx::Result<u64> {
    let changed = sqlx::query("UPDATE endpoints SET url = ? WHERE partner_id = ?")
        .bind(url)
        .bind(bytes(partner.uuid()));
    Ok(changed.execute(pool).await?.rows_affected())
}

/// Enables or disables a partner's endpoints, as their owner would.
pub async fn switch_endpoints(pool: &MySqlPool, partner: PartnerId, on: bool) -> sqlx::Result<()> {
    let states = if on {
        "UPDATE endpoint_states SET disabled_at = NULL, disabled_reason = NULL
        WHERE endpoint_id IN (SELECT id FROM endpoints WHERE partner_id = ?)"
    } else {
        "INSERT INTO endpoint_states (endpoint_id, disabled_at, disabled_reason)
        SELECT id, UTC_TIMESTAMP(6), 'owner' FROM endpoints WHERE partner_id = ?
        ON DUPLICATE KEY UPDATE disabled_at = VALUES(disabled_at), disabled_reason = VALUES(disabled_reason)"
    };
    // By its version a notifier sees that an endpoint has changed.
    for statement in [states, "UPDATE endpoints SET version = version + 1 WHERE partner_id = ?"] {
        sqlx::query(statement).bind(bytes(partner.uuid())).execute(pool).await?;
    }
    Ok(())
}

/// Status and error class of every attempt.
pub async fn attempts(pool: &MySqlPool) -> sqlx::Result<Vec<(Option<u16>, Option<String>)>> {
    let rows: Vec<(Option<u16>, Option<Text>)> =
        sqlx::query_as("SELECT status_code, error_class FROM attempts").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(status, error)| (status, error.map(String::from))).collect())
}

/// Deliveries of a partner's events after a sequence of its first epoch, however they stand.
pub async fn deliveries_after(pool: &MySqlPool, partner: PartnerId, sequence: u64) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE partner_id = ? AND event_id > ?");
    let count: i64 = count
        .bind(bytes(partner.uuid()))
        .bind(bytes(event_id(partner, 1, sequence).uuid()))
        .fetch_one(pool)
        .await?;
    Ok(count as u64)
}

/// Failed attempts at the endpoints of a partner.
pub async fn failed_attempts(pool: &MySqlPool, partner: PartnerId) -> sqlx::Result<u64> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM attempts JOIN endpoints ON endpoints.id = attempts.endpoint_id
        WHERE endpoints.partner_id = ? AND attempts.error_class IS NOT NULL",
    )
    .bind(bytes(partner.uuid()))
    .fetch_one(pool)
    .await?;
    Ok(count as u64)
}

/// The accounts in EUR of an owner of this kind, by their code.
pub async fn accounts(pool: &MySqlPool, owner_kind: u8) -> sqlx::Result<Vec<AccountId>> {
    let ids: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT id FROM accounts WHERE owner_kind = ? AND currency = 'EUR' ORDER BY id")
            .bind(owner_kind)
            .fetch_all(pool)
            .await?;
    Ok(ids.iter().map(|id| AccountId::from_uuid(uuid(id))).collect())
}
