//! Checks of a request's head that hyper leaves to the application.

use http::header::{AUTHORIZATION, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Request, Version};

use crate::error_code::ErrorCode;
use crate::problem::Problem;

/// The largest head of a request.
pub(crate) const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The bytes that each header adds to the size of a head in HTTP/2 (RFC 9113, 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;

const CHUNKED: &[u8] = b"chunked";

/// Headers that the routes read and that hold one value, with their names as they are usually written. If one were
/// repeated, a route and a proxy in front of it could read different values.
const SINGLE_HEADERS: [(HeaderName, &str); 3] = [
    (AUTHORIZATION, "Authorization"),
    (CONTENT_TYPE, "Content-Type"),
    (HeaderName::from_static("last-event-id"), "Last-Event-ID"),
];

/// Refuses headers that may occur only once and are given more than once. `Host` and `Idempotency-Key` have checks of
/// their own.
pub(crate) fn check_single_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let repeated =
        SINGLE_HEADERS.into_iter().find(|(header, _)| headers.get_all(header).iter().nth(1).is_some());
    match repeated {
        None => Ok(()),
        Some((_, name)) => {
            let detail = format!("the header `{name}` is given more than once");
            Err(Problem::new(ErrorCode::MalformedHeader, detail))
        }
    }
}

/// Refuses a request in HTTP/2 whose head exceeds [`MAX_HEAD_BYTES`]. The connection accepts larger heads, so that the
/// refusal has a problem document. With HTTP/1, hyper itself refuses a larger head while it reads.
pub(crate) fn check_head_size<B>(request: &Request<B>) -> Result<(), Problem> {
    if request.version() != Version::HTTP_2 {
        return Ok(());
    }
    let target_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter();
    let header_bytes = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES);
    if target_bytes + header_bytes.sum::<usize>() <= MAX_HEAD_BYTES {
        Ok(())
    } else {
        Err(ErrorCode::HeadTooLarge.into())
    }
}

/// Refuses transfer codings other than `chunked`. hyper decodes only the last coding of a body, so a handler would read
/// a body that is still encoded.
pub(crate) fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    const NAME: HeaderName = TRANSFER_ENCODING;
    let mut codings =
        headers.get_all(NAME).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let (first, second) = (codings.next(), codings.next());
    if first.is_none_or(|coding| coding.trim_ascii().eq_ignore_ascii_case(CHUNKED)) && second.is_none() {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::MalformedRequest,
        "`Transfer-Encoding` may only be `chunked`; a compressed body is declared with `Content-Encoding: gzip`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunked_is_accepted() {
        let is_accepted = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRANSFER_ENCODING, http::HeaderValue::from_static(value));
            }
            check_transfer_coding(&headers).is_ok()
        };
        for accepted in [&[][..], &["chunked"], &[" Chunked "]] {
            assert!(is_accepted(accepted), "{accepted:?}");
        }
        for refused in [
            &["gzip, chunked"][..],
            &["gzip,chunked"],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &["identity"],
            &["chunked;q=1"],
            &[""],
        ] {
            assert!(!is_accepted(refused), "{refused:?}");
        }
    }
}
