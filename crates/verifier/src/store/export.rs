//! Whole tables, as text: for an export and back.

use std::collections::BTreeMap;

use futures_util::stream::BoxStream;

use super::*;

/// A table of an export, and the statements that read and write it whole.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) select: &'static str,
    pub(crate) insert: &'static str,
}

macro_rules! tables {
    ($($name:literal by $key:literal,)*) => {
        /// What the verifier reads.
        pub(crate) const TABLES: &[Table] = &[$(Table {
            name: $name,
            select: concat!("SELECT * FROM ", $name, " ORDER BY ", $key),
            insert: concat!("INSERT INTO ", $name, " VALUES "),
        },)*];
    };
}

tables! {
    "accounts" by "id",
    "settlement_accounts" by "partner_id, currency",
    "payments" by "source, kafka_partition, kafka_offset",
    "changes" by "source, kafka_partition, kafka_offset",
    "entries" by "account_id, version",
    "holds" by "account_id, payment_id",
    "follow_ups" by "root_id, payment_id",
    "mandates" by "id",
    "events" by "partner_id, sequence",
    "partner_sequences" by "partner_id",
    "positions" by "source, kafka_partition",
    "dead_letters" by "source, kafka_partition, kafka_offset",
    "checkpoints" by "number",
    "checkpoint_leaves" by "number, account_id",
    "checkpoint_publications" by "number",
    "audit_log" by "id",
    "audit_chain" by "number",
    "audit_unsealed" by "audit_id",
}

/// How values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Number,
    Bytes,
    Text,
}

/// Names and forms of the columns of the tables above, in their order.
pub(crate) async fn columns(
    connection: &mut MySqlConnection,
) -> Result<BTreeMap<String, Vec<(String, Form)>>> {
    let sql = "SELECT table_name, column_name, data_type FROM information_schema.columns \
               WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position";
    let mut tables: BTreeMap<String, Vec<(String, Form)>> = BTreeMap::new();
    for row in connection.fetch_all(sql).await? {
        let form = match text(&row, 2)?.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Form::Number,
            "binary" | "varbinary" | "blob" | "mediumblob" => Form::Bytes,
            _ => Form::Text,
        };
        tables.entry(text(&row, 0)?).or_default().push((text(&row, 1)?, form));
    }
    Ok(tables)
}

/// The rows of a statement, one after the other as they come.
pub(crate) fn stream<'a>(
    connection: &'a mut MySqlConnection,
    select: &'static str,
) -> BoxStream<'a, Result<MySqlRow>> {
    connection.fetch(select)
}

/// The bytes of a value as MySQL writes it, `None` for NULL.
pub(crate) fn value(row: &MySqlRow, column: usize) -> Result<Option<Vec<u8>>> {
    row.try_get_unchecked(column)
}

/// Begins one consistent look at everything.
pub(crate) async fn begin(connection: &mut MySqlConnection) -> Result<()> {
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map(drop)
}

/// Ends it.
pub(crate) async fn end(connection: &mut MySqlConnection) -> Result<()> {
    connection.execute("ROLLBACK").await.map(drop)
}

/// Whether the database holds a fresh schema and nothing else.
pub(crate) async fn is_fresh(pool: &MySqlPool) -> Result<bool> {
    let sql = "SELECT CAST(EXISTS(SELECT 1 FROM accounts) + EXISTS(SELECT 1 FROM payments) + \
               EXISTS(SELECT 1 FROM changes) + EXISTS(SELECT 1 FROM entries) + EXISTS(SELECT 1 FROM events) + \
               EXISTS(SELECT 1 FROM checkpoints) + EXISTS(SELECT 1 FROM audit_log) + EXISTS(SELECT 1 FROM audit_chain) + \
               EXISTS(SELECT 1 FROM positions WHERE next_offset > 0) AS SIGNED)";
    let row = pool.fetch_one(sql).await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}

/// Forgets the positions that come with a fresh schema, to be replaced by those of an export.
pub(crate) async fn forget_positions(pool: &MySqlPool) -> Result<()> {
    pool.execute("DELETE FROM positions WHERE next_offset = 0").await.map(drop)
}

/// Carries out a statement that was built from an export.
pub(crate) async fn insert(pool: &MySqlPool, sql: &Sql) -> Result<()> {
    pool.execute(sql.as_str()).await.map(drop)
}
