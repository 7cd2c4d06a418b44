//! Closed sets that are a word in JSON and a small number in the database.

/// Declares an enum whose variants have a stable number (stored) and a stable word (shown).
macro_rules! codes {
    ($(#[$doc:meta])* $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $code:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $Name { $($(#[$variant_doc])* #[serde(rename = $word)] $Variant,)* }

        impl $Name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)*];

            /// The number in the database; never reused.
            pub const fn code(self) -> u8 {
                match self { $(Self::$Variant => $code,)* }
            }

            /// The value of a stored number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$Variant),)* _ => None }
            }

            /// The word in JSON, metrics and messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word,)* }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $Name {
            type Err = crate::codes::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($word => Ok(Self::$Variant),)* _ => Err(crate::codes::UnknownWord) }
            }
        }
    };
}

pub(crate) use codes;

/// The text is none of the set's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;
