//! Every statement of the verifier; all of them only read.
//!
//! Text is made by the literal encoder, so nothing is prepared. A page is bounded in rows, and its key is the
//! table's primary key. Where two tables must agree although the bank is at work, one statement reads both: under
//! READ COMMITTED a statement sees one state.

use runtime::sql::Sql;
use sqlx::{MySqlConnection, MySqlPool, Row as _, mysql::MySqlRow};
use uuid::Uuid;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Accounts, mandates or partners in a page.
pub(crate) const PAGE: u32 = 500;
/// Payments or changes in a page; each has two entries and an event read along.
pub(crate) const COMMAND_PAGE: u32 = 1_000;
/// Entries or events in a page: half a megabyte.
pub(crate) const RANGE_ROWS_MAX: u64 = 2_000;
/// Accounts or partners whose entries or events are read by one statement.
pub(crate) const RANGES_MAX: usize = 200;

/// Microseconds since 1970 of a DATETIME(6) in UTC.
macro_rules! micros {
    ($column:literal) => {
        concat!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ", $column, ")")
    };
}

fn uuid(row: &MySqlRow, column: usize) -> Result<Uuid> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn opt_uuid(row: &MySqlRow, column: usize) -> Result<Option<Uuid>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

fn bytes<const N: usize>(row: &MySqlRow, column: usize) -> Result<[u8; N]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{N} bytes expected").into()))
}

/// Text: MySQL marks columns with a binary collation as binary, so sqlx would refuse to read them as text.
fn text(row: &MySqlRow, column: usize) -> Result<String> {
    row.try_get_unchecked(column)
}

fn opt_text(row: &MySqlRow, column: usize) -> Result<Option<String>> {
    row.try_get_unchecked(column)
}

async fn rows<T>(pool: &MySqlPool, sql: &Sql, read: impl Fn(&MySqlRow) -> Result<T>) -> Result<Vec<T>> {
    sqlx::raw_sql(sql.as_str()).fetch_all(pool).await?.iter().map(read).collect()
}

async fn rows_of<T>(
    connection: &mut MySqlConnection,
    sql: &'static str,
    read: impl Fn(&MySqlRow) -> Result<T>,
) -> Result<Vec<T>> {
    sqlx::raw_sql(sql).fetch_all(connection).await?.iter().map(read).collect()
}

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
    pub(crate) accounts: u64,
    pub(crate) mandates: u64,
    /// Entries, as the accounts' versions count them.
    pub(crate) entries: u128,
    /// Events, as the partners' sequences count them.
    pub(crate) events: u128,
}

/// Reads the sums in one consistent snapshot, which ends before anything is walked.
pub(crate) async fn snapshot(pool: &MySqlPool) -> Result<Snapshot> {
    let mut connection = pool.acquire().await?;
    let connection = &mut *connection;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await?;
    sqlx::raw_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").execute(&mut *connection).await?;
    let snapshot = read_snapshot(connection).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    snapshot
}

