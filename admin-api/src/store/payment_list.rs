//! Payments as staff look for them, newest first. Every list is a walk along an index that is there anyway, and looks
//! at no more than [`SCAN_MAX`] of its rows for a page, however few of them fit the filters.
//!
//! | of | along | its order |
//! |---|---|---|
//! | a partner, a mandate, a reference | the indexes of the partner's own lists | time of acceptance |
//! | an account | its entries | time of booking |
//! | the bank | the primary key, backwards, merged over all partitions | time of acceptance |
//!
//! An item's place in its list never changes.

use std::cmp::Reverse;

use domain::ids::{AccountId, MandateId, PartnerId};
use domain::payment::{PaymentKind, PaymentStatus};
use domain::time::Timestamp;
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlConnection, MySqlPool};

use super::Columns;
use super::offsets::{self, Applied};
use super::payments::{PaymentRow, Place, at_places, place};

/// Rows of an index that are looked at for one page.
pub const SCAN_MAX: usize = 2_000;
/// The same of each partition, for lists of the whole bank.
const SCAN_PARTITION_MAX: usize = 300;

/// Whose payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// A partner's, perhaps under a mandate or with a reference.
    Partner {
        /// The partner.
        partner: PartnerId,
        /// Under this mandate.
        mandate: Option<MandateId>,
        /// With this reference.
        reference: Option<String>,
    },
    /// Those that moved money of an account.
    Account {
        /// The account.
        account: AccountId,
        /// Of this partner alone.
        partner: Option<PartnerId>,
    },
    /// Everybody's.
    Bank,
}

/// Which of them.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// One of these; all when empty.
    pub statuses: Vec<PaymentStatus>,
    /// One of these; all when empty.
    pub kinds: Vec<PaymentKind>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
}

/// Behind which item a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Of a partner's list: time and place.
    Accepted(Timestamp, Place),
    /// Of an account's list: its version.
    Version(u64),
    /// Of the bank's list: for each partition, in the order of `positions`, the first offset that was seen.
    Offsets(Vec<u64>),
}

impl After {
    /// As bytes, for a cursor.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Accepted(at, place) => {
                let mut bytes = vec![1];
                bytes.extend_from_slice(&at.micros().to_be_bytes());
                bytes.push(place.source.code());
                bytes.extend_from_slice(&place.partition.to_be_bytes());
                bytes.extend_from_slice(&place.offset.to_be_bytes());
                bytes
            }
            Self::Version(version) => [&[2][..], &version.to_be_bytes()].concat(),
            Self::Offsets(offsets) => {
                std::iter::once(3).chain(offsets.iter().flat_map(|offset| offset.to_be_bytes())).collect()
            }
        }
    }

    /// What [`Self::encode`] wrote, if it is of such a list.
    pub fn decode(of: &Of, bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match (kind, of) {
            (1, Of::Partner { .. }) => {
                let (at, rest) = rest.split_first_chunk()?;
                let (source, rest) = rest.split_first()?;
                let (partition, rest) = rest.split_first_chunk()?;
                let place = Place {
                    source: Source::from_code(*source)?,
                    partition: u16::from_be_bytes(*partition),
                    offset: u64::from_be_bytes(rest.try_into().ok()?),
                };
                Some(Self::Accepted(Timestamp::from_micros(i64::from_be_bytes(*at)), place))
            }
            (2, Of::Account { .. }) => Some(Self::Version(u64::from_be_bytes(rest.try_into().ok()?))),
            (3, Of::Bank) => {
                let (offsets, []) = rest.as_chunks::<8>() else { return None };
                Some(Self::Offsets(offsets.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect()))
            }
            _ => None,
        }
    }
}

/// A page.
#[derive(Debug)]
pub struct Listed {
    /// The payments, newest first; fewer than wanted when too many rows in between did not fit.
    pub payments: Vec<PaymentRow>,
    /// Where the next page begins, if there may be one.
    pub next: Option<After>,
}

