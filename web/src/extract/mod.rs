//! Typed input: what a handler takes from a request, each refusing with the problem of API.md.

mod condition;
mod idempotency;
mod json;
mod path;
mod query;

pub use condition::{IfMatch, IfNoneMatch, etag};
pub use idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IdempotencyKey};
pub use json::{JsonBody, OptionalJsonBody};
pub use path::{AppPath, ChatPath, MessagePath};
pub use query::Query;
