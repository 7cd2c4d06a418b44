//! The one encoder of literal SQL, for statements too long and too hot to bind.
//!
//! **Nothing can be injected:** what comes from outside leaves as decimal digits, `NULL` or hexadecimal digits, and
//! nothing else; SQL text itself can only be `&'static str`. The value `x' OR 1=1` becomes `_utf8mb4 0x7827…`.
//! Strings are told to be utf8mb4 and take the collation of the column that they meet.
//!
//! It does not know tables, quote names or check lengths: a value too long for its column is an error of MySQL's.

use std::fmt::Write as _;

use uuid::Uuid;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A text of SQL under construction.
#[derive(Debug, Clone, Default)]
pub struct Sql(String);

impl Sql {
    /// An empty text.
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// An empty text with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Fixed SQL.
    pub fn text(&mut self, text: &'static str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// A whole number.
    pub fn int(&mut self, value: impl Into<i128>) -> &mut Self {
        let value = value.into();
        // Nearly all are small; formatting an i128 takes several times as long.
        let written = match i64::try_from(value) {
            Ok(small) => write!(self.0, "{small}"),
            Err(_) => write!(self.0, "{value}"),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        self
    }

    /// A whole number or NULL.
    pub fn opt_int(&mut self, value: Option<impl Into<i128>>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    /// Bytes, as `0x…`.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        if value.is_empty() {
            return self.text("''");
        }
        self.0.reserve(2 + 2 * value.len());
        self.0.push_str("0x");
        for byte in value {
            self.0.push(char::from(HEX[usize::from(byte >> 4)]));
            self.0.push(char::from(HEX[usize::from(byte & 15)]));
        }
        self
    }

    /// Bytes or NULL.
    pub fn opt_bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            Some(value) => self.bytes(value),
            None => self.null(),
        }
    }

    /// The 16 bytes of an id.
    pub fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// The 16 bytes of an id, or NULL.
    pub fn opt_uuid(&mut self, value: Option<Uuid>) -> &mut Self {
        match value {
            Some(value) => self.uuid(value),
            None => self.null(),
        }
    }

    /// Characters, as `_utf8mb4 0x…`.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.text("_utf8mb4 ").bytes(value.as_bytes())
    }

    /// Characters or NULL.
    pub fn opt_string(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.string(value),
            None => self.null(),
        }
    }

    /// Year, month, day, hour, minute, second and microsecond, as the number `yyyymmddhhmmss.ffffff`, which is exact.
    pub fn datetime(&mut self, [year, month, day, hour, minute, second, micro]: [i64; 7]) -> &mut Self {
        let written = write!(self.0, "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}.{micro:06}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        self
    }

    /// A time or NULL.
    pub fn opt_datetime(&mut self, value: Option<[i64; 7]>) -> &mut Self {
        match value {
            Some(value) => self.datetime(value),
            None => self.null(),
        }
    }

    /// `NULL`.
    pub fn null(&mut self) -> &mut Self {
        self.text("NULL")
    }

    /// What `write` writes for each item, with commas between. Writes nothing for no items: `IN ()` is no SQL, so
    /// the caller leaves such a statement out.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            write(self, item);
        }
        self
    }

    /// Another text, which obeys the same rules.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes of the text, to stay below `max_allowed_packet`.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins anew and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests;
