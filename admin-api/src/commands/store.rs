//! Read-only looks at what became of commands.

use std::collections::HashMap;

use domain::payment::{PaymentStatus, Reason};
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool, Row, mysql::MySqlRow};
use uuid::Uuid;

use super::Outcome;

/// Ids in one look-up: a statement of some 40 KiB.
pub(super) const LOOKUP_MAX: usize = 1_000;

/// An id as stored.
fn id_at(row: &MySqlRow, column: usize) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// What became of at most [`LOOKUP_MAX`] commands; those without an outcome are not in the answer.
pub(super) async fn outcomes(pool: &MySqlPool, ids: &[Uuid]) -> Result<HashMap<Uuid, Outcome>, sqlx::Error> {
    let mut found = HashMap::with_capacity(ids.len());
    if ids.is_empty() {
        return Ok(found);
    }
    let with_ids = |before: &'static str| {
        let mut sql = Sql::new();
        sql.text(before).list(ids, |sql, id| {
            sql.uuid(*id);
        });
        sql.text(")");
        sql
    };
    // An id is looked for as a dead letter first, so that a redriven one ends as what it became.
    let dead = with_ids("SELECT id, detail FROM dead_letters WHERE status = 1 AND id IN (");
    // Unchecked: MySQL marks text of a binary collation as binary, which sqlx would refuse to read as text.
    for row in pool.fetch_all(dead.as_str()).await? {
        found.insert(id_at(&row, 0)?, Outcome::DeadLetter(row.try_get_unchecked(1)?));
    }
    let changes = with_ids("SELECT id, reason FROM changes WHERE id IN (");
    for row in pool.fetch_all(changes.as_str()).await? {
        let reason: Option<u8> = row.try_get(1)?;
        let outcome = reason.map_or(Outcome::Applied, |code| Outcome::Rejected(Reason::from_code(code)));
        found.insert(id_at(&row, 0)?, outcome);
    }
    let payments = with_ids("SELECT id, status, reason FROM payments WHERE id IN (");
    for row in pool.fetch_all(payments.as_str()).await? {
        let (status, reason): (u8, Option<u8>) = (row.try_get(1)?, row.try_get(2)?);
        let outcome = match PaymentStatus::from_code(status) {
            Some(
                PaymentStatus::Posted
                | PaymentStatus::Authorized
                | PaymentStatus::Voided
                | PaymentStatus::Expired,
            ) => Outcome::Applied,
            Some(PaymentStatus::Pending) => continue,
            Some(PaymentStatus::Rejected | PaymentStatus::Conflicted) | None => {
                Outcome::Rejected(reason.and_then(Reason::from_code))
            }
        };
        found.insert(id_at(&row, 0)?, outcome);
    }
    Ok(found)
}
