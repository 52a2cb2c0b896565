//! Pagination: `Link` (RFC 8288), `Next-Cursor` and `Prev-Cursor`, the response headers that lead to other pages.

use std::fmt::{self, Write as _};

use http::header::LINK;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// The response header with the `cursor` of the next page.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");

/// The response header with the `cursor` of the previous page.
pub const PREV_CURSOR: HeaderName = HeaderName::from_static("prev-cursor");

/// The relation of a linked page to the page that has the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The next page.
    Next,
    /// The previous page.
    Prev,
}

impl Relation {
    fn link_type(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Prev => "prev",
        }
    }

    fn cursor_header(self) -> HeaderName {
        match self {
            Self::Next => NEXT_CURSOR,
            Self::Prev => PREV_CURSOR,
        }
    }
}

/// Returns the `Next-Cursor` header for a page without a `Link` header.
pub fn next_cursor_header(cursor: impl fmt::Display) -> Option<[(HeaderName, HeaderValue); 1]> {
    // Never fails: cursors consist of letters, digits and hyphens.
    HeaderValue::try_from(cursor.to_string()).ok().map(|value| [(NEXT_CURSOR, value)])
}

/// The links from one page of a list to others. They keep the query string of the request, except the parameters that
/// select which part of the list the page shows.
#[derive(Debug)]
pub struct PageLinks<'a> {
    uri: &'a Uri,
    page_selectors: &'a [&'a str],
    links: Vec<String>,
    headers: HeaderMap,
}

impl<'a> PageLinks<'a> {
    /// Creates the links of the page at `uri`, without any link yet.
    pub fn new(uri: &'a Uri, page_selectors: &'a [&'a str]) -> Self {
        Self { uri, page_selectors, links: Vec::new(), headers: HeaderMap::new() }
    }

    /// Adds a link to the page that `parameter` = `value` selects, and the header with that page's `cursor`.
    pub fn add(
        &mut self,
        relation: Relation,
        parameter: &str,
        value: impl fmt::Display,
        cursor: impl fmt::Display,
    ) {
        let mut query = String::new();
        for pair in self.uri.query().unwrap_or_default().split('&') {
            // A name may be percent-encoded, as in `%61fter=7`.
            let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name);
            if name.is_some_and(|name| !self.page_selectors.contains(&&*name)) {
                push_percent_encoded(&mut query, pair);
                query.push('&');
            }
        }
        let (path, link_type) = (self.uri.path(), relation.link_type());
        self.links.push(format!("<{path}?{query}{parameter}={value}>; rel=\"{link_type}\""));
        // Never fails: cursors consist of letters, digits and hyphens.
        if let Ok(cursor) = HeaderValue::try_from(cursor.to_string()) {
            self.headers.insert(relation.cursor_header(), cursor);
        }
    }

    /// Returns the headers. There are none without links.
    pub fn into_headers(mut self) -> HeaderMap {
        // The characters of a URI are all valid in a header value.
        if let (false, Ok(links)) = (self.links.is_empty(), HeaderValue::try_from(self.links.join(", "))) {
            self.headers.insert(LINK, links);
        }
        self.headers
    }
}

/// Appends a part of a query string, and percent-encodes the characters outside ASCII: clients read headers as ISO
/// 8859-1, and would otherwise follow a different link.
fn push_percent_encoded(query: &mut String, part: &str) {
    for c in part.chars() {
        if c.is_ascii_graphic() {
            query.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string does not fail.
                let _ = write!(query, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_link(uri: &'static str, page_selectors: &[&str], parameter: &str) -> String {
        let uri = Uri::from_static(uri);
        let mut links = PageLinks::new(&uri, page_selectors);
        links.add(Relation::Next, parameter, 7, "n7");
        links.into_headers()[LINK].to_str().unwrap().to_owned()
    }

    #[test]
    fn keeps_all_parameters_except_those_that_position_the_page() {
        let next = |uri| next_link(uri, &["after", "around", "before", "cursor"], "after");
        assert_eq!(next("/a/b"), "</a/b?after=7>; rel=\"next\"");
        assert_eq!(next("/a?limit=2&before=9"), "</a?limit=2&after=7>; rel=\"next\"");
        assert_eq!(next("/a?x=%20&around=1&y&cursor=c"), "</a?x=%20&y&after=7>; rel=\"next\"");
        assert_eq!(next("http://host/a?limit=2"), "</a?limit=2&after=7>; rel=\"next\"");
        assert_eq!(next("/a?%61fter=1&befor%65=2&&limit=2"), "</a?limit=2&after=7>; rel=\"next\"");
    }

    #[test]
    fn percent_encodes_characters_outside_ascii() {
        let uri = Uri::try_from("/a?text=é&limit=2".as_bytes()).unwrap();
        let mut links = PageLinks::new(&uri, &["after"]);
        links.add(Relation::Next, "after", 7, "n7");
        assert_eq!(links.into_headers()[LINK], "</a?text=%C3%A9&limit=2&after=7>; rel=\"next\"");
    }

    #[test]
    fn keeps_a_bound_that_does_not_position_the_page() {
        let next = next_link("/a?type=x&before=9&after=3", &["before"], "before");
        assert_eq!(next, "</a?type=x&after=3&before=7>; rel=\"next\"");
        assert_eq!(next_link("/a", &["after"], "after"), "</a?after=7>; rel=\"next\"");
    }

    #[test]
    fn links_share_one_header_and_each_has_its_cursor() {
        let uri = Uri::from_static("/a");
        let mut links = PageLinks::new(&uri, &[]);
        links.add(Relation::Next, "after", 7, "n7");
        links.add(Relation::Prev, "before", 3, "p3");
        let headers = links.into_headers();
        assert_eq!(headers[LINK], "</a?after=7>; rel=\"next\", </a?before=3>; rel=\"prev\"");
        assert_eq!(
            (&headers[NEXT_CURSOR], &headers[PREV_CURSOR]),
            (&"n7".parse().unwrap(), &"p3".parse().unwrap())
        );
        assert!(PageLinks::new(&uri, &[]).into_headers().is_empty());
    }
}
