//! Finds commands by time without an index: rows of a partition stand in the order of their offsets, which is the order
//! in which Kafka took and stamped them, so some thirty looks tell where a time begins, whatever the number of rows.
//!
//! All partitions are looked at in the same rounds. A broker's clock that is set back makes a result inexact by as much.

use domain::ids::AccountId;
use domain::time::Timestamp;
use domain::topic::Source;
use runtime::sql::Sql;
use sqlx::{Executor, MySqlConnection};

use super::Columns;

/// More rounds than halving any range of offsets takes.
const ROUNDS_MAX: usize = 70;

/// How far a partition is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: u16,
    /// The first offset that is not applied.
    pub next_offset: u64,
    /// The first offset whose events may not be on their topic.
    pub announced_offset: u64,
}

/// How far each partition is applied.
pub async fn applied(connection: &mut MySqlConnection) -> Result<Vec<Applied>, sqlx::Error> {
    let sql = "SELECT source, kafka_partition, next_offset, announced_offset FROM positions \
               ORDER BY source, kafka_partition";
    let rows = connection.fetch_all(sql).await?;
    let read = |row| {
        let mut columns = Columns::new(row);
        Ok(Applied {
            source: columns.named(Source::from_code)?,
            partition: columns.take()?,
            next_offset: columns.take()?,
            announced_offset: columns.take()?,
        })
    };
    rows.iter().map(read).collect()
}

/// A search in progress: rows below `from` are earlier, rows at `below` and behind are not.
struct Open {
    at: Applied,
    from: u64,
    below: u64,
}

/// For each partition the first offset whose command was accepted at `time` or later.
pub async fn first_at(
    connection: &mut MySqlConnection,
    partitions: &[Applied],
    time: Timestamp,
) -> Result<Vec<u64>, sqlx::Error> {
    let open = |at: &Applied| Open { at: *at, from: 0, below: at.next_offset };
    let mut searches: Vec<Open> = partitions.iter().map(open).collect();
    for _ in 0..ROUNDS_MAX {
        let mut sql = Sql::with_capacity(searches.len() * 320);
        let mut asked = false;
        for (index, search) in searches.iter().enumerate().filter(|(_, it)| it.from < it.below) {
            sql.text(if asked { " UNION ALL (" } else { "(" });
            asked = true;
            sql.text("SELECT ").int(index as u64);
            sql.text(", kafka_offset, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', accepted_at) FROM payments ");
            sql.text("FORCE INDEX (PRIMARY) WHERE source = ").int(search.at.source.code());
            sql.text(" AND kafka_partition = ").int(search.at.partition);
            sql.text(" AND kafka_offset >= ")
                .int(search.middle())
                .text(" AND kafka_offset < ")
                .int(search.below);
            sql.text(" ORDER BY kafka_offset LIMIT 1)");
        }
        if !asked {
            break;
        }
        let rows = connection.fetch_all(sql.as_str()).await?;
        let mut found = vec![None; searches.len()];
        for row in &rows {
            let mut columns = Columns::new(row);
            let index: u64 = columns.take()?;
            let at: (u64, Timestamp) = (columns.take()?, columns.time()?);
            if let Some(found) = found.get_mut(index as usize) {
                *found = Some(at);
            }
        }
        for (search, found) in searches.iter_mut().zip(found) {
            search.take(found, time);
        }
    }
    Ok(searches.into_iter().map(|search| search.below).collect())
}

impl Open {
    const fn middle(&self) -> u64 {
        self.from + (self.below - self.from) / 2
    }

    /// Takes the first row at the middle or behind it.
    fn take(&mut self, found: Option<(u64, Timestamp)>, time: Timestamp) {
        if self.from >= self.below {
            return;
        }
        match found {
            Some((offset, accepted_at)) if accepted_at < time => self.from = offset + 1,
            Some(_) | None => self.below = self.middle(),
        }
    }
}

/// The first version of an account that was entered at `time` or later; one more than the last when there is none.
/// Entries of an account never go back in time.
pub async fn first_version_at(
    connection: &mut MySqlConnection,
    account: AccountId,
    time: Timestamp,
) -> Result<u64, sqlx::Error> {
    let last = last_version(connection, account).await?;
    let (mut from, mut below) = (1, last + 1);
    while from < below {
        let middle = from + (below - from) / 2;
        let mut sql = Sql::new();
        sql.text(
            "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', entered_at) FROM entries WHERE account_id = ",
        );
        sql.uuid(account.uuid()).text(" AND version = ").int(middle);
        let row = connection.fetch_optional(sql.as_str()).await?;
        let entered_at = row.map(|row| Columns::new(&row).time()).transpose()?;
        if entered_at.is_some_and(|entered_at| entered_at < time) {
            from = middle + 1;
        } else {
            below = middle;
        }
    }
    Ok(below)
}

/// How many entries an account has.
pub async fn last_version(connection: &mut MySqlConnection, account: AccountId) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT version FROM accounts WHERE id = ").uuid(account.uuid());
    let row = connection.fetch_optional(sql.as_str()).await?;
    Ok(row.map(|row| Columns::new(&row).take()).transpose()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the rounds on rows with these offsets, each accepted at ten times its offset.
    fn play(offsets: &[u64], next_offset: u64, time: i64) -> (u64, usize) {
        let at = Applied { source: Source::Bank, partition: 0, next_offset, announced_offset: 0 };
        let mut search = Open { at, from: 0, below: next_offset };
        let mut rounds = 0;
        while search.from < search.below {
            let middle = search.middle();
            let found = offsets.iter().copied().find(|offset| (middle..search.below).contains(offset));
            let accepted = |offset: u64| Timestamp::from_micros(offset as i64 * 10);
            search.take(found.map(|offset| (offset, accepted(offset))), Timestamp::from_micros(time));
            rounds += 1;
        }
        (search.below, rounds)
    }

    #[test]
    fn the_first_offset_of_a_time_is_found_whatever_holes_there_are() {
        let all: Vec<u64> = (0..40).collect();
        let holes: Vec<u64> = all.iter().copied().filter(|it| it % 7 == 3 || *it > 30).collect();
        for offsets in [all, holes, vec![], vec![39]] {
            for time in 0..420 {
                let (below, rounds) = play(&offsets, 40, time);
                let earlier = offsets.iter().filter(|it| (**it as i64) * 10 < time).max();
                let first = offsets.iter().find(|it| (**it as i64) * 10 >= time);
                assert!(earlier.is_none_or(|it| *it < below), "{offsets:?} {time}");
                assert!(first.is_none_or(|it| *it >= below), "{offsets:?} {time}");
                assert!(rounds <= 8);
            }
        }
    }
}
