//! The numbers of chats and messages: 1, 2, 3 … in the order of creation, never reused.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The error for text or a value that is not a chat's or message's number.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a number is a whole number from 1 to {}", i64::MAX)]
pub struct InvalidNumber;

macro_rules! define_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The first number.
            pub const FIRST: Self = Self(NonZeroU64::MIN);

            /// Parses a number from a path segment: decimal digits without a sign or leading zeros.
            pub fn parse(text: &str) -> Result<Self, InvalidNumber> {
                if !text.starts_with(|first: char| matches!(first, '1'..='9')) {
                    return Err(InvalidNumber);
                }
                text.parse::<u64>().map_err(|_| InvalidNumber)?.try_into()
            }

            /// The number as an integer, 1 or more.
            pub fn get(self) -> u64 {
                self.0.get()
            }

            /// The number that follows `last`, or the first number if `last` is `None`.
            pub fn next_after(last: Option<Self>) -> Self {
                last.map_or(Self::FIRST, |last| Self(last.0.saturating_add(1)))
            }
        }

        impl TryFrom<u64> for $name {
            type Error = InvalidNumber;

            fn try_from(value: u64) -> Result<Self, InvalidNumber> {
                // SQL's integers are signed.
                if value > i64::MAX as u64 {
                    return Err(InvalidNumber);
                }
                NonZeroU64::new(value).map(Self).ok_or(InvalidNumber)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> u64 {
                number.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

define_number! {
    /// The number of a chat in its app.
    ChatNumber
}
define_number! {
    /// The number of a message in its chat.
    MessageNumber
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_canonical_decimal_numbers() {
        assert_eq!(ChatNumber::parse("17").map(ChatNumber::get), Ok(17));
        for wrong in
            ["", "0", "-1", "+1", "01", "1.0", " 1", "1a", "9223372036854775808", "99999999999999999999"]
        {
            assert_eq!(ChatNumber::parse(wrong), Err(InvalidNumber), "{wrong}");
        }
    }

    #[test]
    fn numbers_start_at_one_and_rise_by_one() {
        let first = MessageNumber::next_after(None);
        assert_eq!(first.get(), 1);
        assert_eq!(MessageNumber::next_after(Some(first)).get(), 2);
    }
}
