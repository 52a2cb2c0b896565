//! Request headers: preconditions, idempotency keys, hosts, trace contexts. The first byte of a case chooses the route,
//! each line after it is a header.

use axum::body::Body;
use http::header::{ETAG, HOST};
use http::{HeaderName, HeaderValue, Method, Request};

use crate::server::{app_path, send};

/// Checks that a 304 answers only an `If-None-Match` with the resource's tag or `*`, and a 412 only a precondition.
/// Checks that a request with several hosts is refused.
pub fn check(case: &[u8]) {
    let Some((route, lines)) = case.split_first() else { return };
    let (method, path, body) = match route {
        b'0' => (Method::GET, app_path("/chats/1/messages/6"), ""),
        b'1' => (Method::GET, app_path(""), ""),
        b'2' => (Method::PUT, app_path("/chats/1/messages/6"), r#"{"body":"x"}"#),
        b'3' => (Method::POST, app_path("/chats/1/messages"), r#"{"body":"x"}"#),
        b'4' => (Method::POST, app_path("/chats"), ""),
        b'5' => (Method::GET, "/admin/v1/audit/tail".to_owned(), ""),
        _ => return,
    };
    let mut request = Request::builder().method(method).uri(&path);
    let mut sent = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        // These two can make a request wait. The target `consistency_tokens` checks them.
        if !matches!(name.as_str(), "prefer" | "consistency-token") {
            sent.push((name.clone(), value.clone()));
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(Body::from(body)) else { return };
    let answer = send(request);
    if answer.status == 304 {
        let tag = answer.headers[ETAG].to_str().expect("a tag");
        let matches_tag =
            |value: &HeaderValue| value.as_bytes() == b"*" || contains(value.as_bytes(), tag.as_bytes());
        assert!(
            sent.iter().any(|(name, value)| name == "if-none-match" && matches_tag(value)),
            "304 for {sent:?}"
        );
    }
    if answer.status == 412 {
        let is_precondition = |name: &HeaderName| matches!(name.as_str(), "if-match" | "if-none-match");
        assert!(sent.iter().any(|(name, _)| is_precondition(name)), "412 for {sent:?}");
    }
    if sent.iter().filter(|(name, _)| *name == HOST).count() > 1 {
        assert_eq!(answer.code(), "host_invalid", "{sent:?}");
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
