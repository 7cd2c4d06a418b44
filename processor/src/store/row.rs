//! Reads columns of hot statements, whose types this crate's own SQL fixes.
//!
//! Columns are read unchecked, since the driver takes text under a binary collation for bytes; what cannot be
//! read is a schema that does not fit this program.

use domain::time::Timestamp;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use uuid::Uuid;

use super::error::StoreError;

/// A column of a row.
pub trait Columns {
    /// A whole number.
    fn int(&self, index: usize) -> Result<i64, StoreError>;
    /// A whole number or NULL.
    fn opt_int(&self, index: usize) -> Result<Option<i64>, StoreError>;
    /// A whole number of a smaller type.
    fn small<T: TryFrom<i64>>(&self, index: usize) -> Result<T, StoreError> {
        T::try_from(self.int(index)?).map_err(|_| unreadable(index))
    }
    /// Bytes.
    fn bytes(&self, index: usize) -> Result<&[u8], StoreError>;
    /// Bytes or NULL.
    fn opt_bytes(&self, index: usize) -> Result<Option<&[u8]>, StoreError>;
    /// Text.
    fn string(&self, index: usize) -> Result<&str, StoreError> {
        std::str::from_utf8(self.bytes(index)?).map_err(|_| unreadable(index))
    }
    /// An id.
    fn uuid(&self, index: usize) -> Result<Uuid, StoreError> {
        Uuid::from_slice(self.bytes(index)?).map_err(|_| unreadable(index))
    }
    /// An id or NULL.
    fn opt_uuid(&self, index: usize) -> Result<Option<Uuid>, StoreError> {
        let bytes = self.opt_bytes(index)?;
        bytes.map(Uuid::from_slice).transpose().map_err(|_| unreadable(index))
    }
    /// Text or NULL.
    fn opt_string(&self, index: usize) -> Result<Option<String>, StoreError> {
        let text = self.opt_bytes(index)?.map(std::str::from_utf8).transpose();
        Ok(text.map_err(|_| unreadable(index))?.map(str::to_owned))
    }
    /// Microseconds since 1970, as `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', …)` says them.
    fn time(&self, index: usize) -> Result<Timestamp, StoreError> {
        self.int(index).map(Timestamp::from_micros)
    }
    /// A value of a closed set by its stored number.
    fn code<T>(&self, index: usize, from_code: impl Fn(u8) -> Option<T>) -> Result<T, StoreError> {
        from_code(self.small(index)?).ok_or_else(|| unreadable(index))
    }
}

impl Columns for MySqlRow {
    fn int(&self, index: usize) -> Result<i64, StoreError> {
        self.try_get_unchecked(index).map_err(StoreError::from)
    }

    fn opt_int(&self, index: usize) -> Result<Option<i64>, StoreError> {
        self.try_get_unchecked(index).map_err(StoreError::from)
    }

    fn bytes(&self, index: usize) -> Result<&[u8], StoreError> {
        self.try_get_unchecked(index).map_err(StoreError::from)
    }

    fn opt_bytes(&self, index: usize) -> Result<Option<&[u8]>, StoreError> {
        self.try_get_unchecked(index).map_err(StoreError::from)
    }
}

/// The column holds what no program of ours writes.
pub fn unreadable(index: usize) -> StoreError {
    StoreError::Fatal(format!(
        "column {index} holds what this program does not know; the schema does not fit"
    ))
}
