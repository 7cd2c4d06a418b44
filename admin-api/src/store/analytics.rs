//! The figures as they are read, and which generation of them is shown. No statement here reads payments.

pub mod calls;
pub mod count;

use domain::ids::PartnerId;
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlPool, Row};
use uuid::Uuid;

use super::Columns;
use crate::analytics::facts::Grain;

/// A generation of figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub number: u32,
    /// Whose days it counts, by its IANA name.
    pub time_zone: String,
    /// When it was last looked whether there is something to count.
    pub counted_at: Timestamp,
}

/// The generation that is shown.
pub async fn shown(pool: &MySqlPool) -> Result<Option<Generation>, sqlx::Error> {
    let sql = "SELECT generation, time_zone, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', counted_at) \
               FROM analytics_generations WHERE status = 2 ORDER BY generation DESC LIMIT 1";
    let read = |row: MySqlRow| {
        let mut columns = Columns::new(&row);
        Ok(Generation {
            number: columns.take()?,
            time_zone: columns.text()?.unwrap_or_default(),
            counted_at: columns.time()?,
        })
    };
    pool.fetch_optional(sql).await?.map(read).transpose()
}

/// How many places of the command topics are applied and not counted.
pub async fn behind(pool: &MySqlPool, generation: u32) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT CAST(COALESCE(SUM(p.next_offset - LEAST(a.next_offset, p.next_offset)), 0) AS UNSIGNED) FROM positions p \
         JOIN analytics_positions a ON a.source = p.source AND a.kafka_partition = p.kafka_partition WHERE a.generation = ",
    );
    sql.int(generation);
    let row = pool.fetch_one(sql.as_str()).await?;
    row.try_get_unchecked(0)
}

/// Which buckets are wanted, both inclusive.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    /// Of which generation.
    pub generation: u32,
    /// `false` for test money.
    pub livemode: bool,
    /// How long they are.
    pub grain: Grain,
    /// The first.
    pub first: i32,
    /// The last.
    pub last: i32,
}

impl Buckets {
    fn push(&self, sql: &mut Sql) {
        sql.text(" WHERE generation = ")
            .int(self.generation)
            .text(" AND livemode = ")
            .int(u8::from(self.livemode));
        self.push_range(sql.text(" AND grain = ").int(self.grain as u8), "bucket");
    }

    fn push_range(&self, sql: &mut Sql, column: &'static str) {
        sql.text(" AND ").text(column).text(" BETWEEN ").int(self.first).text(" AND ").int(self.last);
    }
}

/// What moved in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// The bucket.
    pub bucket: i32,
    /// By what.
    pub kind: PaymentKind,
    /// In which currency.
    pub currency: Currency,
    /// By how many.
    pub commands: u64,
    /// Minor units.
    pub moved_minor: i128,
}

/// What moved, by bucket, kind and currency.
pub async fn volume(pool: &MySqlPool, buckets: &Buckets) -> Result<Vec<VolumeRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT bucket, kind, currency, CAST(SUM(commands) AS UNSIGNED), CAST(SUM(moved_minor) AS CHAR) \
         FROM analytics_outcomes",
    );
    buckets.push(&mut sql);
    sql.text(" AND moved_minor > 0 GROUP BY bucket, kind, currency ORDER BY bucket, kind, currency");
    let mut volume = Vec::new();
    for row in pool.fetch_all(sql.as_str()).await? {
        let mut columns = Columns::new(&row);
        let (bucket, kind, currency) =
            (columns.take()?, columns.named(PaymentKind::from_code)?, columns.currency()?);
        let (commands, moved_minor) = (columns.take()?, wide(&mut columns)?);
        // Nothing moves without a currency.
        volume.extend(currency.map(|currency| VolumeRow { bucket, kind, currency, commands, moved_minor }));
    }
    Ok(volume)
}

/// What was decided in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRow {
    /// The bucket.
    pub bucket: i32,
    /// On what.
    pub kind: PaymentKind,
    /// What.
    pub outcome: PaymentStatus,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// How often.
    pub commands: u64,
}

/// What was decided, by bucket, kind, outcome and reason.
pub async fn outcomes(pool: &MySqlPool, buckets: &Buckets) -> Result<Vec<OutcomeRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT bucket, kind, outcome, NULLIF(reason, 0), CAST(SUM(commands) AS UNSIGNED) FROM analytics_outcomes");
    buckets.push(&mut sql);
    sql.text(" GROUP BY bucket, kind, outcome, reason ORDER BY bucket, kind, outcome, reason");
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(OutcomeRow {
            bucket: columns.take()?,
            kind: columns.named(PaymentKind::from_code)?,
            outcome: columns.named(PaymentStatus::from_code)?,
            reason: columns.opt_named(Reason::from_code)?,
            commands: columns.take()?,
        })
    };
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

/// How many times fell into each step of a bucket's histogram.
pub async fn latency(pool: &MySqlPool, buckets: &Buckets) -> Result<Vec<(i32, u16, u64)>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT bucket, step, commands FROM analytics_latency WHERE generation = ")
        .int(buckets.generation);
    sql.text(" AND grain = ").int(buckets.grain as u8);
    buckets.push_range(&mut sql, "bucket");
    sql.text(" ORDER BY bucket, step");
    pool.fetch_all(sql.as_str()).await?.iter().map(counted).collect()
}

fn counted(row: &MySqlRow) -> Result<(i32, u16, u64), sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok((columns.take()?, columns.take()?, columns.take()?))
}

/// What a partner did in a currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartnerRow {
    /// The partner.
    pub partner: PartnerId,
    /// Its name.
    pub name: String,
    /// The currency; `None` for commands on nothing.
    pub currency: Option<Currency>,
    /// How many commands.
    pub commands: u64,
    /// How many were rejected.
    pub rejected: u64,
    /// Moved by payments and captures.
    pub taken_minor: i128,
    /// Moved back by refunds and reversals.
    pub returned_minor: i128,
}

