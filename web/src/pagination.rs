//! Pagination links: the `Link` header of a page (RFC 8288).

use std::fmt;

use http::header::LINK;
use http::{HeaderName, HeaderValue, Uri};

/// The links from one page of a list to others. They keep the query string of the request, except the parameters that
/// position the page.
#[derive(Debug)]
pub struct PageLinks<'a> {
    uri: &'a Uri,
    position_parameters: &'a [&'a str],
    links: Vec<String>,
}

impl<'a> PageLinks<'a> {
    /// Creates the links of the page at `uri`, without any link yet.
    pub fn new(uri: &'a Uri, position_parameters: &'a [&'a str]) -> Self {
        Self { uri, position_parameters, links: Vec::new() }
    }

    /// Adds a link to the page that starts at `parameter` = `value`.
    pub fn add(&mut self, relation: &str, parameter: &str, value: impl fmt::Display) {
        let mut query = String::new();
        for pair in self.uri.query().unwrap_or_default().split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            if !pair.is_empty() && !self.position_parameters.contains(&name) {
                query.push_str(pair);
                query.push('&');
            }
        }
        self.links.push(format!("<{}?{query}{parameter}={value}>; rel=\"{relation}\"", self.uri.path()));
    }

    /// Returns the header, or `None` without links.
    pub fn into_header(self) -> Option<[(HeaderName, HeaderValue); 1]> {
        if self.links.is_empty() {
            return None;
        }
        // The characters of a URI are all valid in a header value.
        HeaderValue::try_from(self.links.join(", ")).ok().map(|value| [(LINK, value)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_link(uri: &'static str, position_parameters: &[&str], parameter: &str) -> String {
        let uri = Uri::from_static(uri);
        let mut links = PageLinks::new(&uri, position_parameters);
        links.add("next", parameter, 7);
        let [(_, value)] = links.into_header().unwrap();
        value.to_str().unwrap().to_owned()
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
    fn links_share_one_header() {
        let uri = Uri::from_static("/a");
        let mut links = PageLinks::new(&uri, &[]);
        links.add("next", "after", 7);
        links.add("prev", "before", 3);
        let [(_, value)] = links.into_header().unwrap();
        assert_eq!(value, "</a?after=7>; rel=\"next\", </a?before=3>; rel=\"prev\"");
        assert!(PageLinks::new(&uri, &[]).into_header().is_none());
    }
}
