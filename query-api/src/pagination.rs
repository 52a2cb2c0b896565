//! Pages of lists: limits, cursors, and `Link`.

use chat_web::{ErrorCode, Problem};
use http::header::LINK;
use http::{HeaderName, HeaderValue, Uri};

/// A parameter that can't be understood.
pub(crate) fn malformed_parameter(parameter: &str, must: &str) -> Problem {
    Problem::new(ErrorCode::MalformedQuery, format!("`{parameter}` must be {must}"))
}

/// How many items a page may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimits {
    /// Where the client asks for none in particular.
    pub(crate) default: usize,
    /// At most.
    pub(crate) max: usize,
}

impl PageLimits {
    /// Of lists.
    pub(crate) const LIST: Self = Self { default: 50, max: 100 };
    /// Of hits.
    pub(crate) const SEARCH: Self = Self { default: 20, max: 100 };
    /// Of a message's versions.
    pub(crate) const HISTORY: Self = Self { default: 100, max: 100 };

    /// Reads `limit`.
    pub(crate) fn parse(self, limit: Option<&str>) -> Result<usize, Problem> {
        let Some(limit) = limit else { return Ok(self.default) };
        self.validate(limit.parse().ok())
    }

    /// Takes `limit` as a number; `None`: it is not one.
    pub(crate) fn validate(self, limit: Option<i64>) -> Result<usize, Problem> {
        limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=self.max).contains(limit))
            .ok_or_else(|| malformed_parameter("limit", &format!("a number from 1 to {}", self.max)))
    }
}

/// Opaque text for the places after which pages start: a letter for the kind of list, and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<const N: usize> {
    pub(crate) kind: char,
    pub(crate) key: [u64; N],
}

impl<const N: usize> Cursor<N> {
    /// Reads a cursor that was given out for this kind of list.
    pub(crate) fn parse(kind: char, text: &str) -> Result<Self, Problem> {
        Self::decode(kind, text)
            .ok_or_else(|| malformed_parameter("cursor", "one that this server gave out for this list"))
    }

    fn decode(kind: char, text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix(kind)?.split('-');
        let mut place = [0; N];
        for number in &mut place {
            let digits = numbers.next()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *number = u64::from_str_radix(digits, 16).ok()?;
        }
        numbers.next().is_none().then_some(Self { kind, key: place })
    }
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

/// Parameters that say where a page starts: a link to another page replaces them and keeps the others.
const PAGE_START_PARAMETERS: &[&str] = &["after", "around", "before", "cursor"];

/// The `Link` header of a page, if there are other pages.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<String>);

impl Links {
    /// Adds the page that starts at `parameter` = `value`.
    pub(crate) fn add(&mut self, uri: &Uri, relation: &str, parameter: &str, value: impl std::fmt::Display) {
        let mut query = String::new();
        for pair in uri.query().unwrap_or_default().split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            if !pair.is_empty() && !PAGE_START_PARAMETERS.contains(&name) {
                query.push_str(pair);
                query.push('&');
            }
        }
        self.0.push(format!("<{}?{query}{parameter}={value}>; rel=\"{relation}\"", uri.path()));
    }

    pub(crate) fn into_header(self) -> Option<[(HeaderName, HeaderValue); 1]> {
        if self.0.is_empty() {
            return None;
        }
        // What came as a URI is a header value too.
        HeaderValue::try_from(self.0.join(", ")).ok().map(|value| [(LINK, value)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(uri: &'static str) -> String {
        let mut links = Links::default();
        links.add(&Uri::from_static(uri), "next", "after", 7);
        let [(_, value)] = links.into_header().unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_link_keeps_the_parameters_that_do_not_say_where_a_page_starts() {
        assert_eq!(link("/a/b"), "</a/b?after=7>; rel=\"next\"");
        assert_eq!(link("/a?limit=2&before=9"), "</a?limit=2&after=7>; rel=\"next\"");
        assert_eq!(link("/a?x=%20&around=1&y&cursor=c"), "</a?x=%20&y&after=7>; rel=\"next\"");
        assert_eq!(link("http://host/a?limit=2"), "</a?limit=2&after=7>; rel=\"next\"");
    }

    #[test]
    fn links_share_a_header_and_without_any_there_is_none() {
        let mut links = Links::default();
        links.add(&Uri::from_static("/a"), "next", "after", 7);
        links.add(&Uri::from_static("/a"), "prev", "before", 3);
        let [(_, value)] = links.into_header().unwrap();
        assert_eq!(value, "</a?after=7>; rel=\"next\", </a?before=3>; rel=\"prev\"");
        assert!(Links::default().into_header().is_none());
    }

    #[test]
    fn a_cursor_reads_back_for_its_own_list_alone() {
        let cursor = Cursor { kind: 's', key: [u64::MAX, 0] };
        assert_eq!(Cursor::parse('s', &cursor.to_string()).unwrap(), cursor);
        for wrong in ["", "s", "s1", "s1-", "s1-2-3", "a1-2", "s1-g", "s+1-2", "s1-11111111111111111"] {
            assert!(Cursor::<2>::parse('s', wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_number_in_its_range() {
        assert_eq!(PageLimits::LIST.parse(None).unwrap(), 50);
        assert_eq!(PageLimits::LIST.parse(Some("1")).unwrap(), 1);
        assert_eq!(PageLimits::LIST.parse(Some("100")).unwrap(), 100);
        for wrong in ["", "0", "101", "-1", "ten", "99999999999999999999"] {
            let problem = PageLimits::LIST.parse(Some(wrong)).unwrap_err();
            assert_eq!(problem.detail(), "`limit` must be a number from 1 to 100", "{wrong}");
        }
    }
}
