//! Compression of responses: gzip, Brotli or Zstandard, as `Accept-Encoding` says.

use std::convert::Infallible;
use std::future::ready;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::Compression;
use tower_http::compression::predicate::Predicate;

/// The length of the shortest body that is compressed. Shorter ones fit into one or two packets anyway.
const MIN_BYTES: u64 = 1_024;

/// The compression level. With it, a page of 50 messages (11 KB) takes about 0.1 ms and becomes a third as long, with
/// each algorithm. Twice the time would save 3 % more.
const LEVEL: CompressionLevel = CompressionLevel::Precise(3);

/// The codings that `*` may stand for, the most common one first.
const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// Returns the request's `Accept-Encoding` headers. `*` is replaced by the first of [`CODINGS`] that the headers don't
/// name, because tower-http's compression ignores `*`.
pub(crate) fn accepted_encodings(headers: &HeaderMap) -> Vec<HeaderValue> {
    let values: Vec<HeaderValue> = headers.get_all(ACCEPT_ENCODING).iter().cloned().collect();
    if !values.iter().any(|value| value.as_bytes().contains(&b'*')) {
        return values;
    }
    let codings = || values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let name = |coding: &str| coding.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let unnamed = CODINGS.iter().find(|candidate| !codings().any(|coding| name(coding) == **candidate));
    let replaced = codings().filter_map(|coding| match (&*name(coding), unnamed) {
        ("*", Some(unnamed)) => HeaderValue::try_from(coding.replacen('*', unnamed, 1)).ok(),
        _ => HeaderValue::try_from(coding).ok(),
    });
    replaced.collect()
}

/// Compresses a response that `IsCompressible` selects, if the client accepts an encoding. Otherwise leaves the body as
/// it is.
pub(crate) async fn compress(mut response: Response, accepted: Vec<HeaderValue>) -> Response {
    if !IsCompressible.should_compress(&response) {
        return response;
    }
    if accepted.is_empty() {
        response.headers_mut().append(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
        return response;
    }
    // Boxed, so that the futures of requests that compress nothing stay small. A future is copied when it is created.
    Box::pin(compress_body(response, accepted)).await
}

/// Passes a response through tower-http's compression, as if a service had returned it.
async fn compress_body(response: Response, accepted: Vec<HeaderValue>) -> Response {
    let mut request = Request::new(());
    for encoding in accepted {
        request.headers_mut().append(ACCEPT_ENCODING, encoding);
    }
    let mut response = Some(response);
    let inner = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let compression = Compression::new(inner).quality(LEVEL).compress_when(IsCompressible);
    let Ok(response) = compression.oneshot(request).await;
    let (head, body) = response.into_parts();
    if !head.headers.contains_key(CONTENT_ENCODING) {
        return Response::from_parts(head, Body::new(body));
    }
    // The whole body is compressed now, so that its memory is counted as for other responses, and its length is known.
    match body.collect().await {
        Ok(compressed) => Response::from_parts(head, Body::from(compressed.to_bytes())),
        Err(error) => Response::from_parts(
            head,
            Body::from_stream(futures::stream::once(ready(Err::<bytes::Bytes, _>(error)))),
        ),
    }
}

/// Selects text responses of a known length of at least [`MIN_BYTES`] that have no `ETag` and no `Content-Encoding`.
/// Streams are sent as they come.
#[derive(Clone, Copy)]
struct IsCompressible;

impl Predicate for IsCompressible {
    fn should_compress<B: HttpBody>(&self, response: &http::Response<B>) -> bool {
        let headers = response.headers();
        let is_text = headers.get(CONTENT_TYPE).is_some_and(|value| {
            let essence =
                value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            essence.starts_with(b"text/") || essence.ends_with(b"json") || essence == b"image/svg+xml"
        });
        let is_long = response.body().size_hint().exact().is_some_and(|bytes| bytes >= MIN_BYTES);
        // A strong `ETag` names the exact bytes, and clients send it back in `If-Match`.
        is_text && is_long && !headers.contains_key(ETAG) && !headers.contains_key(CONTENT_ENCODING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(content_type: &'static str, bytes: usize) -> Response {
        let mut response = Response::new(Body::from("text ".repeat(bytes / 5)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    async fn encoding(response: Response, accepted: &[&'static str]) -> Option<String> {
        let values = accepted.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
        let response = compress(response, accepted_encodings(&values.collect())).await;
        response.headers().get(CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn takes_the_encoding_that_the_client_prefers() {
        for (accepted, expected) in [
            (&["gzip"][..], Some("gzip")),
            (&["gzip, deflate, br"], Some("br")),
            (&["gzip, deflate, br, zstd"], Some("zstd")),
            (&["br;q=0.1, gzip;q=0.5"], Some("gzip")),
            (&["gzip;q=0"], None),
            (&["gzip;q=0", "br"], Some("br")),
            (&["identity"], None),
            (&["deflate"], None),
            (&["*"], Some("gzip")),
            (&["identity;q=0, *"], Some("gzip")),
            (&["gzip;q=0, *"], Some("br")),
            (&["gzip;q=0, br;q=0 , *;q=0.5"], Some("zstd")),
            (&["br;q=0.2", "*;q=0.1"], Some("br")),
            (&["br;q=0.1, *;q=0.2"], Some("gzip")),
            (&["gzip, *;q=0"], Some("gzip")),
            (&["*;q=0"], None),
            (&["*;q=0.0"], None),
            (&[""], None),
            (&[], None),
        ] {
            let actual = encoding(response("application/json", 5_000), accepted).await;
            assert_eq!(actual.as_deref(), expected, "{accepted:?}");
        }
    }

    #[tokio::test]
    async fn small_binary_streamed_and_versioned_responses_are_sent_as_they_are() {
        let mut with_etag = response("application/json", 5_000);
        with_etag.headers_mut().insert(ETAG, HeaderValue::from_static("\"1\""));
        let stream = Body::from_stream(futures::stream::pending::<Result<String, Infallible>>());
        let mut events = Response::new(stream);
        events.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        for response in [response("application/json", 1_000), response("image/png", 5_000), with_etag, events]
        {
            let content_type = response.headers()[CONTENT_TYPE].clone();
            assert_eq!(encoding(response, &["gzip"]).await, None, "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn the_length_of_a_compressed_response_is_known() {
        let compressed =
            compress(response("application/json", 50_000), vec![HeaderValue::from_static("gzip")]).await;
        assert_eq!(compressed.headers()[VARY], "accept-encoding");
        let bytes = compressed.body().size_hint().exact().unwrap();
        assert!(bytes < 1_000, "{bytes}");
    }
}
