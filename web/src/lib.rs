//! What the command API and the query API share over HTTP.
//!
//! A handler takes typed input ([`extract`], [`request::RequestContext`], [`consistency::Freshness`]) and returns its
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

mod accounts;
pub mod admin;
pub mod assembly;
pub mod client_address;
pub mod consistency;
mod docs;
mod edge;
mod elsewhere;
pub mod error_code;
pub mod extract;
mod limits;
pub mod metrics;
pub mod openapi;
mod port_error;
pub mod problem;
pub mod rate_limit;
pub mod request;
pub mod server;
pub mod system;

pub use error_code::ErrorCode;
pub use problem::Problem;
