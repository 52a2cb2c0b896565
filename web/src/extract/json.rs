//! JSON bodies.

use axum::body::HttpBody as _;
use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::error_code::ErrorCode;
use crate::problem::Problem;
use crate::request_body::read_body;

/// A body that is a JSON object, with `Content-Type: application/json` or `application/…+json`. For a page of another
/// site, a browser sends such a body only after a preflight request.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

/// A body whose content means nothing to the route: empty, or any JSON with the content type of [`JsonBody`]. The JSON
/// is kept for the fingerprint of an idempotency key, without insignificant white space.
#[derive(Clone, Debug)]
pub struct OptionalJsonBody(pub Vec<u8>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        // Without a body there is no type to declare; the missing body is reported instead.
        if !request.body().is_end_stream() {
            check_content_type(request.headers())?;
        }
        Ok(Self(parse_object(&read_body(request).await?)?))
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let content_type = check_content_type(request.headers());
        let body = read_body(request).await?;
        if body.trim_ascii().is_empty() {
            // Clients often send a content type with an empty body, so the type is ignored.
            return Ok(Self(Vec::new()));
        }
        content_type?;
        check_json(&body)?;
        Ok(Self(minify_json(&body)))
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let subtype = essence
        .split_once('/')
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("application"))
        .map_or("", |(_, subtype)| subtype);
    let is_json = subtype.eq_ignore_ascii_case("json")
        || subtype.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"));
    if is_json { Ok(()) } else { Err(ErrorCode::UnsupportedMediaType.into()) }
}

/// Parses a body that must be an object with the fields of `T`.
fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = parse_text(body)?;
    let is_object = text.trim_ascii_start().starts_with('{');
    match serde_json::from_str(text) {
        Ok(value) if is_object => check_surrogates(text).map(|()| value),
        // serde also deserializes a struct from an array, which is `Ok` but not an object.
        Ok(_) | Err(_) => {
            // serde's error does not tell whether the body is JSON: it reports a field of another type before it has
            // read the rest of the body, and it reports a number out of range as a syntax error.
            check_json(body)?;
            Err(Problem::new(
                ErrorCode::BodyInvalid,
                if is_object {
                    describe_mismatch::<T>(text)
                } else {
                    "the body must be a JSON object".to_owned()
                },
            ))
        }
    }
}

fn check_json(body: &[u8]) -> Result<(), Problem> {
    let text = parse_text(body)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed_json(&error))?;
    check_surrogates(text)
}

/// Checks that a body is UTF-8. serde does not check strings that it ignores.
fn parse_text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let place = describe_place(body, error.valid_up_to());
        Problem::new(ErrorCode::MalformedJson, format!("not UTF-8 at {place}")).caused_by(error)
    })
}

/// Refuses half a surrogate pair in the strings of a JSON document, also in those that serde ignores.
fn check_surrogates(json: &str) -> Result<(), Problem> {
    match find_lone_surrogate(json) {
        None => Ok(()),
        Some(start) => {
            let place = describe_place(json.as_bytes(), start);
            Err(Problem::new(ErrorCode::MalformedJson, format!("half a surrogate pair at {place}")))
        }
    }
}

/// Returns where the first escape of half a surrogate pair starts.
fn find_lone_surrogate(json: &str) -> Option<usize> {
    let mut position = 0;
    loop {
        // In JSON, a backslash occurs only in strings, before one or more ASCII characters.
        let start = position + json.get(position..)?.find('\\')?;
        // Skips the escape, or both escapes of a surrogate pair.
        position = start
            + match escaped_code_unit(json, start) {
                None => 2,
                Some(0xD800..=0xDBFF)
                    if matches!(escaped_code_unit(json, start + 6), Some(0xDC00..=0xDFFF)) =>
                {
                    12
                }
                Some(0xD800..=0xDFFF) => return Some(start),
                Some(_) => 6,
            };
    }
}

