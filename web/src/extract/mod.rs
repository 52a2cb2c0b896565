//! Extractors of typed input. Malformed input is rejected with a [`Problem`](crate::Problem), except for malformed
//! entity tags, which match no version.

mod conditional_request;
mod idempotency_key;
mod json;
mod path;
mod query;

pub use conditional_request::{ChangePrecondition, IfNoneMatch, etag};
pub use idempotency_key::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IdempotencyKey};
pub use json::{JsonBody, OptionalJsonBody};
pub use path::{AppPath, ChatPath, MessagePath};
pub use query::{Query, malformed_parameter, refuse_unescaped_plus};
