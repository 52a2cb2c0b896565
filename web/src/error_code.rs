//! The error codes of the API: name, status, title and default detail of each.

use std::fmt;

use http::StatusCode;
use serde::{Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $title:literal, $detail:literal;)+) => {
        /// A stable error code. Each has a page in `docs/errors/`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the code's name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the HTTP status of every response with this code.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// Returns the code in words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// Returns the code's page in `docs/errors/`, as Markdown.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../docs/errors/", $name, ".md")),)+
                }
            }

            /// Returns the detail sentence of problems that don't set a more specific one.
            pub const fn default_detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON, or not in the gzip format that its content coding names.
    MalformedJson = "malformed_json", BAD_REQUEST, "Malformed JSON",
        "the body is not JSON";
    /// A query parameter is malformed or unknown.
    MalformedQuery = "malformed_query", BAD_REQUEST, "Malformed query",
        "the query string can't be understood";
    /// A header is malformed.
    MalformedHeader = "malformed_header", BAD_REQUEST, "Malformed header",
        "a header can't be understood";
    /// The log never issued the consistency token, or has lost events that the token covers.
    ConsistencyTokenUnknown = "consistency_token_unknown", BAD_REQUEST, "Consistency token unknown",
        "the log of this server never issued this consistency token";
    /// The request is not valid HTTP.
    MalformedRequest = "malformed_request", BAD_REQUEST, "Malformed request",
        "the request is not valid HTTP";
    /// The request does not have exactly one valid host.
    HostInvalid = "host_invalid", BAD_REQUEST, "Host invalid",
        "the request needs one valid `Host`, or `:authority` in HTTP/2";
    /// The request's `Host`, `Origin` or `Sec-Fetch-Site` is that of another site.
    OriginRefused = "origin_refused", FORBIDDEN, "Origin refused",
        "without an admin token the server refuses requests of pages of other sites";
    /// A request to a route for operators has no credentials.
    AdminTokenMissing = "admin_token_missing", UNAUTHORIZED, "Admin token missing",
        "this route needs `Authorization: Bearer` with the admin token or that of an operator";
    /// A request to a route for operators has the wrong credentials.
    AdminTokenWrong = "admin_token_wrong", FORBIDDEN, "Admin token wrong",
        "this is not the admin token, nor that of an operator";
    /// The operator lacks the scope that the request needs.
    OperatorScopeMissing = "operator_scope_missing", FORBIDDEN, "Operator scope missing",
        "this operator may only read: the request needs the scope `act`";
    /// No app has the token.
    AppNotFound = "app_not_found", NOT_FOUND, "App not found", "no app has this token";
    /// The app has no such chat.
    ChatNotFound = "chat_not_found", NOT_FOUND, "Chat not found", "the app has no chat of this number";
    /// The chat has no such message.
    MessageNotFound = "message_not_found", NOT_FOUND, "Message not found",
        "the chat has no message of this number";
    /// The log has no such event.
    EventNotFound = "event_not_found", NOT_FOUND, "Event not found",
        "no event of the log has this position or id";
    /// There is no such job.
    JobNotFound = "job_not_found", NOT_FOUND, "Job not found", "there is no job with this id";
    /// No route has this path.
    RouteNotFound = "route_not_found", NOT_FOUND, "Route not found", "nothing is served at this path";
    /// The path does not support the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed",
        "this path does not support this method, see `Allow`";
    /// The request's body did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "Request timeout",
        "the request's body did not arrive in time";
    /// A request with the same idempotency key is still running.
    IdempotencyInFlight = "idempotency_in_flight", CONFLICT, "Idempotency key in flight",
        "a request with this idempotency key is still running";
    /// An operator's action is not possible now.
    ActionNotPossible = "action_not_possible", CONFLICT, "Action not possible",
        "the action is not possible now";
    /// The message was deleted.
    MessageDeleted = "message_deleted", GONE, "Message deleted", "the message was deleted";
    /// The log never issued the cursor of a feed, or has lost events that the cursor covers.
    CursorUnknown = "cursor_unknown", GONE, "Cursor unknown",
        "the log of this server never issued this cursor";
    /// `If-Match` or `If-None-Match` does not allow the resource's version.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "Precondition failed",
        "the resource is not at a version that `If-Match` or `If-None-Match` allows";
    /// The body is larger than the server accepts.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "Payload too large",
        "the request's body is too large";
    /// The request has more headers than the server accepts, or more bytes in its line and headers.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Head too large",
        "the request's line and headers have over 32768 bytes or over 100 headers";
    /// The body's content type is not JSON, or its content coding is not supported.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type",
        "the body must be JSON, with `Content-Type: application/json`";
    /// The body is JSON of another shape than the route takes.
    BodyInvalid = "body_invalid", UNPROCESSABLE_ENTITY, "Body invalid",
        "the body is JSON of another shape than this route takes";
    /// A name is blank.
    NameBlank = "name_blank", UNPROCESSABLE_ENTITY, "Name blank", "the name is blank";
    /// A name has more than 255 characters.
    NameTooLong = "name_too_long", UNPROCESSABLE_ENTITY, "Name too long", "the name has over 255 characters";
    /// A message body is blank.
    BodyBlank = "body_blank", UNPROCESSABLE_ENTITY, "Body blank", "the message's body is blank";
    /// A message body has more than 65,536 bytes.
    BodyTooLong = "body_too_long", UNPROCESSABLE_ENTITY, "Body too long",
        "the message's body has over 65536 bytes";
    /// A text contains a NUL character.
    TextInvalid = "text_invalid", UNPROCESSABLE_ENTITY, "Text invalid", "the text contains a NUL character";
    /// A message's sender is not an object with a valid id and, optionally, a name.
    SenderInvalid = "sender_invalid", UNPROCESSABLE_ENTITY, "Sender invalid",
        "`sender` must be an object with the string `id` and, optionally, the string `name`";
    /// A message's data is not an object, is nested too deeply, or has half a surrogate pair in a string.
    DataInvalid = "data_invalid", UNPROCESSABLE_ENTITY, "Data invalid", "`data` must be a JSON object";
    /// A message's data is longer than 4,096 bytes.
    DataTooLarge = "data_too_large", UNPROCESSABLE_ENTITY, "Data too large",
        "`data` is longer than 4096 bytes as compact JSON";
    /// A search query is blank.
    QueryBlank = "query_blank", UNPROCESSABLE_ENTITY, "Query blank", "the search query is blank";
    /// A search query has more bytes or words than the server accepts.
    QueryTooLong = "query_too_long", UNPROCESSABLE_ENTITY, "Query too long",
        "the search query has over 1024 bytes or over 32 words";
    /// An idempotency key is malformed.
    IdempotencyKeyInvalid = "idempotency_key_invalid", UNPROCESSABLE_ENTITY, "Idempotency key invalid",
        "an idempotency key is 1 to 255 visible ASCII characters";
    /// An idempotency key was used before with another payload.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "Idempotency key reused",
        "this idempotency key was used with another payload before";
    /// The app has exceeded its rate limit.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Rate limited",
        "the app has used up its rate limit, see `Retry-After`";
    /// An internal error of the server.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "the server failed; its log has the reason under the request id";
    /// The event store can't be reached, is damaged, or refuses access.
    EventStoreUnavailable = "event_store_unavailable", SERVICE_UNAVAILABLE, "Event store unavailable",
        "the event store can't be reached now; nothing was changed";
    /// The stream of the app or chat was deleted or truncated in the event store.
    StreamTruncated = "stream_truncated", SERVICE_UNAVAILABLE, "Stream truncated",
        "the event store has lost events of this app or chat, or is set to remove them, so it takes no commands \
         until an operator has restored it; nothing was changed";
    /// The counters can't be reached.
    CountersUnavailable = "counters_unavailable", SERVICE_UNAVAILABLE, "Counters unavailable",
        "the counters can't be reached now; nothing was changed";
    /// The read model or the search index can't be reached, does not exist, or is damaged.
    ReadModelUnavailable = "read_model_unavailable", SERVICE_UNAVAILABLE, "Read model unavailable",
        "the read model or the search index can't be reached now";
    /// The read model or the search index has not reached the consistency token in time.
    ReadModelBehind = "read_model_behind", SERVICE_UNAVAILABLE, "Read model behind",
        "the read model or the search index has not reached the consistency token yet";
    /// The server is at a limit, or a query missed its deadline. Nothing was changed.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded",
        "the server is overloaded; nothing was changed";
    /// The event store's response to an append was lost, or a command missed its deadline, so the outcome is unknown.
    OutcomeUnknown = "outcome_unknown", SERVICE_UNAVAILABLE, "Outcome unknown",
        "the command may or may not have been executed; check this before you send it again";
}

