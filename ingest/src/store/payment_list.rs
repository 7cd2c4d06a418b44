//! A partner's payments, newest first.
//!
//! The index decides what is looked at, and no more than [`SCAN_MAX`] of its rows for one page, however few of them
//! fit the filters. The rows themselves are read by their primary key. An item's place in the order never changes.

use domain::ids::{MandateId, PartnerId};
use domain::payment::{PaymentKind, PaymentStatus, PaymentView};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlPool};

use super::payments::{COLUMNS, payment};
use super::{Columns, StoreError};

/// Index rows that are looked at for one page.
pub const SCAN_MAX: usize = 2_000;

/// Which payments are wanted.
#[derive(Debug, Default)]
pub struct Filters {
    /// One of these; all when empty.
    pub statuses: Vec<PaymentStatus>,
    /// One of these; all when empty.
    pub kinds: Vec<PaymentKind>,
    /// Under this mandate.
    pub mandate: Option<MandateId>,
    /// With this reference.
    pub reference: Option<String>,
    /// Accepted at this time or later.
    pub created_from: Option<Timestamp>,
    /// Accepted before this time.
    pub created_to: Option<Timestamp>,
}

impl Filters {
    /// Whether every row of the index that is used fits.
    fn fit_all(&self) -> bool {
        let beside_the_mandate = self.mandate.is_some() && self.reference.is_some();
        self.statuses.is_empty() && self.kinds.is_empty() && !beside_the_mandate
    }
}

/// Where a payment stands in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    accepted_at: Timestamp,
    source: u8,
    partition: u16,
    offset: u64,
}

