//! Money: whole minor units with their currency. No float anywhere, and no arithmetic that can wrap.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

macro_rules! currencies {
    ($($Code:ident $digits:literal,)*) => {
        /// A currency the bank keeps accounts in (ISO 4217).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "UPPERCASE")]
        pub enum Currency { $(#[doc = concat!(stringify!($Code), ", ", stringify!($digits), " digits.")] $Code,)* }

        impl Currency {
            /// Every currency.
            pub const ALL: &[Self] = &[$(Self::$Code,)*];

            /// The three letters of ISO 4217.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$Code => stringify!($Code),)* }
            }

            /// How many digits stand behind the decimal point.
            pub const fn digits(self) -> u32 {
                match self { $(Self::$Code => $digits,)* }
            }
        }
    };
}

currencies! { EUR 2, USD 2, GBP 2, CHF 2, SEK 2, NOK 2, DKK 2, PLN 2, CZK 2, JPY 0, KWD 3, }

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The text names no currency of the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown currency; use one of EUR, USD, GBP, CHF, SEK, NOK, DKK, PLN, CZK, JPY, KWD")]
pub struct UnknownCurrency;

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|currency| currency.code() == text).ok_or(UnknownCurrency)
    }
}

/// Why a text is no amount of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not `[0-9]+` or `[0-9]+.[0-9]+` without superfluous zeros.
    #[error("an amount is a decimal string such as \"12.50\": digits, and a point before the minor units")]
    Malformed,
    /// More or fewer digits behind the point than the currency has.
    #[error("an amount in {currency} has exactly {digits} digits behind the point")]
    WrongDigits {
        /// The currency of the request.
        currency: Currency,
        /// The digits it has.
        digits: u32,
    },
    /// Zero.
    #[error("an amount must be greater than zero")]
    NotPositive,
    /// More than [`Amount::MAX_MINOR`].
    #[error("an amount is at most 1000000000000 minor units")]
    TooLarge,
}

/// A positive sum of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

impl Amount {
    /// The largest single amount, in minor units: a million million, so that nine million of them fit an `i64`.
    pub const MAX_MINOR: i64 = 1_000_000_000_000;

    /// An amount of `minor` units, refused when it is not positive or above [`Self::MAX_MINOR`].
    pub const fn new(minor: i64, currency: Currency) -> Result<Self, AmountError> {
        match minor {
            ..=0 => Err(AmountError::NotPositive),
            1..=Self::MAX_MINOR => Ok(Self { minor, currency }),
            _ => Err(AmountError::TooLarge),
        }
    }

    /// Reads a decimal string with exactly the currency's digits.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, AmountError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let superfluous_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits_only(whole) || superfluous_zero || fraction.is_some_and(|part| !digits_only(part)) {
            return Err(AmountError::Malformed);
        }
        let digits = currency.digits();
        if fraction.map_or(0, str::len) != digits as usize {
            return Err(AmountError::WrongDigits { currency, digits });
        }
        let mut value = Decimal::from_str_exact(text).map_err(|_| AmountError::TooLarge)?;
        value.set_scale(0).map_err(|_| AmountError::TooLarge)?;
        Self::new(i64::try_from(value).map_err(|_| AmountError::TooLarge)?, currency)
    }

    /// Minor units, always positive.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_minor(f, self.minor, self.currency)
    }
}

/// `minor` units as a decimal string with the currency's digits, for sums that may be zero or negative.
pub fn decimal_text(minor: i64, currency: Currency) -> String {
    struct Minor(i64, Currency);
    impl fmt::Display for Minor {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_minor(f, self.0, self.1)
        }
    }
    Minor(minor, currency).to_string()
}

fn write_minor(f: &mut fmt::Formatter<'_>, minor: i64, currency: Currency) -> fmt::Result {
    let unit = 10_u64.pow(currency.digits());
    let sign = if minor < 0 { "-" } else { "" };
    let (whole, rest) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    match currency.digits() as usize {
        0 => write!(f, "{sign}{whole}"),
        digits => write!(f, "{sign}{whole}.{rest:0digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_has_exactly_the_currencys_digits() {
        use AmountError::{Malformed, NotPositive, TooLarge};
        let eur = AmountError::WrongDigits { currency: Currency::EUR, digits: 2 };
        let cases: &[(&str, Result<i64, AmountError>)] = &[
            ("12.50", Ok(1_250)),
            ("0.01", Ok(1)),
            ("10000000000.00", Ok(1_000_000_000_000)),
            ("10000000000.01", Err(TooLarge)),
            ("99999999999999999999999999999999.00", Err(TooLarge)),
            ("12.5", Err(eur)),
            ("12.505", Err(eur)),
            ("12", Err(eur)),
            ("0.00", Err(NotPositive)),
            ("-1.00", Err(Malformed)),
            ("+1.00", Err(Malformed)),
            ("1e3", Err(Malformed)),
            ("NaN", Err(Malformed)),
            ("", Err(Malformed)),
            (".50", Err(Malformed)),
            ("12.", Err(Malformed)),
            ("012.50", Err(Malformed)),
            ("1,000.00", Err(Malformed)),
            ("1_000.00", Err(Malformed)),
            (" 1.00", Err(Malformed)),
            ("１.00", Err(Malformed)),
        ];
        for (text, expected) in cases {
            assert_eq!(Amount::parse(text, Currency::EUR).map(Amount::minor), *expected, "{text:?}");
        }
        assert_eq!(Amount::parse("1250", Currency::JPY).map(Amount::minor), Ok(1_250));
        assert!(Amount::parse("1250.00", Currency::JPY).is_err());
        assert_eq!(Amount::parse("1.250", Currency::KWD).map(Amount::minor), Ok(1_250));
    }

    #[test]
    fn sums_keep_their_sign() {
        assert_eq!(decimal_text(-5, Currency::EUR), "-0.05");
        assert_eq!(decimal_text(0, Currency::JPY), "0");
        assert_eq!(decimal_text(i64::MIN, Currency::EUR), "-92233720368547758.08");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(minor in 1..=Amount::MAX_MINOR, index in 0..Currency::ALL.len()) {
            let amount = Amount::new(minor, Currency::ALL[index]).unwrap();
            prop_assert_eq!(Amount::parse(&amount.to_string(), amount.currency()), Ok(amount));
        }
    }
}
