//! The state file: how far each table is verified.
//!
//! One line of JSON (how far each partition and the audit log are read, what was counted, how many records follow), then
//! three sorted lists of records: accounts, partners, single-use mandates. Replaced as a whole after a run that
//! found nothing.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Error,
    audit::AuditProgress,
    sections::{Reader, Writer},
};

const FORMAT: u32 = 3;
/// A longer first line is no state of ours.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// An account: id, version, head, balance.
pub(crate) const ACCOUNT_BYTES: usize = 16 + 8 + 32 + 8;
/// A partner: id, last sequence.
pub(crate) const PARTNER_BYTES: usize = 16 + 8;
/// A single-use mandate and the payment that used it.
pub(crate) const SINGLE_BYTES: usize = 16 + 16;

/// How far one partition is read, and what was counted in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) source: u8,
    pub(crate) partition: u16,
    /// Rows below this offset are verified.
    pub(crate) next_offset: u64,
    /// Payments that moved money.
    pub(crate) posted: u64,
    /// Events that rows refer to.
    pub(crate) told: u64,
    /// Accounts opened.
    pub(crate) opened: u64,
    /// Mandates granted, or ended before that.
    pub(crate) granted: u64,
    /// Holds that began less those that ended.
    pub(crate) held: i64,
    /// Rows of `follow_ups`.
    pub(crate) linked: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    partitions: Vec<Progress>,
    audit: AuditProgress,
    accounts: u64,
    partners: u64,
    singles: u64,
}

/// What an earlier run verified.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) partitions: Vec<Progress>,
    pub(crate) audit: AuditProgress,
    pub(crate) accounts: Reader<ACCOUNT_BYTES>,
    pub(crate) partners: Reader<PARTNER_BYTES>,
    pub(crate) singles: Reader<SINGLE_BYTES>,
    /// Whether there was an earlier run.
    pub(crate) resumed: bool,
}

/// What this run verified.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) partitions: Vec<Progress>,
    pub(crate) audit: AuditProgress,
    pub(crate) accounts: Writer<ACCOUNT_BYTES>,
    pub(crate) partners: Writer<PARTNER_BYTES>,
    pub(crate) singles: Writer<SINGLE_BYTES>,
}

impl Before {
    fn nothing() -> Self {
        Self {
            partitions: Vec::new(),
            audit: AuditProgress::default(),
            accounts: Reader::empty(),
            partners: Reader::empty(),
            singles: Reader::empty(),
            resumed: false,
        }
    }

    /// Reads the state of an earlier run, if there is a file.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::nothing()) };
        match read(path) {
            Ok(before) => Ok(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::nothing()),
            Err(error) => Err(Error::State { path: path.to_owned(), reason: error.to_string() }),
        }
    }
}

fn read(path: &Path) -> io::Result<Before> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let file = File::open(path)?;
    let mut line = Vec::new();
    BufReader::new(io::Read::take(&file, HEADER_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    let header: Header =
        serde_json::from_slice(&line).map_err(|_| invalid("it is no state of `wired verify-ledger`"))?;
    if header.format != FORMAT {
        return Err(invalid("it was written by another version"));
    }
    let accounts_at = line.len() as u64;
    let partners_at = accounts_at + header.accounts.saturating_mul(ACCOUNT_BYTES as u64);
    let singles_at = partners_at + header.partners.saturating_mul(PARTNER_BYTES as u64);
    let end = singles_at + header.singles.saturating_mul(SINGLE_BYTES as u64);
    if file.metadata()?.len() != end {
        return Err(invalid("it is cut off"));
    }
    Ok(Before {
        partitions: header.partitions,
        audit: header.audit,
        accounts: Reader::new(File::open(path)?, accounts_at, header.accounts)?,
        partners: Reader::new(File::open(path)?, partners_at, header.partners)?,
        singles: Reader::new(file, singles_at, header.singles)?,
        resumed: true,
    })
}

impl After {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            partitions: Vec::new(),
            audit: AuditProgress::default(),
            accounts: Writer::new()?,
            partners: Writer::new()?,
            singles: Writer::new()?,
        })
    }

    /// Writes the state in place of the earlier one.
    pub(crate) fn save(self, path: &Path) -> Result<(), Error> {
        self.write(path).map_err(|error| Error::State { path: path.to_owned(), reason: error.to_string() })
    }

    fn write(self, path: &Path) -> io::Result<()> {
        let header = Header {
            format: FORMAT,
            partitions: self.partitions,
            audit: self.audit,
            accounts: self.accounts.records(),
            partners: self.partners.records(),
            singles: self.singles.records(),
        };
        let mut draft = path.to_owned().into_os_string();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        let mut file = BufWriter::new(File::create(&draft)?);
        serde_json::to_writer(&mut file, &header)?;
        file.write_all(b"\n")?;
        self.accounts.copy_to(&mut file)?;
        self.partners.copy_to(&mut file)?;
        self.singles.copy_to(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&draft, path)
    }
}

/// An account as verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VerifiedAccount {
    pub(crate) id: Uuid,
    pub(crate) version: u64,
    pub(crate) head: [u8; 32],
    pub(crate) balance_minor: i64,
}

impl VerifiedAccount {
    pub(crate) fn to_record(self) -> [u8; ACCOUNT_BYTES] {
        let mut record = [0; ACCOUNT_BYTES];
        record[..16].copy_from_slice(self.id.as_bytes());
        record[16..24].copy_from_slice(&self.version.to_be_bytes());
        record[24..56].copy_from_slice(&self.head);
        record[56..].copy_from_slice(&self.balance_minor.to_be_bytes());
        record
    }

    pub(crate) fn from_record(record: &[u8; ACCOUNT_BYTES]) -> Self {
        Self {
            id: Uuid::from_bytes(part(&record[..16])),
            version: u64::from_be_bytes(part(&record[16..24])),
            head: part(&record[24..56]),
            balance_minor: i64::from_be_bytes(part(&record[56..])),
        }
    }
}

/// A part of a record whose length the caller's range fixes.
pub(crate) fn part<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
