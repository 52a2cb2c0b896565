//! Requests of web pages of other origins (CORS).

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ETAG, LINK, LOCATION, ORIGIN, RETRY_AFTER,
    VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use thiserror::Error;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::pagination::{NEXT_CURSOR, PREV_CURSOR};
use crate::path_prefixes::API_PREFIX;
use crate::request_context::X_REQUEST_ID;

/// How long a browser may keep the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The response headers that pages may read, besides those that are always readable.
const EXPOSED_HEADERS: [HeaderName; 14] = [
    HeaderName::from_static("consistency-token"),
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("read-model-lag"),
    HeaderName::from_static("allow"),
    HeaderName::from_static("www-authenticate"),
    ETAG,
    LINK,
    LOCATION,
    NEXT_CURSOR,
    PREV_CURSOR,
    RETRY_AFTER,
    X_REQUEST_ID,
];

/// Header lines of responses to requests that could not be read. Pages of every origin may read such a response,
/// because the request's origin is unknown, and the response contains nothing but the error.
pub(crate) const HEADERS_FOR_ANY_PAGE: &str =
    "access-control-allow-origin: *\r\naccess-control-expose-headers: x-request-id\r\n";

/// The origins whose pages may use the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Pages of every origin.
    Any,
    /// Pages of these origins, such as `https://chat.example`.
    Listed(Arc<[HeaderValue]>),
}

/// The error for text that is not a list of origins.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "origins are comma-separated, without a path: https://chat.example,http://localhost:3000; or * for all"
)]
pub struct InvalidCorsOrigins;

impl FromStr for CorsOrigins {
    type Err = InvalidCorsOrigins;

    fn from_str(text: &str) -> Result<Self, InvalidCorsOrigins> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        text.split(',').map(|origin| parse_origin(origin.trim())).collect::<Result<_, _>>().map(Self::Listed)
    }
}

/// Parses an origin, which has no path. Returns it as browsers send it: in lower case, without a default port.
fn parse_origin(text: &str) -> Result<HeaderValue, InvalidCorsOrigins> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://").ok_or(InvalidCorsOrigins)?;
    let uri: Uri = text.parse().map_err(|_| InvalidCorsOrigins)?;
    let is_origin = matches!(scheme, "http" | "https")
        && !authority.contains(['/', '?', '#', '@', '*'])
        && uri.host().is_some_and(|host| !host.is_empty());
    if !is_origin {
        return Err(InvalidCorsOrigins);
    }
    let default_port = if scheme == "http" { ":80" } else { ":443" };
    let origin = text.strip_suffix(default_port).unwrap_or(&text);
    HeaderValue::from_str(origin).map_err(|_| InvalidCorsOrigins)
}

impl CorsOrigins {
    /// Whether the request is for the API, and comes from a page that may use it.
    pub(crate) fn allows<B>(&self, request: &Request<B>) -> bool {
        let mut origins = request.headers().get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) => self.contains(origin) && is_api_path(request.uri().path()),
            _ => false,
        }
    }

    fn contains(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(origins) => origins.contains(origin),
        }
    }

    /// Returns the headers that let a page read the response to its request, for responses that don't pass through
    /// [`Self::layer`].
    pub(crate) fn response_headers<B>(&self, request: &Request<B>) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([(VARY, HeaderValue::from_static("origin"))]);
        if let (true, Some(origin)) = (self.allows(request), request.headers().get(ORIGIN)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = EXPOSED_HEADERS.each_ref().map(HeaderName::as_str).join(",");
            if let Ok(exposed) = HeaderValue::try_from(exposed) {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
        headers
    }

    /// Returns the layer that answers preflight requests and adds the headers of CORS. On paths outside the API, the
    /// layer allows no origin.
    pub(crate) fn layer(&self) -> CorsLayer {
        let origins = self.clone();
        let is_allowed = move |origin: &HeaderValue, request: &Parts| {
            is_api_path(request.uri.path()) && origins.contains(origin)
        };
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(is_allowed))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED_HEADERS)
            .max_age(MAX_AGE)
    }
}

fn is_api_path(path: &str) -> bool {
    path.strip_prefix(API_PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        let listed = |origins: &[&'static str]| {
            CorsOrigins::Listed(origins.iter().map(|origin| HeaderValue::from_static(origin)).collect())
        };
        for (text, expected) in [
            ("*", CorsOrigins::Any),
            ("https://chat.example", listed(&["https://chat.example"])),
            (
                "https://Chat.Example:443, http://localhost:3000",
                listed(&["https://chat.example", "http://localhost:3000"]),
            ),
            ("http://[::1]:8080", listed(&["http://[::1]:8080"])),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "chat.example",
            "https://",
            "https://chat.example/",
            "https://chat.example/path",
            "https://*.example",
            "https://user@chat.example",
            "ftp://chat.example",
            "https://a.example,,https://b.example",
            "https://a.example,*",
            "null",
        ] {
            assert_eq!(wrong.parse::<CorsOrigins>(), Err(InvalidCorsOrigins), "{wrong}");
        }
    }
}