/// Reads a page of up to `limit` payments behind `after`.
pub async fn list(
    pool: &MySqlPool,
    of: &Of,
    filters: &Filters,
    after: Option<After>,
    limit: usize,
) -> Result<Listed, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let (places, next) = match (of, after) {
        (Of::Bank, after) => of_bank(&mut connection, filters, after, limit).await?,
        (Of::Account { account, partner }, after) => {
            of_account(&mut connection, *account, *partner, filters, after, limit).await?
        }
        (Of::Partner { .. }, after) => {
            let mut sql = Sql::with_capacity(1_024);
            scan(&mut sql, of, filters, after.as_ref(), SCAN_MAX);
            walked(&mut connection, &sql, limit).await?
        }
    };
    let mut payments = at_places(&mut connection, &places).await?;
    // Places are distinct, and in the order of the list.
    payments.sort_by_key(|row| places.iter().position(|place| *place == row.place));
    Ok(Listed { payments, next })
}

/// Which rows of a scan fit, in its order, up to `limit`; and the last row that was looked at when there may be more.
async fn walked(
    connection: &mut MySqlConnection,
    sql: &Sql,
    limit: usize,
) -> Result<(Vec<Place>, Option<After>), sqlx::Error> {
    let rows = connection.fetch_all(sql.as_str()).await?;
    let (mut places, mut last) = (Vec::with_capacity(limit), None);
    for row in &rows {
        let mut columns = Columns::new(row);
        let at = columns.time()?;
        let place = place(&mut columns)?;
        let fits: i64 = columns.take()?;
        if fits != 0 && places.len() == limit {
            return Ok((places, last));
        }
        last = Some(After::Accepted(at, place));
        if fits != 0 {
            places.push(place);
        }
    }
    Ok((places, last.filter(|_| rows.len() == SCAN_MAX)))
}

fn fits(sql: &mut Sql, filters: &Filters, partner: Option<PartnerId>) {
    sql.text("CAST(1");
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
    if let Some(partner) = partner {
        sql.text(" AND COALESCE(p.partner_id = ").uuid(partner.uuid()).text(", 0)");
    }
    sql.text(" AS SIGNED)");
}

/// Rows of a partner's index behind `after`, each with whether its payment fits.
fn scan(sql: &mut Sql, of: &Of, filters: &Filters, after: Option<&After>, rows_max: usize) {
    let Of::Partner { partner, mandate, reference } = of else { return };
    sql.text(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), p.source, p.kafka_partition, p.kafka_offset, ",
    );
    if let (Some(reference), Some(_)) = (reference, mandate) {
        sql.text("COALESCE(p.reference = ").string(reference).text(", 0) AND ");
    }
    fits(sql, filters, None);
    sql.text(" FROM payments p FORCE INDEX (");
    match (mandate, reference) {
        (Some(mandate), _) => sql.text("payments_of_mandate) WHERE p.mandate_id = ").uuid(mandate.uuid()),
        (None, Some(reference)) => sql.text("payments_of_reference) WHERE p.reference = ").string(reference),
        (None, None) => sql.text("payments_of_partner) WHERE 1 = 1"),
    };
    sql.text(" AND p.partner_id = ").uuid(partner.uuid());
    if let Some(from) = filters.from {
        sql.text(" AND p.accepted_at >= ").datetime(from.civil());
    }
    if let Some(to) = filters.to {
        sql.text(" AND p.accepted_at < ").datetime(to.civil());
    }
    if let Some(After::Accepted(at, place)) = after {
        let at = at.civil();
        // A range of the index first; row constructors would not be seen as one.
        sql.text(" AND p.accepted_at <= ").datetime(at).text(" AND (p.accepted_at < ").datetime(at);
        sql.text(" OR p.source < ").int(place.source.code());
        sql.text(" OR (p.source = ").int(place.source.code());
        sql.text(" AND (p.kafka_partition < ").int(place.partition);
        sql.text(" OR (p.kafka_partition = ").int(place.partition);
        sql.text(" AND p.kafka_offset < ").int(place.offset).text("))))");
    }
    sql.text(
        " ORDER BY p.accepted_at DESC, p.source DESC, p.kafka_partition DESC, p.kafka_offset DESC LIMIT ",
    );
    sql.int(rows_max as u64);
}

