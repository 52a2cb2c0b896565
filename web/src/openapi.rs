//! Common parts of the OpenAPI documents: base document, tags, problem responses, headers.

use std::collections::BTreeMap;

use http::StatusCode;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Object, Ref, RefOr, Schema, Type};
use utoipa::{IntoParams, Modify, OpenApi, PartialSchema};

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
/// The tag of the live feed.
pub const EVENTS: &str = "events";
/// The tag of audit routes.
pub const AUDIT: &str = "audit";
/// The tag of projection routes.
pub const PROJECTIONS: &str = "projections";
/// The tag of the routes of jobs.
pub const JOBS: &str = "jobs";
/// The tag of health, metrics and documentation routes.
pub const SYSTEM: &str = "system";

/// The security scheme of admin routes.
pub const ADMIN_SECURITY_SCHEME: &str = "admin";

/// Returns the document that all APIs share. It has no paths: the `OpenApiRouter` of each API adds its own.
pub fn base_document() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Declares the problems that an operation may return, for its `responses(…)`:
///
/// ```
/// use chat_web::problem_responses;
///
/// problem_responses!(pub(crate) RenameProblems: MalformedJson, AppNotFound, NameBlank);
///
/// #[utoipa::path(put, path = "/api/v1/apps/{app_token}", responses((status = 200), RenameProblems))]
/// async fn rename() {}
/// ```
///
/// The errors that are described for every API route, such as `Internal` and `Overloaded`, are added.
#[macro_export]
macro_rules! problem_responses {
    ($visibility:vis $name:ident: $($code:ident),+ $(,)?) => {
        #[doc = "The problems that an operation may return."]
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

/// Errors that are described for every API route.
const COMMON_ERRORS: &[ErrorCode] =
    &[ErrorCode::MalformedQuery, ErrorCode::RateLimited, ErrorCode::Internal, ErrorCode::Overloaded];

/// Errors of requests that are refused before they reach their route. They are described for every route, also for
/// routes outside the APIs.
const REQUEST_ERRORS: &[ErrorCode] = &[
    ErrorCode::MalformedRequest,
    ErrorCode::MalformedHeader,
    ErrorCode::HostInvalid,
    ErrorCode::OriginRefused,
    ErrorCode::HeadTooLarge,
];

#[doc(hidden)]
pub fn problem_responses(codes: &[ErrorCode]) -> ResponseMap {
    group_by_status(codes.iter().chain(COMMON_ERRORS).chain(REQUEST_ERRORS))
}

fn group_by_status<'a>(codes: impl Iterator<Item = &'a ErrorCode>) -> ResponseMap {
    let mut statuses: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        let same_status = statuses.entry(code.status().as_u16()).or_default();
        if !same_status.contains(code) {
            same_status.push(*code);
        }
    }
    statuses
        .into_iter()
        .map(|(status, codes)| (status.to_string(), RefOr::Ref(problem_reference(&codes))))
        .collect()
}

/// Separates the codes in the name of a shared problem response.
const CODE_SEPARATOR: &str = ".";

/// Refers to the response for these codes, which share a status. [`finish_document`] adds the response itself, once for
/// all operations that refer to it.
fn problem_reference(codes: &[ErrorCode]) -> Ref {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    Ref::from_response_name(names.join(CODE_SEPARATOR))
}

/// Describes one response for all codes that share a status.
fn problem_response(codes: &[ErrorCode]) -> Response {
    let descriptions: Vec<String> = codes
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
    let mut response = ResponseBuilder::new()
        .description(descriptions.join("\n\n"))
        .content("application/problem+json", content);
    let status = codes.first().map(|code| code.status());
    if matches!(status, Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)) {
        let mut header = Header::new(Object::with_type(Type::Integer));
        header.description = Some("Seconds after which to retry".to_owned());
        response = response.header("Retry-After", header);
    }
    response.build()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat API",
        description = "Apps hold numbered chats, chats hold numbered messages, and messages are found by full-text search.",
        license(name = "MIT", identifier = "MIT"),
        contact(name = "The operator of this server"),
    ),
    servers((url = "/", description = "this server")),
    tags(
        (name = "apps", description = "An app's token is its only credential."),
        (name = "chats", description = "Chats of an app are numbered 1, 2, 3 … in the order of their creation."),
        (name = "messages", description = "Messages of a chat are numbered 1, 2, 3 … and keep their numbers forever."),
        (name = "search", description = "Matches whole words, prefixes and parts of words, in every script."),
        (name = "events", description = "Events of an app or a chat as they happen, as server-sent events or by long polls."),
        (name = "audit", description = "For operators: events, their actors, times and causes."),
        (name = "projections", description = "For operators: the read model and the search index, and their dead letters."),
        (name = "jobs", description = "For operators: actions that run in the background."),
        (name = "system", description = "Health, metrics and documentation."),
    ),
    components(schemas(ProblemBody, ErrorCode)),
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

