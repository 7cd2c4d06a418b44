//! Statements of checkpoints. Reads of the snapshot are pages of a primary key.

use std::collections::BTreeSet;

use domain::{
    checkpoint::{Checkpoint, Hash, Leaf, SignatureBytes, Statement},
    ids::AccountId,
    time::Timestamp,
};
use runtime::sql::Sql;
use serde::{Deserialize, Serialize};
use sqlx::{Executor, MySqlConnection, MySqlPool, Row, mysql::MySqlRow};
use uuid::Uuid;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Payments in a page: some 100 KiB.
const PAYMENTS: u64 = 5_000;
/// Accounts in a page, and leaves in an INSERT.
const ACCOUNTS: usize = 1_000;
/// Checkpoints that are published by one step.
const UNPUBLISHED: u32 = 100;

/// How far a partition was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) source: u8,
    pub(super) partition: u16,
    pub(super) next_offset: u64,
}

/// The last checkpoint, and where it left off.
pub(super) struct Last {
    pub(super) checkpoint: Checkpoint,
    pub(super) positions: String,
}

/// For the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::evidence) struct State {
    pub(in crate::evidence) number: u64,
    pub(in crate::evidence) age_seconds: f64,
    pub(in crate::evidence) unpublished: u64,
}

/// Microseconds since 1970 of a DATETIME(6) in UTC.
macro_rules! micros {
    ($value:literal) => {
        concat!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ", $value, ")")
    };
}

const CHECKPOINTS: &str = concat!(
    "SELECT c.number, ",
    micros!("c.taken_at"),
    ", c.leaves, c.root, c.previous, c.audit_head, c.signature, c.positions FROM checkpoints c "
);

fn checkpoint(row: &MySqlRow) -> Result<Checkpoint> {
    Ok(Checkpoint {
        statement: Statement {
            format: domain::checkpoint::FORMAT,
            number: row.try_get(0)?,
            taken_at: Timestamp::from_micros(row.try_get(1)?),
            leaves: row.try_get(2)?,
            root: Hash(bytes(row, 3)?),
            previous: Hash(bytes(row, 4)?),
            audit_head: Hash(bytes(row, 5)?),
        },
        signature: SignatureBytes(bytes(row, 6)?),
    })
}

fn bytes<const N: usize>(row: &MySqlRow, column: usize) -> Result<[u8; N]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{N} bytes expected").into()))
}

fn uuid(row: &MySqlRow, column: usize) -> Result<Uuid> {
    bytes(row, column).map(Uuid::from_bytes)
}

/// Begins a consistent snapshot on this connection; end it by [`end`].
pub(super) async fn begin_snapshot(connection: &mut MySqlConnection) -> Result<()> {
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map(drop)
}

/// Ends what was begun.
pub(super) async fn end(connection: &mut MySqlConnection) -> Result<()> {
    connection.execute("ROLLBACK").await.map(drop)
}

/// The clock of MySQL, which all processes share.
pub(super) async fn now(connection: &mut MySqlConnection) -> Result<Timestamp> {
    let row = connection.fetch_one(concat!("SELECT ", micros!("UTC_TIMESTAMP(6)"))).await?;
    Ok(Timestamp::from_micros(row.try_get(0)?))
}

/// The checkpoint with the greatest number.
pub(super) async fn last(connection: &mut MySqlConnection) -> Result<Option<Last>> {
    let mut sql = Sql::new();
    sql.text(CHECKPOINTS).text("ORDER BY c.number DESC LIMIT 1");
    let row = connection.fetch_optional(sql.as_str()).await?;
    row.map(|row| Ok(Last { checkpoint: checkpoint(&row)?, positions: row.try_get_unchecked(7)? }))
        .transpose()
}

/// The hash of the last link of the audit chain.
pub(super) async fn audit_head(connection: &mut MySqlConnection) -> Result<Option<[u8; 32]>> {
    let head = "SELECT hash FROM audit_chain ORDER BY number DESC LIMIT 1";
    connection.fetch_optional(head).await?.map(|row| bytes(&row, 0)).transpose()
}

