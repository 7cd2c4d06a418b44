//! The first of the rows that nothing accounts for. Each of these reads whole tables, so they run only when the counts
//! differ, to name a row.

use domain::{
    ids::{sandbox_account_id, sandbox_owner},
    money::Currency,
};

use super::{MySqlPool, Result, Sql, Uuid, is_sandbox_settlement, rows, uuid};

/// Accounts that are looked at for one that nobody opened.
const CANDIDATES: u32 = 1_000;

/// An entry that its payment does not refer to.
pub(crate) async fn entry(pool: &MySqlPool) -> Result<Option<(Uuid, u64)>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT e.account_id, e.version FROM entries e LEFT JOIN payments p ON p.id = e.payment_id \
         AND p.status IN (2, 5, 6, 7) AND ((p.debit_account = e.account_id AND p.debit_version = e.version) \
         OR (p.credit_account = e.account_id AND p.credit_version = e.version)) \
         WHERE p.id IS NULL LIMIT 1",
    );
    Ok(rows(pool, &sql, |row| Ok((uuid(row, 0)?, sqlx::Row::try_get(row, 1)?))).await?.pop())
}

/// An event that no payment and no change refers to.
pub(crate) async fn event(pool: &MySqlPool) -> Result<Option<(Uuid, u64)>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT e.partner_id, e.sequence FROM events e \
         LEFT JOIN payments p ON p.partner_id = e.partner_id AND p.event_sequence = e.sequence \
         LEFT JOIN payments t ON t.told_partner_id = e.partner_id AND t.told_sequence = e.sequence \
         LEFT JOIN changes c ON c.partner_id = e.partner_id AND c.event_sequence = e.sequence \
         WHERE p.id IS NULL AND t.id IS NULL AND c.id IS NULL LIMIT 1",
    );
    Ok(rows(pool, &sql, |row| Ok((uuid(row, 0)?, sqlx::Row::try_get(row, 1)?))).await?.pop())
}

/// An account that nobody opened: by a command on it, or by one that made a test account, which names it in its text.
pub(crate) async fn account(pool: &MySqlPool) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT a.id, a.owner_id, a.currency FROM accounts a LEFT JOIN changes c ON c.target_id = a.id \
         AND c.kind = 'open_account' AND c.reason IS NULL WHERE c.id IS NULL AND a.owner_id <> ",
    );
    sql.uuid(sandbox_owner().uuid()).text(" AND a.id NOT IN (").list(Currency::ALL, |sql, currency| {
        sql.uuid(sandbox_account_id(*currency).uuid());
    });
    sql.text(") LIMIT ").int(CANDIDATES);
    let candidates = rows(pool, &sql, |row| Ok((uuid(row, 0)?, is_sandbox_settlement(row)?))).await?;
    Ok(candidates.into_iter().find(|(_, derived)| !derived).map(|(id, _)| id))
}

/// A mandate that nobody granted, declined, gave up or let expire.
pub(crate) async fn mandate(pool: &MySqlPool) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT m.id FROM mandates m LEFT JOIN changes c ON c.target_id = m.id AND c.reason IS NULL AND c.kind IN \
         ('grant_mandate', 'decline_mandate', 'cancel_mandate', 'expire_mandate', 'sandbox_mandate') \
         WHERE c.id IS NULL LIMIT 1",
    );
    Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
}

/// A row of `follow_ups` whose payment is not there or belongs to another one.
pub(crate) async fn follow_up(pool: &MySqlPool) -> Result<Option<(Uuid, Uuid)>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT f.root_id, f.payment_id FROM follow_ups f LEFT JOIN payments p ON p.id = f.payment_id \
         AND p.root_id = f.root_id AND p.kind IN (4, 5, 6, 7, 10) LEFT JOIN payments r ON r.id = f.root_id \
         WHERE p.id IS NULL OR r.id IS NULL LIMIT 1",
    );
    Ok(rows(pool, &sql, |row| Ok((uuid(row, 0)?, uuid(row, 1)?))).await?.pop())
}