async fn read_snapshot(connection: &mut MySqlConnection) -> Result<Snapshot> {
    let positions = "SELECT p.source, p.kafka_partition, p.next_offset, p.announced_offset, \
         p.record_hash IS NOT NULL, \
         (SELECT y.kafka_offset FROM payments y WHERE y.source = p.source AND y.kafka_partition = p.kafka_partition \
          ORDER BY y.kafka_offset DESC LIMIT 1), \
         (SELECT c.kafka_offset FROM changes c WHERE c.source = p.source AND c.kafka_partition = p.kafka_partition \
          ORDER BY c.kafka_offset DESC LIMIT 1), \
         (SELECT d.kafka_offset FROM dead_letters d WHERE d.source = p.source \
          AND d.kafka_partition = p.kafka_partition ORDER BY d.kafka_offset DESC LIMIT 1) \
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
    let number = |row: &MySqlRow, column: usize| -> Result<i128> {
        text(row, column)?.parse().map_err(|_| sqlx::Error::Decode("a sum that is no number".into()))
    };
    let sums = "SELECT currency, CAST(SUM(balance_minor) AS CHAR), CAST(SUM(version) AS CHAR), COUNT(*) \
         FROM accounts GROUP BY currency ORDER BY currency";
    let sums = rows_of(connection, sums, |row| {
        let sum = CurrencySum { currency: text(row, 0)?, balance: number(row, 1)? };
        Ok((sum, number(row, 2)?, row.try_get::<i64, _>(3)?))
    })
    .await?;
    let mandates =
        rows_of(connection, "SELECT COUNT(*) FROM mandates", |row| row.try_get::<i64, _>(0)).await?;
    let events = "SELECT CAST(COALESCE(SUM(last_sequence), 0) AS CHAR) FROM partner_sequences";
    let events = rows_of(connection, events, |row| number(row, 0)).await?;
    Ok(Snapshot {
        positions,
        strays,
        entries: sums.iter().map(|(_, versions, _)| versions.unsigned_abs()).sum(),
        accounts: sums.iter().map(|(_, _, accounts)| accounts.unsigned_abs()).sum(),
        mandates: mandates.iter().map(|count| count.unsigned_abs()).sum(),
        events: events.iter().map(|count| count.unsigned_abs()).sum(),
        sums: sums.into_iter().map(|(sum, _, _)| sum).collect(),
    })
}

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
}

const ACCOUNT_COLUMNS: &str = concat!(
    "SELECT a.id, a.owner_kind, a.owner_id, a.currency, a.status, a.balance_minor, a.held_minor, a.overdraft_minor, \
     a.version, a.head, ",
    micros!("a.entered_at"),
    ", (SELECT e.version FROM entries e WHERE e.account_id = a.id ORDER BY e.version DESC LIMIT 1) FROM accounts a "
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

async fn by_ids<T>(
    pool: &MySqlPool,
    select: &'static str,
    filter: &'static str,
    ids: &[Uuid],
    read: impl Fn(&MySqlRow) -> Result<T>,
) -> Result<Vec<T>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text(select).text(filter).list(ids, |sql, id| {
        sql.uuid(*id);
    });
    sql.text(")");
    rows(pool, &sql, read).await
}

/// The first owner of rows after `after` and up to `up_to` that the parent table does not have.
async fn orphan(
    pool: &MySqlPool,
    [select, column, join]: [&'static str; 3],
    after: Option<Uuid>,
    up_to: Option<Uuid>,
) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text(select).text(column);
    match after {
        Some(after) => sql.text(" > ").uuid(after),
        None => sql.text(" IS NOT NULL"),
    };
    if let Some(up_to) = up_to {
        sql.text(" AND ").text(column).text(" <= ").uuid(up_to);
    }
    sql.text(join);
    Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
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

/// A partner that has events and no sequence, between two ids.
pub(crate) async fn orphaned_events(
    pool: &MySqlPool,
    after: Option<Uuid>,
    up_to: Option<Uuid>,
) -> Result<Option<Uuid>> {
    let select = [
        "SELECT d.partner_id FROM (SELECT DISTINCT partner_id FROM events WHERE ",
        "partner_id",
        ") d LEFT JOIN partner_sequences s ON s.partner_id = d.partner_id WHERE s.partner_id IS NULL \
         ORDER BY d.partner_id LIMIT 1",
    ];
    orphan(pool, select, after, up_to).await
}

/// Rows `first..=last` of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) owner: Uuid,
    pub(crate) first: u64,
    pub(crate) last: u64,
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
    ", hash FROM entries WHERE "
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

fn in_ranges(sql: &mut Sql, owner: &'static str, number: &'static str, ranges: &[Range]) {
    for (index, range) in ranges.iter().enumerate() {
        sql.text(if index == 0 { "(" } else { " OR (" }).text(owner).text(" = ").uuid(range.owner);
        sql.text(" AND ").text(number).text(" >= ").int(range.first);
        sql.text(" AND ").text(number).text(" <= ").int(range.last).text(")");
    }
    sql.text(" ORDER BY ").text(owner).text(", ").text(number);
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

/// A row of `payments`.
#[derive(Debug, Clone)]
pub(crate) struct Payment {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: Uuid,
    pub(crate) root: Uuid,
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) reason: Option<u8>,
    pub(crate) version: u32,
    pub(crate) partner: Option<Uuid>,
    pub(crate) mandate: Option<Uuid>,
    pub(crate) currency: String,
    pub(crate) amount_minor: i64,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
    pub(crate) debit: Option<(Uuid, u64)>,
    pub(crate) credit: Option<(Uuid, u64)>,
    /// Only one of account and version is set on a side.
    pub(crate) half_posting: bool,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) livemode: u8,
    pub(crate) reference: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) accepted_at: i64,
    pub(crate) decided_at: i64,
}