/// The partners that took most in a currency, or that sent most commands, on the days of `buckets`; the first one first.
/// All rows of one partner stand together.
pub async fn top_partners(
    pool: &MySqlPool,
    buckets: &Buckets,
    by: Option<Currency>,
    limit: usize,
) -> Result<Vec<PartnerRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id FROM analytics_partners WHERE generation = ").int(buckets.generation);
    sql.text(" AND livemode = ").int(u8::from(buckets.livemode));
    buckets.push_range(&mut sql, "day");
    match by {
        Some(currency) => {
            sql.text(" AND currency = ").string(currency.code());
            sql.text(" GROUP BY partner_id ORDER BY SUM(taken_minor) DESC, partner_id LIMIT ")
        }
        None => sql.text(" GROUP BY partner_id ORDER BY SUM(commands) DESC, partner_id LIMIT "),
    };
    sql.int(limit as u64);
    let rows = pool.fetch_all(sql.as_str()).await?;
    let ranked: Vec<Uuid> = rows.iter().map(|row| Columns::new(row).uuid()).collect::<Result<_, _>>()?;
    if ranked.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::with_capacity(1_000);
    sql.text(
        "SELECT a.partner_id, COALESCE(MAX(p.name), ''), a.currency, CAST(SUM(a.commands) AS UNSIGNED), \
         CAST(SUM(a.rejected) AS UNSIGNED), CAST(SUM(a.taken_minor) AS CHAR), CAST(SUM(a.returned_minor) AS CHAR) \
         FROM analytics_partners a LEFT JOIN partners p ON p.id = a.partner_id WHERE a.generation = ",
    );
    sql.int(buckets.generation).text(" AND a.livemode = ").int(u8::from(buckets.livemode));
    buckets.push_range(&mut sql, "a.day");
    sql.text(" AND a.partner_id IN (").list(&ranked, |sql, partner| {
        sql.uuid(*partner);
    });
    sql.text(") GROUP BY a.partner_id, a.currency ORDER BY a.currency");
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(PartnerRow {
            partner: PartnerId::from_uuid(columns.uuid()?),
            name: columns.text()?.unwrap_or_default(),
            currency: columns.currency()?,
            commands: columns.take()?,
            rejected: columns.take()?,
            taken_minor: wide(&mut columns)?,
            returned_minor: wide(&mut columns)?,
        })
    };
    let rows = pool.fetch_all(sql.as_str()).await?;
    let mut rows: Vec<PartnerRow> = rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?;
    rows.sort_by_key(|row| ranked.iter().position(|partner| *partner == row.partner.uuid()));
    Ok(rows)
}

/// How many customers were active on each day.
pub async fn active(pool: &MySqlPool, buckets: &Buckets) -> Result<Vec<(i32, u64)>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT day, customers FROM analytics_days WHERE generation = ").int(buckets.generation);
    buckets.push_range(&mut sql, "day");
    sql.text(" ORDER BY day");
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok((columns.take()?, columns.take()?))
    };
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

/// Requests of a partner in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsRow {
    /// The bucket.
    pub bucket: i32,
    /// 1 the partners' API, 2 the bank's.
    pub service: u8,
    /// The partner; `None` when none was recognised.
    pub partner: Option<PartnerId>,
    /// How many.
    pub calls: u64,
    /// Answered 4xx.
    pub client_errors: u64,
    /// Answered 5xx.
    pub server_errors: u64,
    /// How long all of them took together.
    pub duration_us: u64,
}

/// Requests to both APIs by bucket and partner, up to `limit` rows: of one partner, or of those with the most calls.
pub async fn calls(
    pool: &MySqlPool,
    buckets: &Buckets,
    partner: Option<PartnerId>,
    limit: usize,
) -> Result<Vec<CallsRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "SELECT bucket, service, partner_id, calls, client_errors, server_errors, duration_us FROM analytics_calls \
         WHERE grain = ",
    );
    sql.int(buckets.grain as u8);
    buckets.push_range(&mut sql, "bucket");
    if let Some(partner) = partner {
        sql.text(" AND partner_id = ").uuid(partner.uuid());
    }
    sql.text(" ORDER BY bucket, calls DESC, service, partner_id LIMIT ").int(limit as u64);
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(CallsRow {
            bucket: columns.take()?,
            service: columns.take()?,
            partner: Some(columns.uuid()?).filter(|id| !id.is_nil()).map(PartnerId::from_uuid),
            calls: columns.take()?,
            client_errors: columns.take()?,
            server_errors: columns.take()?,
            duration_us: columns.take()?,
        })
    };
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

/// Attempts to deliver events in an hour: how they ended, the step of the histogram, how many.
pub async fn deliveries(
    pool: &MySqlPool,
    first_hour: i32,
    last_hour: i32,
) -> Result<Vec<(i32, u8, u16, u64)>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT hour, outcome, step, CAST(SUM(attempts) AS UNSIGNED) FROM delivery_counts WHERE hour BETWEEN ");
    sql.int(first_hour)
        .text(" AND ")
        .int(last_hour)
        .text(" GROUP BY hour, outcome, step ORDER BY hour, outcome, step");
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok((columns.take()?, columns.take()?, columns.take()?, columns.take()?))
    };
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

/// A sum that may be larger than any whole number of the database.
fn wide(columns: &mut Columns<'_>) -> Result<i128, sqlx::Error> {
    let text = columns.text()?.unwrap_or_default();
    text.parse().map_err(|error: std::num::ParseIntError| sqlx::Error::Decode(error.into()))
}
