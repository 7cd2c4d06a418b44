//! The audit log: inserted into, in the transaction of the action, with a place in the queue of the sealer; this
//! service's MySQL user can do nothing else to it but read.

use std::net::IpAddr;

use domain::ids::UserId;
use domain::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::{Columns, bytes};
use crate::audit::Entry;

/// An address as it is stored.
pub(super) fn address(address: Option<IpAddr>) -> Option<Vec<u8>> {
    address.map(|address| match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}

/// Writes a row.
pub async fn write(db: &mut MySqlConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO audit_log (id, at, actor_id, action, target, outcome, detail, request_id, address) \
         VALUES (?, UTC_TIMESTAMP(6), ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id.as_bytes()[..])
    .bind(entry.actor.map(bytes))
    .bind(entry.action.as_str())
    .bind(&entry.target)
    .bind(entry.outcome as u8)
    .bind(entry.detail.to_string())
    .bind(&entry.origin.request_id.as_bytes()[..])
    .bind(address(entry.origin.address))
    .execute(&mut *db)
    .await?;
    sqlx::query("INSERT INTO audit_unsealed (audit_id) VALUES (?)")
        .bind(&id.as_bytes()[..])
        .execute(db)
        .await
        .map(drop)
}

/// What a user did, newest first, at most 1,000: when, what, and whether it was done.
pub async fn of_actor(
    db: &mut MySqlConnection,
    user: UserId,
) -> Result<Vec<(Timestamp, String, bool)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', at), action, outcome FROM audit_log \
         WHERE actor_id = ? ORDER BY id DESC LIMIT 1000",
    )
    .bind(bytes(user))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            let at = Timestamp::from_micros(columns.take()?);
            Ok((at, columns.text()?.unwrap_or_default(), columns.take::<u8>()? == 1))
        })
        .collect()
}
