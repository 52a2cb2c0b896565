//! The framing of request bodies in HTTP/1.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, HeaderName};

use crate::error_code::ErrorCode;
use crate::problem::Problem;

const CHUNKED: &[u8] = b"chunked";

/// Refuses transfer codings other than `chunked`. hyper only removes the last one, so that a handler would read a body that
/// is still encoded.
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
