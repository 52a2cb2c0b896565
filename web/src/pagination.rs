//! Pagination links: the headers of a page that lead to others, `Link` (RFC 8288) and `Next-Cursor` and `Prev-Cursor`.

use std::fmt;

use http::header::LINK;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// The response header with the `cursor` of the next page.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");

/// The response header with the `cursor` of the previous page.
pub const PREV_CURSOR: HeaderName = HeaderName::from_static("prev-cursor");

/// The relation of another page to a page.
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

/// Returns the `Next-Cursor` header of a list that has no links.
pub fn next_cursor_header(cursor: &str) -> Option<[(HeaderName, HeaderValue); 1]> {
    // Cursors consist of letters, digits and hyphens.
    HeaderValue::try_from(cursor).ok().map(|value| [(NEXT_CURSOR, value)])
}

/// The links from one page of a list to others. They keep the query string of the request, except the parameters that
/// position the page.
#[derive(Debug)]
pub struct PageLinks<'a> {
    uri: &'a Uri,
    position_parameters: &'a [&'a str],
    links: Vec<String>,
    headers: HeaderMap,
}

impl<'a> PageLinks<'a> {
    /// Creates the links of the page at `uri`, without any link yet.
    pub fn new(uri: &'a Uri, position_parameters: &'a [&'a str]) -> Self {
        Self { uri, position_parameters, links: Vec::new(), headers: HeaderMap::new() }
    }

    /// Adds a link to the page that starts at `parameter` = `value`, and the cursor of the same page.
    pub fn add(
        &mut self,
        relation: Relation,
        parameter: &str,
        value: impl fmt::Display,
        cursor: impl fmt::Display,
    ) {
        let mut query = String::new();
        for pair in self.uri.query().unwrap_or_default().split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            if !pair.is_empty() && !self.position_parameters.contains(&name) {
                query.push_str(pair);
                query.push('&');
            }
        }
        let (path, link_type) = (self.uri.path(), relation.link_type());
        self.links.push(format!("<{path}?{query}{parameter}={value}>; rel=\"{link_type}\""));
        // Cursors consist of letters, digits and hyphens.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn next_link(uri: &'static str, position_parameters: &[&str], parameter: &str) -> String {
        let uri = Uri::from_static(uri);
        let mut links = PageLinks::new(&uri, position_parameters);
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
