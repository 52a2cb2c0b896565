//! The `Link` header to the next page.

use std::fmt;

use http::header::LINK;
use http::{HeaderName, HeaderValue, Uri};

/// The header with the requested URI, in which `parameter` is replaced by `value`.
pub(crate) fn next_page_header(
    uri: &Uri,
    parameter: &str,
    value: impl fmt::Display,
) -> Option<[(HeaderName, HeaderValue); 1]> {
    let mut query = String::new();
    for pair in uri.query().unwrap_or_default().split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        if !pair.is_empty() && name != parameter {
            query.push_str(pair);
            query.push('&');
        }
    }
    let link = format!("<{}?{query}{parameter}={value}>; rel=\"next\"", uri.path());
    // A valid URI is a valid header value, too.
    HeaderValue::try_from(link).ok().map(|value| [(LINK, value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_the_page_parameter() {
        let uri = Uri::from_static("/a?type=x&before=9&after=3");
        let [(_, value)] = next_page_header(&uri, "before", 7).expect("a header");
        assert_eq!(value, "</a?type=x&after=3&before=7>; rel=\"next\"");
        let [(_, value)] = next_page_header(&Uri::from_static("/a"), "after", 7).expect("a header");
        assert_eq!(value, "</a?after=7>; rel=\"next\"");
    }
}
