//! What both APIs' OpenAPI documents have in common.

use std::collections::BTreeMap;

use http::StatusCode;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Object, Ref, RefOr, Type};
use utoipa::{IntoParams, Modify, OpenApi};

use crate::error_code::ErrorCode;
use crate::problem::ProblemBody;

/// The tag of app routes.
pub const APPS: &str = "apps";
/// The tag of chat routes.
pub const CHATS: &str = "chats";
/// The tag of message routes.
pub const MESSAGES: &str = "messages";
/// The tag of search routes.
pub const SEARCH: &str = "search";
/// The tag of questions to the log.
pub const AUDIT: &str = "audit";
/// The tag of questions about projections.
pub const PROJECTIONS: &str = "projections";
/// The tag of health, metrics and documentation.
pub const SYSTEM: &str = "system";

/// The security scheme of admin routes.
pub const ADMIN_SECURITY_SCHEME: &str = "admin";

/// The document without any path: to be filled by each API's `OpenApiRouter`.
pub fn base_document() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The problems that an operation may answer, for its `responses(…)`:
///
/// ```
/// use chat_web::problem_responses;
///
/// problem_responses!(pub(crate) RenamingFails: MalformedJson, AppNotFound, NameBlank);
///
/// #[utoipa::path(put, path = "/apps/{app_token}", responses((status = 200), RenamingFails))]
/// async fn rename() {}
/// ```
///
/// `RateLimited`, `Internal` and `Overloaded`, which any route may answer, are added.
#[macro_export]
macro_rules! problem_responses {
    ($visibility:vis $name:ident: $($code:ident),+ $(,)?) => {
        #[doc = "The problems that an operation may answer."]
        $visibility struct $name;

        impl $crate::openapi::IntoResponses for $name {
            fn responses() -> $crate::openapi::ResponseMap {
                $crate::openapi::problem_responses(&[$($crate::ErrorCode::$code),+])
            }
        }
    };
}

#[doc(hidden)]
pub use utoipa::IntoResponses;

#[doc(hidden)]
pub type ResponseMap = BTreeMap<String, RefOr<Response>>;

/// What any API route may answer.
const COMMON_ERRORS: &[ErrorCode] = &[ErrorCode::RateLimited, ErrorCode::Internal, ErrorCode::Overloaded];

#[doc(hidden)]
pub fn problem_responses(codes: &[ErrorCode]) -> ResponseMap {
    let mut statuses: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes.iter().chain(COMMON_ERRORS) {
        let same_status = statuses.entry(code.status().as_u16()).or_default();
        if !same_status.contains(code) {
            same_status.push(*code);
        }
    }
    statuses
        .into_iter()
        .map(|(status, codes)| (status.to_string(), problem_response(&codes).into()))
        .collect()
}

/// One response for all codes of one status.
fn problem_response(codes: &[ErrorCode]) -> Response {
    let lines: Vec<String> = codes
        .iter()
        .map(|code| format!("[`{code}`](/docs/errors/{code}): {}", code.default_detail()))
        .collect();
    let examples = codes.iter().map(|code| {
        let body = ProblemBody::example(*code);
        let value = serde_json::to_value(body).unwrap_or_default();
        (code.as_str(), ExampleBuilder::new().summary(code.title()).value(Some(value)).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples.map(|(name, example)| (name, RefOr::T(example))))
        .build();
    let mut response =
        ResponseBuilder::new().description(lines.join("\n\n")).content("application/problem+json", content);
    let status = codes.first().map(|code| code.status());
    if matches!(status, Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)) {
        let mut header = Header::new(Object::with_type(Type::Integer));
        header.description = Some("Seconds after which to try again".to_owned());
        response = response.header("Retry-After", header);
    }
    response.build()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat API",
        description = "Apps hold numbered chats, chats hold numbered messages, and messages are found by what they say.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "this server")),
    tags(
        (name = "apps", description = "An app is whoever holds its token: the token is the only credential."),
        (name = "chats", description = "Chats of an app are numbered 1, 2, 3 … in the order of their creation."),
        (name = "messages", description = "Messages of a chat are numbered 1, 2, 3 … and keep their number for good."),
        (name = "search", description = "Whole words, starts of words and parts of words, in every script."),
        (name = "audit", description = "For operators: what happened, who did it, when and why."),
        (name = "projections", description = "For operators: the read model and the search index, and what they could not apply."),
        (name = "system", description = "Health, metrics and documentation."),
    ),
    components(schemas(ProblemBody)),
    modifiers(&AdminScheme),
)]
struct Base;

struct AdminScheme;

impl Modify for AdminScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            ADMIN_SECURITY_SCHEME,
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}

/// The request headers of every query, for its `params(…)`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described by it: `Freshness` reads them")]
pub struct FreshnessHeaders {
    /// From an earlier answer: this one then holds at least what that one did. Waits until it can.
    #[param(rename = "Consistency-Token", example = "v1-rs")]
    consistency_token: Option<String>,
    /// `wait=SECONDS`: how long to wait for the token, 2 unless given and 10 at most.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

/// `If-None-Match`, for the `params(…)` of what has an `ETag`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described by it: the extractor `IfNoneMatch` reads it")]
pub struct IfNoneMatchHeader {
    /// `ETag`s of versions that the client has.
    #[param(rename = "If-None-Match", example = "\"1\"")]
    if_none_match: Option<String>,
}

/// `If-Match`, for the `params(…)` of what may be changed under a condition.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described by it: the extractor `IfMatch` reads it")]
pub struct IfMatchHeader {
    /// `ETag`s of the versions that the client is ready to change.
    #[param(rename = "If-Match", example = "\"1\"")]
    if_match: Option<String>,
}

/// `Idempotency-Key`, for the `params(…)` of what is created once however often it is sent.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described by it: the extractor `IdempotencyKey` reads it")]
pub struct IdempotencyKeyHeader {
    /// 1 to 255 visible ASCII characters, bare or as a quoted string; a random UUID for each command, say. The same key
    /// with the same payload on the same path is carried out once in 24 hours, and answered the same each time.
    #[param(rename = "Idempotency-Key", example = "8e03978e-40d5-43dd-bc93-6894a57f9324")]
    idempotency_key: Option<String>,
}