const PAYMENT_COLUMNS: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, id, root_id, kind, status, reason, version, partner_id, \
     mandate_id, currency, amount_minor, captured_minor, refunded_minor, debit_account, debit_version, \
     credit_account, credit_version, event_sequence, fingerprint, livemode, reference, description, metadata, \
     idempotency_key, ",
    micros!("accepted_at"),
    ", ",
    micros!("decided_at"),
    " FROM payments "
);

fn payment(row: &MySqlRow) -> Result<Payment> {
    let side = |account: usize| -> Result<(Option<Uuid>, Option<u64>)> {
        Ok((opt_uuid(row, account)?, row.try_get(account + 1)?))
    };
    let (debit, credit) = (side(15)?, side(17)?);
    Ok(Payment {
        source: row.try_get(0)?,
        partition: row.try_get(1)?,
        offset: row.try_get(2)?,
        id: uuid(row, 3)?,
        root: uuid(row, 4)?,
        kind: row.try_get(5)?,
        status: row.try_get(6)?,
        reason: row.try_get(7)?,
        version: row.try_get(8)?,
        partner: opt_uuid(row, 9)?,
        mandate: opt_uuid(row, 10)?,
        currency: text(row, 11)?,
        amount_minor: row.try_get(12)?,
        captured_minor: row.try_get(13)?,
        refunded_minor: row.try_get(14)?,
        debit: debit.0.zip(debit.1),
        credit: credit.0.zip(credit.1),
        half_posting: debit.0.is_some() != debit.1.is_some() || credit.0.is_some() != credit.1.is_some(),
        event_sequence: row.try_get(19)?,
        fingerprint: row.try_get(20)?,
        livemode: row.try_get(21)?,
        reference: opt_text(row, 22)?,
        description: opt_text(row, 23)?,
        metadata: opt_text(row, 24)?,
        idempotency_key: opt_text(row, 25)?,
        accepted_at: row.try_get(26)?,
        decided_at: row.try_get(27)?,
    })
}

fn command_page(select: &'static str, source: u8, partition: u16, from: u64, below: u64) -> Sql {
    let mut sql = Sql::new();
    sql.text(select).text("WHERE source = ").int(source).text(" AND kafka_partition = ").int(partition);
    sql.text(" AND kafka_offset >= ").int(from).text(" AND kafka_offset < ").int(below);
    sql.text(" ORDER BY kafka_offset LIMIT ").int(COMMAND_PAGE);
    sql
}

/// Payments of a partition at `from..below`, by offset.
pub(crate) async fn payments_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Payment>> {
    rows(pool, &command_page(PAYMENT_COLUMNS, source, partition, from, below), payment).await
}

/// Id and status of those of these payments that there are.
pub(crate) async fn payment_statuses(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<(Uuid, u8)>> {
    by_ids(pool, "SELECT id, status FROM payments ", "WHERE id IN (", ids, |row| {
        Ok((uuid(row, 0)?, row.try_get(1)?))
    })
    .await
}

/// Those of these ids that an open dead letter holds.
pub(crate) async fn under_review(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let select = "SELECT id FROM dead_letters WHERE status = 1 ";
    by_ids(pool, select, "AND id IN (", ids, |row| uuid(row, 0)).await
}

/// A row of `changes`.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) reason: Option<u8>,
    pub(crate) target: Uuid,
    pub(crate) partner: Option<Uuid>,
    pub(crate) event_sequence: Option<u64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) command: String,
    pub(crate) decided_at: i64,
}

