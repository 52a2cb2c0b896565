//! What the command API and the query API share over HTTP.
//!
//! A handler takes typed input ([`extract`], [`request_context::RequestContext`], [`consistency::Freshness`]) and returns its
//! answer or a [`Problem`]:
//!
//! ```
//! use axum::Json;
//! use chat_web::extract::{AppPath, JsonBody};
//! use chat_web::{ErrorCode, Problem};
//!
//! #[derive(serde::Deserialize)]
//! struct Renaming {
//!     name: String,
//! }
//!
//! async fn rename(app: AppPath, JsonBody(body): JsonBody<Renaming>) -> Result<Json<String>, Problem> {
//!     if body.name.is_empty() {
//!         return Err(ErrorCode::NameBlank.into());
//!     }
//!     Ok(Json(body.name))
//! }
//! ```
//!
//! [`assembly`] puts the APIs' routes, the system routes and the layers around them together; [`server`] serves the
//! result on a listener.

pub mod admin_auth;
pub mod client_address;
pub mod consistency;
mod docs;
pub mod error_code;
pub mod extract;
mod http_metrics;
mod load_limits;
pub mod metrics;
pub mod openapi;
mod port_error;
pub mod problem;
pub mod rate_limit;
pub mod request_context;
mod request_middleware;
pub mod router;
mod routes_of_other_roles;
pub mod server;
pub mod system_routes;

pub use error_code::ErrorCode;
pub use problem::Problem;