/// Returns the code unit of the escape at `start`: `\u` and four hexadecimal digits.
fn escaped_code_unit(json: &str, start: usize) -> Option<u16> {
    let digits = json.get(start..)?.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Describes a place in a body as serde does: both numbers count from 1, columns count bytes.
fn describe_place(body: &[u8], offset: usize) -> String {
    let before = body.get(..offset).unwrap_or(body);
    let mut lines = before.split(|byte| *byte == b'\n').rev();
    let column = lines.next().map_or(0, <[u8]>::len) + 1;
    format!("line {}, column {column}", lines.count() + 1)
}

/// Removes white space outside of strings.
fn minify_json(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let mut is_significant = |byte: u8| {
        let significant = in_string || !byte.is_ascii_whitespace();
        if byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && byte == b'\\' && !escaped;
        significant
    };
    json.iter().copied().filter(|byte| is_significant(*byte)).collect()
}

/// Creates the problem for a body that is not JSON. The problem names the place and does not quote the body.
fn malformed_json(error: &serde_json::Error) -> Problem {
    // Columns count from 1; the parser has 0 right after a line break.
    let (line, column) = (error.line(), error.column().max(1));
    let detail = match error.classify() {
        Category::Eof if line <= 1 && error.column() == 0 => "the body is empty, JSON is needed".to_owned(),
        Category::Eof => format!("the JSON ends too early, at line {line}, column {column}"),
        Category::Syntax | Category::Io | Category::Data => {
            format!("not JSON at line {line}, column {column}")
        }
    };
    Problem::new(ErrorCode::MalformedJson, detail)
}

/// Names the first field of a JSON object that keeps it from being a `T`, and what `T` expects there. Does not quote
/// the body.
fn describe_mismatch<T: DeserializeOwned>(body: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) else {
        return ErrorCode::BodyInvalid.default_detail().to_owned();
    };
    // The path consists of names of fields of `T`, so it does not quote the body, unless `T` is a map.
    let (path, message) = (error.path().to_string(), error.inner().to_string());
    if let Some(field) = name_after(&message, "missing field `") {
        return match path.as_str() {
            "." => format!("the field `{field}` is missing"),
            parent => format!("the field `{parent}.{field}` is missing"),
        };
    }
    if let Some(field) = name_after(&message, "duplicate field `") {
        return format!("the field `{field}` is given more than once");
    }
    if message.starts_with("number out of range") {
        return format!("`{path}` is a number that is out of range");
    }
    // serde's message first quotes the value, which may contain `, expected ` itself. The expected type follows the
    // last occurrence. It does not come from the body.
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    let expected = expected.map(|expected| expected.split(" at line ").next().unwrap_or(expected));
    match expected {
        Some(expected) => format!("`{path}` must be {}", json_type(expected)),
        None => format!("`{path}` is not of the expected type"),
    }
}

/// Returns the name that follows `prefix` in serde's message.
fn name_after<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.split_once('`').map(|(name, _)| name)
}