/// How far each partition is applied.
pub(super) async fn positions(connection: &mut MySqlConnection) -> Result<Vec<Applied>> {
    let sql = "SELECT source, kafka_partition, next_offset FROM positions ORDER BY source, kafka_partition";
    let rows = connection.fetch_all(sql).await?;
    let applied = |row: &MySqlRow| {
        Ok(Applied { source: row.try_get(0)?, partition: row.try_get(1)?, next_offset: row.try_get(2)? })
    };
    rows.iter().map(applied).collect()
}

/// Adds the accounts that payments of a partition at `from..below` moved money of.
pub(super) async fn moved(
    connection: &mut MySqlConnection,
    at: &Applied,
    from: u64,
    accounts: &mut BTreeSet<Uuid>,
) -> Result<()> {
    let mut from = from;
    loop {
        let mut sql = Sql::new();
        sql.text(
            "SELECT kafka_offset, debit_account, credit_account, debit_version IS NOT NULL FROM payments ",
        );
        sql.text("WHERE source = ").int(at.source).text(" AND kafka_partition = ").int(at.partition);
        sql.text(" AND kafka_offset >= ").int(from).text(" AND kafka_offset < ").int(at.next_offset);
        sql.text(" ORDER BY kafka_offset LIMIT ").int(PAYMENTS);
        let rows = connection.fetch_all(sql.as_str()).await?;
        for row in &rows {
            if row.try_get::<i64, _>(3)? != 0 {
                accounts.extend([uuid(row, 1)?, uuid(row, 2)?]);
            }
        }
        match rows.last() {
            Some(last) if rows.len() as u64 >= PAYMENTS => from = last.try_get::<u64, _>(0)? + 1,
            _ => return Ok(()),
        }
    }
}

/// Adds the accounts of what redrives of this partition at `from..` applied at earlier positions.
pub(super) async fn redriven(
    connection: &mut MySqlConnection,
    at: &Applied,
    from: u64,
    accounts: &mut BTreeSet<Uuid>,
) -> Result<()> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT p.debit_account, p.credit_account FROM changes c JOIN dead_letters d ON d.change_id = c.id \
         JOIN payments p ON p.source = d.source AND p.kafka_partition = d.kafka_partition \
         AND p.kafka_offset = d.kafka_offset WHERE p.debit_version IS NOT NULL AND c.source = ",
    );
    sql.int(at.source).text(" AND c.kafka_partition = ").int(at.partition);
    sql.text(" AND c.kafka_offset >= ").int(from).text(" AND c.kafka_offset < ").int(at.next_offset);
    for row in connection.fetch_all(sql.as_str()).await? {
        accounts.extend([uuid(&row, 0)?, uuid(&row, 1)?]);
    }
    Ok(())
}

fn leaf(row: &MySqlRow) -> Result<Leaf> {
    Ok(Leaf { account: AccountId::from_uuid(uuid(row, 0)?), version: row.try_get(1)?, hash: bytes(row, 2)? })
}

/// The heads of these accounts, by id.
pub(super) async fn heads_of(
    connection: &mut MySqlConnection,
    accounts: &BTreeSet<Uuid>,
) -> Result<Vec<Leaf>> {
    let mut leaves = Vec::with_capacity(accounts.len());
    let ids: Vec<&Uuid> = accounts.iter().collect();
    for ids in ids.chunks(ACCOUNTS) {
        let mut sql = Sql::new();
        sql.text("SELECT id, version, head FROM accounts WHERE id IN (").list(ids, |sql, id| {
            sql.uuid(**id);
        });
        sql.text(") ORDER BY id");
        for row in connection.fetch_all(sql.as_str()).await? {
            leaves.push(leaf(&row)?);
        }
    }
    Ok(leaves)
}

