//! Pages of lists: limits and cursors.

use chat_web::Problem;
use chat_web::extract::malformed_parameter;

/// Query parameters that position a page. A link to another page replaces them.
pub(crate) const POSITION_PARAMETERS: &[&str] = &["after", "around", "before", "cursor"];

/// The default and the largest number of items on a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimits {
    pub(crate) default: usize,
    pub(crate) max: usize,
}

impl PageLimits {
    /// Limits of lists.
    pub(crate) const LIST: Self = Self { default: 50, max: 100 };
    /// Limits of search results.
    pub(crate) const SEARCH: Self = Self { default: 20, max: 100 };
    /// Limits of a message's versions.
    pub(crate) const HISTORY: Self = Self { default: 100, max: 100 };

    /// Parses the parameter `limit`.
    pub(crate) fn parse(self, limit: Option<&str>) -> Result<usize, Problem> {
        let Some(limit) = limit else { return Ok(self.default) };
        self.validate(limit.parse().ok())
    }

    /// Checks a `limit` that was parsed; `None` means that it is not a number.
    pub(crate) fn validate(self, limit: Option<i64>) -> Result<usize, Problem> {
        limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=self.max).contains(limit))
            .ok_or_else(|| malformed_parameter("limit", &format!("a number from 1 to {}", self.max)))
    }
}

/// The keyset values after which a page starts. Encoded as opaque text: a letter for the kind of list, then numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<const N: usize> {
    pub(crate) kind: char,
    pub(crate) key: [u64; N],
}

impl<const N: usize> Cursor<N> {
    /// Parses a cursor of this kind of list.
    pub(crate) fn parse(kind: char, text: &str) -> Result<Self, Problem> {
        Self::decode(kind, text).ok_or_else(invalid_cursor)
    }

    fn decode(kind: char, text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix(kind)?.split('-');
        let mut key = [0; N];
        for number in &mut key {
            let digits = numbers.next()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *number = u64::from_str_radix(digits, 16).ok()?;
        }
        numbers.next().is_none().then_some(Self { kind, key })
    }
}

/// Creates the problem for a cursor of another list, or one that this server never issued.
pub(crate) fn invalid_cursor() -> Problem {
    malformed_parameter("cursor", "one that this server issued for this list")
}

impl<const N: usize> std::fmt::Display for Cursor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        for (index, number) in self.key.iter().enumerate() {
            write!(f, "{}{number:x}", if index == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_for_their_own_list_only() {
        let cursor = Cursor { kind: 's', key: [u64::MAX, 0] };
        assert_eq!(Cursor::parse('s', &cursor.to_string()).unwrap(), cursor);
        for wrong in ["", "s", "s1", "s1-", "s1-2-3", "a1-2", "s1-g", "s+1-2", "s1-11111111111111111"] {
            assert!(Cursor::<2>::parse('s', wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn accepts_only_limits_in_range() {
        assert_eq!(PageLimits::LIST.parse(None).unwrap(), 50);
        assert_eq!(PageLimits::LIST.parse(Some("1")).unwrap(), 1);
        assert_eq!(PageLimits::LIST.parse(Some("100")).unwrap(), 100);
        for wrong in ["", "0", "101", "-1", "ten", "99999999999999999999"] {
            let problem = PageLimits::LIST.parse(Some(wrong)).unwrap_err();
            assert_eq!(problem.detail(), "`limit` must be a number from 1 to 100", "{wrong}");
        }
    }
}
