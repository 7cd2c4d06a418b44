//! Mandates.

use super::*;

/// A row of `mandates`.
#[derive(Debug, Clone)]
pub(crate) struct Mandate {
    pub(crate) id: Uuid,
    pub(crate) partner: Uuid,
    pub(crate) account: Option<Uuid>,
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) version: u32,
    pub(crate) currency: String,
    pub(crate) payment_max_minor: Option<i64>,
    pub(crate) daily_max_minor: Option<i64>,
    pub(crate) spent_minor: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) reference: Option<String>,
}

const MANDATE_COLUMNS: &str = concat!(
    "SELECT id, partner_id, account_id, kind, status, version, currency, payment_max_minor, daily_max_minor, \
     spent_minor, ",
    micros!("expires_at"),
    ", reference FROM mandates "
);

fn mandate(row: &MySqlRow) -> Result<Mandate> {
    Ok(Mandate {
        id: uuid(row, 0)?,
        partner: uuid(row, 1)?,
        account: opt_uuid(row, 2)?,
        kind: row.try_get(3)?,
        status: row.try_get(4)?,
        version: row.try_get(5)?,
        currency: text(row, 6)?,
        payment_max_minor: row.try_get(7)?,
        daily_max_minor: row.try_get(8)?,
        spent_minor: row.try_get(9)?,
        expires_at: row.try_get(10)?,
        reference: opt_text(row, 11)?,
    })
}

/// Mandates after `after`, by id.
pub(crate) async fn mandates_after(pool: &MySqlPool, after: Option<Uuid>) -> Result<Vec<Mandate>> {
    let mut sql = Sql::new();
    sql.text(MANDATE_COLUMNS);
    if let Some(after) = after {
        sql.text("WHERE id > ").uuid(after);
    }
    sql.text(" ORDER BY id LIMIT ").int(PAGE);
    rows(pool, &sql, mandate).await
}

/// The mandates with these ids; unknown ids are not in the answer.
pub(crate) async fn mandates_by_id(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Mandate>> {
    by_ids(pool, MANDATE_COLUMNS, "WHERE id IN (", ids, mandate).await
}
