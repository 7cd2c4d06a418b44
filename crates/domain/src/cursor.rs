//! Cursors of lists: the place of the last item shown, opaque to clients.
//!
//! Rows that arrive meanwhile neither shift nor double anything. A cursor is authenticated together with its scope (the
//! list, whose it is, and how it is filtered): one of another list, with other filters, or invented, is none.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::secret::HmacKey;

const MAC_BYTES: usize = 12;

/// What makes and reads the cursors of one list as one client filters it.
#[derive(Debug)]
pub struct Cursors<'a> {
    key: &'a HmacKey,
    scope: String,
}

impl<'a> Cursors<'a> {
    /// `filters` is anything that differs when what is listed differs; `of` is whose list it is.
    pub fn new(
        key: &'a HmacKey,
        list: &'static str,
        of: &dyn std::fmt::Display,
        filters: &dyn std::fmt::Debug,
    ) -> Self {
        Self { key, scope: format!("cursor {list} {of} {filters:?}") }
    }

    /// The cursor of a place.
    pub fn encode(&self, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([place, &self.mac(place)].concat())
    }

    /// The place of a cursor, when it is one of this list.
    pub fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (place, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        bool::from(self.mac(place).ct_eq(mac)).then(|| place.to_vec())
    }

    fn mac(&self, place: &[u8]) -> [u8; MAC_BYTES] {
        let mac = self.key.mac(&[self.scope.as_bytes(), &[0], place]);
        let mut cut = [0; MAC_BYTES];
        cut.copy_from_slice(&mac[..MAC_BYTES]);
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_serves_its_list_its_owner_and_its_filters_alone() {
        let key = HmacKey::new(&[7; 32]).unwrap();
        let cursors = |list, of, filters: u8| Cursors::new(&key, list, &of, &("a", filters)).encode(&[1, 2]);
        let own = cursors("things", 1, 1);
        let reads = |text: &str| Cursors::new(&key, "things", &1, &("a", 1_u8)).decode(text);
        assert_eq!(reads(&own), Some(vec![1, 2]));
        for other in [cursors("others", 1, 1), cursors("things", 2, 1), cursors("things", 1, 2)] {
            assert_eq!(reads(&other), None);
        }
        for text in ["", "x", "AAAA", &own[1..], "ü", &format!("{own}A")] {
            assert_eq!(reads(text), None, "{text}");
        }
    }
}