/// The heads of all accounts with entries, by id.
pub(super) async fn heads_of_all(connection: &mut MySqlConnection) -> Result<Vec<Leaf>> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut after = Uuid::nil();
    loop {
        let mut sql = Sql::new();
        sql.text("SELECT id, version, head FROM accounts WHERE id > ").uuid(after);
        sql.text(" ORDER BY id LIMIT ").int(ACCOUNTS as u64);
        let rows = connection.fetch_all(sql.as_str()).await?;
        for row in &rows {
            let leaf = leaf(row)?;
            after = leaf.account.uuid();
            leaves.extend((leaf.version > 0).then_some(leaf));
        }
        if rows.len() < ACCOUNTS {
            return Ok(leaves);
        }
    }
}

/// Writes a checkpoint with its leaves in one transaction; `false` when there is one of this number.
pub(super) async fn insert(
    pool: &MySqlPool,
    checkpoint: &Checkpoint,
    leaves: &[Leaf],
    positions: &str,
) -> Result<bool> {
    let mut transaction = pool.begin().await?;
    let statement = &checkpoint.statement;
    let mut sql = Sql::new();
    sql.text("INSERT INTO checkpoints VALUES (").int(statement.number).text(",");
    sql.datetime(statement.taken_at.civil()).text(",").int(statement.leaves).text(",");
    sql.bytes(&statement.root.0).text(",").bytes(&statement.previous.0).text(",");
    sql.bytes(&statement.audit_head.0).text(",").bytes(&checkpoint.signature.0).text(",");
    sql.string(positions).text(")");
    match transaction.execute(sql.as_str()).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(false),
        Err(error) => return Err(error),
    }
    for leaves in leaves.chunks(ACCOUNTS) {
        let mut sql = Sql::new();
        sql.text("INSERT INTO checkpoint_leaves VALUES ").list(leaves, |sql, leaf| {
            sql.text("(").int(statement.number).text(",").uuid(leaf.account.uuid()).text(",");
            sql.int(leaf.version).text(",").bytes(&leaf.hash).text(")");
        });
        transaction.execute(sql.as_str()).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// The first checkpoints that are not known to be published.
pub(super) async fn unpublished(pool: &MySqlPool) -> Result<Vec<Checkpoint>> {
    let mut sql = Sql::new();
    sql.text(CHECKPOINTS).text(
        "LEFT JOIN checkpoint_publications p ON p.number = c.number WHERE p.number IS NULL ORDER BY c.number LIMIT ",
    );
    sql.int(UNPUBLISHED);
    pool.fetch_all(sql.as_str()).await?.iter().map(checkpoint).collect()
}

/// A checkpoint that is published: of this number, or the last one.
pub(crate) async fn published_checkpoint(
    pool: &MySqlPool,
    number: Option<u64>,
) -> Result<Option<Checkpoint>> {
    let mut sql = Sql::new();
    sql.text(CHECKPOINTS).text("JOIN checkpoint_publications p ON p.number = c.number ");
    if let Some(number) = number {
        sql.text("WHERE p.number = ").int(number);
    }
    sql.text(" ORDER BY p.number DESC LIMIT 1");
    pool.fetch_optional(sql.as_str()).await?.as_ref().map(checkpoint).transpose()
}

/// Remembers that a checkpoint is published; another one may have done so already.
pub(super) async fn published(pool: &MySqlPool, number: u64) -> Result<()> {
    let mut sql = Sql::new();
    sql.text("INSERT INTO checkpoint_publications VALUES (").int(number).text(", UTC_TIMESTAMP(6))");
    match pool.execute(sql.as_str()).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Number and age of the last checkpoint, and how many are not published.
pub(super) async fn state(pool: &MySqlPool) -> Result<State> {
    let sql = "SELECT CAST(COALESCE(MAX(number), 0) AS UNSIGNED), \
               CAST(COALESCE(TIMESTAMPDIFF(MICROSECOND, MAX(taken_at), UTC_TIMESTAMP(6)), 0) AS SIGNED), \
               CAST(COUNT(*) AS SIGNED) - (SELECT COUNT(*) FROM checkpoint_publications) FROM checkpoints";
    let row = pool.fetch_one(sql).await?;
    Ok(State {
        number: row.try_get(0)?,
        age_seconds: row.try_get::<i64, _>(1)? as f64 / 1e6,
        unpublished: row.try_get::<i64, _>(2)?.unsigned_abs(),
    })
}
