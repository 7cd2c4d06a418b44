//! Sorted lists on disk of records that begin with a 16-byte key: what a run must remember of every account, partner
//! and single-use mandate without holding it in memory.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// The key of a record.
pub(crate) const KEY_BYTES: usize = 16;

/// Reads a section in order.
#[derive(Debug)]
pub(crate) struct Reader<const N: usize> {
    /// `None` for a section that no run has written.
    source: Option<(BufReader<File>, u64)>,
    /// The record read last and not taken yet.
    ahead: Option<[u8; N]>,
}

impl<const N: usize> Reader<N> {
    pub(crate) const fn empty() -> Self {
        Self { source: None, ahead: None }
    }

    /// `records` records from byte `offset`.
    pub(crate) fn new(mut file: File, offset: u64, records: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { source: Some((BufReader::with_capacity(64 * 1024, file), records)), ahead: None })
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        let Some((reader, left)) = &mut self.source else { return Ok(None) };
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        let mut record = [0; N];
        reader.read_exact(&mut record)?;
        Ok(Some(record))
    }

    /// The next record, to stay the next one.
    pub(crate) fn peek(&mut self) -> io::Result<Option<&[u8; N]>> {
        if self.ahead.is_none() {
            self.ahead = self.next()?;
        }
        Ok(self.ahead.as_ref())
    }

    /// The next record if its key is below `key`; call until `None`, then [`Self::take`].
    pub(crate) fn next_below(&mut self, key: &[u8]) -> io::Result<Option<[u8; N]>> {
        match self.peek()? {
            Some(record) if &record[..KEY_BYTES] < key => self.next(),
            _ => Ok(None),
        }
    }

    /// The next record if its key is `key`.
    pub(crate) fn take(&mut self, key: &[u8]) -> io::Result<Option<[u8; N]>> {
        match self.peek()? {
            Some(record) if &record[..KEY_BYTES] == key => self.next(),
            _ => Ok(None),
        }
    }
}

/// Writes a section in order, into a file of its own that vanishes with it.
#[derive(Debug)]
pub(crate) struct Writer<const N: usize> {
    file: BufWriter<File>,
    records: u64,
}

impl<const N: usize> Writer<N> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(64 * 1024, tempfile::tempfile()?), records: 0 })
    }

    pub(crate) fn push(&mut self, record: &[u8; N]) -> io::Result<()> {
        self.records += 1;
        self.file.write_all(record)
    }

    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// What was written, from its beginning.
    pub(crate) fn into_reader(self) -> io::Result<Reader<N>> {
        let records = self.records;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Reader::new(file, 0, records)
    }

    /// Appends what was written to `target`.
    pub(crate) fn copy_to(self, target: &mut impl Write) -> io::Result<()> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut file, target).map(drop)
    }
}

/// Records that come in any order, kept sorted and each key once: a bounded buffer in memory, merged into a file when
/// it is full.
#[derive(Debug)]
pub(crate) struct SortedSet<const N: usize> {
    stored: Reader<N>,
    buffer: Vec<[u8; N]>,
    buffer_max: usize,
}

impl<const N: usize> SortedSet<N> {
    /// Begins with what is `stored`; holds at most `buffer_max` records in memory.
    pub(crate) fn new(stored: Reader<N>, buffer_max: usize) -> Self {
        Self { stored, buffer: Vec::new(), buffer_max }
    }

    /// Adds a record. When that makes it merge, gives records whose key was there already with another content.
    pub(crate) fn insert(&mut self, record: [u8; N]) -> io::Result<Vec<[u8; N]>> {
        self.buffer.push(record);
        if self.buffer.len() < self.buffer_max { Ok(Vec::new()) } else { self.merge() }
    }

    fn merge(&mut self) -> io::Result<Vec<[u8; N]>> {
        self.buffer.sort_unstable();
        self.buffer.dedup();
        let mut repeated = Vec::new();
        let mut merged = Writer::new()?;
        let mut last: Option<[u8; N]> = None;
        let mut added = std::mem::take(&mut self.buffer).into_iter().peekable();
        loop {
            let record = match (self.stored.peek()?, added.peek()) {
                (Some(old), Some(new)) if old > new => added.next(),
                (Some(_), _) => self.stored.next()?,
                (None, _) => added.next(),
            };
            let Some(record) = record else { break };
            match last {
                Some(before) if before == record => {}
                Some(before) if before[..KEY_BYTES] == record[..KEY_BYTES] => repeated.push(record),
                _ => {
                    merged.push(&record)?;
                    last = Some(record);
                }
            }
        }
        self.stored = merged.into_reader()?;
        Ok(repeated)
    }

    /// Everything in order, and the repeated records of the last merge.
    pub(crate) fn finish(mut self) -> io::Result<(Reader<N>, Vec<[u8; N]>)> {
        let repeated = self.merge()?;
        Ok((self.stored, repeated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u8, value: u8) -> [u8; 17] {
        let mut record = [key; 17];
        record[16] = value;
        record
    }

    #[test]
    fn a_reader_skips_takes_and_ends() {
        let mut writer = Writer::<17>::new().unwrap();
        for key in [1, 3, 5] {
            writer.push(&record(key, key)).unwrap();
        }
        let mut reader = writer.into_reader().unwrap();
        assert_eq!(reader.take(&[1; 16]).unwrap(), Some(record(1, 1)));
        assert_eq!(reader.take(&[2; 16]).unwrap(), None);
        assert_eq!(reader.next_below(&[4; 16]).unwrap(), Some(record(3, 3)));
        assert_eq!(reader.next_below(&[4; 16]).unwrap(), None);
        assert_eq!(reader.next().unwrap(), Some(record(5, 5)));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_repeated_key_is_told_wherever_its_first_record_stands() {
        for buffer_max in [1, 2, 100] {
            let mut set = SortedSet::new(Reader::empty(), buffer_max);
            let mut repeated = Vec::new();
            for (key, value) in [(9, 1), (2, 1), (9, 2), (9, 1), (4, 7), (2, 1)] {
                repeated.extend(set.insert(record(key, value)).unwrap());
            }
            let (mut sorted, last) = set.finish().unwrap();
            repeated.extend(last);
            let keys: Vec<u8> = std::iter::from_fn(|| sorted.next().unwrap()).map(|it| it[0]).collect();
            assert_eq!(keys, [2, 4, 9], "buffer {buffer_max}");
            assert_eq!(repeated.iter().map(|it| it[0]).collect::<Vec<_>>(), [9], "buffer {buffer_max}");
        }
    }
}
