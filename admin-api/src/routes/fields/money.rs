//! Money and ids as requests have them: every field is read as text first, so that one answer names all that have to
//! change, in the words of the partner API.

use std::str::FromStr;

use domain::money::{Amount, Currency, decimal_text};

use super::Fields;

impl Fields {
    /// An id; `what` begins the sentence about its form.
    pub fn id<T: FromStr>(&mut self, pointer: &str, text: &str, what: &str, prefix: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let detail = format!("{what} begins with `{prefix}_` and has 26 more characters");
            self.refuse(pointer, "invalid_id", detail);
        }
        parsed
    }

    /// An account's id.
    pub fn account(&mut self, pointer: &str, text: &str) -> Option<domain::ids::AccountId> {
        self.id(pointer, text, "an account's id", "acct")
    }

    /// A currency.
    pub fn currency(&mut self, text: &str) -> Option<Currency> {
        let parsed: Result<Currency, _> = text.parse();
        if let Err(error) = &parsed {
            self.refuse("/currency", "unknown_currency", error.to_string());
        }
        parsed.ok()
    }

    /// `amount` in `currency`. Without a currency the digits cannot be judged; its own fault is listed already.
    pub fn amount(&mut self, amount: &str, currency: &str) -> Option<Amount> {
        let currency = self.currency(currency);
        self.amount_in("/amount", amount, currency?)
    }

    fn amount_in(&mut self, pointer: &str, amount: &str, currency: Currency) -> Option<Amount> {
        let parsed = Amount::parse(amount, currency);
        if let Err(error) = &parsed {
            self.refuse(pointer, "invalid_amount", error.to_string());
        }
        parsed.ok()
    }

    /// `amount` and `currency`, both or neither.
    pub fn part(&mut self, amount: Option<&str>, currency: Option<&str>) -> Option<Amount> {
        match (amount, currency) {
            (Some(amount), Some(currency)) => self.amount(amount, currency),
            (None, None) => None,
            (None, Some(_)) => {
                self.refuse("/amount", "missing", "`amount` and `currency` come together");
                None
            }
            (Some(_), None) => {
                self.refuse("/currency", "missing", "`amount` and `currency` come together");
                None
            }
        }
    }

    /// A limit, which may be zero, in minor units.
    pub fn limit(&mut self, pointer: &str, text: &str, currency: Currency) -> Option<i64> {
        if text == decimal_text(0, currency) {
            return Some(0);
        }
        self.amount_in(pointer, text, currency).map(Amount::minor)
    }

    /// One line that may be left out.
    pub fn optional_line(&mut self, pointer: &str, text: Option<&str>, chars_max: usize) -> Option<String> {
        text.map(|text| self.line(pointer, text, chars_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_with_money_is_told_at_once() {
        let mut fields = Fields::default();
        fields.account("/account", "usr_01k9q5m3v7f8h9j0kamcneprqs");
        fields.amount("1.5", "EUR");
        fields.amount("1.50", "XXX");
        fields.part(Some("1.00"), None);
        fields.part(None, Some("EUR"));
        assert_eq!(fields.limit("/overdraft", "-1.00", Currency::EUR), None);
        fields.optional_line("/reference", Some(&"x".repeat(101)), 100);
        let told: Vec<_> = fields.errors.iter().map(|it| format!("{} {}", it.pointer, it.code)).collect();
        assert_eq!(
            told,
            [
                "/account invalid_id",
                "/amount invalid_amount",
                "/currency unknown_currency",
                "/currency missing",
                "/amount missing",
                "/overdraft invalid_amount",
                "/reference too_long"
            ]
        );
        let mut fields = Fields::default();
        assert_eq!(fields.limit("/overdraft", "0.00", Currency::EUR), Some(0));
        assert_eq!(fields.part(None, None), None);
        assert!(fields.done().is_ok());
    }
}