const CHANGE_COLUMNS: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, id, kind, reason, target_id, partner_id, event_sequence, \
     fingerprint, command, ",
    micros!("decided_at"),
    " FROM changes "
);

/// Changes of a partition at `from..below`, by offset.
pub(crate) async fn changes_page(
    pool: &MySqlPool,
    (source, partition): (u8, u16),
    from: u64,
    below: u64,
) -> Result<Vec<Change>> {
    rows(pool, &command_page(CHANGE_COLUMNS, source, partition, from, below), |row| {
        Ok(Change {
            source: row.try_get(0)?,
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
            id: uuid(row, 3)?,
            kind: text(row, 4)?,
            reason: row.try_get(5)?,
            target: uuid(row, 6)?,
            partner: opt_uuid(row, 7)?,
            event_sequence: row.try_get(8)?,
            fingerprint: row.try_get(9)?,
            command: text(row, 10)?,
            decided_at: row.try_get(11)?,
        })
    })
    .await
}

/// A row of `mandates`.
#[derive(Debug, Clone)]
pub(crate) struct Mandate {
    pub(crate) id: Uuid,
    pub(crate) partner: Uuid,
    pub(crate) account: Uuid,
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
        account: uuid(row, 2)?,
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

/// A row of `partner_sequences`, with the sequence of the partner's last event at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub(crate) partner: Uuid,
    pub(crate) last: u64,
    pub(crate) epoch: u16,
    pub(crate) last_event: Option<u64>,
}

/// Sequences after `after`, by partner.
pub(crate) async fn sequences_after(pool: &MySqlPool, after: Option<Uuid>) -> Result<Vec<Sequence>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT s.partner_id, s.last_sequence, s.epoch, (SELECT e.sequence FROM events e \
         WHERE e.partner_id = s.partner_id ORDER BY e.sequence DESC LIMIT 1) FROM partner_sequences s ",
    );
    if let Some(after) = after {
        sql.text("WHERE s.partner_id > ").uuid(after);
    }
    sql.text(" ORDER BY s.partner_id LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        Ok(Sequence {
            partner: uuid(row, 0)?,
            last: row.try_get(1)?,
            epoch: row.try_get(2)?,
            last_event: row.try_get(3)?,
        })
    })
    .await
}

/// Partner, sequence, epoch and type of the events of these ranges, by partner and sequence.
pub(crate) async fn event_numbers_in(
    pool: &MySqlPool,
    ranges: &[Range],
) -> Result<Vec<(Uuid, u64, u16, u8)>> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id, sequence, epoch, type FROM events WHERE ");
    in_ranges(&mut sql, "partner_id", "sequence", ranges);
    rows(pool, &sql, |row| Ok((uuid(row, 0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))).await
}

/// A row of `events`.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) partner: Uuid,
    pub(crate) sequence: u64,
    pub(crate) kind: u8,
    pub(crate) occurred_at: i64,
    pub(crate) data: String,
}

/// The events at these partners and sequences; absent ones are not in the answer.
pub(crate) async fn events_at(pool: &MySqlPool, keys: &[(Uuid, u64)]) -> Result<Vec<Event>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new();
    sql.text(concat!(
        "SELECT partner_id, sequence, type, ",
        micros!("occurred_at"),
        ", data FROM events WHERE "
    ));
    sql.text("(partner_id, sequence) IN (").list(keys, |sql, (partner, sequence)| {
        sql.text("(").uuid(*partner).text(",").int(*sequence).text(")");
    });
    sql.text(")");
    rows(pool, &sql, |row| {
        Ok(Event {
            partner: uuid(row, 0)?,
            sequence: row.try_get(1)?,
            kind: row.try_get(2)?,
            occurred_at: row.try_get(3)?,
            data: text(row, 4)?,
        })
    })
    .await
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