/// Returns the JSON type that serde calls `expected`.
fn json_type(expected: &str) -> &str {
    match expected {
        "i64" | "i32" => "a whole number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number from 0 up",
        "f64" | "a JSON number" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        name if name.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use serde::Deserialize;

    use crate::http_limits::HttpLimits;
    use crate::request_body::RequestMemory;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only deserialized")]
    struct Named {
        name: String,
        limit: Option<u64>,
        flag: Option<bool>,
        parent: Option<Box<Named>>,
    }

    /// A request as the request middleware passes it on.
    fn request_builder() -> http::request::Builder {
        let memory = RequestMemory::new(&HttpLimits::new(1, HttpLimits::DEFAULT_MEMORY_BYTES), 512 * 1024);
        Request::builder().method("POST").extension(memory)
    }

    async fn parse_named(content_type: Option<&str>, body: &str) -> Result<(), (ErrorCode, String)> {
        let mut request = request_builder();
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        match JsonBody::<Named>::from_request(request, &()).await {
            Ok(_) => Ok(()),
            Err(problem) => Err((problem.code(), problem.detail().to_owned())),
        }
    }

    #[tokio::test]
    async fn accepts_json_content_types() {
        for name in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            assert_eq!(parse_named(Some(name), r#"{"name":"x"}"#).await, Ok(()), "{name:?}");
        }
    }

    #[tokio::test]
    async fn rejects_other_content_types_and_none() {
        let other =
            ["text/plain", "application/x-www-form-urlencoded", "json", "text/json", "application/jsonx", ""];
        for name in other.into_iter().map(Some).chain([None]) {
            let (code, _) = parse_named(name, r#"{"name":"x"}"#).await.unwrap_err();
            assert_eq!(code, ErrorCode::UnsupportedMediaType, "{name:?}");
        }
        let (code, detail) = parse_named(None, "").await.unwrap_err();
        assert_eq!((code, &*detail), (ErrorCode::MalformedJson, "the body is empty, JSON is needed"));
    }

    #[tokio::test]
    async fn error_details_do_not_repeat_the_body() {
        let cases = [
            ("", "the body is empty, JSON is needed"),
            ("{\"name\":\n\"secret", "the JSON ends too early, at line 2, column 7"),
            ("secret", "not JSON at line 1, column 1"),
            // A field of another type, in a body that is not JSON.
            (r#"{"name":17"#, "the JSON ends too early, at line 1, column 10"),
            (r#"["secret""#, "the JSON ends too early, at line 1, column 9"),
            (r#"{"name":17} secret"#, "not JSON at line 1, column 13"),
        ];
        for (body, detail) in cases {
            let result = parse_named(Some("application/json"), body).await;
            assert_eq!(result, Err((ErrorCode::MalformedJson, detail.to_owned())), "{body}");
        }
    }

    #[tokio::test]
    async fn json_of_another_shape_is_refused_with_the_field_and_what_is_expected() {
        let cases = [
            ("{}", "the field `name` is missing"),
            (r#"{"name":17}"#, "`name` must be a string"),
            (r#"{"name":null}"#, "`name` must be a string"),
            (r#"{"name":{"secret":1}}"#, "`name` must be a string"),
            (r#"{"name":"a","name":"b"}"#, "the field `name` is given more than once"),
            (r#"{"name":"a","limit":"secret, expected secret"}"#, "`limit` must be a whole number from 0 up"),
            (r#"{"name":"a","limit":-1}"#, "`limit` must be a whole number from 0 up"),
            (r#"{"name":"a","limit":1.5}"#, "`limit` must be a whole number from 0 up"),
            (r#"{"name":"a","flag":"true"}"#, "`flag` must be a boolean"),
            (r#"{"name":"a","parent":"secret"}"#, "`parent` must be an object"),
            (r#"{"name":"a","parent":{}}"#, "the field `parent.name` is missing"),
            (r#"{"name":"a","parent":{"name":1}}"#, "`parent.name` must be a string"),
            (r#"["secret"]"#, "the body must be a JSON object"),
            (r#""secret""#, "the body must be a JSON object"),
            ("null", "the body must be a JSON object"),
        ];
        for (body, detail) in cases {
            let result = parse_named(Some("application/json"), body).await;
            assert_eq!(result, Err((ErrorCode::BodyInvalid, detail.to_owned())), "{body}");
        }
    }

    #[tokio::test]
    async fn text_that_is_not_unicode_is_refused_also_where_it_is_ignored() {
        let cases: [(&[u8], &str); 8] = [
            (b"{\"name\":\"a\xff\"}", "not UTF-8 at line 1, column 11"),
            (b"{\"name\":\"a\",\n\"other\":\"\xc3(\"}", "not UTF-8 at line 2, column 10"),
            (br#"{"name":"a","other":"\ud800"}"#, "half a surrogate pair at line 1, column 22"),
            (br#"{"name":"a","other":["\udc00"]}"#, "half a surrogate pair at line 1, column 23"),
            (br#"{"name":"a","\uD83Dx":1}"#, "half a surrogate pair at line 1, column 14"),
            (br#"{"name":"a","other":"\ud83d\ud83d\ude00"}"#, "half a surrogate pair at line 1, column 22"),
            (br#"{"name":"a","other":"\ud83d\u0041"}"#, "half a surrogate pair at line 1, column 22"),
            (br#"{"name":"a","other":"\\\\\ud83d"}"#, "half a surrogate pair at line 1, column 26"),
        ];
        for (body, detail) in cases {
            let text = String::from_utf8_lossy(body).into_owned();
            let refused = parse_object::<Named>(body).unwrap_err();
            assert_eq!((refused.code(), refused.detail()), (ErrorCode::MalformedJson, detail), "{text}");
            assert_eq!(check_json(body).unwrap_err().detail(), detail, "{text}");
        }
        for accepted in
            [r#"{"name":"a","other":"\ud83d\ude00"}"#, r#"{"name":"a","other":"\\ud83d \u00e9\n"}"#]
        {
            assert!(parse_object::<Named>(accepted.as_bytes()).is_ok(), "{accepted}");
        }
    }

    #[tokio::test]
    async fn a_number_out_of_range_is_json_and_its_field_is_named() {
        for (body, detail) in [
            (r#"{"name":1e999}"#, "`name` is a number that is out of range"),
            (r#"{"name":"a","limit":-1e999}"#, "`limit` is a number that is out of range"),
            (r#"{"name":"a","parent":{"name":1e999}}"#, "`parent.name` is a number that is out of range"),
            ("1e999", "the body must be a JSON object"),
        ] {
            let result = parse_named(Some("application/json"), body).await;
            assert_eq!(result, Err((ErrorCode::BodyInvalid, detail.to_owned())), "{body}");
        }
        let ignored = parse_named(Some("application/json"), r#"{"name":"a","other":1e999}"#).await;
        assert_eq!(ignored, Ok(()));
        let (code, _) = parse_named(Some("application/json"), r#"{"name":1e999"#).await.unwrap_err();
        assert_eq!(code, ErrorCode::MalformedJson);
    }

    #[tokio::test]
    async fn rejects_deep_nesting() {
        let (code, _) = parse_named(Some("application/json"), &"[".repeat(100_000)).await.unwrap_err();
        assert_eq!(code, ErrorCode::MalformedJson);
    }

    #[tokio::test]
    async fn an_optional_body_may_be_empty_or_any_json() {
        for (content_type, body, accepted) in [
            (None, "", true),
            (Some("text/plain"), "", true),
            (Some("application/json"), " \n", true),
            (Some("application/json"), "[null]", true),
            (Some("application/json"), "{", false),
            (Some("text/plain"), "{}", false),
            (None, "{}", false),
        ] {
            let mut request = request_builder();
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let request = request.body(Body::from(body)).unwrap();
            let result = OptionalJsonBody::from_request(request, &()).await;
            assert_eq!(result.is_ok(), accepted, "{content_type:?} {body:?}");
        }
    }

    #[test]
    fn minify_keeps_white_space_inside_strings() {
        for (json, expected) in [
            (" { \"a\" :\t[ 1 , 2 ]\r\n} ", r#"{"a":[1,2]}"#),
            (r#"{"a b": "c \" d"}"#, r#"{"a b":"c \" d"}"#),
            (r#"["a\\", " \\\" "] "#, r#"["a\\"," \\\" "]"#),
            ("", ""),
        ] {
            assert_eq!(minify_json(json.as_bytes()), expected.as_bytes(), "{json}");
        }
    }
}
