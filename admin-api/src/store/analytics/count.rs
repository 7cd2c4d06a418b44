//! Counting: what is new is read by its position, added to the sums, and the position moved, in one transaction.
//!
//! The rows of `analytics_positions` of a generation are locked first and all, so of two that count at once the second
//! waits and goes on where the first one ended. A kill leaves either all of a step or nothing.

use domain::account::OwnerKind;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlConnection, MySqlPool};
use uuid::Uuid;

use crate::analytics::facts::{Fact, Increments};
use crate::store::Columns;
use crate::store::is_duplicate;
use crate::store::offsets;
use crate::store::payments::{Place, place, push_place};

/// Rows of one INSERT.
const ROWS_MAX: usize = 1_000;
/// Rows of a generation that nobody shows any more which are deleted at a time.
const FORGOTTEN_MAX: u32 = 5_000;
/// Days for which customers are kept one by one. What is decided is of today, and counted seconds later.
const CUSTOMERS_KEPT_DAYS: i64 = 3;
/// Redrives that redrove redrives: more would be a circle.
const DEPTH_MAX: usize = 16;

/// How far a partition is counted, and how far it is applied.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: u16,
    /// The first offset that is not counted.
    pub counted: u64,
    /// The first offset that is not applied.
    pub applied: u64,
}

/// Locks a generation's positions; nothing when the generation is gone.
pub async fn lock(connection: &mut MySqlConnection, generation: u32) -> Result<Vec<Progress>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT source, kafka_partition, next_offset FROM analytics_positions FORCE INDEX (PRIMARY) WHERE generation = ");
    sql.int(generation).text(" ORDER BY source, kafka_partition FOR UPDATE");
    let rows = connection.fetch_all(sql.as_str()).await?;
    // Read after the lock: what is below is committed.
    let applied = offsets::applied(connection).await?;
    let mut progress = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::new(row);
        let (source, partition) = (columns.named(Source::from_code)?, columns.take()?);
        let counted = columns.take()?;
        let at = applied.iter().find(|at| at.source == source && at.partition == partition);
        progress.push(Progress {
            source,
            partition,
            counted,
            applied: at.map_or(counted, |at| at.next_offset),
        });
    }
    Ok(progress)
}

macro_rules! facts {
    ($from:literal) => {
        concat!(
            "SELECT p.kafka_offset, d.source IS NOT NULL, p.kind, p.status, p.expires_at IS NOT NULL, p.reason, \
             p.livemode, p.partner_id, p.currency, p.amount_minor, p.debit_version IS NOT NULL, a.owner_kind, a.owner_id, \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.decided_at) FROM ",
            $from,
            " LEFT JOIN accounts a ON a.id = p.debit_account"
        )
    };
}

/// Commands of a partition from `from` on and below `below`, up to `rows_max`. A redriven dead letter is `None`: it stands
/// at an old place and is counted with the command that redrove it.
pub async fn facts(
    connection: &mut MySqlConnection,
    at: &Progress,
    rows_max: u64,
) -> Result<Vec<(u64, Option<Fact>)>, sqlx::Error> {
    let mut sql = Sql::with_capacity(1_500);
    sql.text(facts!(
        "payments p FORCE INDEX (PRIMARY) LEFT JOIN dead_letters d ON d.source = p.source \
         AND d.kafka_partition = p.kafka_partition AND d.kafka_offset = p.kafka_offset"
    ));
    sql.text(" WHERE p.source = ").int(at.source.code()).text(" AND p.kafka_partition = ").int(at.partition);
    sql.text(" AND p.kafka_offset >= ").int(at.counted).text(" AND p.kafka_offset < ").int(at.applied);
    sql.text(" ORDER BY p.kafka_offset LIMIT ").int(rows_max);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter()
        .map(|row| fact(row).map(|(offset, is_letter, fact)| (offset, (!is_letter).then_some(fact))))
        .collect()
}