/// The settlement accounts of these partners.
pub(crate) async fn settlements_of(pool: &MySqlPool, partners: &[Uuid]) -> Result<Vec<(Uuid, String, Uuid)>> {
    let select = "SELECT partner_id, currency, account_id FROM settlement_accounts ";
    by_ids(pool, select, "WHERE partner_id IN (", partners, |row| {
        Ok((uuid(row, 0)?, text(row, 1)?, uuid(row, 2)?))
    })
    .await
}

/// Key, status, reason and whether a payment or a change stands at the same position, of dead letters after a position.
pub(crate) type DeadLetter = ((u8, u16, u64), u8, String, bool);

/// Dead letters after a position.
pub(crate) async fn dead_letters_after(
    pool: &MySqlPool,
    after: Option<(u8, u16, u64)>,
) -> Result<Vec<DeadLetter>> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT d.source, d.kafka_partition, d.kafka_offset, d.status, d.reason, \
         p.id IS NOT NULL OR c.id IS NOT NULL FROM dead_letters d \
         LEFT JOIN payments p ON p.source = d.source AND p.kafka_partition = d.kafka_partition \
         AND p.kafka_offset = d.kafka_offset \
         LEFT JOIN changes c ON c.source = d.source AND c.kafka_partition = d.kafka_partition \
         AND c.kafka_offset = d.kafka_offset ",
    );
    if let Some((source, partition, offset)) = after {
        sql.text("WHERE (d.source, d.kafka_partition, d.kafka_offset) > (").int(source).text(",");
        sql.int(partition).text(",").int(offset).text(")");
    }
    sql.text(" ORDER BY d.source, d.kafka_partition, d.kafka_offset LIMIT ").int(PAGE);
    rows(pool, &sql, |row| {
        let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok((key, row.try_get(3)?, text(row, 4)?, row.try_get::<i64, _>(5)? != 0))
    })
    .await
}

/// The first of the rows that nothing accounts for. Each of these reads whole tables, so they run only when the counts
/// differ, to name a row.
pub(crate) mod unaccounted {
    use super::{MySqlPool, Result, Sql, Uuid, rows, uuid};

    /// An entry that its payment does not refer to.
    pub(crate) async fn entry(pool: &MySqlPool) -> Result<Option<(Uuid, u64)>> {
        let mut sql = Sql::new();
        sql.text(
            "SELECT e.account_id, e.version FROM entries e LEFT JOIN payments p ON p.id = e.payment_id \
             AND p.status = 2 AND ((p.debit_account = e.account_id AND p.debit_version = e.version) \
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
             LEFT JOIN changes c ON c.partner_id = e.partner_id AND c.event_sequence = e.sequence \
             WHERE p.id IS NULL AND c.id IS NULL LIMIT 1",
        );
        Ok(rows(pool, &sql, |row| Ok((uuid(row, 0)?, sqlx::Row::try_get(row, 1)?))).await?.pop())
    }

    /// An account that nobody opened.
    pub(crate) async fn account(pool: &MySqlPool) -> Result<Option<Uuid>> {
        let mut sql = Sql::new();
        sql.text(
            "SELECT a.id FROM accounts a LEFT JOIN changes c ON c.target_id = a.id AND c.kind = 'open_account' \
             AND c.reason IS NULL WHERE c.id IS NULL LIMIT 1",
        );
        Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
    }

    /// A mandate that nobody granted.
    pub(crate) async fn mandate(pool: &MySqlPool) -> Result<Option<Uuid>> {
        let mut sql = Sql::new();
        sql.text(
            "SELECT m.id FROM mandates m LEFT JOIN changes c ON c.target_id = m.id AND c.kind = 'grant_mandate' \
             AND c.reason IS NULL WHERE c.id IS NULL LIMIT 1",
        );
        Ok(rows(pool, &sql, |row| uuid(row, 0)).await?.pop())
    }
}
