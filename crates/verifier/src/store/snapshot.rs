//! One consistent look at what is counted over whole tables.

use domain::{
    ids::{PartnerId, sandbox_account_id, sandbox_settlement_id},
    money::Currency,
};

use super::*;

/// How far a partition is applied, and the last offset of each table's rows of it.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) next_offset: u64,
    pub(crate) announced_offset: u64,
    pub(crate) has_record_hash: bool,
    /// The greatest offset in payments, changes and dead_letters.
    pub(crate) last_offsets: [Option<u64>; 3],
}

/// Sums over all accounts of a currency.
#[derive(Debug, Clone)]
pub(crate) struct CurrencySum {
    pub(crate) currency: String,
    pub(crate) balance: i128,
}

/// What must agree with each other at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) positions: Vec<Position>,
    /// Partitions that have rows and no position.
    pub(crate) strays: Vec<(&'static str, u8, u16)>,
    pub(crate) sums: Vec<CurrencySum>,
    /// Accounts that a command of the bank opened, or a test account.
    pub(crate) accounts: u64,
    pub(crate) mandates: u64,
    /// Entries, as the accounts' versions count them.
    pub(crate) entries: u128,
    /// Events, as the partners' sequences count them.
    pub(crate) events: u128,
    pub(crate) holds: u64,
    pub(crate) follow_ups: u64,
}

/// Reads the sums in one consistent snapshot, which ends before anything is walked.
pub(crate) async fn snapshot(pool: &MySqlPool) -> Result<Snapshot> {
    let mut connection = pool.acquire().await?;
    let connection = &mut *connection;
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let snapshot = read_snapshot(connection).await;
    connection.execute("ROLLBACK").await?;
    snapshot
}

async fn read_snapshot(connection: &mut MySqlConnection) -> Result<Snapshot> {
    // Ordered by the whole key: by the offset alone, MySQL would read and sort all records of a partition.
    let positions = "SELECT p.source, p.kafka_partition, p.next_offset, p.announced_offset, \
         p.record_hash IS NOT NULL, \
         (SELECT y.kafka_offset FROM payments y WHERE y.source = p.source AND y.kafka_partition = p.kafka_partition \
          ORDER BY y.source DESC, y.kafka_partition DESC, y.kafka_offset DESC LIMIT 1), \
         (SELECT c.kafka_offset FROM changes c WHERE c.source = p.source AND c.kafka_partition = p.kafka_partition \
          ORDER BY c.source DESC, c.kafka_partition DESC, c.kafka_offset DESC LIMIT 1), \
         (SELECT d.kafka_offset FROM dead_letters d WHERE d.source = p.source \
          AND d.kafka_partition = p.kafka_partition ORDER BY d.source DESC, d.kafka_partition DESC, d.kafka_offset DESC LIMIT 1) \
         FROM positions p ORDER BY p.source, p.kafka_partition";
    let positions = rows_of(connection, positions, |row| {
        Ok(Position {
            source: row.try_get(0)?,
            partition: row.try_get(1)?,
            next_offset: row.try_get(2)?,
            announced_offset: row.try_get(3)?,
            has_record_hash: row.try_get::<i64, _>(4)? != 0,
            last_offsets: [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?],
        })
    })
    .await?;
    let mut strays = Vec::new();
    // DISTINCT over the beginning of a primary key skips from one group to the next.
    for (table, sql) in [
        ("payments", "SELECT DISTINCT source, kafka_partition FROM payments"),
        ("changes", "SELECT DISTINCT source, kafka_partition FROM changes"),
        ("dead_letters", "SELECT DISTINCT source, kafka_partition FROM dead_letters"),
    ] {
        let found: Vec<(u8, u16)> =
            rows_of(connection, sql, |row| Ok((row.try_get(0)?, row.try_get(1)?))).await?;
        let known = |at: &(u8, u16)| positions.iter().any(|it| (it.source, it.partition) == *at);
        strays.extend(found.into_iter().filter(|at| !known(at)).map(|(source, at)| (table, source, at)));
    }
    let sums = "SELECT currency, CAST(SUM(balance_minor) AS CHAR), CAST(SUM(version) AS CHAR), COUNT(*) \
         FROM accounts GROUP BY currency ORDER BY currency";
    let sums = rows_of(connection, sums, |row| {
        let sum = CurrencySum { currency: text(row, 0)?, balance: number(row, 1)? };
        Ok((sum, number(row, 2)?, row.try_get::<i64, _>(3)?))
    })
    .await?;
    // The bank's sandbox accounts are opened with the first test account of their currency.
    let mut sql = Sql::new();
    sql.text("SELECT COUNT(*) FROM accounts WHERE id IN (").list(Currency::ALL, |sql, currency| {
        sql.uuid(sandbox_account_id(*currency).uuid());
    });
    sql.text(")");
    let sandboxes = connection.fetch_one(sql.as_str()).await?;
    let mut sandboxes = sandboxes.try_get::<i64, _>(0)?.unsigned_abs();
    // So is what a test partner is credited on, when nobody opened that for it. As many rows as test partners have
    // accounts.
    let theirs = "SELECT id, owner_id, currency FROM accounts WHERE owner_kind = 2 AND livemode = 0";
    let theirs = rows_of(connection, theirs, is_sandbox_settlement).await?;
    sandboxes += theirs.into_iter().map(u64::from).sum::<u64>();
    let mandates =
        rows_of(connection, "SELECT COUNT(*) FROM mandates", |row| row.try_get::<i64, _>(0)).await?;
    let count = |row: &MySqlRow| row.try_get::<i64, _>(0);
    let holds = rows_of(connection, "SELECT COUNT(*) FROM holds", count).await?;
    let follow_ups = rows_of(connection, "SELECT COUNT(*) FROM follow_ups", count).await?;
    let events = "SELECT CAST(COALESCE(SUM(last_sequence), 0) AS CHAR) FROM partner_sequences";
    let events = rows_of(connection, events, |row| number(row, 0)).await?;
    Ok(Snapshot {
        positions,
        strays,
        entries: sums.iter().map(|(_, versions, _)| versions.unsigned_abs()).sum(),
        accounts: sums.iter().map(|(_, _, accounts)| accounts.unsigned_abs()).sum::<u64>() - sandboxes,
        mandates: mandates.iter().map(|count| count.unsigned_abs()).sum(),
        events: events.iter().map(|count| count.unsigned_abs()).sum(),
        holds: holds.iter().map(|count| count.unsigned_abs()).sum(),
        follow_ups: follow_ups.iter().map(|count| count.unsigned_abs()).sum(),
        sums: sums.into_iter().map(|(sum, _, _)| sum).collect(),
    })
}

/// Whether a row (id, owner, currency) is the account of a test partner that came with its first test mandate.
pub(crate) fn is_sandbox_settlement(row: &MySqlRow) -> Result<bool> {
    let Ok(currency) = text(row, 2)?.parse::<Currency>() else { return Ok(false) };
    let partner = PartnerId::from_uuid(uuid(row, 1)?);
    Ok(uuid(row, 0)? == sandbox_settlement_id(partner, currency).uuid())
}
