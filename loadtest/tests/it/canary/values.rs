//! What was planted, in every form in which it might leak.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Shorter forms would be found by chance.
const BYTES_MIN: usize = 8;

/// Planted values: what they are, and a form in lower case.
#[derive(Default)]
pub(super) struct Values(BTreeSet<(&'static str, String)>);

impl Values {
    /// A text.
    pub(super) fn plant(&mut self, what: &'static str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.form(what, value);
        self.form(what, &percent_encoded(value));
        self.form(what, &value.replace(' ', "+"));
        self.form(what, &value.replace(' ', ""));
        self.bytes(what, value.as_bytes());
    }

    /// Bytes that are shown in base64.
    pub(super) fn plant_base64(&mut self, what: &'static str, value: &str) {
        self.plant(what, value);
        self.bytes(what, &STANDARD.decode(value).expect("base64"));
    }

    /// Bytes that are shown in base32.
    pub(super) fn plant_base32(&mut self, what: &'static str, value: &str) {
        self.plant(what, value);
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u64, 0);
        for digit in value.chars() {
            let digit = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(digit).expect("base32");
            (bits, count) = (bits << 5 | digit as u64, count + 5);
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
        self.bytes(what, &bytes);
    }

    fn bytes(&mut self, what: &'static str, bytes: &[u8]) {
        self.form(what, &hex(bytes));
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            self.form(what, &engine.encode(bytes));
        }
    }

    fn form(&mut self, what: &'static str, form: &str) {
        assert!(form.len() >= BYTES_MIN, "a form of the {what} is too short to be searched for");
        self.0.insert((what, form.to_lowercase()));
    }

    pub(super) fn forms(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(what, form)| (*what, form.as_str()))
    }
}

/// As a query writes it.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
