//! Takes the newest row of several streams, one after the other, and says where to go on.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::MySqlPool;

use super::filter::{Filter, SLACK_S};
use super::plan::{Stream, plan};
use super::{Item, store};
use crate::problem::{Code, Problem};

/// Rows that are looked at for one page of an answer.
pub const ROWS_MAX: u64 = 10_000;
/// Rows of the first read of a stream; each further one reads twice as many.
const ROWS_FIRST: u32 = 25;
/// Rows of one read: with every stream at this, some 10 MiB.
const ROWS_READ_MAX: u32 = 500;
/// A longer cursor is none of ours.
const CURSOR_BYTES_MAX: usize = 4_096;

/// Where a row stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// Its time in microseconds, for streams in the order of time.
    #[serde(rename = "t")]
    pub(super) at: i64,
    /// Its id, offset, or topic, partition and offset. As text, since JSON has no such numbers.
    #[serde(rename = "p", with = "text")]
    pub(super) place: u128,
}

mod text {
    use serde::{Deserialize as _, de::Error as _};

    pub(super) fn serialize<S: serde::Serializer>(place: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(place)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How far a stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    /// From its newest row on.
    #[serde(rename = "n")]
    Newest,
    /// Behind this row.
    #[serde(rename = "b")]
    Behind(Key),
    /// To its end, or to what is too old.
    #[serde(rename = "e")]
    End,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// Of the filter, so that it goes with no other.
    f: String,
    s: Vec<At>,
}

struct Reader {
    stream: Stream,
    /// Behind the last row that was taken.
    taken: At,
    /// Behind the last row that was read.
    read: At,
    ahead: VecDeque<(Key, Item)>,
    rows: u32,
}

/// All streams of a filter.
pub struct Merge {
    filter: Filter,
    readers: Vec<Reader>,
    rows: u64,
}

impl Merge {
    /// Begins at the newest row, or behind a cursor.
    pub async fn new(pool: &MySqlPool, filter: Filter, cursor: Option<&str>) -> Result<Self, Problem> {
        let streams = plan(pool, &filter).await?;
        let invalid = || Problem::plain(Code::InvalidCursor);
        let places = match cursor {
            None => vec![At::Newest; streams.len()],
            Some(text) => {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|it| it.len() <= CURSOR_BYTES_MAX);
                let read = bytes.and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok());
                let read = read.filter(|it| it.f == print(&filter, &streams) && it.s.len() == streams.len());
                read.ok_or_else(invalid)?.s
            }
        };
        let mut readers = Vec::with_capacity(streams.len());
        for (stream, at) in streams.into_iter().zip(places) {
            let at = match (at, filter.to) {
                (At::Newest, Some(to)) => match store::before(pool, &stream, to.plus_seconds(SLACK_S)).await?
                {
                    Some(key) => At::Behind(key),
                    None => At::Newest,
                },
                (at, _) => at,
            };
            readers.push(Reader { stream, taken: at, read: at, ahead: VecDeque::new(), rows: ROWS_FIRST });
        }
        Ok(Self { filter, readers, rows: 0 })
    }

    /// The next item that the filter lets through; `None` at the end, or when `rows_max` rows were looked at.
    pub async fn next(&mut self, pool: &MySqlPool, rows_max: u64) -> Result<Option<Item>, sqlx::Error> {
        while self.rows < rows_max {
            let Some(item) = self.newest(pool).await? else { return Ok(None) };
            self.rows += 1;
            if self.filter.lets(&item) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Where the next page begins; nothing at the end.
    pub fn cursor(&self) -> Option<String> {
        if self.readers.iter().all(|reader| reader.taken == At::End) {
            return None;
        }
        let streams: Vec<Stream> = self.readers.iter().map(|reader| reader.stream.clone()).collect();
        let places = self.readers.iter().map(|reader| reader.taken).collect();
        let cursor = Cursor { f: print(&self.filter, &streams), s: places };
        serde_json::to_vec(&cursor).ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }

    async fn newest(&mut self, pool: &MySqlPool) -> Result<Option<Item>, sqlx::Error> {
        for reader in &mut self.readers {
            reader.fill(pool, self.filter.from).await?;
        }
        // Of the same time, the later stream: its rows are not older.
        let newest = self.readers.iter_mut().filter(|reader| !reader.ahead.is_empty());
        let newest = newest.max_by_key(|reader| reader.ahead.front().map(|(_, item)| item.at));
        let Some(reader) = newest else { return Ok(None) };
        let Some((key, item)) = reader.ahead.pop_front() else { return Ok(None) };
        reader.taken = At::Behind(key);
        reader.settle();
        Ok(Some(item))
    }
}

impl Reader {
    /// Reads ahead when nothing is.
    async fn fill(&mut self, pool: &MySqlPool, from: Option<Timestamp>) -> Result<(), sqlx::Error> {
        if !self.ahead.is_empty() || self.read == At::End {
            return Ok(());
        }
        let below = match self.read {
            At::Behind(key) => Some(key),
            At::Newest | At::End => None,
        };
        let page = store::page(pool, &self.stream, below, self.rows).await?;
        let is_last = page.len() < self.rows as usize;
        self.rows = (self.rows * 2).min(ROWS_READ_MAX);
        self.read = page.last().map_or(At::End, |(key, _)| At::Behind(*key));
        if self.taken == At::Newest {
            // What comes from now on is newer than this look at everything, and belongs to no later page of it.
            self.taken =
                page.first().map_or(At::End, |(key, _)| At::Behind(Key { place: key.place + 1, ..*key }));
        }
        self.ahead = page.into();
        let oldest = from.map(|from| from.plus_seconds(-SLACK_S));
        if let Some(first) =
            oldest.and_then(|oldest| self.ahead.iter().position(|(_, item)| item.at < oldest))
        {
            self.ahead.truncate(first);
            self.read = At::End;
        } else if is_last {
            self.read = At::End;
        }
        self.settle();
        Ok(())
    }

    /// What is read and taken to its end is at its end.
    fn settle(&mut self) {
        if self.ahead.is_empty() && self.read == At::End {
            self.taken = At::End;
        }
    }
}

/// A short digest of what a cursor belongs to.
fn print(filter: &Filter, streams: &[Stream]) -> String {
    let digest = Sha256::digest(format!("{filter:?} {streams:?}"));
    URL_SAFE_NO_PAD.encode(&digest[..9])
}