fn fact(row: &MySqlRow) -> Result<(u64, bool, Fact), sqlx::Error> {
    let mut columns = Columns::new(row);
    let (offset, is_letter) = (columns.take()?, columns.take::<i64>()? != 0);
    let kind = columns.named(PaymentKind::from_code)?;
    let status = columns.named(PaymentStatus::from_code)?;
    let two_phases = columns.take::<i64>()? != 0;
    // A root's status moves on; what was decided on it first follows from what it asked for.
    let outcome = match (kind, status) {
        (PaymentKind::Payment, PaymentStatus::Rejected) => status,
        (PaymentKind::Payment, _) if two_phases => PaymentStatus::Authorized,
        _ => status,
    };
    let fact = Fact {
        kind,
        outcome,
        reason: columns.opt_named(Reason::from_code)?,
        livemode: columns.take::<u8>()? != 0,
        partner: columns.opt_uuid()?,
        currency: columns.currency()?,
        amount_minor: columns.take()?,
        moved: columns.take::<i64>()? != 0,
        customer: {
            let owner = columns.opt_named(OwnerKind::from_code)?;
            columns.opt_uuid()?.filter(|_| owner == Some(OwnerKind::Customer))
        },
        accepted_at: columns.time()?,
        decided_at: columns.time()?,
    };
    Ok((offset, is_letter, fact))
}

/// Redrives and rejections of dead letters among the bank's commands of a partition at these offsets.
pub async fn redrives(
    connection: &mut MySqlConnection,
    partition: u16,
    offsets: std::ops::Range<u64>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT c.id FROM changes c FORCE INDEX (PRIMARY) LEFT JOIN dead_letters d ON d.source = c.source \
         AND d.kafka_partition = c.kafka_partition AND d.kafka_offset = c.kafka_offset WHERE d.source IS NULL AND c.source = ",
    );
    sql.int(Source::Bank.code()).text(" AND c.kafka_partition = ").int(partition);
    sql.text(" AND c.kafka_offset >= ").int(offsets.start).text(" AND c.kafka_offset < ").int(offsets.end);
    sql.text(REDRIVES);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

const REDRIVES: &str = " AND c.reason IS NULL AND c.kind IN ('redrive_dead_letters', 'reject_dead_letter')";

/// What these redrives and rejections left at the places of the dead letters, and what redrives among those left.
pub async fn redriven(
    connection: &mut MySqlConnection,
    changes: Vec<Uuid>,
) -> Result<Vec<Fact>, sqlx::Error> {
    let (mut facts, mut changes) = (Vec::new(), changes);
    for _ in 0..DEPTH_MAX {
        if changes.is_empty() {
            break;
        }
        let places = places_of(connection, &changes).await?;
        changes = Vec::new();
        for places in places.chunks(ROWS_MAX) {
            facts.extend(facts_at(connection, places).await?);
            changes.extend(redrives_at(connection, places).await?);
        }
    }
    Ok(facts)
}

async fn places_of(connection: &mut MySqlConnection, changes: &[Uuid]) -> Result<Vec<Place>, sqlx::Error> {
    let mut places = Vec::new();
    for changes in changes.chunks(ROWS_MAX) {
        let mut sql = Sql::new();
        sql.text("SELECT source, kafka_partition, kafka_offset FROM dead_letters FORCE INDEX (dead_letters_of_change) ");
        sql.text("WHERE change_id IN (").list(changes, |sql, change| {
            sql.uuid(*change);
        });
        sql.text(")");
        for row in connection.fetch_all(sql.as_str()).await? {
            places.push(place(&mut Columns::new(&row))?);
        }
    }
    Ok(places)
}

async fn facts_at(connection: &mut MySqlConnection, places: &[Place]) -> Result<Vec<Fact>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(facts!("payments p FORCE INDEX (PRIMARY) LEFT JOIN dead_letters d ON FALSE"));
    sql.text(" WHERE (p.source, p.kafka_partition, p.kafka_offset) IN (").list(places, push_place).text(")");
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| fact(row).map(|(_, _, fact)| fact)).collect()
}

async fn redrives_at(connection: &mut MySqlConnection, places: &[Place]) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT c.id FROM changes c FORCE INDEX (PRIMARY) WHERE (c.source, c.kafka_partition, c.kafka_offset) IN (");
    sql.list(places, push_place).text(")").text(REDRIVES);
    let rows = connection.fetch_all(sql.as_str()).await?;
    rows.iter().map(|row| Columns::new(row).uuid()).collect()
}