/// Entries of an account, each with its payment's place and whether it fits.
async fn of_account(
    connection: &mut MySqlConnection,
    account: AccountId,
    partner: Option<PartnerId>,
    filters: &Filters,
    after: Option<After>,
    limit: usize,
) -> Result<(Vec<Place>, Option<After>), sqlx::Error> {
    let mut below = match (after, filters.to) {
        (Some(After::Version(version)), _) => version,
        (_, Some(to)) => offsets::first_version_at(connection, account, to).await?,
        (_, None) => offsets::last_version(connection, account).await? + 1,
    };
    let from = match filters.from {
        Some(from) => offsets::first_version_at(connection, account, from).await?,
        None => 1,
    };
    let mut sql = Sql::with_capacity(1_024);
    scan_entries(&mut sql, account, partner, filters, from..below);
    let rows = connection.fetch_all(sql.as_str()).await?;
    let mut places = Vec::with_capacity(limit);
    for row in &rows {
        let mut columns = Columns::new(row);
        let version: u64 = columns.take()?;
        let place = place(&mut columns)?;
        if columns.take::<i64>()? != 0 {
            if places.len() == limit {
                return Ok((places, Some(After::Version(below))));
            }
            places.push(place);
        }
        below = version;
    }
    Ok((places, (rows.len() == SCAN_MAX).then_some(After::Version(below))))
}

fn scan_entries(
    sql: &mut Sql,
    account: AccountId,
    partner: Option<PartnerId>,
    filters: &Filters,
    versions: std::ops::Range<u64>,
) {
    sql.text("SELECT STRAIGHT_JOIN e.version, p.source, p.kafka_partition, p.kafka_offset, ");
    fits(sql, filters, partner);
    sql.text(" FROM entries e FORCE INDEX (PRIMARY) JOIN payments p FORCE INDEX (payments_id) ON p.id = e.payment_id ");
    sql.text("WHERE e.account_id = ").uuid(account.uuid());
    sql.text(" AND e.version >= ").int(versions.start).text(" AND e.version < ").int(versions.end);
    sql.text(" ORDER BY e.version DESC LIMIT ").int(SCAN_MAX as u64);
}

/// A row of the bank's list.
struct Seen {
    accepted_at: Timestamp,
    place: Place,
    /// Which partition of `positions`.
    index: usize,
    fits: bool,
}

/// The last rows of every partition, merged by time. Where a partition has more than was read, nothing older than its
/// last row can be told yet.
async fn of_bank(
    connection: &mut MySqlConnection,
    filters: &Filters,
    after: Option<After>,
    limit: usize,
) -> Result<(Vec<Place>, Option<After>), sqlx::Error> {
    let partitions = offsets::applied(connection).await?;
    let mut below = match (after, filters.to) {
        (Some(After::Offsets(offsets)), _) if offsets.len() == partitions.len() => offsets,
        (_, Some(to)) => offsets::first_at(connection, &partitions, to).await?,
        (_, None) => partitions.iter().map(|at| at.next_offset).collect(),
    };
    let all_fit = filters.statuses.is_empty() && filters.kinds.is_empty();
    let read_max = if all_fit { limit + 1 } else { SCAN_PARTITION_MAX };
    let mut sql = Sql::with_capacity(500 * partitions.len());
    scan_partitions(&mut sql, &partitions, filters, &below, read_max);
    if sql.is_empty() {
        return Ok((Vec::new(), None));
    }
    let rows = connection.fetch_all(sql.as_str()).await?;
    let mut seen = rows.iter().map(read_seen).collect::<Result<Vec<_>, _>>()?;
    seen.sort_by_key(|row| Reverse((row.accepted_at, row.place)));
    let mut read = vec![0; partitions.len()];
    for row in &seen {
        if let Some(read) = read.get_mut(row.index) {
            *read += 1;
        }
    }
    let cut: Vec<bool> = read.iter().map(|read| *read == read_max).collect();
    let mut places = Vec::with_capacity(limit);
    for row in seen {
        if filters.from.is_some_and(|from| row.accepted_at < from) {
            // All that follow are older still.
            return Ok((places, None));
        }
        if row.fits && places.len() == limit {
            return Ok((places, Some(After::Offsets(below))));
        }
        if row.fits {
            places.push(row.place);
        }
        let (Some(below_here), Some(left)) = (below.get_mut(row.index), read.get_mut(row.index)) else {
            continue;
        };
        *below_here = row.place.offset;
        *left -= 1;
        if *left == 0 && cut.get(row.index) == Some(&true) {
            return Ok((places, Some(After::Offsets(below))));
        }
    }
    Ok((places, None))
}

