//! The HTTP layer that the APIs share: extractors, problems, limits, documentation and the server.
//!
//! A handler takes typed input ([`extract`], [`request_context::RequestContext`], [`consistency::Freshness`]) and
//! returns a response or a [`Problem`]:
//!
//! ```
//! use axum::Json;
//! use chat_web::extract::{AppPath, JsonBody};
//! use chat_web::{ErrorCode, Problem};
//!
//! #[derive(serde::Deserialize)]
//! struct RenameRequest {
//!     name: String,
//! }
//!
//! async fn rename(app: AppPath, JsonBody(body): JsonBody<RenameRequest>) -> Result<Json<String>, Problem> {
//!     if body.name.is_empty() {
//!         return Err(ErrorCode::NameBlank.into());
//!     }
//!     Ok(Json(body.name))
//! }
//! ```
//!
//! [`router`] combines the routes of the APIs with the system routes and wraps them in middleware; [`server`] serves
//! the result on a listener.

pub mod access_log;
pub mod admin_auth;
pub mod client_address;
mod client_waits;
mod compression;
pub mod consistency;
pub mod cors;
pub mod cursor;
mod docs;
pub mod error_code;
pub mod extract;
pub mod host_policy;
pub mod http_limits;
mod http_options;
mod load_limits;
pub mod log_throttle;
mod memory_budget;
pub mod message_fields;
mod message_framing;
pub mod metrics;
pub mod openapi;
pub mod operators;
pub mod pagination;
mod path_prefixes;
mod port_error;
pub mod problem;
mod query_parameters;
pub mod rate_limit;
mod request_body;
pub mod request_context;
pub mod request_middleware;
pub mod router;
mod routes_of_other_roles;
pub mod served_router;
pub mod server;
pub mod system_routes;
mod unsent_response;

pub use error_code::ErrorCode;
pub use problem::Problem;