/// Adds to the sums of a generation.
pub async fn add(
    connection: &mut MySqlConnection,
    generation: u32,
    increments: &Increments,
) -> Result<(), sqlx::Error> {
    let outcomes: Vec<_> = increments.outcomes.iter().collect();
    for rows in outcomes.chunks(ROWS_MAX) {
        let mut sql = Sql::with_capacity(200 + 80 * rows.len());
        sql.text("INSERT INTO analytics_outcomes VALUES ").list(rows, |sql, (key, sums)| {
            sql.text("(")
                .int(generation)
                .text(",")
                .int(u8::from(key.livemode))
                .text(",")
                .int(key.grain as u8);
            sql.text(",").int(key.bucket).text(",").int(key.kind.code()).text(",");
            sql.string(key.currency.map_or("", domain::money::Currency::code));
            sql.text(",").int(key.outcome.code()).text(",").int(key.reason.map_or(0, Reason::code));
            sql.text(",")
                .int(sums.commands)
                .text(",")
                .int(sums.requested_minor)
                .text(",")
                .int(sums.moved_minor);
            sql.text(")");
        });
        sql.text(
            " ON DUPLICATE KEY UPDATE commands = commands + VALUES(commands), \
             requested_minor = requested_minor + VALUES(requested_minor), moved_minor = moved_minor + VALUES(moved_minor)",
        );
        connection.execute(sql.as_str()).await?;
    }
    let latency: Vec<_> = increments.latency.iter().collect();
    for rows in latency.chunks(ROWS_MAX) {
        let mut sql = Sql::with_capacity(200 + 40 * rows.len());
        sql.text("INSERT INTO analytics_latency VALUES ").list(
            rows,
            |sql, ((grain, bucket, step), commands)| {
                sql.text("(").int(generation).text(",").int(*grain as u8).text(",").int(*bucket);
                sql.text(",").int(*step).text(",").int(**commands).text(")");
            },
        );
        sql.text(" ON DUPLICATE KEY UPDATE commands = commands + VALUES(commands)");
        connection.execute(sql.as_str()).await?;
    }
    let partners: Vec<_> = increments.partners.iter().collect();
    for rows in partners.chunks(ROWS_MAX) {
        let mut sql = Sql::with_capacity(300 + 120 * rows.len());
        sql.text("INSERT INTO analytics_partners VALUES ").list(rows, |sql, (key, sums)| {
            sql.text("(").int(generation).text(",").int(u8::from(key.livemode)).text(",").int(key.day);
            sql.text(",").uuid(key.partner).text(",");
            sql.string(key.currency.map_or("", domain::money::Currency::code));
            sql.text(",").int(sums.commands).text(",").int(sums.rejected);
            sql.text(",").int(sums.taken_minor).text(",").int(sums.returned_minor).text(")");
        });
        sql.text(
            " ON DUPLICATE KEY UPDATE commands = commands + VALUES(commands), rejected = rejected + VALUES(rejected), \
             taken_minor = taken_minor + VALUES(taken_minor), returned_minor = returned_minor + VALUES(returned_minor)",
        );
        connection.execute(sql.as_str()).await?;
    }
    for (day, customers) in &increments.customers {
        add_customers(connection, generation, *day, &customers.iter().copied().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn add_customers(
    connection: &mut MySqlConnection,
    generation: u32,
    day: i32,
    customers: &[Uuid],
) -> Result<(), sqlx::Error> {
    let mut new = 0;
    for customers in customers.chunks(ROWS_MAX) {
        let mut sql = Sql::with_capacity(100 + 60 * customers.len());
        // Three values that always fit: nothing but a duplicate can be ignored.
        sql.text("INSERT IGNORE INTO analytics_customers VALUES ").list(customers, |sql, customer| {
            sql.text("(").int(generation).text(",").int(day).text(",").uuid(*customer).text(")");
        });
        new += connection.execute(sql.as_str()).await?.rows_affected();
    }
    if new == 0 {
        return Ok(());
    }
    let mut sql = Sql::new();
    sql.text("INSERT INTO analytics_days VALUES (").int(generation).text(",").int(day).text(",").int(new);
    sql.text(") ON DUPLICATE KEY UPDATE customers = customers + VALUES(customers)");
    connection.execute(sql.as_str()).await.map(drop)
}

/// Moves a position.
pub async fn advance(
    connection: &mut MySqlConnection,
    generation: u32,
    at: &Progress,
    counted: u64,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("UPDATE analytics_positions SET next_offset = ")
        .int(counted)
        .text(" WHERE generation = ")
        .int(generation);
    sql.text(" AND source = ").int(at.source.code()).text(" AND kafka_partition = ").int(at.partition);
    connection.execute(sql.as_str()).await.map(drop)
}

/// Says that it was looked just now.
pub async fn touch(connection: &mut MySqlConnection, generation: u32) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("UPDATE analytics_generations SET counted_at = UTC_TIMESTAMP(6) WHERE generation = ")
        .int(generation);
    connection.execute(sql.as_str()).await.map(drop)
}

/// Begins a generation at the beginning of the ledger; `false` when another one did at the same time.
pub async fn begin(
    pool: &MySqlPool,
    generation: u32,
    is_shown: bool,
    time_zone: &str,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let mut sql = Sql::new();
    sql.text("INSERT INTO analytics_generations VALUES (").int(generation).text(",").int(if is_shown {
        2_u8
    } else {
        1
    });
    sql.text(",").string(time_zone).text(", UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))");
    match transaction.execute(sql.as_str()).await {
        Ok(_) => {}
        Err(error) if is_duplicate(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut sql = Sql::new();
    sql.text("INSERT INTO analytics_positions SELECT ").int(generation);
    sql.text(", source, kafka_partition, 0 FROM positions");
    transaction.execute(sql.as_str()).await?;
    transaction.commit().await?;
    Ok(true)
}

/// The last generation's number, and those that are being counted.
pub async fn generations(pool: &MySqlPool) -> Result<(u32, Vec<u32>), sqlx::Error> {
    let rows =
        pool.fetch_all("SELECT generation, status FROM analytics_generations ORDER BY generation").await?;
    let (mut last, mut open) = (0, Vec::new());
    for row in &rows {
        let mut columns = Columns::new(row);
        last = columns.take()?;
        if columns.take::<u8>()? == 1 {
            open.push(last);
        }
    }
    Ok((last, open))
}

/// Gives up a generation that is being counted: whoever counts it notices.
pub async fn give_up(pool: &MySqlPool, generation: u32) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    remove(&mut transaction, generation).await?;
    transaction.commit().await
}

/// Shows a generation in place of the one before; `false` when it is gone.
pub async fn show(pool: &MySqlPool, generation: u32) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if lock(&mut transaction, generation).await?.is_empty() {
        return Ok(false);
    }
    let mut sql = Sql::new();
    sql.text("SELECT generation FROM analytics_generations WHERE generation < ").int(generation);
    sql.text(" ORDER BY generation");
    let rows = transaction.fetch_all(sql.as_str()).await?;
    for row in &rows {
        let before: u32 = Columns::new(row).take()?;
        remove(&mut transaction, before).await?;
    }
    let mut sql = Sql::new();
    sql.text(
        "UPDATE analytics_generations SET status = 2, counted_at = UTC_TIMESTAMP(6) WHERE generation = ",
    )
    .int(generation);
    transaction.execute(sql.as_str()).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn remove(connection: &mut MySqlConnection, generation: u32) -> Result<(), sqlx::Error> {
    for head in ["DELETE FROM analytics_positions", "DELETE FROM analytics_generations"] {
        let mut sql = Sql::new();
        sql.text(head).text(" WHERE generation = ").int(generation);
        connection.execute(sql.as_str()).await?;
    }
    Ok(())
}

/// Deletes some of what is below every generation that is there, and customers of days long before the last that was
/// counted; how many rows at most of a table. Only when everything is counted: a partition that lags tells of older days.
pub async fn forget(pool: &MySqlPool, generation: u32) -> Result<u64, sqlx::Error> {
    let mut most = 0;
    for head in [
        "DELETE FROM analytics_outcomes WHERE generation < ",
        "DELETE FROM analytics_latency WHERE generation < ",
        "DELETE FROM analytics_partners WHERE generation < ",
        "DELETE FROM analytics_customers WHERE generation < ",
        "DELETE FROM analytics_days WHERE generation < ",
    ] {
        let mut sql = Sql::new();
        sql.text(head).int(generation).text(" LIMIT ").int(FORGOTTEN_MAX);
        most = most.max(pool.execute(sql.as_str()).await?.rows_affected());
    }
    let mut sql = Sql::new();
    sql.text("SELECT CAST(MAX(day) AS SIGNED) FROM analytics_days WHERE generation = ").int(generation);
    let row = pool.fetch_one(sql.as_str()).await?;
    let Some(last) = Columns::new(&row).take::<Option<i64>>()? else { return Ok(most) };
    let mut sql = Sql::new();
    sql.text("DELETE FROM analytics_customers WHERE generation = ").int(generation);
    sql.text(" AND day < ").int(last - CUSTOMERS_KEPT_DAYS).text(" LIMIT ").int(FORGOTTEN_MAX);
    Ok(most.max(pool.execute(sql.as_str()).await?.rows_affected()))
}

/// The clock of MySQL, which all processes share.
pub async fn now(pool: &MySqlPool) -> Result<domain::time::Timestamp, sqlx::Error> {
    let row = pool.fetch_one("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))").await?;
    Columns::new(&row).time()
}
