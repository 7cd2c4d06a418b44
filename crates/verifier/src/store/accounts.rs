//! Accounts, their entries and settlement accounts.

use super::*;

/// A row of `accounts`, with the version of its last entry at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    pub(crate) owner_kind: u8,
    pub(crate) owner_id: Uuid,
    pub(crate) currency: String,
    pub(crate) status: u8,
    pub(crate) balance_minor: i64,
    pub(crate) held_minor: i64,
    pub(crate) overdraft_minor: i64,
    pub(crate) version: u64,
    pub(crate) head: [u8; 32],
    pub(crate) entered_at: i64,
    pub(crate) last_entry: Option<u64>,
    /// The sum of its holds.
    pub(crate) holds_minor: i128,
    /// 0 for test money.
    pub(crate) livemode: u8,
}

// Ordered by the whole key: by the version alone, MySQL would read and sort all entries of an account.
const ACCOUNT_COLUMNS: &str = concat!(
    "SELECT a.id, a.owner_kind, a.owner_id, a.currency, a.status, a.balance_minor, a.held_minor, a.overdraft_minor, \
     a.version, a.head, ",
    micros!("a.entered_at"),
    ", (SELECT e.version FROM entries e WHERE e.account_id = a.id \
     ORDER BY e.account_id DESC, e.version DESC LIMIT 1), \
     (SELECT CAST(COALESCE(SUM(h.amount_minor), 0) AS CHAR) FROM holds h WHERE h.account_id = a.id), \
     a.livemode FROM accounts a "
);

fn account(row: &MySqlRow) -> Result<Account> {
    Ok(Account {
        id: uuid(row, 0)?,
        owner_kind: row.try_get(1)?,
        owner_id: uuid(row, 2)?,
        currency: text(row, 3)?,
        status: row.try_get(4)?,
        balance_minor: row.try_get(5)?,
        held_minor: row.try_get(6)?,
        overdraft_minor: row.try_get(7)?,
        version: row.try_get(8)?,
        head: bytes(row, 9)?,
        entered_at: row.try_get(10)?,
        last_entry: row.try_get(11)?,
        holds_minor: number(row, 12)?,
        livemode: row.try_get(13)?,
    })
}

/// Accounts after `after`, by id.
pub(crate) async fn accounts_after(pool: &MySqlPool, after: Option<Uuid>) -> Result<Vec<Account>> {
    let mut sql = Sql::new();
    sql.text(ACCOUNT_COLUMNS);
    if let Some(after) = after {
        sql.text("WHERE a.id > ").uuid(after);
    }
    sql.text(" ORDER BY a.id LIMIT ").int(PAGE);
    rows(pool, &sql, account).await
}

/// The accounts with these ids; unknown ids are not in the answer.
pub(crate) async fn accounts_by_id(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Account>> {
    by_ids(pool, ACCOUNT_COLUMNS, "WHERE a.id IN (", ids, account).await
}

/// The commands that opened these accounts or set their limits. Reads all changes: only for accounts under suspicion.
pub(crate) async fn limits_of(pool: &MySqlPool, accounts: &[Uuid]) -> Result<Vec<(Uuid, String)>> {
    let select = "SELECT target_id, command FROM changes WHERE kind IN ('open_account', 'set_limits') \
         AND reason IS NULL ";
    by_ids(pool, select, "AND target_id IN (", accounts, |row| Ok((uuid(row, 0)?, text(row, 1)?))).await
}

/// An account that has entries and no row, between two ids.
pub(crate) async fn orphaned_entries(
    pool: &MySqlPool,
    after: Option<Uuid>,
    up_to: Option<Uuid>,
) -> Result<Option<Uuid>> {
    let select = [
        "SELECT d.account_id FROM (SELECT DISTINCT account_id FROM entries WHERE ",
        "account_id",
        ") d LEFT JOIN accounts a ON a.id = d.account_id WHERE a.id IS NULL ORDER BY d.account_id LIMIT 1",
    ];
    orphan(pool, select, after, up_to).await
}

/// A row of `entries`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) account: Uuid,
    pub(crate) version: u64,
    pub(crate) payment: Uuid,
    pub(crate) direction: u8,
    pub(crate) amount_minor: i64,
    pub(crate) balance_minor: i64,
    pub(crate) entered_at: i64,
    pub(crate) hash: [u8; 32],
}

const ENTRY_COLUMNS: &str = concat!(
    "SELECT account_id, version, payment_id, direction, amount_minor, balance_minor, ",
    micros!("entered_at"),
    ", hash FROM entries FORCE INDEX (PRIMARY) WHERE "
);

fn entry(row: &MySqlRow) -> Result<Entry> {
    Ok(Entry {
        account: uuid(row, 0)?,
        version: row.try_get(1)?,
        payment: uuid(row, 2)?,
        direction: row.try_get(3)?,
        amount_minor: row.try_get(4)?,
        balance_minor: row.try_get(5)?,
        entered_at: row.try_get(6)?,
        hash: bytes(row, 7)?,
    })
}

/// The entries of these ranges, by account and version.
pub(crate) async fn entries_in(pool: &MySqlPool, ranges: &[Range]) -> Result<Vec<Entry>> {
    let mut sql = Sql::new();
    sql.text(ENTRY_COLUMNS);
    in_ranges(&mut sql, "account_id", "version", ranges);
    rows(pool, &sql, entry).await
}

/// The entries at these accounts and versions; absent ones are not in the answer.
pub(crate) async fn entries_at(pool: &MySqlPool, keys: &[(Uuid, u64)]) -> Result<Vec<Entry>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text(ENTRY_COLUMNS).text("(account_id, version) IN (").list(keys, |sql, (account, version)| {
        sql.text("(").uuid(*account).text(",").int(*version).text(")");
    });
    sql.text(")");
    rows(pool, &sql, entry).await
}

/// Partner, currency, account, and owner kind, owner and currency of that account if there is one.
pub(crate) type Settlement = (Uuid, String, Uuid, Option<(u8, Uuid, String)>);

/// Settlement accounts after (partner, currency).
pub(crate) async fn settlements_after(
    pool: &MySqlPool,
    after: Option<&(Uuid, String)>,
) -> Result<Vec<Settlement>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT s.partner_id, s.currency, s.account_id, a.owner_kind, a.owner_id, a.currency \
         FROM settlement_accounts s LEFT JOIN accounts a ON a.id = s.account_id ",
    );
    if let Some((partner, currency)) = after {
        sql.text("WHERE s.partner_id > ").uuid(*partner).text(" OR (s.partner_id = ").uuid(*partner);
        sql.text(" AND s.currency > ").string(currency).text(")");
    }
    sql.text(" ORDER BY s.partner_id, s.currency LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        let owner: Option<u8> = row.try_get(3)?;
        let account = match owner {
            Some(kind) => Some((kind, uuid(row, 4)?, text(row, 5)?)),
            None => None,
        };
        Ok((uuid(row, 0)?, text(row, 1)?, uuid(row, 2)?, account))
    })
    .await
}
