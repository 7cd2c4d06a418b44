//! Lists: `{data, next}`, newest first, a page at a time.
//!
//! Cursors are [`domain::cursor`]'s; one of another list, with other filters, or invented, is refused rather than answered
//! with something unexpected.

use domain::cursor;
use domain::ids::PartnerId;
use domain::secret::HmacKey;
use serde::Serialize;

use crate::problem::Problem;
use crate::query::{Query, invalid_cursor};

/// Items of a page, unless another number is asked for.
const LIMIT_DEFAULT: u64 = 50;
/// The most that can be asked for: bounds a statement and an answer.
const LIMIT_MAX: u64 = 200;

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// The cursor of the next page; `null` at the end.
    pub next: Option<String>,
}

/// Which page of which list is asked for.
#[derive(Debug)]
pub struct Wanted {
    /// Items of the page.
    pub limit: usize,
    /// The place of the last item that was shown, as [`Cursors::page`] was given it.
    pub after: Option<Vec<u8>>,
}

/// What makes and reads the cursors of one list as one partner filters it.
pub struct Cursors<'a>(cursor::Cursors<'a>);

impl<'a> Cursors<'a> {
    /// `filters` is anything that differs when what is listed differs.
    pub fn new(
        key: &'a HmacKey,
        list: &'static str,
        partner: PartnerId,
        filters: &impl std::fmt::Debug,
    ) -> Self {
        Self(cursor::Cursors::new(key, list, &partner, filters))
    }

    /// Reads a cursor. The parameters `limit` and `cursor` were taken by [`limit_and_cursor`].
    pub fn wanted(&self, (limit, cursor): (usize, Option<String>)) -> Result<Wanted, Problem> {
        let after = cursor.map(|text| self.0.decode(&text).ok_or_else(refused)).transpose()?;
        Ok(Wanted { limit, after })
    }

    /// The page of up to `limit` items, of which one more was read when there is a next page; `place` tells where an
    /// item stands.
    pub fn page<T>(&self, mut data: Vec<T>, limit: usize, place: impl Fn(&T) -> Vec<u8>) -> Page<T> {
        let more = data.len() > limit;
        data.truncate(limit);
        let next = data.last().filter(|_| more).map(|last| self.encode(&place(last)));
        Page { data, next }
    }

    /// The cursor of a place, for lists whose next page may begin elsewhere than behind the last item.
    pub fn encode(&self, place: &[u8]) -> String {
        self.0.encode(place)
    }
}

fn refused() -> Problem {
    invalid_cursor("the cursor is not one of this list with these filters; use `next` as it was answered")
}

/// Takes the parameters that every list has.
pub fn limit_and_cursor(query: &mut Query<'_>) -> (usize, Option<String>) {
    let limit = query.integer("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let cursor = query.text("cursor").map(std::borrow::Cow::into_owned);
    (usize::try_from(limit).unwrap_or_default(), cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn key() -> HmacKey {
        HmacKey::new(&[7; 32]).unwrap()
    }

    fn partner(number: u128) -> PartnerId {
        PartnerId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn the_next_page_begins_behind_the_last_item_shown() {
        let key = key();
        let cursors = Cursors::new(&key, "things", partner(1), &"filters");
        let place = |item: &u8| vec![*item];
        let page = cursors.page(vec![9, 8, 7], 2, place);
        assert_eq!(page.data, [9, 8]);
        let wanted = cursors.wanted((2, page.next)).unwrap();
        assert_eq!(wanted.after, Some(vec![8]));
        assert_eq!(cursors.page(vec![7], 2, place).next, None);
        assert_eq!(cursors.page(vec![7, 6], 2, place).next, None);
    }
}
