//! What people type: read field by field, so that one answer names all that have to change.

mod money;

use std::borrow::Cow;

use crate::password;
use crate::personal::Email;
use crate::problem::{FieldError, Problem};

/// Characters of a name, in whatever script.
pub const NAME_CHARS_MAX: usize = 100;
const PHONE_CHARS_MAX: usize = 30;
const ADDRESS_CHARS_MAX: usize = 300;
const REASON_CHARS: std::ops::RangeInclusive<usize> = 5..=300;

/// Collects what is wrong.
#[derive(Default)]
pub struct Fields {
    errors: Vec<FieldError>,
}

impl Fields {
    /// One more thing that is wrong.
    pub fn refuse(
        &mut self,
        pointer: &str,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.errors.push(FieldError {
            pointer: pointer.to_owned(),
            code: code.into(),
            detail: detail.into(),
        });
    }

    /// Everything was right, or what was not.
    pub fn done(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// An e-mail address.
    pub fn email(&mut self, text: &str) -> Option<Email> {
        self.email_at("/email", text)
    }

    /// An e-mail address in this field.
    pub fn email_at(&mut self, pointer: &str, text: &str) -> Option<Email> {
        match Email::parse(text) {
            Ok(email) => Some(email),
            Err(why) => {
                self.refuse(pointer, "invalid_email", why);
                None
            }
        }
    }

    /// A password to set.
    pub fn new_password(&mut self, pointer: &str, password: &str, email: &str) {
        if let Some((code, detail)) = password::refusal(password, email) {
            self.refuse(pointer, code, detail);
        }
    }

    /// A name in any script.
    pub fn name(&mut self, name: &str) -> String {
        self.name_at("/name", name)
    }

    /// A name in this field.
    pub fn name_at(&mut self, pointer: &str, name: &str) -> String {
        self.line(pointer, name, NAME_CHARS_MAX)
    }

    /// A telephone number; an empty one is none.
    pub fn phone(&mut self, phone: &str) -> Option<String> {
        let phone = phone.trim();
        let is_number = phone.chars().all(|it| it.is_ascii_digit() || "+-/() ".contains(it));
        if !is_number || phone.chars().count() > PHONE_CHARS_MAX {
            self.refuse(
                "/phone",
                "invalid_phone",
                "a telephone number has at most 30 digits, spaces and + - / ( )",
            );
        }
        (!phone.is_empty()).then(|| phone.to_owned())
    }

    /// A postal address of one or more lines; an empty one is none.
    pub fn address(&mut self, address: &str) -> Option<String> {
        let address = address.trim().replace("\r\n", "\n");
        if address.chars().any(|it| it.is_control() && it != '\n')
            || address.chars().count() > ADDRESS_CHARS_MAX
        {
            self.refuse(
                "/address",
                "invalid_text",
                "at most 300 characters, no control characters but line ends",
            );
        }
        (!address.is_empty()).then_some(address)
    }

    /// Why staff do something.
    pub fn reason(&mut self, reason: &str) -> String {
        let reason = self.line("/reason", reason, *REASON_CHARS.end());
        if !reason.is_empty() && reason.chars().count() < *REASON_CHARS.start() {
            self.refuse("/reason", "too_short", "say why in 5 to 300 characters");
        }
        reason
    }

    fn line(&mut self, pointer: &str, text: &str, chars_max: usize) -> String {
        let text = text.trim();
        if text.is_empty() {
            self.refuse(pointer, "missing", "must not be empty");
        } else if text.chars().count() > chars_max {
            self.refuse(pointer, "too_long", format!("at most {chars_max} characters"));
        } else if text.chars().any(is_invisible) {
            self.refuse(pointer, "invalid_text", "no control characters and no marks that turn text around");
        }
        text.to_owned()
    }
}

/// Control characters, and those that make a text read otherwise than it is.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(read: impl FnOnce(&mut Fields)) -> Vec<String> {
        let mut fields = Fields::default();
        read(&mut fields);
        fields.errors.into_iter().map(|it| format!("{} {}", it.pointer, it.code)).collect()
    }

    #[test]
    fn names_in_every_script_and_nothing_hidden() {
        for good in ["Ω", "Анна Ивановна", "محمد", "山田 太郎", "O’Neil-Žák", "न्यूटन", &"ä".repeat(100)]
        {
            assert_eq!(refused(|it| drop(it.name(good))), Vec::<String>::new(), "{good}");
        }
        for (bad, code) in [
            ("", "missing"),
            (" \t ", "missing"),
            ("a\u{0}b", "invalid_text"),
            ("a\nb", "invalid_text"),
            ("\u{202e}evil", "invalid_text"),
            (&"ä".repeat(101), "too_long"),
        ] {
            assert_eq!(refused(|it| drop(it.name(bad))), [format!("/name {code}")], "{bad:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let errors = refused(|it| {
            it.email("x");
            it.name("");
            it.phone("call me");
            it.address("a\u{7}");
            it.reason("no");
            it.new_password("/password", "short", "");
        });
        assert_eq!(
            errors,
            [
                "/email invalid_email",
                "/name missing",
                "/phone invalid_phone",
                "/address invalid_text",
                "/reason too_short",
                "/password too_short"
            ]
        );
    }
}