/// Describes the problems of requests that do not reach their route, for every operation in `document`. A status that
/// the operation describes itself stays as it is.
pub(crate) fn add_request_problems(document: &mut utoipa::openapi::OpenApi) {
    for operation in operations(document) {
        for (status, response) in group_by_status(REQUEST_ERRORS.iter()) {
            operation.responses.responses.entry(status).or_insert(response);
        }
    }
}

/// Adds a header to the description of each response with status 2xx or 304 in `document`, unless the description has
/// this header already.
pub fn add_success_header<T: PartialSchema>(
    document: &mut utoipa::openapi::OpenApi,
    name: &str,
    description: &str,
) {
    let header = HeaderBuilder::new().schema(Some(T::schema())).description(Some(description)).build();
    for operation in operations(document) {
        for (status, response) in &mut operation.responses.responses {
            if let (true, RefOr::T(response)) = (status.starts_with('2') || status == "304", response) {
                response.headers.entry(name.to_owned()).or_insert_with(|| header.clone().into());
            }
        }
    }
}

/// Makes the whole document explicit where generators of clients would guess: operations without a security scheme need
/// no credentials, and an optional parameter is left out rather than null. Adds the problem responses that the
/// operations refer to.
pub(crate) fn finish_document(document: &mut utoipa::openapi::OpenApi) {
    let mut problem_responses = BTreeMap::new();
    for operation in operations(document) {
        operation.security.get_or_insert_default();
        for parameter in operation.parameters.iter_mut().flatten() {
            if let RefOr::T(parameter) = parameter
                && let Some(schema) = &mut parameter.schema
            {
                remove_null(schema);
            }
        }
        for response in operation.responses.responses.values() {
            let RefOr::Ref(reference) = response else { continue };
            if let Some(name) = reference.ref_location.strip_prefix(&Ref::from_response_name("").ref_location)
            {
                problem_responses.entry(name.to_owned()).or_insert_with(|| {
                    let codes: Vec<ErrorCode> =
                        name.split(CODE_SEPARATOR).filter_map(ErrorCode::from_name).collect();
                    problem_response(&codes).into()
                });
            }
        }
    }
    document.components.get_or_insert_default().responses.extend(problem_responses);
}

fn operations(document: &mut utoipa::openapi::OpenApi) -> impl Iterator<Item = &mut Operation> {
    document
        .paths
        .paths
        .values_mut()
        .flat_map(|item| [&mut item.get, &mut item.post, &mut item.put, &mut item.delete])
        .flatten()
}

/// Removes `null` from the types of a schema.
fn remove_null(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    if let SchemaType::Array(types) = &mut object.schema_type {
        types.retain(|one| *one != Type::Null);
        if let [only] = types.as_slice() {
            object.schema_type = SchemaType::Type(only.clone());
        }
    }
}

// Optional parameters have no examples: the pages at `/docs` would fill each example in and send it.

/// The request headers that say how fresh the answer to a query must be, for the `params(…)` of query routes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documentation only: the extractor `Freshness` reads the headers")]
pub struct FreshnessHeaders {
    /// From an earlier response: this response reflects at least the same state. Waits until it can.
    #[param(rename = "Consistency-Token")]
    consistency_token: Option<String>,
    /// `wait=SECONDS`: how long to wait for the token. 2 by default, 10 at most.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
}

/// `If-None-Match`, for the `params(…)` of routes whose responses have an `ETag`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documentation only: the extractor `IfNoneMatch` reads the header")]
pub struct IfNoneMatchHeader {
    /// `ETag`s of the versions that the client has cached.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// `Idempotency-Key`, for the `params(…)` of routes that create resources.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documentation only: the extractor `IdempotencyKey` reads the header")]
pub struct IdempotencyKeyHeader {
    /// 1 to 255 visible ASCII characters, bare or as a quoted string, for example a random UUID for each command. A
    /// command with the same key, payload and path is executed once in 24 hours and gets the same response each time.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}
