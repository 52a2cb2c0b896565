//! Typed input: what a handler takes from a request, each refusing with the problem of API.md.

mod condition;
mod json;
mod path;
mod query;

pub use condition::{IfMatch, IfNoneMatch, etag};
pub use json::{JsonBody, OptionalJsonBody};
pub use path::{AppPath, ChatPath, MessagePath};
pub use query::Query;