fn read_seen(row: &MySqlRow) -> Result<Seen, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(Seen {
        index: columns.take::<u64>()? as usize,
        accepted_at: columns.time()?,
        place: place(&mut columns)?,
        fits: columns.take::<i64>()? != 0,
    })
}

fn scan_partitions(sql: &mut Sql, partitions: &[Applied], filters: &Filters, below: &[u64], read_max: usize) {
    for (index, (at, below)) in partitions.iter().zip(below).enumerate().filter(|(_, (_, below))| **below > 0)
    {
        sql.text(if sql.is_empty() { "(SELECT " } else { " UNION ALL (SELECT " });
        sql.int(index as u64).text(", TIMESTAMPDIFF(MICROSECOND, '1970-01-01', p.accepted_at), p.source, ");
        sql.text("p.kafka_partition, p.kafka_offset, ");
        fits(sql, filters, None);
        sql.text(" FROM payments p FORCE INDEX (PRIMARY) WHERE p.source = ").int(at.source.code());
        sql.text(" AND p.kafka_partition = ").int(at.partition).text(" AND p.kafka_offset < ").int(*below);
        sql.text(" ORDER BY p.kafka_offset DESC LIMIT ").int(read_max as u64).text(")");
    }
}

/// The look-up of a list, explained.
pub async fn explain(pool: &MySqlPool, of: &Of, filters: &Filters) -> Result<Vec<[String; 3]>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut scanned = Sql::new();
    match of {
        Of::Partner { .. } => {
            let place = Place { source: Source::Partner, partition: 0, offset: 5 };
            let after = After::Accepted(Timestamp::from_micros(i64::MAX), place);
            scan(&mut scanned, of, filters, Some(&after), SCAN_MAX);
        }
        Of::Account { account, partner } => scan_entries(&mut scanned, *account, *partner, filters, 1..10),
        Of::Bank => {
            let partitions = offsets::applied(&mut connection).await?;
            let below = vec![10; partitions.len()];
            scan_partitions(&mut scanned, &partitions, filters, &below, SCAN_PARTITION_MAX);
        }
    }
    runtime::mysql::explain(pool, &scanned).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cursor_reads_back_for_its_own_list_alone() {
        let partner = PartnerId::from_uuid(Uuid::from_u128(1));
        let of_partner = Of::Partner { partner, mandate: None, reference: None };
        let of_account = Of::Account { account: AccountId::from_uuid(Uuid::from_u128(2)), partner: None };
        let place = Place { source: Source::Bank, partition: 7, offset: u64::MAX };
        let lists = [
            (&of_partner, After::Accepted(Timestamp::from_micros(5), place)),
            (&of_account, After::Version(17)),
            (&Of::Bank, After::Offsets(vec![0, 5, u64::MAX])),
        ];
        for (of, after) in &lists {
            let bytes = after.encode();
            assert_eq!(After::decode(of, &bytes).as_ref(), Some(after));
            assert_eq!(After::decode(of, &bytes[..bytes.len() - 1]), None);
            assert_eq!(After::decode(of, &[&bytes[..], &[0]].concat()), None);
            let others = lists.iter().filter(|(other, _)| other != of);
            assert!(others.map(|(other, _)| After::decode(other, &bytes)).all(|it| it.is_none()));
        }
        assert_eq!(After::decode(&Of::Bank, &[]), None);
    }
}