impl Place {
    /// As bytes, for a cursor.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PLACE_BYTES);
        bytes.extend_from_slice(&self.accepted_at.micros().to_be_bytes());
        bytes.push(self.source);
        bytes.extend_from_slice(&self.partition.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// What [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (accepted_at, rest) = bytes.split_first_chunk()?;
        let (source, rest) = rest.split_first()?;
        let (partition, rest) = rest.split_first_chunk()?;
        Some(Self {
            accepted_at: Timestamp::from_micros(i64::from_be_bytes(*accepted_at)),
            source: *source,
            partition: u16::from_be_bytes(*partition),
            offset: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

const PLACE_BYTES: usize = 8 + 1 + 2 + 8;

/// A page.
#[derive(Debug)]
pub struct Listed {
    /// The payments, newest first; fewer than wanted when too many rows in between did not fit.
    pub payments: Vec<PaymentView>,
    /// After which place the next page begins, if there may be one.
    pub next: Option<Place>,
}

/// Reads a page of up to `limit` payments behind `after`.
pub async fn list(
    pool: &MySqlPool,
    partner: PartnerId,
    filters: &Filters,
    after: Option<Place>,
    limit: usize,
) -> Result<Listed, StoreError> {
    let scanned_max = if filters.fit_all() { limit + 1 } else { SCAN_MAX };
    let mut connection = pool.acquire().await?;
    let mut text = Sql::with_capacity(1_024);
    scan(&mut text, partner, filters, after, scanned_max);
    let rows = connection.fetch_all(text.as_str()).await?;
    let mut places = Vec::with_capacity(limit);
    let mut next = None;
    for row in &rows {
        let mut columns = Columns::new("payments", row);
        let place = Place {
            accepted_at: columns.time()?,
            source: columns.take()?,
            partition: columns.take()?,
            offset: columns.take()?,
        };
        if columns.take::<i64>()? == 0 {
            continue;
        }
        if places.len() == limit {
            next = places.last().copied();
            break;
        }
        places.push(place);
    }
    if next.is_none() && rows.len() == scanned_max {
        // There may be more that fit behind what was looked at.
        next = rows.last().map(last_place).transpose()?;
    }
    if places.is_empty() {
        return Ok(Listed { payments: Vec::new(), next });
    }
    let rows = connection.fetch_all(fetch(&places).as_str()).await?;
    let payments = rows.iter().map(|row| Ok(payment(row)?.view)).collect::<Result<_, StoreError>>()?;
    Ok(Listed { payments, next })
}

fn last_place(row: &sqlx::mysql::MySqlRow) -> Result<Place, StoreError> {
    let mut columns = Columns::new("payments", row);
    Ok(Place {
        accepted_at: columns.time()?,
        source: columns.take()?,
        partition: columns.take()?,
        offset: columns.take()?,
    })
}

/// The index rows behind `after`, each with whether its payment fits.
fn scan(sql: &mut Sql, partner: PartnerId, filters: &Filters, after: Option<Place>, rows_max: usize) {
    sql.text(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), p.source, p.kafka_partition, \
         p.kafka_offset, CAST(1",
    );
    if !filters.kinds.is_empty() {
        sql.text(" AND p.kind IN (").list(&filters.kinds, |sql, kind| {
            sql.int(kind.code());
        });
        sql.text(")");
    }
    if !filters.statuses.is_empty() {
        sql.text(" AND p.status IN (").list(&filters.statuses, |sql, status| {
            sql.int(status.code());
        });
        sql.text(")");
    }
    if let (Some(reference), Some(_)) = (&filters.reference, filters.mandate) {
        sql.text(" AND COALESCE(p.reference = ").string(reference).text(", 0)");
    }
    sql.text(" AS SIGNED) FROM payments p FORCE INDEX (");
    match (filters.mandate, &filters.reference) {
        (Some(mandate), _) => sql.text("payments_of_mandate) WHERE p.mandate_id = ").uuid(mandate.uuid()),
        (None, Some(reference)) => sql.text("payments_of_reference) WHERE p.reference = ").string(reference),
        (None, None) => sql.text("payments_of_partner) WHERE 1 = 1"),
    };
    sql.text(" AND p.partner_id = ").uuid(partner.uuid());
    if let Some(from) = filters.created_from {
        sql.text(" AND p.accepted_at >= ").datetime(from.civil());
    }
    if let Some(to) = filters.created_to {
        sql.text(" AND p.accepted_at < ").datetime(to.civil());
    }
    if let Some(place) = after {
        let at = place.accepted_at.civil();
        // A range of the index first; row constructors would not be seen as one.
        sql.text(" AND p.accepted_at <= ").datetime(at);
        sql.text(" AND (p.accepted_at < ").datetime(at);
        sql.text(" OR p.source < ").int(place.source);
        sql.text(" OR (p.source = ").int(place.source);
        sql.text(" AND (p.kafka_partition < ").int(place.partition);
        sql.text(" OR (p.kafka_partition = ").int(place.partition);
        sql.text(" AND p.kafka_offset < ").int(place.offset).text("))))");
    }
    sql.text(
        " ORDER BY p.accepted_at DESC, p.source DESC, p.kafka_partition DESC, p.kafka_offset DESC LIMIT ",
    )
    .int(rows_max as i64);
}

fn fetch(places: &[Place]) -> Sql {
    let mut sql = Sql::with_capacity(1_024 + places.len() * 24);
    sql.text("SELECT ")
        .text(COLUMNS)
        .text(" FROM payments p WHERE (p.source, p.kafka_partition, p.kafka_offset) IN (");
    sql.list(places, |sql, place| {
        sql.text("(").int(place.source).text(",").int(place.partition).text(",").int(place.offset).text(")");
    });
    sql.text(") ORDER BY p.accepted_at DESC, p.source DESC, p.kafka_partition DESC, p.kafka_offset DESC");
    sql
}

/// The look-up of a page, explained.
pub async fn explain(
    pool: &MySqlPool,
    partner: PartnerId,
    filters: &Filters,
    after: Option<Place>,
) -> Result<Vec<[String; 3]>, StoreError> {
    let mut text = Sql::new();
    scan(&mut text, partner, filters, after, SCAN_MAX);
    Ok(runtime::mysql::explain(pool, &text).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        let place =
            Place { accepted_at: Timestamp::from_micros(5), source: 2, partition: 7, offset: u64::MAX };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(&[0; PLACE_BYTES - 1]), None);
        assert_eq!(Place::decode(&[0; PLACE_BYTES + 1]), None);
    }
}