impl ErrorCode {
    /// Returns the registered name of the code's status. The `http` crate still has older names for two statuses.
    pub fn status_name(self) -> &'static str {
        match self.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
            StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
            status => status.canonical_reason().unwrap_or_default(),
        }
    }

    /// Returns the code with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The known error codes. Each has a page at `/docs/errors/{code}`."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .build()
            .into()
    }
}

impl ToSchema for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_unique() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
        }
        assert_eq!(ErrorCode::from_name("App_not_found"), None);
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let mut pages: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut codes: Vec<String> = ErrorCode::ALL.iter().map(|code| format!("{code}.md")).collect();
        pages.sort();
        codes.sort();
        assert_eq!(pages, codes);
    }

    #[test]
    fn every_page_starts_with_its_code_and_has_an_example() {
        for code in ErrorCode::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            let status = format!("\nStatus **{}** {}\n", code.status().as_u16(), code.status_name());
            assert!(page.contains(&status), "{code}");
            let json = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
            let example: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(example["type"], format!("/docs/errors/{code}"));
            assert_eq!(example["code"], code.as_str());
            assert_eq!(example["title"], code.title(), "{code}");
            assert_eq!(example["status"], code.status().as_u16());
            assert_eq!(example["detail"], example["message"]);
        }
    }

    #[test]
    fn every_code_has_an_error_status_and_a_detail() {
        for code in ErrorCode::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code}");
            assert!(!code.default_detail().is_empty() && !code.default_detail().ends_with('.'), "{code}");
        }
    }
}
