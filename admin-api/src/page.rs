//! A page of a list: how many rows, behind which one, and the cursor of the next page.
//!
//! Cursors hold the place of the last row shown and serve one list alone, as one owner filters it.

use std::fmt::{Debug, Display};

use domain::cursor::Cursors;

use crate::app::App;
use crate::cursor;
use crate::problem::{Code, Problem};

/// The pages of one list.
pub struct Pages<'a> {
    cursors: Cursors<'a>,
    limit: usize,
    /// The place behind which the page begins.
    pub after: Option<Vec<u8>>,
}

impl<'a> Pages<'a> {
    /// `list` with these filters, `of` whom it is; `limit` and `cursor` as they were sent.
    pub fn new(
        app: &'a App,
        list: &'static str,
        of: &dyn Display,
        filters: &dyn Debug,
        (limit, cursor): (Option<u32>, Option<&str>),
    ) -> Result<Self, Problem> {
        let cursors = app.personal.cursors(list, of, filters);
        let decode = |text| cursors.decode(text).ok_or_else(|| Problem::plain(Code::InvalidCursor));
        let after = cursor.map(decode).transpose()?;
        Ok(Self { limit: cursor::limit(limit)? as usize, cursors, after })
    }

    /// The place of an id.
    pub fn below<T>(&self, read: impl Fn(uuid::Uuid) -> T) -> Result<Option<T>, Problem> {
        let read = |place: &Vec<u8>| uuid::Uuid::from_slice(place).map(&read);
        self.after.as_ref().map(read).transpose().map_err(|_| Problem::plain(Code::InvalidCursor))
    }

    /// Rows to read: one more than are shown tells whether there is another page.
    pub const fn rows_max(&self) -> usize {
        self.limit + 1
    }

    /// Leaves what is shown in `rows`, and gives the cursor of the next page.
    pub fn cut<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> Vec<u8>) -> Option<String> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.last().filter(|_| more).map(|last| self.cursors.encode(&place(last)))
    }
}
