//! Cursors: the position of a page in a list, as opaque text.

use std::fmt::{self, Write as _};

use crate::error_code::ErrorCode;
use crate::extract::malformed_parameter;
use crate::problem::Problem;

/// The list that a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListId {
    kind: char,
    /// A hash of the parameters that the pages of the list have in common.
    tag: u32,
}

impl ListId {
    /// Creates the id of a list from the letter of its kind and the parameters that all its pages have in common, such
    /// as app, chat and query.
    pub fn new(kind: char, scope: fmt::Arguments<'_>) -> Self {
        let mut hash = Fnv1a::default();
        // Hashing does not fail.
        let _ = hash.write_fmt(scope);
        Self { kind, tag: hash.0 }
    }

    /// Returns the id of the list that this one becomes with a further parameter. A parameter without a value leaves
    /// the id as it is, so a list keeps its id when a later version adds a parameter.
    #[must_use]
    pub fn with_parameter(self, name: &str, value: Option<&str>) -> Self {
        let Some(value) = value else { return self };
        let mut hash = Fnv1a(self.tag);
        // Without the length, a value could look like a shorter value and the parameter after it.
        let _ = write!(hash, "&{name}={}:{value}", value.len());
        Self { tag: hash.0, ..self }
    }
}

/// The hash function FNV-1a with 32 bits: the same in all processes and versions. It detects mistakes, not forgery.
struct Fnv1a(u32);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl fmt::Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        Ok(())
    }
}

/// The keyset values that position a page. Encoded as the letter of the list's kind, followed by the values and
/// the list's tag in hexadecimal digits, separated by hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor<const N: usize> {
    /// The list.
    pub list: ListId,
    /// The keyset values.
    pub key: [u64; N],
}

impl<const N: usize> Cursor<N> {
    /// Parses a cursor of this list. Cursors of version 0.1 have no tag, so they are accepted for any list of their
    /// kind.
    pub fn parse(list: ListId, text: &str) -> Result<Self, Problem> {
        let (key, tag) = Self::decode(list.kind, text).ok_or_else(invalid_cursor)?;
        if tag.is_some_and(|tag| tag != u64::from(list.tag)) {
            return Err(Problem::new(
                ErrorCode::MalformedQuery,
                "`cursor` belongs to another list: send it with the path and the parameters of the request that returned it",
            ));
        }
        Ok(Self { list, key })
    }

    /// Returns the keyset values, and the tag if the text has one.
    fn decode(kind: char, text: &str) -> Option<([u64; N], Option<u64>)> {
        let mut numbers = text.strip_prefix(kind)?.split('-').map(parse_hex);
        let mut key = [0; N];
        for number in &mut key {
            *number = numbers.next()??;
        }
        let tag = match numbers.next() {
            Some(tag) => Some(tag?),
            None => None,
        };
        numbers.next().is_none().then_some((key, tag))
    }
}

fn parse_hex(digits: &str) -> Option<u64> {
    // The parser of the standard library takes signs too.
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Creates the problem for a cursor that belongs to another kind of list, or that this server never issued.
pub fn invalid_cursor() -> Problem {
    malformed_parameter("cursor", "one that this server issued for this list")
}

impl<const N: usize> fmt::Display for Cursor<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.list.kind)?;
        for number in self.key {
            write!(f, "{number:x}-")?;
        }
        write!(f, "{:x}", self.list.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: char, scope: &str) -> ListId {
        ListId::new(kind, format_args!("{scope}"))
    }

    #[test]
    fn cursors_round_trip_for_their_own_list_only() {
        let own = list('s', "app 1");
        let cursor = Cursor { list: own, key: [u64::MAX, 0] };
        assert_eq!(Cursor::parse(own, &cursor.to_string()).unwrap(), cursor);
        for other in [list('s', "app 2"), list('s', "")] {
            let problem = Cursor::<2>::parse(other, &cursor.to_string()).unwrap_err();
            assert!(problem.detail().starts_with("`cursor` belongs to another list"), "{}", problem.detail());
        }
        for (kind, text) in [('a', cursor.to_string()), ('s', cursor.to_string() + "-1")] {
            let problem = Cursor::<2>::parse(list(kind, "app 1"), &text).unwrap_err();
            assert_eq!(problem.detail(), "`cursor` must be one that this server issued for this list");
        }
        for wrong in
            ["", "s", "s1", "s1-", "s1-2-3-4", "a1-2", "s1-g", "s+1-2", "s1-11111111111111111", "s1-2-"]
        {
            assert!(Cursor::<2>::parse(own, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_present_parameters_and_their_exact_values_tell_lists_apart() {
        let all = list('s', "app 1");
        assert_eq!(all.with_parameter("sender", None), all);
        let one = all.with_parameter("sender", Some("u"));
        let ids = [all, one, all.with_parameter("query", Some("u")), one.with_parameter("query", Some("x"))];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "{index}");
        }
        for (sender, query) in [("u&query=1:x", None), ("", Some("u")), ("u&query", Some("1:x"))] {
            assert_ne!(
                all.with_parameter("sender", Some(sender)).with_parameter("query", query),
                ids[3],
                "{sender}"
            );
        }
    }

    #[test]
    fn cursors_stay_the_same_across_versions() {
        let cursor = Cursor { list: list('c', "app 1"), key: [255] };
        assert_eq!(cursor.to_string(), "cff-643b604f");
        let of_sender = Cursor { list: cursor.list.with_parameter("sender", Some("u")), ..cursor };
        assert_eq!(of_sender.to_string(), "cff-9da4b29");
        // As version 0.1 issued them.
        assert_eq!(Cursor::parse(cursor.list, "cff").unwrap(), cursor);
    }
}
